"""What is proved of the gateware: each class is a block with its environment (`Assume`) and what must hold (`Assert`).

Members of a spec that are inputs are free: the solver chooses them anew in every cycle. There is no reset.
"""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

from amaranth.hdl import Assert, Assume, C, Cat, ClockDomain, Elaboratable, Module, Mux, Signal, Value, signed

from hw.fixed import floor_shift, halves, minus_halves, round_shift, saturate
from hw.host.command import Command
from hw.host.protocol import CRC_POLYNOMIAL, CRC_RESIDUE, LENGTH_LEAST
from hw.host.receive import Receiver
from hw.host.ring import Ring
from hw.machine import Machine
from hw.network import Network
from hw.numbers import Q
from hw.program import WHEN_BITS, lane_fields, neuron_fields
from hw.sequencer import Conductor, Sequencer, conditions, tables
from hw.spike.lists import UnitList
from hw.streams import row_layout
from hw.weight.lanes import Lanes


class Spec(Elaboratable):
    """`inputs`: the free signals."""

    def __init__(self) -> None:
        self.inputs: list[Signal] = []

    def free(self, shape: Any, name: str) -> Signal:
        """A free signal."""
        self.inputs.append(signal := Signal(shape, name=name))
        return signal

    def fixed(self, m: Module, shape: Any, name: str) -> Signal:
        """A signal of any value that never changes."""
        value, kept, later = self.free(shape, name), Signal(shape, name=f"{name}_kept"), Signal(name=f"{name}_later")
        m.d.sync += [kept.eq(value), later.eq(1)]
        m.d.comb += Assume(~later | (kept == value))
        return value

    def module(self) -> Module:
        m = Module()
        m.domains.sync = domain = ClockDomain(reset_less=True)
        self.inputs.append(domain.clk)
        return m


class Saturation(Spec):
    """hw/fixed.py: whatever is saturated is the exact value clipped, and no shift loses more than its fraction."""

    def elaborate(self, platform) -> Module:
        m = self.module()
        v, x = self.free(signed(16), "v"), self.free(signed(10), "x")
        rate = self.free(4, "rate")
        for q in (Q(4, 8), Q(1, 3)):
            clipped = Mux(v > q.high, q.high, Mux(v < q.low, q.low, v)).as_signed()
            m.d.comb += Assert(saturate(v, q) == clipped)
            moved = x - v
            m.d.comb += Assert(saturate(moved, q) == Mux(moved > q.high, q.high, Mux(moved < q.low, q.low, moved)).as_signed())
        for n in (1, 5, 8):
            m.d.comb += [
                Assert((floor_shift(v, n) << n) <= v),
                Assert(v < ((floor_shift(v, n) + 1) << n)),
                Assert((round_shift(v, n) << n) - (1 << n >> 1) <= v),
                Assert(v < (round_shift(v, n) << n) + (1 << n >> 1)),
            ]
        by_rate = Signal(signed(17))
        with m.Switch(rate):
            for k in range(16):
                with m.Case(k):
                    m.d.comb += by_rate.eq(round_shift(v, 3 + k))
        m.d.comb += Assert(minus_halves(x, halves(v, 3, rate)) == x - by_rate)
        return m


