"""All neurons: the passes in which they stream through their lanes, and what they tell the lanes of the weights."""

from __future__ import annotations

from functools import reduce
from operator import or_

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.error.arrivals import Arrivals
from hw.error.deltas import erring
from hw.error.leakage import Leakage
from hw.machine import Machine
from hw.memory import HostBus, ask, far_buses, found_in
from hw.memory_map import DAMAGED_BITS
from hw.numbers import NEURON_MULTIPLIERS, PIXEL_FRAC, bits_for, ceil_log2
from hw.pipeline import adder_tree, delay, spread
from hw.program import NeuronOp, lane_fields, neuron_fields
from hw.spike.currents import Currents
from hw.spike.lane import NeuronLane
from hw.spike.listing import Listing
from hw.spike.readout import Readout
from hw.spike.walker import Walker
from hw.streams import index_shape, mul_port, own_word, row_layout


def settings(c: Machine) -> wiring.Signature:
    """What holds for a whole time step."""
    return wiring.Signature(
        {
            "first": Out(1),  # step 0
            "final": Out(1),  # step T-1
            "earlier": Out(1),  # samples of the batch came before
            "more": Out(1),  # samples of the batch are to come
            "label": Out(8),
            "learn": Out(3),
            "rate_theta": Out(4),
            "rate_alpha": Out(4),
            "alpha_min": Out(c.alpha_frac + 1),
        }
    )


