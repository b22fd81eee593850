"""The only ways to lose bits, against exact fractions."""

from fractions import Fraction
from math import floor, inf

import pytest
import torch

from hw.numbers import Q
from sw.golden.fixed import clipped, dither_shift, floor_shift, raw, round_shift, saturate

SMALL = [0, 1, 2, 3, 127, 128, 129, 255, 256, 257]
VALUES = [-(1 << 46), -(1 << 17), *(-v for v in SMALL), *SMALL, 1 << 17, (1 << 46) - 1]
SHIFTS = [0, 1, 2, 8, 17, 32, 40]


@pytest.mark.parametrize("q", [Q(4, 12), Q(1, 3), Q(3, 15), Q(8, 0)])
def test_saturate_clips_to_the_format(q):
    v = torch.tensor([q.low - 1, q.low, q.low + 1, 0, q.high - 1, q.high, q.high + 1, 1 << 50, -(1 << 50)])
    want = [q.low, q.low, q.low + 1, 0, q.high - 1, q.high, q.high, q.high, q.low]
    assert saturate(v, q).tolist() == want
    assert (q.low, q.high) == (-(2 ** (q.bits - 1)), 2 ** (q.bits - 1) - 1)


@pytest.mark.parametrize("n", SHIFTS)
def test_shifts_round_as_named(n):
    tensor = torch.tensor(VALUES)
    low = [floor(Fraction(v, 2**n)) for v in VALUES]
    near = [floor(Fraction(v, 2**n) + (Fraction(1, 2) if n else 0)) for v in VALUES]
    assert floor_shift(tensor, n).tolist() == low == [floor_shift(v, n) for v in VALUES]
    assert round_shift(tensor, n).tolist() == near == [round_shift(v, n) for v in VALUES]


def test_round_shift_takes_halves_up():
    assert [round_shift(v, 2) for v in (-6, -2, 2, 6)] == [-1, 0, 1, 2]


@pytest.mark.parametrize("n", [0, 1, 8, 32])
def test_dither_shift_uses_the_low_bits_of_the_random_word(n):
    v = torch.tensor(VALUES)
    for r in (0, 1, 0x5A5A_5A5A, 0xFFFF_FFFF):
        want = [floor(Fraction(a + r % 2**n, 2**n)) for a in VALUES]
        assert dither_shift(v, n, torch.tensor(r)).tolist() == want


@pytest.mark.parametrize("v", [-200, -1, 0, 1, 77, 128])
def test_dither_shift_is_unbiased(v):
    """Over all random words the mean is v / 2**n exactly."""
    assert int(dither_shift(torch.tensor(v), 6, torch.arange(64)).sum()) == v


def test_real_numbers_become_the_nearest_raw_integers():
    q = Q(3, 1)
    real = [-inf, -4.26, -4.25, -0.75, -0.25, 0.24, 0.25, 3.74, 3.75, inf]
    assert raw(real, q.one, q.low, q.high).tolist() == [-8, -8, -8, -1, 0, 0, 1, 7, 7, 7]
    assert clipped(real, q.one, q.low, q.high) == 4
    assert raw(0.5, 4096, 0, 4096) == 2048  # a leakage factor
    assert raw([0.01], 4096, 256, 32767).tolist() == [256]  # a threshold below the floor
