"""Learning a firing threshold."""

from __future__ import annotations

from amaranth.hdl import Module, Mux
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.fixed import halves, minus_halves, saturate
from hw.machine import Machine
from hw.pipeline import Pipe
from hw.streams import threshold_in, threshold_out


class Threshold(wiring.Component):
    """theta = max(theta - 2**-rate * gradient, theta_min), one neuron a word.

    Numerics: docs/numerics.md, "Updates", the line of theta
    Timing:   latency 2 cycles, one word a cycle, holds while `o.ready` is low
    Golden:   sw/golden/error/descent.py, equal in every bit
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        super().__init__({"i": In(stream.Signature(threshold_in(machine))), "o": Out(stream.Signature(threshold_out(machine)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        c, i, o = self.machine, self.i.p, self.o.p
        pipe = Pipe(m, self.i, self.o, latency=2)
        change = pipe.reg(halves(i.grad, c.theta_shift(0), i.rate))
        theta = saturate(minus_halves(pipe.reg(i.theta), change), c.u)
        m.d.comb += [
            o.index.eq(pipe.reg(i.index, 2)),
            o.theta.eq(pipe.reg(Mux(theta < c.theta_min, c.theta_min, theta).as_signed())),
        ]
        return m
