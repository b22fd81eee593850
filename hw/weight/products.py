"""The multipliers of the lanes: one each, which multiplies whatever the sweep wants."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.fixed import floor_shift, round_shift, rounding
from hw.machine import Machine
from hw.numbers import NEURON_MULTIPLIERS
from hw.pipeline import Multiplier, spread
from hw.streams import lane_multiplier, mul_port, operand_bits, own_operand_bits
from hw.weight.gradients import DirectGradients
from hw.weight.rows import DOING, flight


class Products(wiring.Component):
    """A product in every lane.

    Forward and backward it is the weight times the row's operand (`factor`); where a sum goes over the lanes, the weight times
    what the lane has of its `own`. In an update it is the `learned` value times the factor, or, if weights decay, the weight times
    the factor, and `gradient` is the same, rounded.

    Timing:   operands in cycle 1, products in cycle 3. `free`: a row may be taken
    """

    def __init__(self, machine: Machine, gradients: DirectGradients):
        self.machine, self.shift = machine, gradients.shift
        self.a_bits, self.b_bits = lane_multiplier(machine, gradients.learned_bits)
        product = signed(self.a_bits + self.b_bits)
        super().__init__(
            {
                "flight": In(flight(machine)),
                "doing": In(DOING),
                "weight": In(signed(machine.w.bits)).array(machine.lanes),
                "learned": In(signed(gradients.learned_bits)).array(machine.lanes),
                "factor": In(signed(operand_bits(machine))).array(machine.lanes),
                "own": In(signed(own_operand_bits(machine))).array(machine.lanes),
                "product": Out(product).array(machine.lanes),
                "gradient": Out(product).array(machine.lanes),
                "free": Out(1, init=1),
                "reserve": In(1),
                "mul": In(mul_port(machine)).array(NEURON_MULTIPLIERS * machine.neuron_lanes),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c = self.machine
        weighing, folding = (spread(m, flag, c.wires.tree, c.lanes) for flag in (self.doing.weighing, self.doing.folding))
        for lane in range(c.lanes):
            a = Mux(weighing[lane], self.weight[lane], self.learned[lane])
            b = Mux(folding[lane], self.own[lane], self.factor[lane])
            product = self._multiply(m, lane, a, b, self._rounding(weighing[lane]))
            m.d.comb += [self.product[lane].eq(product), self.gradient[lane].eq(self._gradient(self.product[lane]))]
        return m

    def _rounding(self, weighing: Value) -> Value | int:
        """What rounds a gradient is added by the multiplier."""
        return Mux(weighing, 0, rounding(self.shift))

    def _gradient(self, product: Value) -> Value:
        return floor_shift(product, self.shift)

    def _multiply(self, m: Module, lane: int, a: Value, b: Value, c: Value | int) -> Value:
        m.submodules[f"mul_{lane}"] = mul = Multiplier(self.a_bits, self.b_bits)
        m.d.comb += [mul.port.a.eq(a), mul.port.b.eq(b), mul.port.c.eq(c), mul.port.en.eq(1)]
        return mul.port.p


class FarProducts(Products):
    """The same where sums have a long way from the multiplier: a gradient is rounded behind it."""

    def _rounding(self, weighing: Value) -> int:
        return 0

    def _gradient(self, product: Value) -> Value:
        return round_shift(product, self.shift)


class SharedProducts(Products):
    """The same with the first multipliers lent to the neurons, as `mul`.

    They are the neurons' in the cycle after `reserve`, in which no row is taken."""

    def elaborate(self, platform) -> Module:
        m = super().elaborate(platform)
        m.d.comb += self.free.eq(~self.reserve)
        return m

    def _multiply(self, m: Module, lane: int, a: Value, b: Value, c: Value | int) -> Value:
        """A row has the multiplier, the neurons if there is none."""
        if lane >= len(self.mul):
            return super()._multiply(m, lane, a, b, c)
        other, flight = self.mul[lane], self.flight
        m.submodules[f"mul_{lane}"] = mul = Multiplier(max(self.a_bits, len(other.a)), max(self.b_bits, len(other.b)))
        m.d.comb += [
            mul.port.a.eq(Mux(flight.valid[1], a, other.a)),
            mul.port.b.eq(Mux(flight.valid[1], b, other.b)),
            mul.port.c.eq(Mux(flight.valid[2], c, other.c)),  # is added in cycle 2
            mul.port.en.eq(1),
            other.p.eq(mul.port.p),
        ]
        return mul.port.p
