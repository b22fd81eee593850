"""All neurons: their memories, and the passes in which they stream through membrane, delta and gradient."""

from __future__ import annotations

from functools import reduce
from itertools import chain
from operator import or_

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.error.delta import Delta
from hw.error.deltas import erring
from hw.error.gradient import Gradient
from hw.error.leakage import Leakage
from hw.error.threshold import Threshold
from hw.fixed import saturate
from hw.machine import Machine
from hw.memory import Bank, HostBus, damaged, fan_out, far_buses, follow, found_in
from hw.memory_map import regions
from hw.numbers import NEURON_MULTIPLIERS, PIXEL_FRAC, bits_for, ceil_log2
from hw.pipeline import Multiplier, delay, spread
from hw.program import NeuronOp, lane_fields, neuron_fields
from hw.spike.lists import UnitList
from hw.spike.membrane import Membrane
from hw.spike.readout import Readout
from hw.streams import index_shape, mul_port, own_word, row_layout


def settings(c: Machine) -> wiring.Signature:
    """What holds for a whole time step."""
    return wiring.Signature(
        {
            "first": Out(1),  # step 0
            "final": Out(1),  # step T-1
            "label": Out(8),
            "learn": Out(3),
            "rate_theta": Out(4),
            "rate_alpha": Out(4),
        }
        | ({"alpha_min": Out(c.alpha_frac + 1)} if c.lazy else {})
        | ({"opens": Out(1), "full": Out(1)} if c.capacity.batch > 1 else {})  # the sample is the first, the last of its batch
    )


def turned_members(c: Machine) -> dict[str, wiring.Member]:
    """What neurons take of a layer banked by its inputs: currents one by one, errors in words of the neuron lanes."""
    words = data.ArrayLayout(signed(c.delta.bits), c.neuron_lanes)
    return {
        "single_current": In(stream.Signature(signed(c.u.bits), always_ready=True)),
        "error_words": In(stream.Signature(words, always_ready=True)),
    }


def borrowed(c: Machine) -> dict[str, wiring.Member]:
    """What neurons without multipliers of their own give: `mul` to multipliers of the lanes, the cycle after `reserve`."""
    return {"reserve": Out(1), "mul": Out(mul_port(c)).array(NEURON_MULTIPLIERS * c.neuron_lanes)}


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


