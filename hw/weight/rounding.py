"""How a change of a weight is rounded: to nearest, or by chance."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.fixed import dither_shift, halves
from hw.machine import Machine
from hw.numbers import bits_for
from hw.pipeline import spread
from hw.weight.dither import LAYER_BITS, WORD, Dither


class ToNearest(wiring.Component):
    """No random bits: what a machine has that always rounds to nearest."""

    def __init__(self, machine: Machine, lead: int):
        self.machine, self.lead = machine, lead
        super().__init__(
            {
                "layer": In(LAYER_BITS),  # that of the sweep
                "group": In(bits_for(machine.lane_groups)),
                "unit": In(bits_for(max(machine.capacity.fan_in, machine.listed_deltas))),
                "turned": In(1),
                "enable": In(1),  # the next words come
                "next": In(1),
                "state": Out(WORD),
                "write": In(1),
                "data": In(WORD),
                "by_chance": In(1),  # or to nearest, after all
                "word": Out(WORD).array(machine.lanes),
                "chance": Out(1).array(machine.lanes),  # `by_chance`, near the lane
            }
        )

    def elaborate(self, platform) -> Module:
        return Module()

    @staticmethod
    def shift(gradient: Value, base: int, rate: Value, keep: Value, word: Value, chance: Value) -> Value:
        """`gradient` / 2**(base + rate) in halves; `keep` is the mask of the bits that it loses."""
        return halves(gradient, base, rate)


class ByChance(ToNearest):
    """A random word for every lane, `lead` + 2 cycles after group and unit (`Dither`), whose bits round if `by_chance`."""

    def elaborate(self, platform) -> Module:
        m = Module()
        c = self.machine
        m.submodules.dither = dither = Dither(c, self.lead)
        inputs = ("layer", "group", "unit", "turned", "enable", "next", "write", "data")
        m.d.comb += [
            *(getattr(dither, name).eq(getattr(self, name)) for name in inputs),
            self.state.eq(dither.state),
            *(word.eq(of_lane) for word, of_lane in zip(self.word, dither.word, strict=True)),
            *(near.eq(far) for near, far in zip(self.chance, spread(m, self.by_chance, c.wires.tree, c.lanes), strict=True)),
        ]
        return m

    @staticmethod
    def shift(gradient: Value, base: int, rate: Value, keep: Value, word: Value, chance: Value) -> Value:
        """The bits that round are random, or those that round to nearest."""
        half = Mux(chance, 0, keep & ~(keep >> 1))
        return dither_shift(gradient, base, rate, (word[: len(keep)] & Mux(chance, keep, 0)) | half) << 1


def rounding(machine: Machine, lead: int) -> ToNearest:
    """As the machine can round."""
    return (ByChance if machine.stochastic else ToNearest)(machine, lead)
