"""Data sets, as the samples a network takes.

`images` reads image sets, `events` event sets, `coding` makes spikes of images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hw.network import Network
from hw.numbers import PIXEL_FRAC
from sw.data.images import FASHION_VARIABLE, hold_out, read

__all__ = ["DATASETS", "FASHION_VARIABLE", "Dataset", "Split", "load", "to_events"]

DATASETS = ("digits", "fashion-mnist", "mnist")
"""Those whose images have one channel."""


def to_events(images: np.ndarray, steps: int, seed: int) -> np.ndarray:
    """Rate coding: uint8 (n, N0) to bool (n, steps, N0).

    A pixel x spikes x/256 of the time, evenly spread and with a random phase, so that its count is never off by one or more.
    The phases of image i follow from `seed` and i alone.
    """
    if steps < 1:
        raise ValueError(f"steps: {steps} is not legal; legal is at least 1")
    return np.stack([_rate_code(image, steps, seed, i) for i, image in enumerate(images)])


def _rate_code(image: np.ndarray, steps: int, seed: int, index: int) -> np.ndarray:
    phase = np.random.default_rng((seed, index)).integers(0, 1 << PIXEL_FRAC, image.shape)
    integral = image.astype(np.int64) * np.arange(steps + 1)[:, None] + phase
    return np.diff(integral >> PIXEL_FRAC, axis=0).astype(bool)


@dataclass(frozen=True)
class Split:
    """Images (n, N0) uint8 and labels (n,) int64; iterating yields (sample, label) in the form that `config` takes."""

    config: Network
    images: np.ndarray
    labels: np.ndarray
    seed: int

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, i: int) -> np.ndarray:
        """Sample i: the image itself, uint8 (N0,); its events, bool (T, N0); or the image in every step, uint8 (T, N0)."""
        image = self.images[i]
        if self.config.input == "frames":
            return np.tile(image, (self.config.steps, 1))
        return image if self.config.static else _rate_code(image, self.config.steps, self.seed, i)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        return self.sample(i % len(self)), int(self.labels[i])

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        return map(self.__getitem__, range(len(self)))


@dataclass(frozen=True)
class Dataset:
    name: str
    shape: tuple[int, int]
    """Rows and columns of an image."""
    train: Split
    test: Split

    def validation(self, count: int) -> Dataset:
        """The same with `count` of the training samples, always the same ones, in the place of the test samples: to choose by.

        These samples are not trained with.
        """
        least, most = self.train.config.classes, len(self.train) - self.train.config.classes
        if not least <= count <= most:
            raise ValueError(f"validate: {count} is not legal; legal is {least} to {most}")
        kept, held = hold_out(self.train.images, self.train.labels, count)
        train, test = (replace(split, images=x, labels=y) for split, (x, y) in ((self.train, kept), (self.test, held)))
        return replace(self, train=train, test=test)


def load(name: str, config: Network, *, folder: str | Path | None = None, seed: int = 0) -> Dataset:
    """A data set by name, as samples for `config`; `seed` fixes the phases of events, `folder` is where a data set's files lie.

    Raises ValueError if there is no such data set or the network does not fit it, FileNotFoundError if it is not installed.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset: {name} is not legal; legal is {' or '.join(DATASETS)}")
    images = read(name, folder)
    rows, columns = images.shape[1:]
    if config.sizes[0] != rows * columns:
        raise ValueError(f"net: an input of {config.sizes[0]} is not legal; {name} has images of {rows * columns} pixels")
    if config.classes < images.classes:
        raise ValueError(f"net: a last layer of {config.classes} is not legal; {name} has {images.classes} classes")
    train, test = (Split(config, x.reshape(len(x), -1), y, seed + i) for i, (x, y) in enumerate((images.train, images.test)))
    return Dataset(name, (rows, columns), train, test)