class Framer(Spec):
    """hw/host/receive.py, with a ring of 256 bytes: what is admitted to the command layer is a whole frame that ends with its CRC.

    Frame and CRC are followed a byte at a time, as the bytes enter the ring. The `invariants` make the proof inductive: they
    tie the serial CRC to that of whole bytes, and the counters to the bytes seen. Without them the solver can only look for
    counterexamples.
    """

    def __init__(self, *, invariants: bool = True) -> None:
        super().__init__()
        self.invariants = invariants

    def elaborate(self, platform) -> Module:
        m = self.module()
        m.submodules.receiver = receiver = Receiver(256)
        ring = receiver.ring
        m.d.comb += [
            receiver.i.valid.eq(self.free(1, "valid")),
            receiver.i.payload.eq(self.free(8, "byte")),
            receiver.damaged.eq(self.free(1, "damaged")),
            receiver.o.ready.eq(self.free(1, "ready")),
        ]
        seen, length, register = Signal(16), Signal(8), Signal(32, init=-1)  # of the frame so far
        whole = self._bytewise(m, register, ring.data)
        with m.If(receiver.i.valid & receiver.i.ready & (receiver.i.payload == 0)):
            m.d.sync += [seen.eq(0), register.eq(-1)]
        with m.If(ring.write):
            m.d.sync += [seen.eq(seen + (seen != 0xFFFF)), register.eq(whole)]
            with m.If(seen == 0):
                m.d.sync += length.eq(ring.data)
        with m.If(ring.commit):
            m.d.comb += [
                Assert(register == CRC_RESIDUE),
                Assert((seen == length + 2) & (length >= LENGTH_LEAST)),
                Assert((ring.head - ring.admitted)[:8] == seen),
                Assert(~ring.write & ~ring.rewind),
            ]
        if self.invariants:
            self._invariants(m, receiver, seen, length, register)
        return m

    def _invariants(self, m: Module, receiver: Receiver, seen: Signal, length: Signal, register: Signal) -> None:
        crc, ring = receiver.crc, receiver.ring
        rest = self._rest(m, crc)
        m.d.comb += Assert(~receiver.o.valid | (ring.tail != ring.admitted))
        m.d.comb += Assert(crc.left <= 8)
        m.d.comb += Assert((ring.admitted - ring.tail)[:8] + (ring.head - ring.admitted)[:8] <= 255)  # nobody overtakes
        with m.If(~receiver.bad):
            m.d.comb += [
                Assert(rest == register),
                Assert(receiver.where == Mux(seen < 2, seen, 2)),
                Assert((ring.head - ring.admitted)[:8] == seen[:8]),
                Assert(seen <= 255),
                Assert((seen != 1) | (receiver.left == length)),
                Assert((seen < 2) | (length >= LENGTH_LEAST) & (receiver.left == length + 2 - seen)),
            ]

    @staticmethod
    def _bytewise(m: Module, register: Value, byte: Value) -> Value:
        values = [Signal(32, name=f"whole_{k}") for k in range(9)]
        m.d.comb += values[0].eq(register ^ byte)
        m.d.comb += [after.eq((value >> 1) ^ Mux(value[0], CRC_POLYNOMIAL, 0)) for value, after in itertools.pairwise(values)]
        return values[-1]

    @staticmethod
    def _rest(m: Module, crc) -> Value:
        """The register after the bits that are still to be shifted in."""
        values = [Signal(32, name=f"rest_{k}") for k in range(9)]
        m.d.comb += values[0].eq(crc.value)
        for k, (value, after) in enumerate(itertools.pairwise(values)):
            shifted = (value >> 1) ^ Mux(value[0] ^ crc.shift[k], CRC_POLYNOMIAL, 0)
            m.d.comb += after.eq(Mux(k < crc.left, shifted, value))
        return values[-1]


class Fifo(Spec):
    """hw/host/ring.py, with 4 bytes: an admitted byte leaves in order, once, unchanged, without waiting; one taken back never does.

    The byte that is admitted as number `which` stands for all: it has any value, and so has its number.
    """

    def elaborate(self, platform) -> Module:
        m = self.module()
        m.submodules.ring = ring = Ring(4)
        which = self.fixed(m, 4, "which")
        admitted, written, taken = Signal(4), Signal(4), Signal(4)  # how many so far; written: admitted or not
        byte, silent = Signal(8), Signal()
        write, commit, rewind = (self.free(1, name) for name in ("write", "commit", "rewind"))
        m.d.comb += [
            ring.write.eq(write & ~commit & ~rewind),
            ring.data.eq(self.free(8, "data")),
            ring.commit.eq(commit & ~rewind),
            ring.rewind.eq(rewind),
            ring.o.ready.eq(self.free(1, "ready")),
            Assert(ring.room == ((written - taken)[:4] < 3)),
        ]
        with m.If(ring.write & ring.room):
            m.d.sync += written.eq(written + 1)
            with m.If(written == which):
                m.d.sync += byte.eq(ring.data)
        with m.If(ring.commit):
            m.d.sync += admitted.eq(written)
        with m.If(ring.rewind):
            m.d.sync += written.eq(admitted)
        with m.If(ring.o.valid):
            m.d.comb += Assert(taken != admitted)
            with m.If(taken == which):
                m.d.comb += Assert(ring.o.payload == byte)
            with m.If(ring.o.ready):
                m.d.sync += taken.eq(taken + 1)
        m.d.sync += silent.eq(~ring.o.valid & (taken != admitted))
        m.d.comb += Assert(~silent | ring.o.valid)
        return m


