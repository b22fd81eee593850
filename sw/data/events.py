"""Event sets in the formats they are published in, through tonic: N-MNIST, DVS-Gesture, DVS-CIFAR10, SHD, binned to T steps.

<folder>/NMNIST/Train/0/00002.bin ...               <folder>/DVSGesture/ibmGestureTrain/user01_led/0.npy ...
<folder>/CIFAR10DVS/airplane/cifar10_airplane_0.aedat4 ...      <folder>/SHD/shd_train.h5, shd_test.h5
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hw.numbers import ceil_div
from sw.data.images import Part, hold_out

SIDE = 64
"""Sensors with more rows or columns are binned down to at most this many."""


@dataclass(frozen=True)
class EventSet:
    """How tonic knows the set, and what to fetch."""

    tonic: str
    classes: int
    split: bool
    """Published in two parts; else a tenth is held out."""
    pattern: str
    advice: str


SETS = {
    "n-mnist": EventSet(
        "NMNIST", 10, True, "**/*.bin", "unpack Train and Test of N-MNIST (Orchard et al., garrickorchard.com/datasets/n-mnist)"
    ),
    "dvs-gesture": EventSet(
        "DVSGesture",
        11,
        True,
        "**/*.npy",
        "unpack ibmGestureTrain and ibmGestureTest of tonic's edition of DVS-Gesture (Amir et al. 2017)",
    ),
    "dvs-cifar10": EventSet(
        "CIFAR10DVS", 10, False, "**/*.aedat4", "unpack the folders airplane to truck of CIFAR10-DVS (Li et al. 2017, figshare.com)"
    ),
    "shd": EventSet("SHD", 20, True, "*.h5", "unpack shd_train.h5 and shd_test.h5 of SHD (Cramer et al., zenkelab.org/datasets)"),
}


@dataclass(frozen=True)
class Events:
    """An event set as counts of events (n, T, ...), uint8, and labels (n,) int64, to learn from and held out."""

    name: str
    classes: int
    train: Part
    test: Part

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, rows, columns), or (inputs,)."""
        return self.train[0].shape[2:]


def read(name: str, folder: str | Path | None, steps: int) -> Events:
    """An event set by name, binned to `steps` frames of equal length each.

    Raises ValueError if there is no such set, FileNotFoundError, with what to fetch and where to put it, if it is not there.
    """
    if name not in SETS:
        raise ValueError(f"dataset: {name} is not legal; legal is {' or '.join(SETS)}")
    what = SETS[name]
    if folder is None:
        raise FileNotFoundError(f"{name} needs a folder: {what.advice} into FOLDER/{what.tonic}, and name FOLDER")
    if what.split:
        train, test = (_frames(what, _open(what, folder, train=part), steps) for part in (True, False))
    else:
        x, y = _frames(what, _open(what, folder), steps)
        train, test = hold_out(x, y, max(len(y) // 10, what.classes))
    return Events(name, what.classes, train, test)


def _open(what: EventSet, folder: str | Path, **options: Any) -> Any:
    """tonic's reader of the set, with a plain check for files in the place of its check for archives and its download."""
    try:
        import tonic
    except ImportError:
        raise FileNotFoundError("event sets are read with the package tonic, which is not installed") from None
    published: Any = getattr(tonic.datasets, what.tonic)

    def check(self: Any) -> bool:
        place = Path(self.location_on_system, getattr(self, "data_filename", "") if what.tonic == "SHD" else self.folder_name)
        if not (place.is_file() or any(place.glob(what.pattern))):
            raise FileNotFoundError(
                f"{place} is not there or holds no {what.pattern.rpartition('/')[2]}: {what.advice} into {self.location_on_system}"
            )
        return True

    reader = type(what.tonic, (published,), {"_check_exists": check})
    return reader(save_to=str(folder), **options)


def _frames(what: EventSet, samples: Iterable, steps: int) -> Part:
    width, height, polarities = samples.sensor_size  # type: ignore[attr-defined]
    shrink = ceil_div(max(width, height), SIDE) if height > 1 else 1
    shape = (polarities, ceil_div(height, shrink), ceil_div(width, shrink)) if height > 1 else (width,)
    x = np.zeros((len(samples), steps, *shape), np.uint8)  # type: ignore[arg-type]
    y = np.zeros(len(x), np.int64)
    for i in tqdm(range(len(x)), desc=f"{what.tonic}, {steps} frames", unit=" samples", leave=False):
        found, y[i] = samples[i]  # type: ignore[index]
        x[i] = bin_events(found, shape, steps, shrink)
    return x, y


def bin_events(found: np.ndarray, shape: tuple[int, ...], steps: int, shrink: int = 1) -> np.ndarray:
    """Events (structured: t, x, and y and p of a camera) to counts (T, *shape) uint8, at most 255; all bins last equally long."""
    counts = np.zeros((steps, *shape), np.int64)
    if len(found):
        t = found["t"].astype(np.float64)
        t -= t.min()
        step = np.minimum((t * steps / max(t.max(), 1)).astype(np.int64), steps - 1)
        place = (found["x"],) if len(shape) == 1 else (found["p"].astype(np.int64), found["y"] // shrink, found["x"] // shrink)
        np.add.at(counts, (step, *(p.astype(np.int64) for p in place)), 1)
    return np.minimum(counts, 255).astype(np.uint8)
