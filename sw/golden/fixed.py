"""The only ways to lose bits, and how real numbers become raw integers. `hw/fixed.py` has gateware twins of the same names.

Values are raw integers: int64 tensors or, for the shifts, Python ints too. `>>` is arithmetic on both, that is, it floors.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from hw.numbers import Q

Number = TypeVar("Number", int, Tensor)


def saturate(v: Tensor, q: Q) -> Tensor:
    """`v` clipped to the least and greatest value of format `q`."""
    return torch.clamp(v, q.low, q.high)


def floor_shift(v: Number, n: int) -> Number:
    """floor(v / 2**n)."""
    return v >> n


def round_shift(v: Number, n: int | Tensor) -> Number:
    """v / 2**n to the nearest integer, halves up; `v` itself if n = 0. Of tensors each value may have its own `n`."""
    return (v + (1 << n >> 1)) >> n


def dither_shift(v: Tensor, n: int, r: Tensor) -> Tensor:
    """v / 2**n rounded up or down by chance in proportion, for uniformly random words `r` (32 bits, n <= 32)."""
    return (v + (r & ((1 << n) - 1))) >> n


def raw(value: ArrayLike, one: int, low: int, high: int) -> np.ndarray:
    """Real numbers as raw integers (int64) of which `one` stands for 1.0: to the nearest, halves up, clipped to `low` .. `high`."""
    return _nearest(value, one).clip(low, high).astype(np.int64)


def clipped(value: ArrayLike, one: int, low: int, high: int) -> int:
    """How many of the values `raw` clips."""
    nearest = _nearest(value, one)
    return int(((nearest < low) | (nearest > high)).sum())


def _nearest(value: ArrayLike, one: int) -> np.ndarray:
    return np.floor(np.asarray(value, np.float64) * one + 0.5)
