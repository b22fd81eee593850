"""All neurons: their memories, and the passes in which they stream through membrane, delta and gradient."""

from __future__ import annotations

from functools import reduce
from itertools import chain
from operator import or_

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import NEURON_MULTIPLIERS, Config, ceil_log2
from hw.error.delta import Delta
from hw.error.gradient import Gradient
from hw.error.leakage import Leakage
from hw.error.threshold import Threshold
from hw.fixed import saturate
from hw.memory import Bank, HostBus, damaged, fan_out, far_buses, follow, found_in
from hw.memory_map import regions
from hw.pipeline import Multiplier, delay, spread
from hw.spike.lists import UnitList
from hw.spike.membrane import Membrane
from hw.spike.readout import Readout
from hw.streams import bits_for, index_shape, mul_port, neuron_word


class Pass(enum.Enum, shape=3):
    """What a pass does with the neurons of a layer."""

    INPUT = 0  # layer 0: the weight traces of the input units
    NEURON = 1  # one time step
    OUTPUT_ERROR = 2  # the last layer: error from the table, delta, gradients
    HIDDEN_ERROR = 3  # the same with the errors that come in on `error`
    FINISH = 4  # after the sample: thresholds (cadence sample), D to the lanes (static layer 1)


def settings(c: Config) -> wiring.Signature:
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
    )


