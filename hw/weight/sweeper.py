"""Which weight rows a sweep visits, in which order: two nested loops, whose bounds come from a row of the lanes' program."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.error.deltas import delta_entry
from hw.machine import Machine
from hw.numbers import PIXEL_FRAC, bits_for
from hw.pipeline import delay
from hw.program import LaneOp, lane_fields
from hw.streams import operand_bits, row_layout, row_op


def source(index_bits: int, **data) -> wiring.Signature:
    """A list, as its reader sees it: data of entry `index` come one move later, `enable` moves."""
    members = {"index": Out(index_bits), "enable": Out(1), "length": In(index_bits + 1), **{k: In(v) for k, v in data.items()}}
    return wiring.Signature(members)


class Sweeper(wiring.Component):
    """Two nested loops over the weight rows of a layer, from `start` until `busy` falls.

    Zero entries are not in the lists it walks. `row` is the row of the lanes' program.

    ==========  ========================  ==========================
    operation   outer loop                inner loop
    ==========  ========================  ==========================
    FORWARD     every group               listed inputs
    BACKWARD    every input               listed groups
    GATHER      listed groups             inputs listed with a trace
    DESCEND     listed groups             the same, or listed pixels
    APPLY       every group               every input, or those listed with a trace (lazy learning)
    DECAY       every group               every input
    ==========  ========================  ==========================

    In a layer banked by its inputs (`row.turned`) groups are neurons, and inputs are groups of inputs, each of which is visited.

    A FORWARD or BACKWARD sum over an empty list sends one row that adds 0, so that the sum leaves the lanes all the same. While
    `growing`, the list of inputs may still become longer, and its last entry waits until it is known to be the last.
    `counted` is the number of synapses in the row that is taken.

    Timing:   a row a cycle, no bubble between groups; the first row 3 cycles after `start`
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        self.unit_bits = bits_for(machine.capacity.fan_in)
        self.group_bits = bits_for(max(machine.groups, machine.listed_deltas))
        super().__init__(
            {
                "start": In(1),
                "row": In(row_layout(lane_fields(machine))),
                "growing": In(1),
                "busy": Out(1),
                "op": Out(stream.Signature(row_op(machine))),
                "operand": Out(signed(operand_bits(machine))),
                "counted": Out(range(machine.lanes + 1)),
                "units": Out(source(self.unit_bits, unit=self.unit_bits, value=signed(PIXEL_FRAC + 2))),
                "groups": Out(source(bits_for(machine.listed_deltas), entry=delta_entry(machine))),
                "trace": In(signed(machine.trace.bits)),
                "value": In(PIXEL_FRAC),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c, row = self.machine, self.row
        self.forward, self.backward, self.decay = (row.op == op for op in (LaneOp.FORWARD, LaneOp.BACKWARD, LaneOp.DECAY))
        self.apply = (row.op == LaneOp.APPLY) | self.decay
        self.summing = self.forward | self.backward
        lazy = Const(c.lazy)  # learned lazily, only inputs with a trace are applied
        self.apply_all, self.apply_traced = self.apply & ~lazy, self.apply & lazy
        self.empty, self.move = Signal(), Signal()
        self.outer, self.inner, self.outer_last, self.inner_last = self._count(m)
        self._rows(m)
        m.d.comb += self.operand.eq(self._operand(m))
        return m

    def _count(self, m: Module) -> tuple:
        """Stage A: two counters address the lists."""
        c, row, units, groups = self.machine, self.row, self.units, self.groups
        forward, backward = self.forward, self.backward
        counter = bits_for(max(c.capacity.population, c.capacity.fan_in) + 1)
        outer, inner, outer_end, inner_end = (Signal(counter, name=n) for n in ("outer", "inner", "outer_end", "inner_end"))
        outer_last, inner_last = outer == outer_end, inner == inner_end
        self.group_row, active = Signal(len(row.row)), Signal()
        outer_length = Mux(forward | self.apply, row.groups, Mux(backward, row.fan_in, groups.length))
        in_list = Mux(backward, groups.length, units.length)
        inner_length = Mux(self.apply_all | (row.turned & ~backward), row.fan_in, in_list)
        m.d.comb += [
            units.index.eq(inner),
            groups.index.eq(Mux(backward, inner, outer)),
            units.enable.eq(self.move),
            groups.enable.eq(self.move),
        ]
        # the lengths are taken a cycle before they are used: choosing them is a long way
        begin, outer_count, inner_count = Signal(), Signal.like(outer), Signal.like(inner)
        growing, open_end = Signal(), Signal()  # the same, beside `inner_count` and beside `inner_end`
        m.d.sync += [begin.eq(self.start), outer_count.eq(outer_length), inner_count.eq(inner_length)]
        m.d.sync += [growing.eq(self.growing & forward), open_end.eq(growing)]
        with m.If(begin | open_end):
            m.d.sync += [inner_end.eq(Mux(inner_count == 0, 0, inner_count - 1)), self.empty.eq(inner_count == 0)]
        self.there = active & ~(open_end & inner_last)
        with m.If(begin):
            m.d.sync += [
                outer.eq(0),
                inner.eq(0),
                outer_end.eq(outer_count - 1),
                self.group_row.eq(row.row),
                active.eq((outer_count != 0) & (self.summing | (inner_count != 0))),
            ]
        with m.Elif(self.there & self.move):
            m.d.sync += inner.eq(inner + 1)
            with m.If(inner_last):
                m.d.sync += [
                    inner.eq(0),
                    outer.eq(outer + 1),
                    self.group_row.eq(self.group_row + row.fan_in),
                    active.eq(~outer_last),
                ]
        self.walking = begin | active
        return outer, inner, outer_last, inner_last

    def _rows(self, m: Module) -> None:
        """Stage B: the entries are there; the row is their sum."""
        c, op, row, groups = self.machine, self.op.p, self.row, self.groups
        valid, first, last, top = Signal(), Signal(), Signal(), Signal()
        counted, base, group = Signal(self.unit_bits), Signal.like(self.group_row), Signal(self.group_bits)
        m.d.comb += [self.move.eq(~valid | self.op.ready), self.op.valid.eq(valid), self.busy.eq(self.walking | valid)]
        with m.If(self.move):
            m.d.sync += [
                valid.eq(self.there),
                first.eq(self.inner == 0),
                last.eq(self.inner_last),
                top.eq(self.outer_last),
                counted.eq(Mux(self.backward, self.outer, self.inner)),
                base.eq(self.group_row),
                group.eq(self.outer),
            ]
        # decoded a cycle later, before the first row comes
        counting, dense, self.nothing = Signal(), Signal(), self.empty & self.summing
        m.d.sync += [counting.eq(row.turned | self.backward | self.apply_all), dense.eq(self.forward | self.apply)]
        unit, number = Mux(counting, counted, self.units.unit), Mux(dense, group, groups.entry.number)
        ends = Mux(self.backward, top, last)  # of a turned layer: the row of its last inputs
        rest = Mux(row.turned, ends, Mux(dense, top, groups.entry.last))  # a row in which `row.rest` lanes have a synapse
        m.d.comb += [
            op.row.eq(Mux(dense, base, groups.entry.row) + unit),
            op.delta_row.eq(row.delta_row + Mux(row.turned, counted, Mux(self.nothing, 0, number))),
            op.first.eq(first),
            op.last.eq(last),
            op.group.eq(Mux(row.turned, counted, number)),
            op.unit.eq(Mux(row.turned, number, unit)),
            self.counted.eq(Mux(self.nothing, 0, Mux(rest, row.rest, c.lanes))),
        ]

    def _operand(self, m: Module) -> Value:
        """Stage C: a trace, the input's value, or the delta of a neuron whose layer is banked by its inputs; what makes gradients
        of weights that decay."""
        c, row, pixel, delta = self.machine, self.row, Signal.like(self.units.value), Signal(signed(self.machine.delta.bits))
        m.d.sync += [
            pixel.eq(Mux(self.nothing, 0, self.units.value)),
            delta.eq(Mux(self.nothing, 0, self.groups.entry.value.as_value())),
        ]
        traced = self.apply_traced | ((row.op == LaneOp.GATHER) | (row.op == LaneOp.DESCEND)) & ~row.pixels
        value = Mux(row.values, Mux(self.nothing, 0, self.value), delay(m, pixel, c.wires.ends))
        scaled = Mux(self.forward, value, value << (c.trace.f - PIXEL_FRAC)).as_signed()
        learned = Mux(row.turned, delay(m, delta, c.wires.ends), Mux(traced, self.trace, scaled))
        return Mux(self.decay, 1 << c.weight_unit, learned)
