"""A neuron lane: the memories of its neurons, and the pipelines through which they stream."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.error.delta import Delta
from hw.error.gradient import Gradient, LazyGradient
from hw.error.threshold import Threshold
from hw.fixed import saturate
from hw.machine import Machine
from hw.memory import Absent, Bank, HostBus, bank, fan_out, found_in
from hw.memory_map import DAMAGED_BITS, regions
from hw.numbers import NEURON_MULTIPLIERS, PIXEL_FRAC, bits_for
from hw.program import neuron_fields
from hw.spike.membrane import Membrane
from hw.streams import delta_out, gradient_out, index_shape, membrane_out, mul_port, row_layout


def lane_members(c: Machine) -> dict[str, wiring.Member]:
    """What a neuron lane takes and gives."""
    row = index_shape(c)
    return {
        "program": In(row_layout(neuron_fields(c))),
        "row": In(row),
        "there": In(1),
        "at": In(row),
        "local": In(bits_for(c.words)),  # the same in the layer
        # what the pass is
        "input": In(1),
        "neuron": In(1),
        "output_error": In(1),
        "finish": In(1),
        "erring": In(1),
        "first": In(1),  # step 0
        "final": In(1),  # step T-1
        "last": In(1),  # the layer
        "earlier": In(1),  # samples of the batch came before
        "more": In(1),  # samples of the batch are to come
        "learn": In(3),
        "rate_theta": In(4),
        "alpha": In(c.alpha_frac + 1),
        "alpha_next": In(c.alpha_frac + 1),
        "reciprocal": In(c.reciprocal_bits),
        # what comes to the neuron
        "current_write": In(1),
        "current_row": In(row),
        "current": In(signed(c.u.bits)),
        "error": In(signed(c.delta.bits)),
        "of_label": In(1),
        "firing": In(bits_for(c.capacity.classes + 1)),
        "frame_trace": In(signed(c.trace.bits)),
        # what others read
        "trace_row": In(row),
        "trace": Out(signed(c.trace.bits)),
        "event_row": In(bits_for(c.words)),
        "event": Out(PIXEL_FRAC),
        "input_grad": Out(signed(c.delta.bits)),
        # what leaves the pipelines
        "units": Out(stream.Signature(membrane_out(c), always_ready=True)),
        "deltas": Out(stream.Signature(delta_out(c), always_ready=True)),
        "gradients": Out(stream.Signature(gradient_out(c), always_ready=True)),
        "mul": Out(mul_port(c)).array(NEURON_MULTIPLIERS),
        "host": In(HostBus()),
        "damaged": Out(DAMAGED_BITS),
    }


class NeuronLane(wiring.Component):
    """Every M-th neuron. In each cycle one may stream from the memories through a pipeline and back.

    Cycle 0 reads the memories at `row`, cycle 1 (`there`) has the words; `at` is their row. `input` to `first` tell what the pass
    is and are registers near the lane; `program` is the row of the neurons' program.

    Forward, cycle 1 enters the membrane, cycle 4 (where it is far 5) leaves it and is written. Backward, cycle 1 enters delta,
    cycle 6 leaves it and reads the traces, cycle 7 enters gradient, cycle 10 leaves it.
    """

    def __init__(self, machine: Machine, lane: int):
        c = self.machine = machine
        region, number = regions(c), lane if c.neuron_lanes > 1 else None
        self.membrane, self.delta, self.threshold = Membrane(c), Delta(c, host_reads=lane == 0), Threshold(c)
        self.gradient = (LazyGradient if c.lazy else Gradient)(c)
        names = ("membrane", "theta", "theta_trace", "alpha_trace", "weight_trace",
                 "current", "theta_grad", "input_grad", "event", "delta_sum")  # fmt: skip
        self.banks = {name: bank(region, name, lane=number) for name in names}
        # a second copy of the thresholds, which a pass reads twice if they change at once
        self.banks["theta_copy"] = Bank(region["theta"], lane=number, host_reads=False) if c.capacity.step else Absent()
        super().__init__(lane_members(c))

    def elaborate(self, platform) -> Module:
        m = Module()
        for name in ("membrane", "delta", "gradient", "threshold"):
            m.submodules[name] = getattr(self, name)
        for name, of_name in self.banks.items():
            m.submodules[f"bank_{name}"] = of_name
        members = [*self.banks.values(), self.delta]
        fan_out(m, self.host, members)
        m.d.comb += self.damaged.eq(found_in(members))
        for block, out in ((self.membrane, self.units), (self.delta, self.deltas), (self.gradient, self.gradients)):
            connect(m, block.o, flipped(out))
        self._multiply(m)
        self._fire(m)
        self._err(m)
        self._learn(m)
        self._learn_threshold(m)
        return m

    def _multiply(self, m: Module) -> None:
        """Four multipliers: the membrane uses them forward, delta and gradient backward."""
        backward = [self.delta.mul[0], *self.gradient.mul]
        for port, forward, error in zip(self.mul, self.membrane.mul, backward, strict=True):
            m.d.comb += [
                port.en.eq(1),
                port.a.eq(Mux(self.erring, error.a, forward.a)),
                port.b.eq(Mux(self.erring, error.b, forward.b)),
                port.c.eq(Mux(self.erring, error.c, forward.c)),
                forward.p.eq(port.p),
                error.p.eq(port.p),
            ]

    def _write(self, name: str, valid: Value, index: Value, word: Value) -> list:
        """Statements that write a word."""
        bank = self.banks[name]
        return [bank.write.eq(valid), bank.write_address.eq(index), bank.write_data.eq(word)]

    def _fire(self, m: Module) -> None:
        """INPUT and NEURON: membranes and traces."""
        c, banks, membrane, program = self.machine, self.banks, self.membrane, self.program
        old, new, held, event = membrane.i.p, membrane.o.p, banks["membrane"].read_data, banks["event"]
        for name in ("membrane", "theta", "current"):
            m.d.comb += banks[name].read_address.eq(self.row)
        m.d.comb += [
            membrane.i.valid.eq(self.there & (self.input | self.neuron)),
            old.index.eq(self.at),
            old.first.eq(self.first),
            old.unit.eq(self.input),
            # a held frame has one input unit, which always fires
            old.event.eq(program.held | (event.read_data != 0)),
            old.valued.eq(program.values),
            old.value.eq(event.read_data),
            old.u.eq(held[: c.u.bits]),
            old.s.eq(held[c.u.bits]),
            old.theta.eq(banks["theta"].read_data),
            old.theta_trace.eq(banks["theta_trace"].read_data),
            old.alpha_trace.eq(banks["alpha_trace"].read_data),
            old.weight_trace.eq(banks["weight_trace"].read_data),
            old.current.eq(banks["current"].read_data),
            old.alpha.eq(self.alpha),
            old.alpha_next.eq(self.alpha_next),
            *self._write("membrane", membrane.o.valid & ~new.unit, new.index, new.u.as_unsigned() | (new.s << c.u.bits)),
            *self._write("theta_trace", membrane.o.valid & ~new.unit, new.index, new.theta_trace),
            *self._write("alpha_trace", membrane.o.valid & ~new.unit, new.index, new.alpha_trace),
            *self._write("weight_trace", membrane.o.valid & ~self.last, new.index, new.weight_trace),
            *self._write("current", self.current_write, self.current_row, self.current),
            *self._write("event", self.there & self.input & ~program.held & ~program.values, self.local, Const(0)),
            banks["weight_trace"].read_address.eq(self.trace_row),
            self.trace.eq(banks["weight_trace"].read_data),
            event.read_address.eq(self.event_row),
            self.event.eq(event.read_data),
        ]

    def _err(self, m: Module) -> None:
        """Errors become deltas."""
        c, banks, delta = self.machine, self.banks, self.delta
        entering, held = delta.i.p, banks["membrane"].read_data
        m.d.comb += [
            delta.i.valid.eq(self.there & self.erring),
            entering.index.eq(self.at),
            entering.output.eq(self.output_error),
            entering.graded.eq(self.program.graded),
            entering.label.eq(self.of_label),
            entering.firing.eq(self.firing),
            entering.error.eq(self.error),
            entering.u.eq(held[: c.u.bits]),
            entering.s.eq(held[c.u.bits]),
            entering.theta.eq(banks["theta"].read_data),
        ]

    def _learn(self, m: Module) -> None:
        """Deltas become gradients."""
        banks, delta, gradient = self.banks, self.delta.o, self.gradient
        i, o = gradient.i.p, gradient.o.p
        for name in ("theta_trace", "alpha_trace", "input_grad"):
            m.d.comb += banks[name].read_address.eq(Mux(self.erring, delta.p.index, self.row))
        m.d.sync += [gradient.i.valid.eq(delta.valid), i.index.eq(delta.p.index), i.delta.eq(delta.p.delta)]
        m.d.comb += [
            i.first.eq(self.first),
            i.final.eq(self.final),
            i.learn_t.eq(self.learn[1]),
            i.learn_l.eq(self.learn[2]),
            i.theta_trace.eq(banks["theta_trace"].read_data),
            i.alpha_trace.eq(banks["alpha_trace"].read_data),
            # D
            i.frame_trace.eq(self.frame_trace),
            i.input_grad.eq(banks["input_grad"].read_data),
            self.input_grad.eq(banks["input_grad"].read_data),
            *self._write("input_grad", gradient.o.valid & self.program.held, o.index, o.input_grad),
            # H, for lazy learning
            i.reciprocal.eq(self.reciprocal),
            i.delta_sum.eq(banks["delta_sum"].read_data),
            banks["delta_sum"].read_address.eq(delta.p.index),
            *self._write("delta_sum", gradient.o.valid, o.index, o.delta_sum),
        ]

    def _learn_threshold(self, m: Module) -> None:
        """Cadence sample: gradients gather in a memory, FINISH applies them. Cadence step: applied as they come."""
        c, bank, gather, gradient = self.machine, self.banks["theta_grad"], self.program.gather, self.gradient.o
        entering, moved, learning = self.threshold.i, self.threshold.o, self.learn[1]
        index, grad, valid = Signal.like(gradient.p.index), Signal.like(gradient.p.theta_grad), Signal()
        m.d.sync += [index.eq(gradient.p.index), grad.eq(gradient.p.theta_grad), valid.eq(gradient.valid)]
        so_far = Mux(self.first & ~self.earlier, 0, bank.read_data.as_signed()).as_signed()
        m.d.comb += [
            bank.read_address.eq(Mux(self.erring, gradient.p.index, self.row)),
            *self._write("theta_grad", valid & gather, index, saturate(so_far + grad, c.grad)),
            self.banks["theta_copy"].read_address.eq(gradient.p.index),
            entering.p.rate.eq(self.rate_theta),
            entering.valid.eq(self.there & self.finish & learning & gather & ~self.more),
            entering.p.index.eq(self.at),
            entering.p.grad.eq(bank.read_data),
            entering.p.theta.eq(self.banks["theta"].read_data),
            moved.ready.eq(1),
        ]
        with m.If(~gather):
            m.d.comb += [
                entering.valid.eq(valid & learning),
                entering.p.index.eq(index),
                entering.p.grad.eq(grad),
                entering.p.theta.eq(self.banks["theta_copy"].read_data),
            ]
        for name in ("theta", "theta_copy"):
            m.d.comb += self._write(name, moved.valid, moved.p.index, moved.p.theta)
