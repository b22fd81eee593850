"""The command layer: whole frames in, accesses to the core, replies out (hw/host/protocol.py)."""

from __future__ import annotations

from amaranth.hdl import Array, C, Cat, Module, Mux, Signal, Value
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.host.boot import FLASH, Boot
from hw.host.protocol import CRC_BYTES, DESCRIPTION_MOST, WINDOW, Link, Op, Status, description
from hw.host.receive import Receiver
from hw.host.reply import Replies
from hw.host.stored import Stored
from hw.machine import Machine
from hw.memory_map import BURST_BITS, OP_NEXT, OP_READ, OP_SEEK
from hw.numbers import HOST_BITS, bits_for
from hw.pipeline import StreamRegister

HEADER_WORD = 4  # bytes of each half of an operation's header


class Part(enum.Enum):
    """What the bytes being gathered are."""

    HEADER = 0
    ADDRESS = 1
    DATA = 2


class Verdict(enum.Enum):
    """What becomes of a frame."""

    EXECUTE = 0
    REPEAT = 1
    REFUSE = 2


class Executor(wiring.Component):
    """Executes the payload of one frame after another, and answers each.

    A frame with the sequence number expected is executed and its reply kept; one of the WINDOW before is a repeat, and its reply is
    sent again; any other is refused, as is every frame before one that opens a session. That frame sets what number is expected,
    and does so once: with the number of the last one it is a repeat.

    `open`: there is a session; `opened` is high for a cycle when one begins; `close` ends it. `failed` is high for a cycle when an
    operation is illegal.

    Timing:   2 cycles a byte; 3 an element written, 9 a byte read
    """

    def __init__(self, machine: Machine, link: Link):
        self.rom = description(machine, link).ljust(DESCRIPTION_MOST, b"\0")
        self.link = link
        super().__init__(
            {
                "frames": In(stream.Signature(8)),
                "request": Out(stream.Signature(HOST_BITS)),
                "reply": In(stream.Signature(HOST_BITS)),
                "o": Out(stream.Signature(8)),
                "open": Out(1),
                "opened": Out(1),
                "failed": Out(1),
                "close": In(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.replies = replies = self.replies = Replies(self.link.reply)
        connect(m, replies.o, flipped(self.o))
        self.left, self.opening = Signal(self.link.length_bits), Signal(name="opening")  # `left`: bytes of the frame to come
        self.expected, self.opened_by, self.status = Signal(8), Signal(8), Signal(Status)
        self.slot = Signal.like(replies.slot)
        self.verdict, self.part = Signal(Verdict), Signal(Part)
        self.op, self.count, self.width, self.index = Signal(Op), Signal(BURST_BITS), Signal(2), Signal(2)
        self.word = Signal(HOST_BITS)
        m.d.comb += [replies.slot.eq(self.slot), replies.send_slot.eq(self.slot), self.request.payload.eq(self.word)]
        with m.FSM() as fsm:
            self._begin_frame(m)
            self._judge_frame(m)
            self._gather_operation(m)
            self._access(m)
            self._read(m)
            self._end_frame(m)
            self._send_reply(m)
        with m.If(self.close):
            m.d.sync += self.open.eq(0)
        m.d.comb += self.idle.eq(fsm.ongoing("LENGTH") & ~self.frames.valid & ~replies.sending)
        return m

    def _take(self, m: Module, state: str) -> None:
        """Takes a byte and goes on."""
        m.d.comb += self.frames.ready.eq(1)
        with m.If(self.frames.valid):
            m.next = state

    def _put(self, m: Module, byte: Value, state: str) -> None:
        """Appends a byte to the reply and goes on."""
        m.d.comb += [self.replies.i.payload.eq(byte), self.replies.i.valid.eq(1)]
        with m.If(self.replies.i.ready):
            m.next = state

    def _gather(self, m: Module, what: Part) -> None:
        """Goes on with the bytes of a part of an operation."""
        m.d.sync += [self.part.eq(what), self.index.eq(0)]
        m.next = "GATHER"

    def _fail(self, m: Module) -> None:
        """The operation is illegal."""
        m.d.comb += self.failed.eq(1)
        m.d.sync += self.status.eq(Status.ILLEGAL)

    def _begin_frame(self, m: Module) -> None:
        """The frame's length, and whether it opens a session."""
        with m.State("LENGTH"):
            m.d.comb += self.replies.begin.eq(~self.replies.building)
            self._take(m, "FLAGS")
            m.d.sync += self.left.eq(self.frames.payload)
        with m.State("FLAGS"):
            self._take(m, "SEQUENCE")
            m.d.sync += [self.left[8:].eq(self.frames.payload), self.opening.eq(self.frames.payload[7])]

    def _judge_frame(self, m: Module) -> None:
        """By its sequence number a frame is executed, repeated or refused."""
        frames, replies, verdict = self.frames, self.replies, self.verdict
        with m.State("SEQUENCE"):
            sequence, age = frames.payload, Signal(8)
            m.d.comb += age.eq(self.expected - sequence)
            m.d.sync += [self.slot.eq(self.expected), verdict.eq(Verdict.REFUSE), self.status.eq(Status.OK)]
            with m.If(frames.valid):
                m.next = "NUMBER"
                with m.If(self.opening):
                    m.d.comb += self.opened.eq(~self.open | (sequence != self.opened_by))
                with m.Elif(~self.open):
                    m.d.sync += self.status.eq(Status.CLOSED)
                with m.Elif(age == 0):
                    m.d.sync += [verdict.eq(Verdict.EXECUTE), self.slot.eq(sequence), self.expected.eq(sequence + 1)]
                with m.Elif(age <= WINDOW):
                    m.d.sync += [verdict.eq(Verdict.REPEAT), self.slot.eq(sequence)]
                with m.Else():
                    m.d.sync += self.status.eq(Status.SEQUENCE)
            with m.If(self.opened):
                m.d.sync += [self.open.eq(1), self.opened_by.eq(sequence), self.expected.eq(sequence + 1)]
        with m.State("NUMBER"):
            m.d.comb += [
                replies.i.payload.eq(frames.payload),
                replies.i.valid.eq(verdict != Verdict.REPEAT),
                frames.ready.eq(1),
            ]
            m.d.sync += self.left.eq(self.left - 1)
            m.next = "DRAIN"
            with m.If(verdict == Verdict.EXECUTE):
                self._gather(m, Part.HEADER)

    def _gather_operation(self, m: Module) -> None:
        """The bytes of an operation's header, of its address or of an element, and what they mean."""
        frames, left, part, word, index = self.frames, self.left, self.part, self.word, self.index
        with m.State("GATHER"):
            with m.If(left == CRC_BYTES):
                m.next = "DRAIN"
                with m.If((part != Part.HEADER) | (index != 0)):
                    self._fail(m)
            with m.Elif(frames.valid):
                m.d.comb += frames.ready.eq(1)
                m.d.sync += [left.eq(left - 1), index.eq(index + 1)]
                with m.Switch(index):
                    with m.Case(0):
                        m.d.sync += word.eq(frames.payload)
                    for k in range(1, HEADER_WORD):
                        with m.Case(k):
                            m.d.sync += word[8 * k : 8 * k + 8].eq(frames.payload)
                with m.If(index == Mux(part == Part.DATA, self.width, HEADER_WORD - 1)):
                    m.next = "HEAD"
                    with m.If(part == Part.HEADER):
                        m.d.sync += [self.op.eq(word[:2]), self.count.eq(word[8:]), self.width.eq(frames.payload - 1)]
                        self._gather(m, Part.ADDRESS)
                        with m.If((word[2:8] != 0) | (word[:2] == 0) | (frames.payload == 0) | (frames.payload > HEADER_WORD)):
                            self._fail(m)
                            m.next = "DRAIN"

    def _access(self, m: Module) -> None:
        """Words to the core: a header, then an address or an element."""
        request, part, op, count = self.request, self.part, self.op, self.count
        with m.State("HEAD"):
            operation = Mux(part == Part.DATA, C(OP_NEXT, 8), Mux(op == Op.READ, C(OP_READ, 8), C(OP_SEEK, 8)))
            m.d.comb += [
                request.payload[:24].eq(Cat(operation, Mux(part == Part.DATA, 1, count))),
                request.valid.eq(op != Op.INFO),
            ]
            with m.If(request.ready | (op == Op.INFO)):
                m.next = "BODY"
        with m.State("BODY"):
            m.d.comb += request.valid.eq(op != Op.INFO)
            with m.If(request.ready | (op == Op.INFO)):
                m.d.sync += count.eq(count - (part == Part.DATA))
                with m.If((part == Part.DATA) & (count == 1)):
                    self._gather(m, Part.HEADER)
                with m.Elif(op == Op.WRITE):
                    self._gather(m, Part.DATA)
                with m.Else():
                    m.d.sync += self.index.eq(0)
                    m.next = "READ"

    def _read(self, m: Module) -> None:
        """Bytes of the core's words, or of the description, go to the reply."""
        replies, reply, count, index = self.replies, self.reply, self.count, self.index
        with m.State("READ"):
            # Of n bytes still to come, the first is the n-th from the end.
            rom = Array(self.rom[-n] if 0 < n <= len(self.rom) else 0 for n in range(1 << bits_for(len(self.rom))))
            inform, last = self.op == Op.INFO, Signal()
            told = rom[count[: bits_for(len(self.rom))]]
            read = Array(reply.payload[8 * k : 8 * k + 8] for k in range(HEADER_WORD))[index]
            m.d.comb += [
                replies.i.payload.eq(Mux(inform, told, read)),
                replies.i.valid.eq((inform | reply.valid) & replies.room),
                last.eq(inform | (index == self.width)),
            ]
            with m.If((inform | reply.valid) & (replies.i.ready | ~replies.room)):
                m.d.comb += reply.ready.eq(last & ~inform)
                m.d.sync += index.eq(index + 1)
                with m.If(~replies.room):
                    self._fail(m)
                with m.If(last):
                    m.d.sync += [index.eq(0), count.eq(count - 1)]
                    with m.If(count == 1):
                        self._gather(m, Part.HEADER)

    def _end_frame(self, m: Module) -> None:
        """The rest of the frame, and the end of the reply to it."""
        with m.State("DRAIN"):
            with m.If(self.left != 0):
                self._take(m, "DRAIN")
                with m.If(self.frames.valid):
                    m.d.sync += self.left.eq(self.left - 1)
            with m.Elif(self.verdict == Verdict.REPEAT):
                m.next = "SEND"
            with m.Else():
                m.next = "STATUS"
        with m.State("STATUS"):
            self._put(m, self.status, "SIZE")
        with m.State("SIZE"):
            self._put(m, self.replies.length, "CRC")

    def _send_reply(self, m: Module) -> None:
        """The CRC of the reply, which is then sent."""
        replies = self.replies
        with m.State("CRC"), m.If(~replies.building):
            m.d.comb += replies.finish.eq(1)
            m.next = "SEND"
        with m.State("SEND"), m.If(~replies.building & ~replies.sending):
            m.d.comb += replies.send.eq(1)
            m.next = "LENGTH"
            with m.If(self.verdict == Verdict.REFUSE):
                m.next = "WAIT"
        with m.State("WAIT"), m.If(~replies.sending):  # a refusal stands where the next reply will be built
            m.next = "LENGTH"


class Endpoint(wiring.Component):
    """From bytes of the line to words of the core, and back: Receiver and Executor.

    `damaged`: the line lost a byte. `open`: there is a session. `error`: since the session was opened a frame was dropped, or an
    operation was illegal. `idle`: nothing is under way (but a frame that is not complete).

    With `stored` (where a network may be stored) the link has the pins `flash`. After a reset they and the link are first Boot's:
    then `booting` is high, the line's bytes wait, a damaged byte does not matter, and no reply is sent.
    """

    def __init__(self, machine: Machine, link: Link, stored: Stored | None = None):
        self.machine, self.link, self.stored = machine, link, stored
        super().__init__(
            {
                "i": In(stream.Signature(8)),
                "damaged": In(1),
                "o": Out(stream.Signature(8)),
                "request": Out(stream.Signature(HOST_BITS)),
                "reply": In(stream.Signature(HOST_BITS)),
                "open": Out(1),
                "error": Out(1),
                "idle": Out(1),
                "booting": Out(1),
            }
            | ({"flash": Out(FLASH)} if stored else {})
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.receiver = receiver = Receiver(self.link.buffer)
        m.submodules.executor = executor = Executor(self.machine, self.link)
        frames = receiver.o
        for n in range(self.machine.wires.ends):  # a ring of block RAM is slow, and may lie far away
            m.submodules[f"near_{n}"] = near = StreamRegister(8)
            connect(m, frames, near.i)
            frames = near.o
        connect(m, frames, executor.frames)
        connect(m, executor.request, flipped(self.request))
        connect(m, flipped(self.reply), executor.reply)
        done = executor.idle & ~receiver.o.valid
        m.d.comb += [self.open.eq(executor.open), self.idle.eq(done & ~self.booting)]
        if self.stored:
            m.submodules.boot = self._boot(m, receiver, executor, done)
        with m.If(~self.booting):
            connect(m, flipped(self.i), receiver.i)
            connect(m, executor.o, flipped(self.o))
            m.d.comb += receiver.damaged.eq(self.damaged)
        with m.If(receiver.dropped | executor.failed):
            m.d.sync += self.error.eq(1)
        with m.If(executor.opened):
            m.d.sync += self.error.eq(0)
        return m

    def _boot(self, m: Module, receiver: Receiver, executor: Executor, done: Value) -> Boot:
        """The link in the hands of a Boot."""
        assert self.stored
        boot = Boot(self.stored, self.link.clock)
        connect(m, boot.flash, flipped(self.flash))
        m.d.comb += [
            self.booting.eq(boot.active),
            boot.idle.eq(done),
            boot.good.eq(receiver.good),
            receiver.check.eq(boot.check),
            receiver.forget.eq(boot.over),
            executor.close.eq(boot.over),
        ]
        with m.If(self.booting):
            m.d.comb += [receiver.i.valid.eq(boot.o.valid), receiver.i.payload.eq(boot.o.payload), executor.o.ready.eq(1)]
        return boot
