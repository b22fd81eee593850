"""Bytes to 32-bit words and back, least byte first."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

WORD_BYTES = 4


class BytesToWords(wiring.Component):
    """Four bytes make a word, the first one its least.

    Timing:  a word is valid with its last byte, combinationally; that byte waits until the word is taken
    """

    i: In(stream.Signature(8))
    o: Out(stream.Signature(8 * WORD_BYTES))

    def elaborate(self, platform) -> Module:
        m = Module()
        held = Signal(8 * (WORD_BYTES - 1))
        count = Signal(range(WORD_BYTES))
        last = count == WORD_BYTES - 1
        m.d.comb += [
            self.o.payload.eq(Cat(held, self.i.payload)),
            self.o.valid.eq(self.i.valid & last),
            self.i.ready.eq(self.o.ready | ~last),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [held.eq(Cat(held[8:], self.i.payload)), count.eq(count + 1)]
        return m


class WordsToBytes(wiring.Component):
    """A word makes four bytes, its least first.

    Timing:  bytes are valid with their word, combinationally; the word is taken with the last of them
    """

    i: In(stream.Signature(8 * WORD_BYTES))
    o: Out(stream.Signature(8))

    def elaborate(self, platform) -> Module:
        m = Module()
        count = Signal(range(WORD_BYTES))
        m.d.comb += [
            self.o.payload.eq(self.i.payload.word_select(count, 8)),
            self.o.valid.eq(self.i.valid),
            self.i.ready.eq(self.o.ready & (count == WORD_BYTES - 1)),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += count.eq(count + 1)
        return m
