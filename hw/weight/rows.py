"""Rows of weights on their way through the lanes, and what the lanes do with them."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.machine import Machine
from hw.numbers import bits_for, ceil_log2
from hw.pipeline import DelayLine
from hw.streams import row_op

DOING = data.StructLayout(
    {
        "forward": 1,
        "backward": 1,
        "turned": 1,  # the layer is banked by its inputs
        "gather": 1,
        "apply": 1,
        "changing": 1,  # weights
        "decaying": 1,  # they change by themselves alone
        "summing": 1,  # weights times something, in the lanes or over them
        "weighing": 1,  # the weights are multiplied: summing, or as they decay
        "folding": 1,  # over the lanes
    }
)
"""What a sweep does in the lanes."""


LONGEST = 8
"""The last cycle in which a weight may be written."""


def flight_length(machine: Machine, written: int) -> int:
    """Cycles of a row: until its weight, which leaves in cycle `written`, is in its memory, or its sum over the lanes has left."""
    return max(written + 1 + machine.wires.tree, 6 + ceil_log2(machine.lanes))


def flight(machine: Machine) -> data.StructLayout:
    """Rows on their way: bit k tells of the row whose weights and operand come to the multipliers in cycle k = 1."""
    cycles = flight_length(machine, LONGEST)
    return data.StructLayout({"valid": cycles, "first": cycles, "last": cycles})


class Rows(wiring.Component):
    """Follows the rows that are `taken`, whose weights are written in cycle `written`. `then[n]` is the row in cycle `cycles[n]`.

    Timing:   a row is in cycle 0 `Wires.latency` - 1 cycles after it is taken
    """

    def __init__(self, machine: Machine, cycles: tuple[int, ...], written: int):
        self.wait, self.cycles = machine.wires.latency - 1, cycles
        self.length = self.wait + flight_length(machine, written)
        super().__init__(
            {
                "taken": In(1),
                "p": In(row_op(machine)),
                "flight": Out(flight(machine)),
                "then": Out(bits_for(machine.capacity.weight_rows)).array(len(cycles)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        chains = {"valid": Signal(self.length), "first": Signal(self.length), "last": Signal(self.length)}
        for (name, chain), newest in zip(chains.items(), (self.taken, self.p.first, self.p.last), strict=True):
            behind = Signal(self.length - 1, name=name, reset_less=name != "valid")
            m.d.sync += behind.eq(chain)
            m.d.comb += [chain.eq(newest | behind << 1), self.flight[name].eq(chain[self.wait :])]
        m.submodules.line = line = DelayLine(len(self.p.row), tuple(self.wait + cycle for cycle in self.cycles))
        m.d.comb += [
            line.i.eq(self.p.row),
            *(then.eq(delayed) for then, delayed in zip(self.then, line.delayed, strict=True)),
            self.busy.eq(chains["valid"].any()),
        ]
        return m
