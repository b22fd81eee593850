"""Which weight rows a sweep visits, in which order: the schedule of a fully connected layer.

The lanes know rows, not layers; another address sequence (a convolution's) is another sweeper.
"""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import PIXEL_FRAC, Config
from hw.error.groups import listed
from hw.pipeline import delay
from hw.streams import bits_for, operand_bits
from hw.weight.lanes import Sweep, row_op


def source(index_bits: int, **data) -> wiring.Signature:
    """A list, as its reader sees it: data of entry `index` come one move later, `enable` moves."""
    return wiring.Signature({"index": Out(index_bits), "enable": Out(1), "length": In(index_bits + 1), **{k: In(v) for k, v in data.items()}})


class Sweeper(wiring.Component):
    """Two nested loops over the rows of `layer`, from `start` until `busy` falls; zero entries are not in the lists it walks.

    ==========  ========================  ==========================
    sweep       outer loop                inner loop
    ==========  ========================  ==========================
    FORWARD     every group               listed inputs
    BACKWARD    every input               listed groups
    GATHER      listed groups             inputs listed with a trace
    DESCEND     listed groups             the same, or listed pixels
    APPLY       every group               every input, or those listed with a trace (lazy learning)
    ==========  ========================  ==========================

    If lanes have lists of their own, a listed group is in each lane its own neuron at that place of its list; in lanes with a shorter list the row
    is not `live`. A FORWARD or BACKWARD sum over an empty list sends one row that adds 0, so that the sum leaves the lanes all the same. While
    `growing`, the list of inputs may still become longer, and its last entry waits until it is known to be the last.
    `counted` is the number of synapses in the row that is taken.

    Timing:   a row a cycle, no bubble between groups; the first row 3 cycles after `start`
    """

    def __init__(self, config: Config):
        self.config = config
        self.unit_bits = bits_for(max(config.sizes[:-1]))
        self.group_bits = bits_for(max(config.groups.values()))
        super().__init__(
            {
                "start": In(1),
                "sweep": In(Sweep),
                "layer": In(bits_for(config.n_layers + 1)),
                "growing": In(1),
                "busy": Out(1),
                "op": Out(stream.Signature(row_op(config))),
                "operand": Out(signed(operand_bits(config))),
                "counted": Out(range(config.lanes + 1)),
                "units": Out(source(self.unit_bits, unit=self.unit_bits, value=PIXEL_FRAC + 1)),
                "groups": Out(source(self.group_bits, entry=listed(config))),
                "trace": In(signed(config.trace.bits)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c, units, groups = self.config, self.units, self.groups
        per_layer = lambda values: Array([0, *values])[self.layer]  # noqa: E731
        fan_in, n_groups = per_layer(c.sizes[:-1]), per_layer(c.groups.values())
        forward, backward = self.sweep == Sweep.FORWARD, self.sweep == Sweep.BACKWARD
        apply = self.sweep == Sweep.APPLY
        summing, dense_groups = forward | backward, forward | apply

        # stage A: two counters address the lists
        counter = bits_for(max(max(c.sizes), max(c.groups.values())) + 1)
        outer, inner, outer_end, inner_end = (Signal(counter, name=n) for n in ("outer", "inner", "outer_end", "inner_end"))
        group_row, empty, active, move = Signal(bits_for(c.rows)), Signal(), Signal(), Signal()
        outer_last, inner_last = outer == outer_end, inner == inner_end
        outer_length = Mux(dense_groups, n_groups, Mux(backward, fan_in, groups.length))
        in_list = Mux(backward, groups.length, units.length)
        inner_length = in_list if c.lazy else Mux(apply, fan_in, in_list)
        m.d.comb += [
            units.index.eq(inner),
            groups.index.eq(Mux(backward, inner, outer)),
            units.enable.eq(move),
            groups.enable.eq(move),
        ]
        # the lengths are taken a cycle before they are used: choosing them is a long way
        begin, outer_count, inner_count = Signal(), Signal.like(outer), Signal.like(inner)
        growing, open_end = Signal(), Signal()  # the same, beside `inner_count` and beside `inner_end`
        m.d.sync += [begin.eq(self.start), outer_count.eq(outer_length), inner_count.eq(inner_length)]
        m.d.sync += [growing.eq(self.growing & forward), open_end.eq(growing)]
        with m.If(begin | open_end):
            m.d.sync += [inner_end.eq(Mux(inner_count == 0, 0, inner_count - 1)), empty.eq(inner_count == 0)]
        there = active & ~(open_end & inner_last)
        with m.If(begin):
            m.d.sync += [
                outer.eq(0),
                inner.eq(0),
                outer_end.eq(outer_count - 1),
                group_row.eq(per_layer(c.row_base.values())),
                active.eq((outer_count != 0) & (summing | (inner_count != 0))),
            ]
        with m.Elif(there & move):
            m.d.sync += inner.eq(inner + 1)
            with m.If(inner_last):
                m.d.sync += [inner.eq(0), outer.eq(outer + 1), group_row.eq(group_row + fan_in), active.eq(~outer_last)]

        # stage B: the entries are there; the row is their sum
        op, valid = self.op.p, Signal()
        b_first, b_last, b_top, b_unit, b_row = Signal(), Signal(), Signal(), Signal(self.unit_bits), Signal.like(group_row)
        b_group = Signal(self.group_bits)
        m.d.comb += [move.eq(~valid | self.op.ready), self.op.valid.eq(valid), self.busy.eq(begin | active | valid)]
        with m.If(move):
            m.d.sync += [
                valid.eq(there),
                b_first.eq(inner == 0),
                b_last.eq(inner_last),
                b_top.eq(outer_last),
                b_unit.eq(Mux(backward, outer, inner)),
                b_row.eq(group_row),
                *([b_group.eq(outer)] if c.lazy else []),
            ]
        counting, dense, nothing = Signal(), Signal(), empty & summing  # decoded a cycle later, before the first row comes
        m.d.sync += [counting.eq(backward if c.lazy else backward | apply), dense.eq(dense_groups)]
        unit, delta_base = Mux(counting, b_unit, units.unit), per_layer([c.delta_base[l] for l in c.layers])
        if c.lane_lists:
            for lane, of in enumerate(groups.entry):  # what an older list left could lie beyond the memory's end with this layer's unit
                m.d.comb += [
                    op.row[lane].eq(Mux(dense, b_row, Mux(of.live, of.entry.row, 0)) + unit),
                    op.delta_row[lane].eq(of.entry.delta_row),
                    op.live[lane].eq(dense | of.live),
                ]
        else:
            m.d.comb += [
                op.row.eq(Mux(dense, b_row, groups.entry.row) + unit),
                op.delta_row.eq(Mux(nothing, delta_base, groups.entry.delta_row)),
            ]
        m.d.comb += [op.first.eq(b_first), op.last.eq(b_last)]
        if c.lazy:
            with m.If(dense):
                m.d.comb += op.delta_row.eq(delta_base + b_group)

        # stage C: the operand
        remainder = per_layer((c.sizes[l] - 1) % c.lanes + 1 for l in c.layers)
        if c.lane_lists:
            neurons = Mux(dense, Mux(b_top, remainder, c.lanes), sum(of.live for of in groups.entry))
        else:
            neurons = Mux(Mux(dense, b_top, groups.entry.last), remainder, c.lanes)
        pixel, traced = Signal(PIXEL_FRAC + 1), Signal()
        late = delay(m, pixel, c.weight_registers)
        m.d.comb += [
            traced.eq(apply if c.lazy else (self.sweep == Sweep.GATHER) | ((self.sweep == Sweep.DESCEND) & ~self._static(self.layer))),
            self.operand.eq(
                Mux(traced, self.trace, Mux(forward, late, late << (c.trace.f - PIXEL_FRAC)).as_signed()),
            ),
            self.counted.eq(Mux(nothing, 0, neurons)),
        ]
        m.d.sync += pixel.eq(Mux(nothing, 0, units.value))
        return m

    def _static(self, layer):
        return (layer == 1) if self.config.static else 0
