"""Every way to lose bits, gateware against golden model, at each value of small formats."""

import pytest
import torch
from amaranth.hdl import Module, Signal, signed
from amaranth.sim import Simulator

from hw import fixed
from hw.numbers import Q
from sw.golden import fixed as golden

WIDE = Q(4, 4)


def evaluate(make, inputs):
    """Values of `make(v, r, rate)` at each (v, r, rate), combinationally."""
    m = Module()
    v, r, rate = Signal(signed(WIDE.bits)), Signal(32), Signal(4)
    made = make(v, r, rate)
    out = Signal(made.shape())
    m.d.comb += out.eq(made)
    results = []

    async def bench(ctx):
        for value, random, k in inputs:
            ctx.set(v, value)
            ctx.set(r, random)
            ctx.set(rate, k)
            results.append(ctx.get(out))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    return results


EVERY = [(v, 0, 0) for v in range(WIDE.low, WIDE.high + 1)]


@pytest.mark.parametrize("bits", [4, 5, 8, 9])
def test_saturate_clips_to_the_format(bits):
    q = Q(bits - 2, 2)
    want = golden.saturate(torch.tensor([v for v, _, _ in EVERY]), q).tolist()
    assert evaluate(lambda v, r, k: fixed.saturate(v, q), EVERY) == want


def test_saturate_refuses_an_unsigned_value():
    with pytest.raises(TypeError, match="unsigned"):
        fixed.saturate(Signal(8), WIDE)


@pytest.mark.parametrize("n", [0, 1, 3, 7, 9])
@pytest.mark.parametrize("name", ["floor_shift", "round_shift"])
def test_shift_rounds_as_the_contract_says(name, n):
    want = [getattr(golden, name)(v, n) for v, _, _ in EVERY]
    assert evaluate(lambda v, r, k: getattr(fixed, name)(v, n), EVERY) == want


@pytest.mark.parametrize("base", [0, 1, 3])
def test_halves_round_at_a_run_time_rate(base):
    inputs = [(v, 0, k) for v in range(WIDE.low, WIDE.high + 1) for k in (0, 1, 2, 7, 12)]
    want = [5 - golden.round_shift(v, base + k) for v, _, k in inputs]
    assert evaluate(lambda v, r, k: fixed.minus_halves(Signal(signed(8), init=5), fixed.halves(v, base, k)), inputs) == want


@pytest.mark.parametrize("base", [0, 2])
def test_dither_shift_uses_the_low_bits(base):
    words = (0, 0xFFFF_FFFF, 0x1234_5678, 0x89AB_CDEF)
    inputs = [(v, r, k) for v in range(WIDE.low, WIDE.high + 1, 3) for r in words for k in (0, 1, 5, 15)]
    want = [int(golden.dither_shift(torch.tensor(v), base + k, torch.tensor(r))) for v, r, k in inputs]
    got = evaluate(lambda v, r, k: fixed.dither_shift(v, base, k, r & fixed.dither_mask(base, k)), inputs)
    assert got == want
