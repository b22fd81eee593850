"""Which units the lanes of the weights must visit: those that fired, and those with a trace."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.machine import Machine
from hw.numbers import bits_for
from hw.pipeline import delay
from hw.program import lane_fields, neuron_fields
from hw.spike.lists import UnitList
from hw.streams import membrane_out, row_layout


class Listing(wiring.Component):
    """A unit that fired is listed for the next layer's currents, one with a trace for the update of its weights.

    `begins`: a pass begins, which is `forward` if it lists units (`program.listed`); they come on `units`, a word of the neuron
    lanes in a cycle. The lists of row `sweep` of the lanes' program are read at `list_index`.

    Timing:   a unit is pushed a cycle after it comes, or two where it is far (`Wires.ends`); `busy` as in UnitList
    """

    def __init__(self, machine: Machine):
        self.machine, self.spikes, self.traces = machine, UnitList(machine), UnitList(machine)
        bits = bits_for(machine.capacity.fan_in)
        super().__init__(
            {
                "begins": In(1),
                "forward": In(1),
                "program": In(row_layout(neuron_fields(machine))),
                "sweep": In(row_layout(lane_fields(machine))),
                "units": In(stream.Signature(membrane_out(machine), always_ready=True)).array(machine.neuron_lanes),
                "list_index": In(bits),
                "list_enable": In(1),
                "spike_unit": Out(bits),
                "spike_count": Out(bits + 1),
                "trace_unit": Out(bits),
                "trace_count": Out(bits + 1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.spikes, m.submodules.traces = spikes, traces = self.spikes, self.traces
        # a cycle after the neuron is written, or more, since spike, trace and comparison with 0 are a long way
        ends, local, program, units = self.machine.wires.ends, Signal.like(self.spikes.row), self.program, self.units
        with m.If(self.begins):
            m.d.sync += local.eq(0)
        with m.Elif(units[0].valid):
            m.d.sync += local.eq(local + 1)
        row, there = delay(m, local, ends), [delay(m, unit.valid & program.listed, ends) for unit in units]
        fired = [delay(m, unit.p.s, ends) for unit in units]
        traced = [delay(m, unit.p.weight_trace, ends) != 0 for unit in units]
        for lists, listed in ((spikes, fired), (traces, traced)):
            m.d.sync += [lists.push.eq(Cat(of_unit & yes for of_unit, yes in zip(there, listed, strict=True))), lists.row.eq(row)]
            m.d.comb += [
                lists.start.eq(self.begins & self.forward & program.listed),
                lists.list.eq(program.list),
                lists.base.eq(program.list_base),
                lists.read_list.eq(self.sweep.list),
                lists.read_base.eq(self.sweep.list_base),
                lists.read_index.eq(self.list_index),
                lists.read_enable.eq(self.list_enable),
            ]
        m.d.comb += [
            self.spike_unit.eq(spikes.read_data),
            self.spike_count.eq(spikes.length),
            self.trace_unit.eq(traces.read_data),
            self.trace_count.eq(traces.length),
            self.busy.eq(spikes.busy | traces.busy),
        ]
        return m
