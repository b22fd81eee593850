"""Random bits of a weight update: a function of the register R, the weight's place and nothing else.

Words are unsigned 32-bit values in int64 tensors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hw.config import Config

WORD = 0xFFFF_FFFF
HALF = 0xFFFF
ROUNDS = 4
LANE_ROTATE = 5
LANE_SALT = 0x9E37_79B9


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


class Dither:
    """Random words for the weights of one layer."""

    def __init__(self, config: Config, layer: int) -> None:
        fan_in = config.sizes[layer - 1]
        rows = torch.arange(config.groups[layer] * fan_in) + config.row_base[layer]
        lane = torch.arange(config.lanes)[:, None]
        self.neurons = config.sizes[layer]
        self._place = (rows + (rows << 16) & WORD).view(-1, 1, fan_in)  # (groups, lanes, fan_in) after broadcast
        self._rotate = lane * LANE_ROTATE % 32
        self._salt = lane * LANE_SALT & WORD

    def __call__(self, r: int) -> Tensor:
        """Words (N, M) of the pass in which the register holds `r`."""
        h = mix(self._place ^ r)
        words = (h << self._rotate & WORD | h >> (32 - self._rotate)) ^ self._salt
        return words.flatten(0, 1)[: self.neurons]
