"""A neuron's own gradients: its delta times its traces."""

from __future__ import annotations

from amaranth.hdl import Module, Mux
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.fixed import floor_shift, rounding, saturate
from hw.machine import Machine
from hw.pipeline import Pipe, drive
from hw.streams import gradient_in, gradient_out, mul_port


class Gradient(wiring.Component):
    """g_theta, g_alpha, and the input gradient D of a static frame, one neuron a word.

    Numerics: docs/numerics.md, "Learning in that step", the lines of g_theta, g_alpha and D
    Timing:   latency 3 cycles, one word a cycle, holds while `o.ready` is low; uses `mul[0..2]`
    Golden:   sw/golden/error/delta.py, equal in every bit
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        super().__init__(
            {
                "i": In(stream.Signature(gradient_in(machine))),
                "o": Out(stream.Signature(gradient_out(machine))),
                "mul": Out(mul_port(machine)).array(3),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c, i, o = self.machine, self.i.p, self.o.p
        pipe = Pipe(m, self.i, self.o, latency=3)
        m.d.comb += [
            drive(self.mul[0], i.delta, saturate(i.theta_trace - c.trace.one, c.trace), pipe.en, rounding(c.weight_grad_shift)),
            drive(self.mul[1], i.delta, i.alpha_trace, pipe.en, rounding(c.alpha_grad_shift)),
        ]
        theta_grad = saturate(floor_shift(self.mul[0].p, c.weight_grad_shift), c.grad)
        alpha_grad = saturate(floor_shift(self.mul[1].p, c.alpha_grad_shift), c.grad)
        m.d.comb += [
            o.index.eq(pipe.reg(i.index, 3)),
            o.theta_grad.eq(pipe.reg(Mux(pipe.reg(i.learn_t, 2), theta_grad, 0))),
            o.alpha_grad.eq(pipe.reg(Mux(pipe.reg(i.learn_l, 2), alpha_grad, 0))),
        ]
        self._inputs(m, pipe)
        return m

    def _inputs(self, m: Module, pipe: Pipe) -> None:
        """What the weights of the neuron's inputs learn from: D."""
        c, i, o = self.machine, self.i.p, self.o.p
        input_grad = pipe.reg(Mux(i.first, 0, i.input_grad).as_signed(), 2)
        m.d.comb += [
            drive(self.mul[2], i.delta, i.frame_trace, pipe.en, rounding(c.trace.f)),
            o.input_grad.eq(pipe.reg(saturate(input_grad + floor_shift(self.mul[2].p, c.trace.f), c.delta))),
        ]


class LazyGradient(Gradient):
    """The same for lazy learning: with the sums K and H instead of D.

    Numerics: docs/numerics.md, "Lazy learning"
    """

    def _inputs(self, m: Module, pipe: Pipe) -> None:
        """What the weights of the neuron's inputs learn from: H, and K after the last step."""
        c, i, o = self.machine, self.i.p, self.o.p
        total = saturate(Mux(i.first, 0, i.delta_sum).as_signed() + (i.delta << (c.grad.f - c.delta.f)), c.grad)
        m.d.comb += drive(self.mul[2], i.reciprocal, total, pipe.en, rounding(c.alpha_frac))
        grown = saturate(floor_shift(self.mul[2].p, c.alpha_frac), c.grad)
        m.d.comb += [
            o.delta_sum.eq(pipe.reg(grown)),
            o.lane_sum.eq(pipe.reg(Mux(pipe.reg(i.final, 2), pipe.reg(total, 2), grown).as_signed())),
        ]
