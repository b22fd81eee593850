"""A FIFO whose newest words can be taken back."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.numbers import bits_for


class Ring(wiring.Component):
    """A ring of `depth` bytes (a power of two), one of which stays free.

    `write` appends `data` while there is `room`, else it does nothing. `commit` admits to `o` all that was written, `rewind` drops
    what was not admitted. Neither comes with a `write`.

    Timing:   a byte a cycle in; one leaves every 2 cycles
    """

    write: In(1)
    data: In(8)
    room: Out(1)
    commit: In(1)
    rewind: In(1)
    o: Out(stream.Signature(8))

    def __init__(self, depth: int):
        self.depth = depth
        self.head, self.tail, self.admitted = (Signal(bits_for(depth), name=n) for n in ("head", "tail", "admitted"))
        super().__init__()

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=self.depth, init=[])
        reader, writer = memory.read_port(), memory.write_port()
        head, tail, admitted = self.head, self.tail, self.admitted
        behind = Signal.like(head)
        m.d.comb += [
            behind.eq(head + 1),
            self.room.eq(behind != tail),
            writer.addr.eq(head),
            writer.data.eq(self.data),
            writer.en.eq(self.write & self.room),
            reader.addr.eq(tail),
            self.o.payload.eq(reader.data),
        ]
        with m.If(writer.en):
            m.d.sync += head.eq(behind)
        with m.If(self.commit):
            m.d.sync += admitted.eq(head)
        with m.If(self.rewind):
            m.d.sync += head.eq(admitted)
        m.d.sync += self.o.valid.eq((tail != admitted) & ~(self.o.valid & self.o.ready))
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += tail.eq(tail + 1)
        return m
