"""Data sets, as the samples a configuration takes."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hw.config import PIXEL_FRAC, Config

SPLIT_SEED = 0
"""Fixes which of scikit-learn's digits are held out."""
DIGITS_HELD_OUT = 360
FASHION_FOLDERS = ("/usr/share/datasets/fashion-mnist", "/usr/local/share/datasets/fashion-mnist")
FASHION_VARIABLE = "FASHION_MNIST"


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

    config: Config
    images: np.ndarray
    labels: np.ndarray
    seed: int

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, i: int) -> np.ndarray:
        """Sample i: the image itself, uint8 (N0,), or its events, bool (T, N0)."""
        image = self.images[i]
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


def load(name: str, config: Config, *, folder: str | Path | None = None, seed: int = 0) -> Dataset:
    """A data set by name, as samples for `config`; `seed` fixes the phases of events, `folder` is where a data set's files lie.

    Raises ValueError if there is no such data set or the network does not fit it, FileNotFoundError if it is not installed.
    """
    if name not in DATASETS:
        raise ValueError(f"dataset: {name} is not legal; legal is {' or '.join(DATASETS)}")
    shape, classes, read = DATASETS[name]
    if config.sizes[0] != shape[0] * shape[1]:
        raise ValueError(f"sizes: an input of {config.sizes[0]} is not legal; {name} has images of {shape[0] * shape[1]} pixels")
    if config.classes < classes:
        raise ValueError(f"sizes: a last layer of {config.classes} is not legal; {name} has {classes} classes")
    train, test = (Split(config, images, labels, seed + i) for i, (images, labels) in enumerate(read(folder)))
    return Dataset(name, shape, train, test)


Part = tuple[np.ndarray, np.ndarray]


def _digits(folder: str | Path | None) -> tuple[Part, Part]:
    """scikit-learn's 1,797 digits; a stratified split, the same always, holds 360 out. Grey levels 0..16 become bytes 0..255."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x = np.minimum(x.astype(np.int64) * 16, 255).astype(np.uint8)
    train_x, test_x, train_y, test_y = train_test_split(
        x, y.astype(np.int64), test_size=DIGITS_HELD_OUT, stratify=y, random_state=SPLIT_SEED
    )
    return (train_x, train_y), (test_x, test_y)


def _fashion(folder: str | Path | None) -> tuple[Part, Part]:
    """Zalando's Fashion-MNIST: 60,000 + 10,000 images, IDX files, gzipped or not."""
    named = folder or os.environ.get(FASHION_VARIABLE)
    folders = [Path(named)] if named else [Path(f) for f in FASHION_FOLDERS]
    found = next((f for f in folders if f.is_dir()), None)
    if found is None:
        raise FileNotFoundError(
            f"fashion-mnist is not in {' or '.join(map(str, folders))}: install the Debian package dataset-fashion-mnist, "
            f"or set {FASHION_VARIABLE} to the folder that holds its IDX files"
        )
    (train_x, train_y), (test_x, test_y) = (
        (read_idx(found, f"{part}-images-idx3-ubyte"), read_idx(found, f"{part}-labels-idx1-ubyte")) for part in ("train", "t10k")
    )
    return (train_x.reshape(len(train_x), -1), train_y.astype(np.int64)), (test_x.reshape(len(test_x), -1), test_y.astype(np.int64))


def read_idx(folder: Path, name: str) -> np.ndarray:
    """An IDX file of bytes, `name` or `name`.gz: uint8, with the dimensions in its header."""
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{folder} holds neither {name} nor {name}.gz: the data set is not complete, install it again")
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or len(raw) < 4 + 4 * raw[3]:
        raise ValueError(f"{path}: not an IDX file of bytes")
    body = 4 + 4 * raw[3]
    shape = tuple(np.frombuffer(raw[4:body], ">u4").tolist())
    if len(raw) - body != np.prod(shape):
        raise ValueError(f"{path}: {len(raw) - body} bytes of data, but its header promises {np.prod(shape)}")
    return np.frombuffer(raw, np.uint8, offset=body).reshape(shape)


DATASETS: dict[str, tuple[tuple[int, int], int, Callable[[str | Path | None], tuple[Part, Part]]]] = {
    "digits": ((8, 8), 10, _digits),
    "fashion-mnist": ((28, 28), 10, _fashion),
}