class Walker(wiring.Component):
    """Counts a layer's neurons from `start`, a word of all neuron lanes in every cycle with `step`.

    `mask` has those lanes that hold a neuron. `serial` takes the lanes of a word one after the other.
    """

    def __init__(self, config: Config):
        self.config = config
        self.layer_bits = bits_for(config.n_layers + 1)
        super().__init__(
            {
                "start": In(1),
                "layer": In(self.layer_bits),
                "step": In(1),
                "serial": In(1),
                "valid": Out(1),
                "mask": Out(config.neuron_lanes),
                "row": Out(index_shape(config)).array(config.neuron_lanes),  # the same in all, each from a register near its lane
                "local": Out(bits_for(config.neuron_words(max(config.sizes)))),  # row in the layer
                "active": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c, lanes = self.config, self.config.neuron_lanes
        bases = Array([c.unit_row[0], *(c.neuron_row[l] for l in c.layers)])
        sizes = Array([c.input_units, *c.sizes[1:]])
        left, local, lane = Signal(range(max(c.sizes) + 1)), Signal.like(self.local), Signal(lanes, init=1)  # `left`: neurons to come
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
            m.d.comb += following.eq(sizes[self.layer])
            m.d.sync += [local.eq(0), lane.eq(1), *(row.eq(bases[self.layer]) for row in rows)]
        with m.Elif(self.valid):
            m.d.sync += [local.eq(local + next_word), lane.eq(lane.rotate_left(1)), *(row.eq(row + next_word) for row in rows)]
        with m.If(self.start | self.valid):
            m.d.sync += [left.eq(following), active.eq(following != 0), mask.eq(Cat(following > k for k in range(lanes)))]
        return m


class Neurons(wiring.Component):
    """A word of neurons, one in each of the M neuron lanes, streams in every cycle from the memories through a pipeline and back.

    `start` begins the pass `kind` over `layer`, both held until `busy` falls. `current` (values of a layer's neurons in order, M at
    a time, after `current_start`) fills the memory that a NEURON pass reads, as they come. Errors come in order on `error`. Deltas
    leave on `delta` in order; for lazy learning sums on `lane_sum`, SUM_DELAY cycles behind their deltas. The lists are read by `list_layer` and `list_index`; `trace` is the weight trace of the unit read there.

    With shared multipliers, `mul` are of the lanes: the neurons' in the cycle after `reserve`.

    Timing:   a pass takes the layer's size over M, plus `DRAIN[kind]` cycles, two more where it is far (`Config.weight_registers`), and what
              log2 M exceeds SPARE by; for the last layer's NEURON its size, as the readout takes one at a time
    """

    DRAIN = {Pass.INPUT: 5, Pass.NEURON: 5, Pass.OUTPUT_ERROR: 14, Pass.HIDDEN_ERROR: 14, Pass.FINISH: 4}
    SUM_DELAY = 4
    SPARE = 4  # of these 14, cycles that the adder tree of the leakage gradients may take

    def __init__(self, config: Config):
        self.config, self.answer_moves = config, 2 * config.weight_registers
        layer_bits = bits_for(config.n_layers + 1)
        unit_bits = bits_for(max(config.sizes[:-1]))
        super().__init__(
            {
                "start": In(1),
                "kind": In(Pass),
                "layer": In(layer_bits),
                "settings": In(settings(config)),
                "busy": Out(1),
                "update_alpha": In(1),  # of `layer`, when no pass is under way
                "current_start": In(1),
                "current_layer": In(layer_bits),
                "current": In(stream.Signature(data.ArrayLayout(signed(config.u.bits), config.neuron_lanes), always_ready=True)),
                "error": In(stream.Signature(signed(config.delta.bits), always_ready=True)),
                "delta": Out(stream.Signature(neuron_word(config, config.delta.bits), always_ready=True)),
                **({"lane_sum": Out(signed(config.grad.bits)).array(config.neuron_lanes)} if config.lazy else {}),
                "list_layer": In(bits_for(config.n_layers)),
                "list_index": In(unit_bits),
                "list_enable": In(1),
                "spike_unit": Out(unit_bits),
                "spike_count": Out(unit_bits + 1),
                "trace_unit": Out(unit_bits),
                "trace_count": Out(unit_bits + 1),
                "trace": Out(signed(config.trace.bits)),  # of `trace_unit`, 1 + weight_registers cycles later, while no pass is under way
                "winner": Out(8),
                "host": In(HostBus()),
            }
            | damaged(config)
            | ({"reserve": Out(1), "mul": Out(mul_port(config)).array(NEURON_MULTIPLIERS * config.neuron_lanes)} if config.shared else {})
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c, region = self.config, regions(self.config)
        m.submodules.walker = self.walker = Walker(c)
        m.submodules.leakage = self.leakage = Leakage(c)
        m.submodules.readout = self.readout = Readout(c)
        m.submodules.spikes = self.spikes = UnitList(c)
        m.submodules.traces = self.traces = UnitList(c)
        self.lanes = range(c.neuron_lanes)
        self.membranes, self.gradients, self.thresholds = ([block(c) for _ in self.lanes] for block in (Membrane, Gradient, Threshold))
        self.deltas = [Delta(c, host_reads=q == 0) for q in self.lanes]
        blocks_of = dict(membrane=self.membranes, delta=self.deltas, gradient=self.gradients, threshold=self.thresholds)
        for name, blocks in blocks_of.items():
            for q, block in enumerate(blocks):
                m.submodules[name if c.neuron_lanes == 1 else f"{name}_{q}"] = block
        names = ["membrane", "theta", "theta_trace", "alpha_trace", "weight_trace", "current", "theta_grad", "input_grad", "event", "delta_sum"]
        self.banks = [{name: Bank(region[name], lane=q if c.neuron_lanes > 1 else None) for name in names if name in region} for q in self.lanes]
        hosts = self._hosts(m)
        if c.cadence == "step":  # a second copy of the thresholds: they are read twice in the same pass
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

        # decoded a cycle later, before the first neuron comes
        self.during = {kind: Signal(name=f"during_{n}") for n, kind in enumerate(self.DRAIN)}
        self.erring, self.last = Signal(), Signal()
        m.d.sync += [flag.eq(self.kind == kind) for kind, flag in self.during.items()]
        m.d.sync += [self.erring.eq((self.kind == Pass.OUTPUT_ERROR) | (self.kind == Pass.HIDDEN_ERROR)), self.last.eq(self.layer == c.n_layers)]
        # for every neuron lane; where they lie far apart from registers of its own
        self.erring_in, self.during_in = [self.erring for _ in self.lanes], {kind: [flag for _ in self.lanes] for kind, flag in self.during.items()}
        if c.weight_registers:
            errs = (self.kind == Pass.OUTPUT_ERROR) | (self.kind == Pass.HIDDEN_ERROR)
            self.erring_in, self.during_in = self._near(m, errs), {kind: self._near(m, self.kind == kind) for kind in self.DRAIN}
        self.rate_theta, self.alpha = self._near(m, self.settings.rate_theta), self._near(m, self.leakage.alpha)
        self.alpha_next = self._near(m, self.leakage.alpha_next)
        half, near = max(1, c.neuron_lanes // 2), delay(m, self.settings.first, c.weight_registers)
        self.first = [near if q < half else delay(m, near, c.weight_registers) for q in self.lanes]  # handed on through the chip
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

    def _near(self, m: Module, value: Value) -> list:
        """`value` for every neuron lane, a cycle later from registers of its own where they lie far apart."""
        return spread(m, value, self.config.weight_registers, self.config.neuron_lanes, near=1)

    def _hosts(self, m: Module) -> list:
        """The host's bus for every neuron lane. What has no lane belongs to the first."""
        others = [self.deltas[0], self.leakage, self.readout]
        if not self.config.weight_registers:
            fan_out(m, self.host, [*chain(*(banks.values() for banks in self.banks)), *others])
            return [self.host for _ in self.lanes]
        hosts = far_buses(m, self.host, 1, self.config.neuron_lanes, near=1)
        for q, (host, banks) in enumerate(zip(hosts, self.banks, strict=True)):
            fan_out(m, host, [*banks.values(), *(others if q == 0 else [])])
        m.d.comb += self.host.data_r.eq(reduce(or_, (delay(m, host.data_r, 1) for host in hosts)))
        return hosts

    def _multipliers(self, m: Module, q: int) -> None:
        """Four multipliers, which the membranes use forward, delta and gradient backward: a neuron lane's own, or those of lanes."""
        backward = [self.deltas[q].mul[0], *self.gradients[q].mul]
        for k, (forward, error) in enumerate(zip(self.membranes[q].mul, backward, strict=True)):
            if self.config.shared:
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
        """Of a word that the walker reads in cycle 0 the membranes multiply in cycle 1, Delta in cycle 3 and Gradient in cycle 7: none of them ever
        holds. In the cycle before, the lanes take no row."""
        read = self.walker.valid
        of_delta = delay(m, read, 2)
        m.d.comb += self.reserve.eq(Mux(self.erring, of_delta | delay(m, of_delta, 4), read))

    def _walk(self, m: Module) -> None:
        """Cycle 0 reads the memories at the walker's row, cycle 1 (`there`, a bit a lane) has the words."""
        c, walker = self.config, self.walker
        quiet = Signal(range(max(self.DRAIN.values()) + ceil_log2(c.neuron_lanes) + 2 * c.weight_registers + 1))
        self.there, self.local = Signal(c.neuron_lanes), Signal.like(walker.local)
        self.row = [Signal.like(walker.row[q], name=f"row_{q}") for q in self.lanes]
        self.currents, self.current_of = Signal(range(c.neuron_words(max(c.sizes)) + 1)), Signal.like(self.current_layer)
        self.error_word = Signal()
        m.d.comb += [
            walker.start.eq(self.start),
            walker.layer.eq(self.layer),
            walker.step.eq(1),
            walker.serial.eq(self.during[Pass.NEURON] & self.last),
            self.leakage.layer.eq(self.layer),
            self.leakage.rate.eq(self.settings.rate_alpha),
            self.leakage.update.eq(self.update_alpha),
            self.busy.eq(walker.active | (quiet != 0) | self.leakage.busy | self.spikes.busy | self.traces.busy),
        ]
        with m.If(self.during[Pass.HIDDEN_ERROR]):  # as the errors come
            m.d.comb += walker.step.eq(self.error_word)
        with m.If(self.during[Pass.NEURON]):  # as the currents come
            m.d.comb += walker.step.eq((self.layer != self.current_of) | (walker.local != self.currents))
        m.d.sync += [self.there.eq(Mux(walker.valid, walker.mask, 0)), self.local.eq(walker.local)]
        m.d.sync += [self.row[q].eq(walker.row[q]) for q in self.lanes]
        with m.If(walker.active), m.Switch(self.kind):
            for kind, cycles in self.DRAIN.items():
                with m.Case(kind):
                    m.d.sync += quiet.eq(cycles + 2 * c.weight_registers + max(0, ceil_log2(c.neuron_lanes) - self.SPARE))
        with m.Elif(quiet != 0):
            m.d.sync += quiet.eq(quiet - 1)
        lane_bits = ceil_log2(c.neuron_lanes)
        base, around = Signal(index_shape(c)), c.weight_registers
        m.d.sync += base.eq(Array(c.unit_row[l] for l in range(c.n_layers))[self.list_layer])
        trace_row, trace_lane = delay(m, base + self.trace_unit[lane_bits:], around), delay(m, self.trace_unit[:lane_bits], 1 + around)
        m.d.comb += self.trace.eq(Array(banks["weight_trace"].read_data for banks in self.banks)[trace_lane])
        for q, banks in enumerate(self.banks):
            m.d.comb += [banks[name].read_address.eq(walker.row[q]) for name in ("membrane", "theta", "current")]
            walking = walker.active & ~self.during[Pass.FINISH] if c.lazy else walker.active  # its weights are changed beside FINISH
            m.d.comb += banks["weight_trace"].read_address.eq(Mux(walking, walker.row[q], trace_row))
            if not c.static:
                m.d.comb += [
                    banks["event"].read_address.eq(walker.local),
                    banks["event"].write_address.eq(self.local),
                    banks["event"].write.eq(self.there[q] & self.during_in[Pass.INPUT][q]),
                ]

    def _forward(self, m: Module, q: int) -> None:
        """INPUT and NEURON: cycle 1 enters the membrane, cycle 4 (where it is far 5) leaves it and is written."""
        c, banks, membrane = self.config, self.banks[q], self.membranes[q]
        old, new = membrane.i.p, membrane.o.p
        held = banks["membrane"].read_data
        m.d.comb += [
            membrane.i.valid.eq(self.there[q] & (self.during_in[Pass.INPUT][q] | self.during_in[Pass.NEURON][q])),
            membrane.o.ready.eq(1),
            old.index.eq(self.row[q]),
            old.first.eq(self.first[q]),
            old.unit.eq(self.during_in[Pass.INPUT][q]),
            old.event.eq(1 if c.static else banks["event"].read_data),  # a static frame has one input unit, which always fires
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
        c, readout, last = self.config, self.readout, self.layer == self.config.n_layers
        outs, new = [membrane.o for membrane in self.membranes], Signal(1 + c.u.bits)
        m.d.comb += new.eq(Cat(outs[0].p.s, outs[0].p.u))
        for other in outs[1:]:
            with m.If(other.valid):
                m.d.comb += new.eq(Cat(other.p.s, other.p.u))
        valid = Cat(out.valid for out in outs).any()
        m.d.comb += [
            readout.start.eq(self.start & last & (self.kind == Pass.NEURON)),
            readout.first.eq(self.first[-1]),
            readout.final.eq(delay(m, self.settings.final, c.weight_registers)),
            self.winner.eq(readout.winner),
        ]
        m.d.sync += [readout.valid.eq(valid & self.last), readout.s.eq(new[0]), readout.u.eq(new[1:].as_signed())]

    def _lists(self, m: Module) -> None:
        """A unit that fired is listed for the next layer's currents, one with a trace for the update of its weights."""
        c = self.config
        forward = (self.kind == Pass.INPUT) | (self.kind == Pass.NEURON)
        local, presynaptic = Signal.like(self.local), self.layer != c.n_layers
        if c.static:
            presynaptic &= self.layer != 0
        with m.If(self.start):
            m.d.sync += local.eq(0)
        with m.Elif(self.membranes[0].o.valid):
            m.d.sync += local.eq(local + 1)
        # a cycle after the neuron is written, or more, since spike, trace and comparison with 0 are a long way
        around, row = c.weight_registers, delay(m, local, c.weight_registers)
        there = [delay(m, membrane.o.valid & presynaptic, around) for membrane in self.membranes]
        fired = [delay(m, membrane.o.p.s, around) for membrane in self.membranes]
        traced = [delay(m, membrane.o.p.weight_trace, around) != 0 for membrane in self.membranes]
        for units, listed in ((self.spikes, fired), (self.traces, traced)):
            m.d.sync += [units.push.eq(Cat(of_unit & yes for of_unit, yes in zip(there, listed, strict=True))), units.row.eq(row)]
            m.d.comb += [
                units.start.eq(self.start & forward & presynaptic),
                units.layer.eq(self.layer),
                units.read_layer.eq(self.list_layer),
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
        c, walker = self.config, self.walker
        slot = Signal(range(max(c.neuron_lanes, 2)))
        more = Cat(Const(0), *((slot == q) & walker.mask[q + 1] for q in self.lanes[:-1])).any()
        m.d.comb += self.error_word.eq(self.error.valid & ~more)
        with m.If(self.start | self.error_word):
            m.d.sync += slot.eq(0)
        with m.Elif(self.error.valid):
            m.d.sync += slot.eq(slot + 1)
        for q, block in enumerate(self.deltas):
            error = Signal.like(self.error.payload, name=f"error_{q}")
            m.d.comb += block.i.p.error.eq(error)
            with m.If(self.error.valid & (slot == q)):
                m.d.sync += error.eq(self.error.payload)

        add = Cat(g.o.valid for g in self.gradients).any()
        grads = [Mux(g.o.valid, g.o.p.alpha_grad, 0).as_signed() for g in self.gradients]
        while len(grads) > 1:  # an adder tree, its levels registered
            summed, added = [Signal((a + b).shape()) for a, b in zip(grads[::2], grads[1::2], strict=True)], Signal()
            m.d.sync += [added.eq(add), *(total.eq(a + b) for total, a, b in zip(summed, grads[::2], grads[1::2], strict=True))]
            add, grads = added, summed
        m.d.comb += [
            self.leakage.add.eq(add),
            self.leakage.grad.eq(grads[0]),
            self.delta.valid.eq(Cat(d.o.valid for d in self.deltas).any()),
            self.delta.p.mask.eq(Cat(d.o.valid for d in self.deltas)),
            *(self.delta.p.lane[q].eq(self.deltas[q].o.p.delta) for q in self.lanes),
        ]
        if c.static:
            frame_trace, unit = Signal(signed(c.trace.bits)), self.membranes[0].o  # its one input unit is in lane 0
            with m.If(unit.valid & unit.p.unit):
                m.d.sync += frame_trace.eq(unit.p.weight_trace)
            m.d.comb += [gradient.i.p.frame_trace.eq(frame_trace) for gradient in self.gradients]
            of_frame = Signal()
            m.d.sync += of_frame.eq((self.kind == Pass.FINISH) & (self.layer == 1))
            with m.If(of_frame):
                m.d.comb += [self.delta.valid.eq(self.there.any()), self.delta.p.mask.eq(self.there)]
                m.d.comb += [self.delta.p.lane[q].eq(banks["input_grad"].read_data) for q, banks in enumerate(self.banks)]

    def _error(self, m: Module, q: int) -> None:
        """Cycle 1 enters delta, cycle 6 leaves it and reads the traces, cycle 7 enters gradient, cycle 10 leaves it."""
        c, banks, lane_bits = self.config, self.banks[q], ceil_log2(self.config.neuron_lanes)
        entering, delta, gradient = self.deltas[q].i.p, self.deltas[q].o, self.gradients[q]
        held, label = banks["membrane"].read_data, self.settings.label
        of_label = (self.local == label[lane_bits:]) & (label[:lane_bits] == q)
        if c.weight_registers:  # the same, compared a cycle earlier
            of_label = delay(m, (self.walker.local == label[lane_bits:]) & (label[:lane_bits] == q), 1)
        m.d.comb += [
            *(banks[name].read_address.eq(Mux(self.erring_in[q], delta.p.index, self.walker.row[q])) for name in ("theta_trace", "alpha_trace")),
            self.deltas[q].i.valid.eq(self.there[q] & self.erring_in[q]),
            entering.index.eq(self.row[q]),
            entering.output.eq(self.during_in[Pass.OUTPUT_ERROR][q]),
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
                gradient.i.p.final.eq(delay(m, self.settings.final, c.weight_registers)),
                gradient.i.p.reciprocal.eq(self.leakage.reciprocal),
                gradient.i.p.delta_sum.eq(bank.read_data),
                bank.read_address.eq(delta.p.index),
                bank.write.eq(gradient.o.valid),
                bank.write_address.eq(gradient.o.p.index),
                bank.write_data.eq(gradient.o.p.delta_sum),
                self.lane_sum[q].eq(gradient.o.p.lane_sum),
            ]
        if c.static:
            bank = banks["input_grad"]
            m.d.comb += [
                bank.read_address.eq(Mux(self.erring_in[q], delta.p.index, self.walker.row[q])),
                gradient.i.p.input_grad.eq(bank.read_data),
                bank.write.eq(gradient.o.valid & (self.layer == 1)),
                bank.write_address.eq(gradient.o.p.index),
                bank.write_data.eq(gradient.o.p.input_grad),
            ]

    def _threshold(self, m: Module, q: int) -> None:
        """Cadence sample: gradients gather in a memory, FINISH applies them. Cadence step: applied as they come."""
        c, banks, entering, gradient = self.config, self.banks[q], self.thresholds[q].i, self.gradients[q].o
        learning = self.settings.learn[1]
        index, grad, valid = Signal.like(gradient.p.index), Signal.like(gradient.p.theta_grad), Signal()
        m.d.sync += [index.eq(gradient.p.index), grad.eq(gradient.p.theta_grad), valid.eq(gradient.valid)]
        if c.cadence == "sample":
            bank = banks["theta_grad"]
            total = saturate(Mux(self.first[q], 0, bank.read_data.as_signed()).as_signed() + grad, c.grad)
            m.d.comb += [
                bank.read_address.eq(Mux(self.erring_in[q], gradient.p.index, self.walker.row[q])),
                bank.write.eq(valid),
                bank.write_address.eq(index),
                bank.write_data.eq(total),
                entering.valid.eq(self.there[q] & self.during_in[Pass.FINISH][q] & learning),
                entering.p.index.eq(self.row[q]),
                entering.p.grad.eq(bank.read_data),
                entering.p.theta.eq(banks["theta"].read_data),
            ]
        else:
            m.d.comb += [
                banks["theta_copy"].read_address.eq(gradient.p.index),
                entering.valid.eq(valid & learning),
                entering.p.index.eq(index),
                entering.p.grad.eq(grad),
                entering.p.theta.eq(banks["theta_copy"].read_data),
            ]
        moved = self.thresholds[q].o
        m.d.comb += [entering.p.rate.eq(self.rate_theta[q]), moved.ready.eq(1)]
        for name in ("theta", *(["theta_copy"] if c.cadence == "step" else [])):
            m.d.comb += [banks[name].write.eq(moved.valid), banks[name].write_address.eq(moved.p.index), banks[name].write_data.eq(moved.p.theta)]

    def _currents(self, m: Module) -> None:
        """The first `self.currents` words of currents of layer `self.current_of` have been written."""
        c = self.config
        left = Signal(range(c.neuron_words(max(c.sizes)) + 1))
        bases, words = Array([0, *c.neuron_row.values()]), Array([0, *map(c.neuron_words, c.sizes[1:])])
        taken = self.current.valid & (left != 0)  # lanes without a neuron come last and are dropped
        with m.If(self.current_start):
            m.d.sync += [left.eq(words[self.current_layer]), self.current_of.eq(self.current_layer), self.currents.eq(0)]
        with m.Elif(taken):
            m.d.sync += [left.eq(left - 1), self.currents.eq(self.currents + 1)]
        for q, banks in enumerate(self.banks):
            bank, at = banks["current"], Signal(index_shape(c), name=f"at_{q}")
            with m.If(self.current_start):
                m.d.sync += at.eq(bases[self.current_layer])
            with m.Elif(taken):
                m.d.sync += at.eq(at + 1)
            m.d.comb += [bank.write.eq(taken), bank.write_address.eq(at), bank.write_data.eq(self.current.payload[q])]
