"""Replies: built, kept for as long as they may be asked for again, and sent."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.host.crc import Crc32
from hw.host.protocol import DELIMITER, REPLY_REST, SLOTS
from hw.numbers import bits_for


class Replies(wiring.Component):
    """SLOTS replies of up to `size` bytes as they go over the line, COBS and delimiter included.

    `begin` empties slot `slot`, bytes on `i` are appended, `finish` adds their CRC; `slot` must not change in between. `length` is
    one more than the bytes appended so far; there is `room` for data while the trailer will fit behind it. `send` (while not
    `sending`) has slot `send_slot` sent on `o`; a reply can be built while another one is sent.

    A slot is shorter than a COBS block can be, so that a code is always the distance to the next zero. It is written when that zero
    comes.

    Timing:   a byte is taken every 9 cycles, `finish` takes 40; a byte is sent every 2 cycles
    """

    def __init__(self, size: int):
        self.size = size
        super().__init__(
            {
                "slot": In(range(SLOTS)),
                "begin": In(1),
                "i": In(stream.Signature(8)),
                "room": Out(1),
                "length": Out(8),
                "finish": In(1),
                "building": Out(1),
                "send": In(1),
                "send_slot": In(range(SLOTS)),
                "sending": Out(1),
                "o": Out(stream.Signature(8)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        bits = bits_for(self.size)
        m.submodules.crc = crc = Crc32()
        m.submodules.memory = memory = Memory(shape=8, depth=SLOTS * self.size, init=[])
        port, reader = memory.write_port(), memory.read_port()
        writer = port.signature.create()  # what is written, from registers: the byte comes a long way
        at, code = Signal(bits), Signal(bits)  # where the next byte goes, and the last code
        distance = Signal(8)
        m.d.sync += [getattr(port, name).eq(getattr(writer, name)) for name in ("addr", "data", "en")]
        m.d.comb += [
            distance.eq(at - code),
            self.length.eq(at),
            self.room.eq(at < self.size - REPLY_REST + 2),
            writer.addr.eq(Cat(at, self.slot)),
            crc.start.eq(self.begin),
            crc.byte.eq(self.i.payload),
            self.building.eq(1),
        ]

        def append(byte) -> None:
            m.d.sync += at.eq(at + 1)
            m.d.comb += [writer.en.eq(1), writer.data.eq(Mux(byte == 0, distance, byte))]
            with m.If(byte == 0):
                m.d.sync += code.eq(at)
                m.d.comb += writer.addr.eq(Cat(code, self.slot))

        left = Signal(range(4))
        with m.FSM():
            with m.State("DATA"):
                m.d.comb += [self.i.ready.eq(~crc.busy), self.building.eq(crc.busy)]
                with m.If(self.i.valid & ~crc.busy):
                    m.d.comb += crc.push.eq(1)
                    append(self.i.payload)
                with m.If(self.begin):
                    m.d.sync += [at.eq(1), code.eq(0)]
                with m.If(self.finish):
                    m.d.sync += left.eq(3)
                    m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += crc.plain.eq(1)
                with m.If(~crc.busy):
                    m.d.comb += crc.push.eq(1)
                    append(crc.low)
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 0):
                        m.next = "CODE"
            with m.State("CODE"):
                m.d.comb += [writer.en.eq(1), writer.data.eq(distance), writer.addr.eq(Cat(code, self.slot))]
                m.next = "DELIMITER"
            with m.State("DELIMITER"):
                m.d.comb += [writer.en.eq(1), writer.data.eq(DELIMITER)]
                m.next = "DATA"
        self._send(m, reader, bits)
        return m

    def _send(self, m: Module, reader, bits: int) -> None:
        at, slot, sending = Signal(bits), Signal.like(self.send_slot), Signal()
        taken = self.o.valid & self.o.ready
        m.d.comb += [reader.addr.eq(Cat(at, slot)), self.o.payload.eq(reader.data), self.sending.eq(sending)]
        m.d.sync += self.o.valid.eq(sending & ~taken)
        with m.If(taken):
            m.d.sync += at.eq(at + 1)
            with m.If((reader.data == DELIMITER) | at.all()):
                m.d.sync += sending.eq(0)
        with m.If(self.send & ~sending):
            m.d.sync += [sending.eq(1), at.eq(0), slot.eq(self.send_slot)]
