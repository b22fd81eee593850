"""Leak, integrate, fire; and the traces that run forward in time beside the membrane."""

from __future__ import annotations

from amaranth.hdl import Module, Mux
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.fixed import floor_shift, saturate
from hw.machine import Machine
from hw.numbers import PIXEL_FRAC
from hw.pipeline import Pipe, drive
from hw.streams import membrane_in, membrane_out, mul_port


class Membrane(wiring.Component):
    """One neuron a word: U, s and the traces w~, theta~, alpha~ of the next step.

    Numerics: docs/numerics.md, "One time step" (STOP, the forward and trace equations)
    Timing:   latency 3 cycles, 4 where neurons lie far apart (`Machine.wires`), one word a cycle, holds while `o.ready` is low;
              uses `mul[0..3]`
    Golden:   sw/golden/spike/membrane.py, equal in every bit
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        super().__init__(
            {
                "i": In(stream.Signature(membrane_in(machine))),
                "o": Out(stream.Signature(membrane_out(machine))),
                "mul": Out(mul_port(machine)).array(4),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c, i, o = self.machine, self.i.p, self.o.p
        far = c.wires.ends  # a register more where neurons lie far apart
        pipe = Pipe(m, self.i, self.o, latency=3 + far)

        # cycles 0 to 2: the leak, one multiplier for each of membrane, threshold trace, leakage trace, weight trace;
        # old values that count as 0 leak entirely
        rest = saturate(i.u - Mux(i.s, i.theta, 0).as_signed(), c.u)
        leaking = saturate(i.theta_trace - Mux(i.s, c.trace.one, 0), c.trace)
        alpha, alpha_next = Mux(i.first, 0, i.alpha), Mux(i.first, 0, i.alpha_next)
        m.d.comb += [
            drive(self.mul[0], alpha, rest, pipe.en),
            drive(self.mul[1], alpha, leaking, pipe.en),
            drive(self.mul[2], alpha, i.alpha_trace, pipe.en),
            drive(self.mul[3], alpha_next, i.weight_trace, pipe.en),
        ]
        leaked = [floor_shift(port.p, c.alpha_frac) for port in self.mul]

        # cycle 3: integrate
        u = pipe.reg(saturate(leaked[0] + pipe.reg(i.current, 2), c.u))
        theta_trace = pipe.reg(leaked[1][: c.trace.bits].as_signed())  # a leak shrinks: it fits
        alpha_trace = pipe.reg(saturate(leaked[2] + pipe.reg(Mux(i.first, 0, rest).as_signed(), 2), c.u))
        weight_trace = pipe.reg(leaked[3])

        # and fire, on the way out
        unit, event, theta = (pipe.reg(v, 3) for v in (i.unit, i.event, i.theta))
        s = Mux(unit, event, u >= theta)
        one = Mux(unit & pipe.reg(i.valued, 3), pipe.reg(i.value, 3) << (c.trace.f - PIXEL_FRAC), c.trace.one)
        m.d.comb += [
            o.index.eq(pipe.reg(i.index, 3 + far)),
            o.unit.eq(pipe.reg(unit, far)),
            o.s.eq(pipe.reg(s, far)),
            o.u.eq(pipe.reg(u, far)),
            o.theta_trace.eq(pipe.reg(theta_trace, far)),
            o.alpha_trace.eq(pipe.reg(alpha_trace, far)),
            # the sum does not wait for s
            o.weight_trace.eq(pipe.reg(Mux(s, saturate(weight_trace + one, c.trace), weight_trace), far)),
        ]
        return m