class Neurons(wiring.Component):
    """A word of neurons, one in each of the M neuron lanes, streams in every cycle from the memories through a pipeline and back.

    `start` begins the pass that `row` of the neurons' program names; `row` holds until `busy` falls. `current` gives the
    currents of a layer's neurons in order, M at a time, after `current_start`. They fill a memory, from which a NEURON pass
    reads them as they come. `sweep` is the row of the lanes' program. Errors come in order on `error`. Deltas, or spikes and
    traces, leave in order on `own`. For lazy learning, sums leave on `lane_sum`, SUM_DELAY cycles behind their deltas. The
    lists are read at `list_index`; `trace` is the weight trace of the unit read there.

    With shared multipliers, `mul` are multipliers of the lanes; they belong to the neurons in the cycle after `reserve`.

    Timing:   a pass takes the layer's size over M, plus `DRAIN[kind]` cycles, two more where it is far (`Wires.ends`), and what
              log2 M exceeds SPARE by; for the last layer's NEURON its size, as the readout takes one at a time
    """

    DRAIN = {NeuronOp.INPUT: 5, NeuronOp.NEURON: 5, NeuronOp.OUTPUT_ERROR: 14, NeuronOp.HIDDEN_ERROR: 14, NeuronOp.FINISH: 4}
    SUM_DELAY = 4
    SPARE = 4  # of these 14, cycles that the adder tree of the leakage gradients may take

    def __init__(self, machine: Machine):
        self.machine, self.answer_moves = machine, 2 * machine.wires.ends
        unit_bits = bits_for(machine.capacity.fan_in)
        super().__init__(
            {
                "start": In(1),
                "row": In(row_layout(neuron_fields(machine))),
                "sweep": In(row_layout(lane_fields(machine))),
                "settings": In(settings(machine)),
                "busy": Out(1),
                "leaking": Out(1),  # a leakage factor learns
                "current_start": In(1),
                "current": In(stream.Signature(data.ArrayLayout(signed(machine.u.bits), machine.neuron_lanes), always_ready=True)),
                "error": In(stream.Signature(signed(machine.delta.bits), always_ready=True)),
                "own": Out(stream.Signature(own_word(machine), always_ready=True)),
                **({"lane_sum": Out(signed(machine.grad.bits)).array(machine.neuron_lanes)} if machine.lazy else {}),
                "list_index": In(unit_bits),
                "list_enable": In(1),
                "spike_unit": Out(unit_bits),
                "spike_count": Out(unit_bits + 1),
                "trace_unit": Out(unit_bits),
                "trace_count": Out(unit_bits + 1),
                "trace": Out(signed(machine.trace.bits)),  # of `trace_unit`, 1 + `Wires.ends` cycles later, between passes
                "winner": Out(8),
                "host": In(HostBus()),
            }
            # of `trace_unit` or `spike_unit`, an input, at the same time
            | ({"value": Out(PIXEL_FRAC)} if machine.capacity.values else {})
            | (turned_members(machine) if machine.both_ways else {})
            | damaged(machine)
            | (borrowed(machine) if machine.shared else {})
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c, region = self.machine, regions(self.machine)
        m.submodules.walker = self.walker = Walker(c)
        m.submodules.leakage = self.leakage = Leakage(c)
        m.submodules.readout = self.readout = Readout(c)
        m.submodules.spikes = self.spikes = UnitList(c)
        m.submodules.traces = self.traces = UnitList(c)
        self.lanes = range(c.neuron_lanes)
        kinds = (Membrane, Gradient, Threshold)
        self.membranes, self.gradients, self.thresholds = ([block(c) for _ in self.lanes] for block in kinds)
        self.deltas = [Delta(c, host_reads=q == 0) for q in self.lanes]
        blocks_of = dict(membrane=self.membranes, delta=self.deltas, gradient=self.gradients, threshold=self.thresholds)
        for name, blocks in blocks_of.items():
            for q, block in enumerate(blocks):
                m.submodules[name if c.neuron_lanes == 1 else f"{name}_{q}"] = block
        names = ("membrane", "theta", "theta_trace", "alpha_trace", "weight_trace",
                 "current", "theta_grad", "input_grad", "event", "delta_sum")  # fmt: skip
        present = [name for name in names if name in region]
        self.banks = [{name: Bank(region[name], lane=q if c.neuron_lanes > 1 else None) for name in present} for q in self.lanes]
        hosts = self._hosts(m)
        if c.capacity.step:  # a second copy of the thresholds: they are read twice in the same pass
            for host, banks in zip(hosts, self.banks, strict=True):
                banks["theta_copy"] = Bank(banks["theta"].region, lane=banks["theta"].lane, host_reads=False)
                m.d.comb += follow(banks["theta_copy"].host, host)
        for host, copy in zip(hosts[1:], self.deltas[1:], strict=True):
            m.d.comb += follow(copy.host, host)
        for q, banks in enumerate(self.banks):
            for name, bank in banks.items():
                m.submodules[f"bank_{name}_{q}"] = bank
        if c.parity:
            m.d.comb += self.damaged.eq(found_in([*chain(*(banks.values() for banks in self.banks)), *self.deltas, self.readout]))
        self._decode(m)
        self.begins = Signal()
        m.d.comb += self.begins.eq(self.start & (self.row.op != NeuronOp.LEAKAGE))
        self._walk(m)
        if c.shared:
            self._reserve(m)
        for q in self.lanes:
            self._multipliers(m, q)
            self._forward(m, q)
            self._error(m, q)
            self._threshold(m, q)
        self._readout(m)
        self._lists(m)
        self._errors(m)
        self._currents(m)
        return m

    def _decode(self, m: Module) -> None:
        """What the pass is, decoded a cycle later, before the first neuron comes."""
        ends = self.machine.wires.ends
        self.during = {kind: Signal(name=f"during_{n}") for n, kind in enumerate(self.DRAIN)}
        self.erring, self.last = Signal(), Signal()
        m.d.sync += [flag.eq(self.row.op == kind) for kind, flag in self.during.items()]
        errs = erring(self.row)
        m.d.sync += [self.erring.eq(errs), self.last.eq(self.row.output)]
        # for every neuron lane; where they lie far apart from registers of its own
        self.erring_in = [self.erring for _ in self.lanes]
        self.during_in = {kind: [flag for _ in self.lanes] for kind, flag in self.during.items()}
        if ends:
            self.erring_in = self._near(m, errs)
            self.during_in = {kind: self._near(m, self.row.op == kind) for kind in self.DRAIN}
        self.rate_theta, self.alpha = self._near(m, self.settings.rate_theta), self._near(m, self.leakage.alpha)
        self.alpha_next = self._near(m, self.leakage.alpha_next)
        half, near = max(1, self.machine.neuron_lanes // 2), delay(m, self.settings.first, ends)
        self.first = [near if q < half else delay(m, near, ends) for q in self.lanes]  # handed on through the chip

    def _near(self, m: Module, value: Value) -> list:
        """`value` for every neuron lane, a cycle later from registers of its own where they lie far apart."""
        return spread(m, value, self.machine.wires.ends, self.machine.neuron_lanes, near=1)

    def _hosts(self, m: Module) -> list:
        """The host's bus for every neuron lane. What has no lane belongs to the first."""
        others = [self.deltas[0], self.leakage, self.readout]
        if not self.machine.wires.ends:
            fan_out(m, self.host, [*chain(*(banks.values() for banks in self.banks)), *others])
            return [self.host for _ in self.lanes]
        hosts = far_buses(m, self.host, 1, self.machine.neuron_lanes, near=1)
        for q, (host, banks) in enumerate(zip(hosts, self.banks, strict=True)):
            fan_out(m, host, [*banks.values(), *(others if q == 0 else [])])
        m.d.comb += self.host.data_r.eq(reduce(or_, (delay(m, host.data_r, 1) for host in hosts)))
        return hosts

    def _multipliers(self, m: Module, q: int) -> None:
        """Four multipliers of a neuron lane, its own or lent by the lanes.

        The membranes use them forward, delta and gradient backward."""
        backward = [self.deltas[q].mul[0], *self.gradients[q].mul]
        for k, (forward, error) in enumerate(zip(self.membranes[q].mul, backward, strict=True)):
            if self.machine.shared:
                port = self.mul[NEURON_MULTIPLIERS * q + k]
            else:
                mul = Multiplier(*(len(getattr(forward, operand)) for operand in "ab"))
                m.submodules[f"mul_{q}_{k}"] = mul
                port = mul.port
            m.d.comb += [
                port.en.eq(1),
                port.a.eq(Mux(self.erring_in[q], error.a, forward.a)),
                port.b.eq(Mux(self.erring_in[q], error.b, forward.b)),
                port.c.eq(Mux(self.erring_in[q], error.c, forward.c)),
                forward.p.eq(port.p),
                error.p.eq(port.p),
            ]

    def _reserve(self, m: Module) -> None:
        """Claims the multipliers of the lanes, which take no row in the cycle before.

        The walker reads a word in cycle 0; the membranes multiply in cycle 1, Delta in cycle 3 and Gradient in cycle 7. None of
        them ever holds."""
        read = self.walker.valid
        of_delta = delay(m, read, 2)
        m.d.comb += self.reserve.eq(Mux(self.erring, of_delta | delay(m, of_delta, 4), read))

    def _walk(self, m: Module) -> None:
        """Cycle 0 reads the memories at the walker's row, cycle 1 (`there`, a bit a lane) has the words."""
        c, walker = self.machine, self.walker
        quiet = Signal(range(max(self.DRAIN.values()) + ceil_log2(c.neuron_lanes) + 2 * c.wires.ends + 1))
        self.there, self.local = Signal(c.neuron_lanes), Signal.like(walker.local)
        self.at = [Signal.like(walker.row[q], name=f"at_{q}") for q in self.lanes]
        self.currents, self.current_of = Signal(len(self.sweep.words)), Signal.like(self.sweep.layer)
        self.error_word = Signal()
        m.d.comb += [
            walker.start.eq(self.begins),
            walker.base.eq(self.row.row),
            walker.count.eq(self.row.count),
            walker.step.eq(1),
            walker.serial.eq((self.during[NeuronOp.NEURON] & self.last) | (self.erring & self.row.turned if c.both_ways else 0)),
            self.leakage.layer.eq(self.row.layer),
            self.leakage.shift.eq(self.row.shift),
            self.leakage.rate.eq(self.settings.rate_alpha),
            *([self.leakage.alpha_min.eq(self.settings.alpha_min)] if c.lazy else []),
            self.leakage.update.eq(delay(m, self.start & (self.row.op == NeuronOp.LEAKAGE), c.wires.ends)),
            self.leaking.eq(self.leakage.busy),
            self.busy.eq(walker.active | (quiet != 0) | self.spikes.busy | self.traces.busy),
        ]
        with m.If(self.during[NeuronOp.HIDDEN_ERROR]):  # as the errors come
            m.d.comb += walker.step.eq(self.error_word)
        with m.If(self.during[NeuronOp.NEURON]):  # as the currents come
            m.d.comb += walker.step.eq((self.row.layer != self.current_of) | (walker.local != self.currents))
        m.d.sync += [self.there.eq(Mux(walker.valid, walker.mask, 0)), self.local.eq(walker.local)]
        m.d.sync += [self.at[q].eq(walker.row[q]) for q in self.lanes]
        with m.If(walker.active), m.Switch(self.row.op):
            for kind, cycles in self.DRAIN.items():
                with m.Case(kind):
                    m.d.sync += quiet.eq(cycles + 2 * c.wires.ends + max(0, ceil_log2(c.neuron_lanes) - self.SPARE))
        with m.Elif(quiet != 0):
            m.d.sync += quiet.eq(quiet - 1)
        lane_bits = ceil_log2(c.neuron_lanes)
        base, around = Signal(index_shape(c)), c.wires.ends
        m.d.sync += base.eq(self.sweep.unit_row)
        trace_row = delay(m, base + self.trace_unit[lane_bits:], around)
        trace_lane = delay(m, self.trace_unit[:lane_bits], 1 + around)
        m.d.comb += self.trace.eq(Array(banks["weight_trace"].read_data for banks in self.banks)[trace_lane])
        if c.capacity.values:
            spike_lane = delay(m, self.spike_unit[:lane_bits], 1 + around)
            m.d.comb += self.value.eq(Array(banks["event"].read_data for banks in self.banks)[spike_lane])
        for q, banks in enumerate(self.banks):
            m.d.comb += [banks[name].read_address.eq(walker.row[q]) for name in ("membrane", "theta", "current")]
            # FINISH walks, too, but beside it the lanes learn from the traces
            walking = walker.active & ~self.during[NeuronOp.FINISH] if c.lazy else walker.active
            m.d.comb += banks["weight_trace"].read_address.eq(Mux(walking, walker.row[q], trace_row))
            if c.events:
                listed = delay(m, self.spike_unit[lane_bits:], around)
                address = Mux(self.during[NeuronOp.INPUT], walker.local, listed) if c.capacity.values else walker.local
                m.d.comb += [
                    banks["event"].read_address.eq(address),
                    banks["event"].write_address.eq(self.local),
                    banks["event"].write.eq(self.there[q] & self.during_in[NeuronOp.INPUT][q] & ~self.row.held & ~self.row.values),
                ]

    def _forward(self, m: Module, q: int) -> None:
        """INPUT and NEURON: cycle 1 enters the membrane, cycle 4 (where it is far 5) leaves it and is written."""
        c, banks, membrane = self.machine, self.banks[q], self.membranes[q]
        old, new = membrane.i.p, membrane.o.p
        held = banks["membrane"].read_data
        m.d.comb += [
            membrane.i.valid.eq(self.there[q] & (self.during_in[NeuronOp.INPUT][q] | self.during_in[NeuronOp.NEURON][q])),
            membrane.o.ready.eq(1),
            old.index.eq(self.at[q]),
            old.first.eq(self.first[q]),
            old.unit.eq(self.during_in[NeuronOp.INPUT][q]),
            # a held frame has one input unit, which always fires
            old.event.eq(self.row.held | (banks["event"].read_data != 0) if c.events else 1),
            *([old.value.eq(Mux(self.row.values, banks["event"].read_data, 1 << PIXEL_FRAC))] if c.capacity.values else []),
            old.u.eq(held[: c.u.bits]),
            old.s.eq(held[c.u.bits]),
            old.theta.eq(banks["theta"].read_data),
            old.theta_trace.eq(banks["theta_trace"].read_data),
            old.alpha_trace.eq(banks["alpha_trace"].read_data),
            old.weight_trace.eq(banks["weight_trace"].read_data),
            old.current.eq(banks["current"].read_data),
            old.alpha.eq(self.alpha[q]),
            old.alpha_next.eq(self.alpha_next[q]),
        ]
        for name, word in (
            ("membrane", new.u.as_unsigned() | (new.s << c.u.bits)),
            ("theta_trace", new.theta_trace),
            ("alpha_trace", new.alpha_trace),
            ("weight_trace", new.weight_trace),
        ):
            m.d.comb += [
                banks[name].write.eq(membrane.o.valid & (~self.last if name == "weight_trace" else ~new.unit)),
                banks[name].write_address.eq(new.index),
                banks[name].write_data.eq(word),
            ]

    def _readout(self, m: Module) -> None:
        """Of the last layer, one neuron at a time."""
        c, readout, last = self.machine, self.readout, self.row.output
        outs, new = [membrane.o for membrane in self.membranes], Signal(1 + c.u.bits)
        m.d.comb += new.eq(Cat(outs[0].p.s, outs[0].p.u))
        for other in outs[1:]:
            with m.If(other.valid):
                m.d.comb += new.eq(Cat(other.p.s, other.p.u))
        valid = Cat(out.valid for out in outs).any()
        m.d.comb += [
            readout.start.eq(self.begins & last & (self.row.op == NeuronOp.NEURON)),
            readout.first.eq(self.first[-1]),
            readout.final.eq(delay(m, self.settings.final, c.wires.ends)),
            self.winner.eq(readout.winner),
        ]
        m.d.sync += [readout.valid.eq(valid & self.last), readout.s.eq(new[0]), readout.u.eq(new[1:].as_signed())]

    def _lists(self, m: Module) -> None:
        """A unit that fired is listed for the next layer's currents, one with a trace for the update of its weights."""
        c = self.machine
        forward = (self.row.op == NeuronOp.INPUT) | (self.row.op == NeuronOp.NEURON)
        local, presynaptic = Signal.like(self.local), self.row.listed
        with m.If(self.begins):
            m.d.sync += local.eq(0)
        with m.Elif(self.membranes[0].o.valid):
            m.d.sync += local.eq(local + 1)
        # a cycle after the neuron is written, or more, since spike, trace and comparison with 0 are a long way
        around, row = c.wires.ends, delay(m, local, c.wires.ends)
        there = [delay(m, membrane.o.valid & presynaptic, around) for membrane in self.membranes]
        fired = [delay(m, membrane.o.p.s, around) for membrane in self.membranes]
        traced = [delay(m, membrane.o.p.weight_trace, around) != 0 for membrane in self.membranes]
        for units, listed in ((self.spikes, fired), (self.traces, traced)):
            m.d.sync += [units.push.eq(Cat(of_unit & yes for of_unit, yes in zip(there, listed, strict=True))), units.row.eq(row)]
            m.d.comb += [
                units.start.eq(self.begins & forward & presynaptic),
                units.list.eq(self.row.list),
                units.base.eq(self.row.list_base),
                units.read_list.eq(self.sweep.list),
                units.read_base.eq(self.sweep.list_base),
                units.read_index.eq(self.list_index),
                units.read_enable.eq(self.list_enable),
            ]
        m.d.comb += [
            self.spike_unit.eq(self.spikes.read_data),
            self.spike_count.eq(self.spikes.length),
            self.trace_unit.eq(self.traces.read_data),
            self.trace_count.eq(self.traces.length),
        ]

    def _errors(self, m: Module) -> None:
        """Errors come one by one until they fill a word (`error_word`); gradients of leakage factors are summed over the lanes."""
        c, walker = self.machine, self.walker
        slot = Signal(range(max(c.neuron_lanes, 2)))
        more = Cat(Const(0), *((slot == q) & walker.mask[q + 1] for q in self.lanes[:-1])).any()
        m.d.comb += self.error_word.eq(self.error.valid & ~more)
        if c.both_ways:
            m.d.comb += self.error_word.eq((self.error.valid & ~more) | self.error_words.valid)
        with m.If(self.begins | self.error_word):
            m.d.sync += slot.eq(0)
        with m.Elif(self.error.valid):
            m.d.sync += slot.eq(slot + 1)
        for q, block in enumerate(self.deltas):
            error = Signal.like(self.error.payload, name=f"error_{q}")
            m.d.comb += block.i.p.error.eq(error)
            with m.If(self.error.valid & (slot == q)):
                m.d.sync += error.eq(self.error.payload)
            if c.both_ways:
                with m.If(self.error_words.valid):
                    m.d.sync += error.eq(self.error_words.payload[q])

        add = Cat(g.o.valid for g in self.gradients).any()
        grads = [Mux(g.o.valid, g.o.p.alpha_grad, 0).as_signed() for g in self.gradients]
        while len(grads) > 1:  # an adder tree, its levels registered
            summed, added = [Signal((a + b).shape()) for a, b in zip(grads[::2], grads[1::2], strict=True)], Signal()
            m.d.sync += [added.eq(add), *(total.eq(a + b) for total, a, b in zip(summed, grads[::2], grads[1::2], strict=True))]
            add, grads = added, summed
        m.d.comb += [
            self.leakage.add.eq(add),
            self.leakage.grad.eq(grads[0]),
            self.own.valid.eq(Cat(d.o.valid for d in self.deltas).any()),
            self.own.p.mask.eq(Cat(d.o.valid for d in self.deltas)),
            *(self.own.p.lane[q].eq(self.deltas[q].o.p.delta) for q in self.lanes),
        ]
        if c.both_ways:
            self._deal(m)
        if c.holds_frames:
            frame_trace, unit = Signal(signed(c.trace.bits)), self.membranes[0].o  # its one input unit is in lane 0
            with m.If(unit.valid & unit.p.unit):
                m.d.sync += frame_trace.eq(unit.p.weight_trace)
            m.d.comb += [gradient.i.p.frame_trace.eq(frame_trace) for gradient in self.gradients]
            of_frame = Signal()
            m.d.sync += of_frame.eq((self.row.op == NeuronOp.FINISH) & self.row.held)
            with m.If(of_frame):
                m.d.comb += [self.own.valid.eq(self.there.any()), self.own.p.mask.eq(self.there)]
                m.d.comb += [self.own.p.lane[q].eq(banks["input_grad"].read_data) for q, banks in enumerate(self.banks)]

    def _deal(self, m: Module) -> None:
        """Spikes and traces of the neurons before a layer that is banked by its inputs."""
        valids = Cat(membrane.o.valid for membrane in self.membranes)
        with m.If(self.row.deals):
            m.d.comb += [self.own.valid.eq(valids.any()), self.own.p.mask.eq(valids)]
            for q, membrane in enumerate(self.membranes):
                m.d.comb += [self.own.p.lane[q].eq(membrane.o.p.weight_trace), self.own.p.spike[q].eq(membrane.o.p.s)]

    def _error(self, m: Module, q: int) -> None:
        """Cycle 1 enters delta, cycle 6 leaves it and reads the traces, cycle 7 enters gradient, cycle 10 leaves it."""
        c, banks, lane_bits = self.machine, self.banks[q], ceil_log2(self.machine.neuron_lanes)
        entering, delta, gradient = self.deltas[q].i.p, self.deltas[q].o, self.gradients[q]
        held, label = banks["membrane"].read_data, self.settings.label
        of_label = (self.local == label[lane_bits:]) & (label[:lane_bits] == q)
        if c.wires.ends:  # the same, compared a cycle earlier
            of_label = delay(m, (self.walker.local == label[lane_bits:]) & (label[:lane_bits] == q), 1)
        for name in ("theta_trace", "alpha_trace"):
            m.d.comb += banks[name].read_address.eq(Mux(self.erring_in[q], delta.p.index, self.walker.row[q]))
        m.d.comb += [
            self.deltas[q].i.valid.eq(self.there[q] & self.erring_in[q]),
            entering.index.eq(self.at[q]),
            entering.output.eq(self.during_in[NeuronOp.OUTPUT_ERROR][q]),
            entering.label.eq(of_label),
            entering.firing.eq(self.readout.firing),
            entering.u.eq(held[: c.u.bits]),
            entering.s.eq(held[c.u.bits]),
            entering.theta.eq(banks["theta"].read_data),
            delta.ready.eq(1),
            gradient.o.ready.eq(1),
        ]
        value, index, valid = Signal.like(delta.p.delta), Signal.like(delta.p.index), Signal()
        m.d.sync += [value.eq(delta.p.delta), index.eq(delta.p.index), valid.eq(delta.valid)]
        m.d.comb += [
            gradient.i.valid.eq(valid),
            gradient.i.p.index.eq(index),
            gradient.i.p.first.eq(self.first[q]),
            gradient.i.p.learn_t.eq(self.settings.learn[1]),
            gradient.i.p.learn_l.eq(self.settings.learn[2]),
            gradient.i.p.delta.eq(value),
            gradient.i.p.theta_trace.eq(banks["theta_trace"].read_data),
            gradient.i.p.alpha_trace.eq(banks["alpha_trace"].read_data),
        ]
        if c.lazy:
            bank = banks["delta_sum"]
            m.d.comb += [
                gradient.i.p.final.eq(delay(m, self.settings.final, c.wires.ends)),
                gradient.i.p.reciprocal.eq(self.leakage.reciprocal),
                gradient.i.p.delta_sum.eq(bank.read_data),
                bank.read_address.eq(delta.p.index),
                bank.write.eq(gradient.o.valid),
                bank.write_address.eq(gradient.o.p.index),
                bank.write_data.eq(gradient.o.p.delta_sum),
                self.lane_sum[q].eq(gradient.o.p.lane_sum),
            ]
        if c.holds_frames:
            bank = banks["input_grad"]
            m.d.comb += [
                bank.read_address.eq(Mux(self.erring_in[q], delta.p.index, self.walker.row[q])),
                gradient.i.p.input_grad.eq(bank.read_data),
                bank.write.eq(gradient.o.valid & self.row.held),
                bank.write_address.eq(gradient.o.p.index),
                bank.write_data.eq(gradient.o.p.input_grad),
            ]

    def _threshold(self, m: Module, q: int) -> None:
        """Cadence sample: gradients gather in a memory, FINISH applies them. Cadence step: applied as they come."""
        c, banks, learning, gather = self.machine, self.banks[q], self.settings.learn[1], self.row.gather
        entering, moved, theta = self.thresholds[q].i, self.thresholds[q].o, banks["theta"].read_data
        gradient, fresh, full = self.gradients[q].o, self.first[q], Const(1)
        if c.capacity.batch > 1:
            fresh, full = fresh & delay(m, self.settings.opens, c.wires.ends), delay(m, self.settings.full, c.wires.ends)
        index, grad, valid = Signal.like(gradient.p.index), Signal.like(gradient.p.theta_grad), Signal()
        m.d.sync += [index.eq(gradient.p.index), grad.eq(gradient.p.theta_grad), valid.eq(gradient.valid)]
        m.d.comb += [entering.p.rate.eq(self.rate_theta[q]), moved.ready.eq(1)]
        if c.gathers:
            bank = banks["theta_grad"]
            m.d.comb += [
                bank.read_address.eq(Mux(self.erring_in[q], gradient.p.index, self.walker.row[q])),
                bank.write.eq(valid & gather),
                bank.write_address.eq(index),
                bank.write_data.eq(saturate(Mux(fresh, 0, bank.read_data.as_signed()).as_signed() + grad, c.grad)),
                entering.valid.eq(self.there[q] & self.during_in[NeuronOp.FINISH][q] & learning & gather & full),
                entering.p.index.eq(self.at[q]),
                entering.p.grad.eq(bank.read_data),
                entering.p.theta.eq(theta),
            ]
        if c.capacity.step:
            at_once = [
                entering.valid.eq(valid & learning),
                entering.p.index.eq(index),
                entering.p.grad.eq(grad),
                entering.p.theta.eq(banks["theta_copy"].read_data),
            ]
            m.d.comb += banks["theta_copy"].read_address.eq(gradient.p.index)
            with m.If(~gather):
                m.d.comb += at_once
        for name in ("theta", *(["theta_copy"] if c.capacity.step else [])):
            m.d.comb += [
                banks[name].write.eq(moved.valid),
                banks[name].write_address.eq(moved.p.index),
                banks[name].write_data.eq(moved.p.theta),
            ]

    def _currents(self, m: Module) -> None:
        """The first `self.currents` words of currents of layer `self.current_of` have been written."""
        c = self.machine
        left = Signal(max(len(self.sweep.words), len(self.sweep.groups)))
        words, single, slot = Signal(), Signal(), Signal(range(max(c.neuron_lanes, 2)))
        word, whole, count = [self.current.payload[q] for q in self.lanes], Signal(init=1), self.sweep.words
        m.d.comb += words.eq(self.current.valid & (left != 0))  # lanes without a neuron come last and are dropped
        if c.both_ways:  # one by one, of a layer banked by its inputs, whose groups are neurons
            m.d.comb += single.eq(self.single_current.valid)
            with m.If(single):
                m.d.comb += whole.eq((slot == c.neuron_lanes - 1) | (left == 1))
            count = Mux(self.sweep.turned, self.sweep.groups, self.sweep.words)
            word = [Mux(single, self.single_current.payload, of_lane) for of_lane in word]
        taken = words | single
        with m.If(self.current_start):
            m.d.sync += [left.eq(count), self.current_of.eq(self.sweep.layer), self.currents.eq(0), slot.eq(0)]
        with m.Elif(taken):
            m.d.sync += [left.eq(left - 1), self.currents.eq(self.currents + whole), slot.eq(Mux(whole, 0, slot + 1))]
        for q, banks in enumerate(self.banks):
            bank, at = banks["current"], Signal(index_shape(c), name=f"at_{q}")
            with m.If(self.current_start):
                m.d.sync += at.eq(self.sweep.neuron_row)
            with m.Elif(taken):
                m.d.sync += at.eq(at + whole)
            m.d.comb += [bank.write.eq(words | (single & (slot == q))), bank.write_address.eq(at), bank.write_data.eq(word[q])]
