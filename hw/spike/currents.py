"""Currents on their way from the lanes to the neurons' memories."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.machine import Machine
from hw.program import lane_fields, layer_bits
from hw.streams import index_shape, row_layout


class Currents(wiring.Component):
    """Takes the currents of a layer's neurons in order, after `start`, and writes them from row `sweep.neuron_row` on.

    They come in words of the neuron lanes (`current`), lanes without a neuron last; of a layer banked by its inputs one by one
    (`single_current`). The first `there` words of layer `layer` have been written.

    Timing:   a word, or a single one, is written in the cycle in which it comes
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        lanes, fields = machine.neuron_lanes, lane_fields(machine)
        super().__init__(
            {
                "start": In(1),
                "sweep": In(row_layout(fields)),
                "current": In(stream.Signature(data.ArrayLayout(signed(machine.u.bits), lanes), always_ready=True)),
                "single_current": In(stream.Signature(signed(machine.u.bits), always_ready=True)),
                "layer": Out(layer_bits(machine)),
                "there": Out(fields["words"]),
                "write": Out(lanes),
                "row": Out(index_shape(machine)).array(lanes),  # the same in all, each from a register near its lane
                "word": Out(signed(machine.u.bits)).array(lanes),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        sweep, lanes, single = self.sweep, self.machine.neuron_lanes, self.single_current
        left, slot = Signal(max(len(sweep.words), len(sweep.groups))), Signal(range(max(lanes, 2)))
        words, whole, there, layer = Signal(), Signal(init=1), Signal.like(self.there), Signal.like(self.layer)
        taken = words | single.valid
        m.d.comb += [words.eq(self.current.valid & (left != 0)), self.there.eq(there), self.layer.eq(layer)]
        with m.If(single.valid):
            m.d.comb += whole.eq((slot == lanes - 1) | (left == 1))
        with m.If(self.start):  # the groups of a layer banked by its inputs are neurons
            m.d.sync += [left.eq(Mux(sweep.turned, sweep.groups, sweep.words)), layer.eq(sweep.layer), there.eq(0), slot.eq(0)]
        with m.Elif(taken):
            m.d.sync += [left.eq(left - 1), there.eq(there + whole), slot.eq(Mux(whole, 0, slot + 1))]
        for q in range(lanes):
            at = Signal(index_shape(self.machine), name=f"at_{q}")
            with m.If(self.start):
                m.d.sync += at.eq(sweep.neuron_row)
            with m.Elif(taken):
                m.d.sync += at.eq(at + whole)
            m.d.comb += [
                self.write[q].eq(words | (single.valid & (slot == q))),
                self.row[q].eq(at),
                self.word[q].eq(Mux(single.valid, single.payload, self.current.payload[q])),
            ]
        return m
