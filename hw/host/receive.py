"""Bytes from the line to whole, undamaged frames: COBS, length and CRC are checked before anything is passed on."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.host.crc import Crc32
from hw.host.protocol import DELIMITER, LENGTH_LEAST
from hw.host.ring import Ring
from hw.numbers import bits_for


class Receiver(wiring.Component):
    """A ring of `depth` bytes.

    A frame's bytes are written behind the last whole frame. Its delimiter admits them to `o`, or drops them.

    A frame is dropped if it is cut off or damaged (COBS, length, CRC, or `damaged`: the line lost a byte), or if it finds the ring
    full. `o` has the decoded bytes: length (2), sequence number, payload, CRC (4). `dropped` is high for a cycle when a frame is
    lost. With `check` the bytes are no frames, but only for the CRC. `good`: the bytes so far end with the CRC of all before them.
    `forget`: the CRC begins anew.
    Timing:   a byte is taken every 9 cycles, and always within them; one leaves every 2 cycles
    """

    i: In(stream.Signature(8))
    damaged: In(1)
    check: In(1)
    forget: In(1)
    good: Out(1)
    o: Out(stream.Signature(8))
    dropped: Out(1)

    def __init__(self, depth: int):
        self.crc, self.ring = Crc32(), Ring(depth)
        self.left, self.where, self.bad = (
            Signal(bits_for(depth)),  # bytes that must follow
            Signal(2),  # bytes of the length field that were seen
            Signal(),  # the frame is damaged
        )
        super().__init__()

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.crc, m.submodules.ring = crc, ring = self.crc, self.ring
        connect(m, ring.o, flipped(self.o))
        block, full, fresh = Signal(8), Signal(), Signal(init=1)  # COBS: bytes left, its zero is not in the data, no byte yet
        left, where, bad = self.left, self.where, self.bad
        byte, decoded, emit = self.i.payload, Signal(8), Signal()
        m.d.comb += [
            self.i.ready.eq(~crc.busy),
            crc.start.eq(self.forget),
            crc.push.eq(emit),
            crc.byte.eq(decoded),
            self.good.eq(crc.good),
            ring.write.eq(emit),
            ring.data.eq(decoded),
        ]
        with m.If(self.i.valid & self.i.ready):
            with m.If(self.check):
                m.d.comb += [crc.push.eq(1), decoded.eq(byte)]
            with m.Elif(byte == DELIMITER):
                m.d.comb += crc.start.eq(1)
                m.d.sync += [fresh.eq(1), bad.eq(0), where.eq(0), block.eq(0)]
                with m.If((block == 0) & (where == 2) & (left == 0) & crc.good & ~bad):
                    m.d.comb += ring.commit.eq(1)
                with m.Else():
                    m.d.comb += [ring.rewind.eq(1), self.dropped.eq(~fresh)]
            with m.Elif(block == 0):
                m.d.sync += [block.eq(byte - 1), full.eq(byte == 0xFF), fresh.eq(0)]
                m.d.comb += emit.eq(~fresh & ~full)
            with m.Else():
                m.d.sync += block.eq(block - 1)
                m.d.comb += [emit.eq(1), decoded.eq(byte)]
        with m.If(emit):
            with m.If(~ring.room):
                m.d.sync += bad.eq(1)
            with m.Switch(where):
                with m.Case(0):
                    m.d.sync += [left.eq(decoded), where.eq(1)]
                with m.Case(1):
                    m.d.sync += [left[8:].eq(decoded), where.eq(2)]
                    with m.If((decoded[: len(left) - 8] == 0) & (left[:8] < LENGTH_LEAST)):
                        m.d.sync += bad.eq(1)
                with m.Default():
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 0):
                        m.d.sync += bad.eq(1)
        with m.If(self.damaged):
            m.d.sync += bad.eq(1)
        return m
