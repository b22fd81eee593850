"""Random bits of a weight update: a function of the register R, the weight's place and nothing else.

Words are unsigned 32-bit values in int64 tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hw.network import Synapses

WORD = 0xFFFF_FFFF
HALF = 0xFFFF
ROUNDS = 4
TILE_BITS = 3
"""A tile of 8 neurons by 8 inputs shares a hash, in which the lower bits of their indices flip bits."""


def xorshift32(r: int) -> int:
    """The register's next value (Marsaglia 2003, shifts 13, 17, 5); never 0 if `r` is not."""
    r ^= r << 13 & WORD
    r ^= r >> 17
    return r ^ r << 5 & WORD


def rotate16(x: Tensor, n: int) -> Tensor:
    """16-bit words rotated left by `n`, 0 < n < 16."""
    return (x << n | x >> (16 - n)) & HALF


def mix(a: Tensor) -> Tensor:
    """Four rounds of Simon32 without key (Beaulieu et al., ePrint 2013/404) on each 32-bit word."""
    x, y = a >> 16, a & HALF
    for _ in range(ROUNDS):
        x, y = y ^ (rotate16(x, 1) & rotate16(x, 8)) ^ rotate16(x, 2), x
    return x << 16 | y


def tile_key(number: int, neurons: Tensor, inputs: Tensor) -> Tensor:
    """Where R meets a tile: the number of its projection, and its place among the layer's neurons and inputs (13 bits each)."""
    upper = neurons & 0xFF | (inputs & 0xFF) << 8
    return upper << 16 | neurons >> 8 | inputs >> 8 << 5 | number << 10


def flips(low: Tensor, *, of_input: bool) -> Tensor:
    """What the three lower bits of indices flip.

    In a word, bit n is flipped by bit n mod 3 of a neuron's index, or by bit (n + n div 3) mod 3 of an input's."""
    which = [(n + n // TILE_BITS if of_input else n) % TILE_BITS for n in range(32)]
    return sum((low >> bit & 1) << n for n, bit in enumerate(which))  # type: ignore[return-value]


class Dither:
    """Random words for the weights (N, M) of one projection."""

    def __init__(self, synapses: Synapses) -> None:
        i, j = torch.arange(synapses.weight_shape[0])[:, None], torch.arange(synapses.fan_in)[None, :]
        low = (1 << TILE_BITS) - 1
        self._key = tile_key(synapses.number, i >> TILE_BITS, j >> TILE_BITS)
        self._flips = flips(i & low, of_input=False) ^ flips(j & low, of_input=True)

    def __call__(self, r: int) -> Tensor:
        """Words (N, M) of the pass in which the register holds `r`."""
        return mix(self._key ^ r) ^ self._flips