class Lists(Spec):
    """hw/spike/lists.py with two neuron lanes: the units of the words pushed are listed in order, all of them and no others."""

    def elaborate(self, platform) -> Module:
        m = self.module()
        machine = Machine.holding(Network(net="8-4-2", input="events"), lanes=2, neuron_lanes=2)
        m.submodules.list = units = UnitList(machine)
        which = self.fixed(m, 4, "which")
        words, pushed, row, unit = Signal(4), Signal(4), Signal(2), Signal(3)
        push, start = self.free(2, "push"), Signal(init=1)
        m.d.sync += start.eq(0)
        m.d.comb += [
            units.start.eq(start),
            units.push.eq(push),
            units.row.eq(row),
            units.read_enable.eq(1),
            units.read_index.eq(which),
            Assume(~push.any() | (words < machine.neuron_words(8)) & ~start),  # a layer's words, in order
        ]
        with m.If(push.any()):
            m.d.sync += [words.eq(words + 1), row.eq(row + 1), pushed.eq(pushed + push[0] + push[1])]
        for lane in range(2):
            before = pushed + (push[0] if lane else 0)
            with m.If(push[lane] & (before == which)):
                m.d.sync += unit.eq(Cat(C(lane, 1), row))
        idle = Signal()
        m.d.sync += idle.eq(~units.busy & ~start)
        with m.If(~units.busy & ~start):
            m.d.comb += Assert(units.length == pushed)
        with m.If(idle & (which < pushed) & ~units.busy):
            m.d.comb += Assert(units.read_data == unit)
        return m


class Writer(Spec):
    """A memory is written by the core or by the host, never by both: the lanes write only while they are busy, and the host
    only in a core that is not. `Order` shows that nothing is busy in a core at rest."""

    def elaborate(self, platform) -> Module:
        m = self.module()
        machine = Machine.holding(Network(net="3-2-2", steps=2), lanes=2)
        m.submodules.lanes, m.submodules.command = lanes, command = Lanes(machine), Command(machine)
        for name in ("sweep", "operand", "rate", "next_random", "own_row", "own_write"):
            port = Value.cast(getattr(lanes, name))
            m.d.comb += port.eq(self.free(len(port), name))
        m.d.comb += [
            lanes.op.valid.eq(self.free(1, "taken")),
            Value.cast(lanes.op.payload).eq(self.free(len(Value.cast(lanes.op.payload)), "op")),
            command.request.valid.eq(self.free(1, "valid")),
            command.request.payload.eq(self.free(32, "word")),
            command.reply.ready.eq(self.free(1, "ready")),
            command.busy.eq(self.free(1, "busy")),
            command.idle.eq(~command.busy),  # as `Order` proves
            Assert(~command.host.write | command.host.hosting & ~command.busy),
            *(Assert(~banks.write.any() | lanes.busy) for banks in (lanes.weights, lanes.gradients.grads)),
        ]
        return m