class Neurons(wiring.Component):
    """A word of neurons, one in each of the M neuron lanes, streams in every cycle from the memories through a pipeline and back.

    `start` begins the pass that `row` of the neurons' program names; `row` holds until `busy` falls. `current` (or
    `single_current`) gives the currents of a layer's neurons in order after `current_start`. They fill a memory, from which a
    NEURON pass reads them as they come. `sweep` is the row of the lanes' program. Errors come in order on `error`, or on
    `error_words`. Deltas, or spikes and traces, leave in order on `own`. For lazy learning, sums leave on `lane_sum`, SUM_DELAY
    cycles behind their deltas. The lists are read at `list_index`; `trace` is the weight trace of the unit read there. `mul` are
    multipliers, which must belong to the neurons in the cycle after `reserve`.

    Timing:   a pass takes the layer's size over M, plus `DRAIN[kind]` cycles, two more where it is far (`Wires.ends`), and what
              log2 M exceeds SPARE by; for the last layer's NEURON its size, as the readout takes one at a time
    """

    DRAIN = {NeuronOp.INPUT: 5, NeuronOp.NEURON: 5, NeuronOp.OUTPUT_ERROR: 14, NeuronOp.HIDDEN_ERROR: 14, NeuronOp.FINISH: 4}
    SUM_DELAY = 4
    SPARE = 4  # of these 14, cycles that the adder tree of the leakage gradients may take

    def __init__(self, machine: Machine):
        c = self.machine = machine
        self.answer_moves = 2 * c.wires.ends
        self.lanes = [NeuronLane(c, q) for q in range(c.neuron_lanes)]
        self.walker, self.currents, self.arrivals = Walker(c), Currents(c), Arrivals(c)
        self.leakage, self.readout = Leakage(c), Readout(c)
        self.listing = Listing(c)
        unit_bits = bits_for(c.capacity.fan_in)
        current, error = signed(c.u.bits), signed(c.delta.bits)
        super().__init__(
            {
                "start": In(1),
                "row": In(row_layout(neuron_fields(c))),
                "sweep": In(row_layout(lane_fields(c))),
                "settings": In(settings(c)),
                "busy": Out(1),
                "leaking": Out(1),  # a leakage factor learns
                "current_start": In(1),
                "current": In(stream.Signature(data.ArrayLayout(current, c.neuron_lanes), always_ready=True)),
                "single_current": In(stream.Signature(current, always_ready=True)),
                "error": In(stream.Signature(error, always_ready=True)),
                "error_words": In(stream.Signature(data.ArrayLayout(error, c.neuron_lanes), always_ready=True)),
                "own": Out(stream.Signature(own_word(c), always_ready=True)),
                "lane_sum": Out(signed(c.grad.bits)).array(c.neuron_lanes),
                "list_index": In(unit_bits),
                "list_enable": In(1),
                "spike_unit": Out(unit_bits),
                "spike_count": Out(unit_bits + 1),
                "trace_unit": Out(unit_bits),
                "trace_count": Out(unit_bits + 1),
                "trace": Out(signed(c.trace.bits)),  # of `trace_unit`, 1 + `Wires.ends` cycles later, between passes
                "value": Out(PIXEL_FRAC),  # of `spike_unit`, an input, at the same time
                "winner": Out(8),
                "reserve": Out(1),
                "mul": Out(mul_port(c)).array(NEURON_MULTIPLIERS * c.neuron_lanes),
                "host": In(HostBus()),
                "damaged": Out(DAMAGED_BITS),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        for name in ("walker", "currents", "arrivals", "leakage", "readout", "listing"):
            m.submodules[name] = getattr(self, name)
        for q, lane in enumerate(self.lanes):
            m.submodules[f"lane_{q}"] = lane
            for port, mul in zip(lane.mul, self.mul[NEURON_MULTIPLIERS * q :], strict=False):
                connect(m, port, flipped(mul))
        self.begins = Signal()
        m.d.comb += self.begins.eq(self.start & (self.row.op != NeuronOp.LEAKAGE))
        self._host(m)
        self._decode(m)
        self._walk(m)
        self._drain(m)
        self._reserve(m)
        self._lookups(m)
        self._leak(m)
        self._currents(m)
        self._readout(m)
        self._lists(m)
        self._errors(m)
        self._own(m)
        return m

    def _host(self, m: Module) -> None:
        """The host's bus for every neuron lane. What has no lane belongs to the first."""
        hosts = far_buses(m, self.host, self.machine.wires.ends, self.machine.neuron_lanes, near=1)
        members = [[lane] for lane in self.lanes]
        members[0] += [self.leakage, self.readout]
        answers = [delay(m, ask(m, host, of_lane), self.machine.wires.ends) for host, of_lane in zip(hosts, members, strict=True)]
        m.d.comb += [self.host.data_r.eq(reduce(or_, answers)), self.damaged.eq(found_in([*self.lanes, self.readout]))]

    def _near(self, m: Module, value: Value) -> list:
        """`value` for every neuron lane, a cycle later from registers of its own where they lie far apart."""
        return spread(m, value, self.machine.wires.ends, self.machine.neuron_lanes, near=1)

    def _decoded(self, m: Module, flag: Value) -> list:
        """The same a cycle later at any rate."""
        return self._near(m, delay(m, flag, 1 - self.machine.wires.ends))

    def _decode(self, m: Module) -> None:
        """What the pass is, decoded a cycle later, before the first neuron comes."""
        c, row, settings, lanes = self.machine, self.row, self.settings, self.lanes
        errs, ends = erring(row), c.wires.ends
        self.during = {kind: delay(m, row.op == kind, 1) for kind in self.DRAIN}
        self.erring, self.last = delay(m, errs, 1), delay(m, row.output, 1)
        kinds = (NeuronOp.INPUT, NeuronOp.NEURON, NeuronOp.OUTPUT_ERROR, NeuronOp.FINISH)
        near = {kind.name.lower(): self._decoded(m, row.op == kind) for kind in kinds} | {"erring": self._decoded(m, errs)}
        near["rate_theta"] = self._near(m, settings.rate_theta)
        near["alpha"], near["alpha_next"] = self._near(m, self.leakage.alpha), self._near(m, self.leakage.alpha_next)
        half, first = max(1, c.neuron_lanes // 2), delay(m, settings.first, ends)
        near["first"] = [first if q < half else delay(m, first, ends) for q in range(len(lanes))]  # handed on through the chip
        self.readout_first = near["first"][-1]
        for name in ("final", "earlier", "more"):
            near[name] = [delay(m, getattr(settings, name), ends)] * len(lanes)
        for q, lane in enumerate(lanes):
            m.d.comb += [
                *(getattr(lane, name).eq(values[q]) for name, values in near.items()),
                lane.program.eq(row),
                lane.last.eq(self.last),
                lane.learn.eq(settings.learn),
                lane.reciprocal.eq(self.leakage.reciprocal),
                lane.firing.eq(self.readout.firing),
            ]

    def _walk(self, m: Module) -> None:
        """Cycle 0 reads the memories at the walker's row, cycle 1 has the words."""
        walker, currents, label, lane_bits = self.walker, self.currents, self.settings.label, ceil_log2(self.machine.neuron_lanes)
        there, self.local = Signal(self.machine.neuron_lanes), Signal.like(walker.local)
        m.d.comb += [
            walker.start.eq(self.begins),
            walker.base.eq(self.row.row),
            walker.count.eq(self.row.count),
            walker.step.eq(1),
            walker.serial.eq((self.during[NeuronOp.NEURON] & self.last) | (self.erring & self.row.turned)),
        ]
        with m.If(self.during[NeuronOp.HIDDEN_ERROR]):  # as the errors come
            m.d.comb += walker.step.eq(self.arrivals.whole)
        with m.If(self.during[NeuronOp.NEURON]):  # as the currents come
            m.d.comb += walker.step.eq((self.row.layer != currents.layer) | (walker.local != currents.there))
        m.d.sync += [there.eq(Mux(walker.valid, walker.mask, 0)), self.local.eq(walker.local)]
        for q, lane in enumerate(self.lanes):
            of_label = (walker.local == label[lane_bits:]) & (label[:lane_bits] == q)
            m.d.sync += lane.at.eq(walker.row[q])
            m.d.comb += [
                lane.row.eq(walker.row[q]),
                lane.there.eq(there[q]),
                lane.local.eq(self.local),
                lane.of_label.eq(delay(m, of_label, 1)),
            ]

    def _drain(self, m: Module) -> None:
        """The pass is over when the pipelines are empty."""
        c, walker = self.machine, self.walker
        late = 2 * c.wires.ends + max(0, ceil_log2(c.neuron_lanes) - self.SPARE)
        quiet = Signal(range(max(self.DRAIN.values()) + ceil_log2(c.neuron_lanes) + 2 * c.wires.ends + 1))
        with m.If(walker.active), m.Switch(self.row.op):
            for kind, cycles in self.DRAIN.items():
                with m.Case(kind):
                    m.d.sync += quiet.eq(cycles + late)
        with m.Elif(quiet != 0):
            m.d.sync += quiet.eq(quiet - 1)
        m.d.comb += self.busy.eq(walker.active | (quiet != 0) | self.listing.busy)

    def _reserve(self, m: Module) -> None:
        """Claims the multipliers in the cycle before.

        The walker reads a word in cycle 0; the membranes multiply in cycle 1, Delta in cycle 3 and Gradient in cycle 7. None of
        them ever holds."""
        read = self.walker.valid
        of_delta = delay(m, read, 2)
        m.d.comb += self.reserve.eq(Mux(self.erring, of_delta | delay(m, of_delta, 4), read))

    def _lookups(self, m: Module) -> None:
        """Between passes the lanes of the weights read traces and values of the units that are listed."""
        c, walker, ends, lane_bits = self.machine, self.walker, self.machine.wires.ends, ceil_log2(self.machine.neuron_lanes)
        base, input_pass = Signal(index_shape(c)), self.during[NeuronOp.INPUT]
        m.d.sync += base.eq(self.sweep.unit_row)
        trace_row = delay(m, base + self.trace_unit[lane_bits:], ends)
        trace_lane, value_lane = (delay(m, unit[:lane_bits], 1 + ends) for unit in (self.trace_unit, self.spike_unit))
        value_row = delay(m, self.spike_unit[lane_bits:], ends)
        # FINISH walks, too, but needs no traces, and beside it the lanes may learn from them
        walking = walker.active & ~self.during[NeuronOp.FINISH]
        for q, lane in enumerate(self.lanes):
            m.d.comb += [
                lane.trace_row.eq(Mux(walking, walker.row[q], trace_row)),
                lane.event_row.eq(Mux(self.sweep.values & ~input_pass, value_row, walker.local)),
            ]
        m.d.comb += [
            self.trace.eq(Array(lane.trace for lane in self.lanes)[trace_lane]),
            self.value.eq(Array(lane.event for lane in self.lanes)[value_lane]),
        ]

    def _leak(self, m: Module) -> None:
        """Leakage factors learn from gradients that are summed over the lanes."""
        leakage, gradients = self.leakage, [lane.gradients for lane in self.lanes]
        total, levels = adder_tree(m, [Mux(g.valid, g.p.alpha_grad, 0).as_signed() for g in gradients])
        added = Signal(levels + 1)  # beside the tree
        m.d.comb += added[0].eq(Cat(g.valid for g in gradients).any())
        m.d.sync += added[1:].eq(added)
        m.d.comb += [
            leakage.layer.eq(self.row.layer),
            leakage.shift.eq(self.row.shift),
            leakage.rate.eq(self.settings.rate_alpha),
            leakage.alpha_min.eq(self.settings.alpha_min),
            leakage.update.eq(delay(m, self.start & (self.row.op == NeuronOp.LEAKAGE), self.machine.wires.ends)),
            leakage.add.eq(added[-1]),
            leakage.grad.eq(total),
            self.leaking.eq(leakage.busy),
        ]

    def _currents(self, m: Module) -> None:
        """Currents go to the memories of their neurons."""
        currents = self.currents
        connect(m, flipped(self.current), currents.current)
        connect(m, flipped(self.single_current), currents.single_current)
        m.d.comb += [currents.start.eq(self.current_start), currents.sweep.eq(self.sweep)]
        for q, lane in enumerate(self.lanes):
            m.d.comb += [
                lane.current_write.eq(currents.write[q]),
                lane.current_row.eq(currents.row[q]),
                lane.current.eq(currents.word[q]),
            ]

    def _readout(self, m: Module) -> None:
        """Of the last layer, one neuron at a time."""
        c, readout, last = self.machine, self.readout, self.row.output
        outs, new = [lane.units for lane in self.lanes], Signal(1 + c.u.bits)
        m.d.comb += new.eq(Cat(outs[0].p.s, outs[0].p.u))
        for other in outs[1:]:
            with m.If(other.valid):
                m.d.comb += new.eq(Cat(other.p.s, other.p.u))
        valid = Cat(out.valid for out in outs).any()
        m.d.comb += [
            readout.start.eq(self.begins & last & (self.row.op == NeuronOp.NEURON)),
            readout.first.eq(self.readout_first),
            readout.final.eq(delay(m, self.settings.final, c.wires.ends)),
            self.winner.eq(readout.winner),
        ]
        m.d.sync += [readout.valid.eq(valid & self.last), readout.s.eq(new[0]), readout.u.eq(new[1:].as_signed())]

    def _lists(self, m: Module) -> None:
        """Units that fired, or have a trace, are listed."""
        listing = self.listing
        forward = (self.row.op == NeuronOp.INPUT) | (self.row.op == NeuronOp.NEURON)
        for name in ("list_index", "list_enable"):
            m.d.comb += getattr(listing, name).eq(getattr(self, name))
        for name in ("spike_unit", "spike_count", "trace_unit", "trace_count"):
            m.d.comb += getattr(self, name).eq(getattr(listing, name))
        m.d.comb += [
            listing.begins.eq(self.begins),
            listing.forward.eq(forward),
            listing.program.eq(self.row),
            listing.sweep.eq(self.sweep),
        ]
        for unit, lane in zip(listing.units, self.lanes, strict=True):
            connect(m, lane.units, unit)

    def _errors(self, m: Module) -> None:
        """Errors go to their neurons."""
        arrivals = self.arrivals
        connect(m, flipped(self.error), arrivals.error)
        connect(m, flipped(self.error_words), arrivals.error_words)
        m.d.comb += [arrivals.begins.eq(self.begins), arrivals.mask.eq(self.walker.mask)]
        for lane, error in zip(self.lanes, arrivals.word, strict=True):
            m.d.comb += lane.error.eq(error)

    def _own(self, m: Module) -> None:
        """What the neurons send to their lanes: deltas, spikes and traces (a row that deals), or D of a held frame."""
        own, row, lanes, units = self.own, self.row, self.lanes, [lane.units for lane in self.lanes]
        frame_trace, of_frame = Signal(signed(self.machine.trace.bits)), Signal()
        with m.If(units[0].valid & units[0].p.unit & row.held):  # a frame's one input unit is in lane 0
            m.d.sync += frame_trace.eq(units[0].p.weight_trace)
        m.d.sync += of_frame.eq((row.op == NeuronOp.FINISH) & row.held)
        deltas, dealt, there = (Cat(valids) for valids in ((lane.deltas.valid for lane in lanes), (unit.valid for unit in units),
                                                          (lane.there for lane in lanes)))  # fmt: skip
        m.d.comb += [own.p.mask.eq(deltas), own.valid.eq(own.p.mask.any()), own.p.spike.eq(Cat(unit.p.s for unit in units))]
        with m.If(row.deals):
            m.d.comb += own.p.mask.eq(dealt)
        with m.If(of_frame):
            m.d.comb += own.p.mask.eq(there)
        for q, lane in enumerate(lanes):
            word = Mux(of_frame, lane.input_grad, Mux(row.deals, units[q].p.weight_trace, lane.deltas.p.delta))
            m.d.comb += [
                own.p.lane[q].eq(word),
                lane.frame_trace.eq(frame_trace),
                self.lane_sum[q].eq(lane.gradients.p.lane_sum),
            ]
