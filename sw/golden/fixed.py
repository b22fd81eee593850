"""The only ways to lose bits; gateware twins of the same names are in `hw/fixed.py`.

Values are raw integers: int64 tensors or, for the shifts, Python ints too. `>>` is arithmetic on both, that is, it floors.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from hw.config import Q

Number = TypeVar("Number", int, Tensor)


def saturate(v: Tensor, q: Q) -> Tensor:
    """`v` clipped to the least and greatest value of format `q`."""
    return torch.clamp(v, q.low, q.high)


def floor_shift(v: Number, n: int) -> Number:
    """floor(v / 2**n)."""
    return v >> n


def round_shift(v: Number, n: int) -> Number:
    """v / 2**n to the nearest integer, halves up; `v` itself if n = 0."""
    return (v + (1 << n >> 1)) >> n


def dither_shift(v: Tensor, n: int, r: Tensor) -> Tensor:
    """v / 2**n rounded up or down by chance in proportion, for uniformly random words `r` (32 bits, n <= 32)."""
    return (v + (r & ((1 << n) - 1))) >> n