class Walk(Spec):
    """hw/sequencer.py: a sequencer starts the rows that it must, and tells where it is.

    It starts a row only if its conditions hold, its unit is ready and the other sequencer has come as far as the row says. It
    skips no row whose conditions hold.

    The row `which` stands for all: it has any number and contents. What the other rows hold changes as it likes.
    """

    FIELDS: ClassVar = {"op": 3, "after": 5, "when": WHEN_BITS, "stop": 1}

    def elaborate(self, platform) -> Module:
        m = self.module()
        m.submodules.sequencer = sequencer = Sequencer(Machine.holding(Network(net="3-2")), self.FIELDS, late=1)
        names = {"which": len(sequencer.index), "holds": WHEN_BITS, "row": len(Value.cast(sequencer.row))}
        which, holds, fixed = (self.fixed(m, bits, name) for name, bits in names.items())
        row, number = sequencer.row, sequencer.position[1:]  # which row it is, as long as it is not idle
        at, before = Signal.like(sequencer.index), Signal.like(sequencer.index)
        m.d.sync += [at.eq(sequencer.index), before.eq(number)]
        m.d.comb += [
            sequencer.holds.eq(holds),
            Value.cast(row).eq(Mux(at == which, fixed, self.free(len(fixed), "others"))),
            *(getattr(sequencer, name).eq(self.free(len(getattr(sequencer, name)), name))
              for name in ("go", "other", "ready", "busy")),
        ]
        met, ran, active = Signal(), Signal(), Signal()
        m.d.comb += met.eq((holds | ~row.when).all() & (row.op != 0))
        with m.If(sequencer.start):
            m.d.comb += Assert(met & sequencer.ready & (sequencer.other >= row.after))
        wanted, wanted_row = Signal(), row_layout(self.FIELDS)(fixed)  # the row `which` is one to be done
        m.d.comb += wanted.eq((holds | ~wanted_row.when).all() & (wanted_row.op != 0))
        m.d.sync += [ran.eq(sequencer.running), active.eq(~sequencer.idle)]
        with m.If(active & (before == which) & (sequencer.idle | (number != which))):  # it is behind the row
            m.d.comb += Assert(~wanted | ran)
        m.d.comb += [
            Assert(sequencer.idle | (sequencer.position[0] == sequencer.running)),
            Assert(sequencer.idle | (number == at)),  # it sees the row that it says it is in
            Assert(~sequencer.idle | sequencer.position.all()),
            Assert(~sequencer.ends | sequencer.running & ~sequencer.busy),
        ]
        return m


class Order(Spec):
    """hw/sequencer.py with the programs of a network of two layers (hw/plan.py).

    A run comes back to rest, in which neither lanes nor neurons are busy, and each sweep and pass finds the other where it must
    be. The blocks around may behave in any way in which they get busy when they are started, and only then, and stop within
    MOST cycles. Bounded: a sample of one time step, in which every row can be done.
    """

    MOST = 1
    RUN = 50  # cycles within which it rests again

    def elaborate(self, platform) -> Module:
        m = self.module()
        network = Network(net="3-2-2", steps=1, input="events", cadence="step")
        machine = Machine.holding(network, lanes=2, fixed=network)
        fields = lane_fields(machine), neuron_fields(machine)
        m.submodules.conductor = conductor = Conductor()
        sequencers = [Sequencer(machine, of, late=0) for of in fields]
        learn, step = self.fixed(m, 3, "learn"), Signal(8)
        m.d.comb += [
            conductor.run.eq(self.free(1, "run")),
            conductor.single.eq(self.free(1, "single")),
            conductor.step.eq(step),
            conductor.quiet.eq(sequencers[0].idle & sequencers[1].idle),
        ]
        with m.If(conductor.step_done):
            m.d.sync += step.eq(conductor.next_step)
        working: Value = C(0)
        for n, (sequencer, table) in enumerate(zip(sequencers, tables(machine, *fields), strict=True)):
            m.submodules += [sequencer, table]
            left, more = Signal(range(self.MOST + 1), name=f"left_{n}"), self.free(1, f"more_{n}")
            with m.If(sequencer.start):
                m.d.sync += left.eq(self.MOST)
            with m.Elif(left != 0):
                m.d.sync += left.eq(Mux(more, left - 1, 0))
            m.d.comb += [
                table.index.eq(sequencer.index),
                sequencer.row.eq(table.word),
                sequencer.go.eq(conductor.go),
                sequencer.holds.eq(conditions(conductor, learn, C(1), C(0))),
                sequencer.other.eq(sequencers[1 - n].position),
                sequencer.busy.eq(left != 0),
            ]
            working = working | ~sequencer.idle | sequencer.start | (left != 0)
        running = Signal(range(self.RUN + 2))
        m.d.sync += running.eq(Mux(conductor.busy, running + 1, 0))
        m.d.comb += [
            Assert(running < self.RUN),
            Assert(conductor.idle == ~conductor.busy),
            Assert(conductor.busy | ~working),
        ]
        return m
