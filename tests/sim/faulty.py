"""A block that breaks its streams' handshake on purpose, for the simulators that must notice."""

from amaranth import Module, Signal
from amaranth.hdl import ShapeLike, ValueLike
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Faulty(wiring.Component):
    """`result()` of each word, with deliberate faults: after `fault_at` words it does as `fault` says.

    `hang`: takes no more; `lose`: swallows the next one; `extra`: gives the last one twice; `unsteady` (always): changes what
    waits. `others`: ports beside the streams `i` and `o`, and `seen`, words taken.
    """

    def __init__(self, i: ShapeLike, o: ShapeLike, fault: str, fault_at: int, **others: wiring.Member):
        self.fault, self.fault_at = fault, fault_at
        super().__init__({"i": In(stream.Signature(i)), "o": Out(stream.Signature(o)), "seen": Out(16), **others})

    def result(self) -> ValueLike:
        raise NotImplementedError

    def elaborate(self, platform: object) -> Module:
        m = Module()
        now = self.seen == self.fault_at
        full, blink, value = Signal(), Signal(), Signal(self.o.payload.shape())
        m.d.comb += [
            self.i.ready.eq((~full | self.o.ready) & ~(now if self.fault == "hang" else 0)),
            self.o.valid.eq(full),
            self.o.payload.eq(value ^ blink),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += full.eq(now if self.fault == "extra" else 0)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [self.seen.eq(self.seen + 1), value.eq(self.result()), full.eq(~now if self.fault == "lose" else 1)]
        if self.fault == "unsteady":
            m.d.sync += blink.eq(~blink)
        return m
