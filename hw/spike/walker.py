"""Which neurons a pass meets, cycle by cycle."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.machine import Machine
from hw.numbers import bits_for
from hw.program import neuron_fields
from hw.streams import index_shape


class Walker(wiring.Component):
    """Counts `count` neurons from row `base` on, from `start`, a word of all neuron lanes in every cycle with `step`.

    `mask` has those lanes that hold a neuron. `serial` takes the lanes of a word one after the other.
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        super().__init__(
            {
                "start": In(1),
                "base": In(index_shape(machine)),
                "count": In(neuron_fields(machine)["count"]),
                "step": In(1),
                "serial": In(1),
                "valid": Out(1),
                "mask": Out(machine.neuron_lanes),
                "row": Out(index_shape(machine)).array(machine.neuron_lanes),  # the same in all, each from a register near its lane
                "local": Out(bits_for(machine.words)),  # row in the layer
                "active": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c, lanes = self.machine, self.machine.neuron_lanes
        left, local, lane = Signal(len(self.count)), Signal.like(self.local), Signal(lanes, init=1)  # `left`: neurons to come
        rows = [Signal(index_shape(c), name=f"row_{q}") for q in range(lanes)]
        following, next_word, active, mask = Signal.like(left), Signal(init=1), Signal(), Signal(lanes)
        m.d.comb += [
            self.active.eq(active),
            self.valid.eq(active & self.step),
            *(self.row[q].eq(row) for q, row in enumerate(rows)),
            self.local.eq(local),
            self.mask.eq(mask),
            following.eq(Mux(left < lanes, 0, left - lanes)),
        ]
        if lanes > 1:
            with m.If(self.serial):
                m.d.comb += [self.mask.eq(lane), following.eq(left - 1), next_word.eq(lane[-1])]
        with m.If(self.start):
            m.d.comb += following.eq(self.count)
            m.d.sync += [local.eq(0), lane.eq(1), *(row.eq(self.base) for row in rows)]
        with m.Elif(self.valid):
            m.d.sync += [local.eq(local + next_word), lane.eq(lane.rotate_left(1)), *(row.eq(row + next_word) for row in rows)]
        with m.If(self.start | self.valid):
            m.d.sync += [left.eq(following), active.eq(following != 0), mask.eq(Cat(following > k for k in range(lanes)))]
        return m
