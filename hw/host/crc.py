"""CRC-32 of IEEE 802.3, a bit a cycle."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.host.protocol import CRC_POLYNOMIAL, CRC_RESIDUE


class Crc32(wiring.Component):
    """`push` takes `byte`; `start` forgets all bytes. With `plain` the register only shifts, so that its bytes come out below.

    Timing:   busy for the 8 cycles after a push
    Source:   Ross Williams, A Painless Guide to CRC Error Detection Algorithms (1993), the reflected algorithm
    """

    start: In(1)
    push: In(1)
    plain: In(1)
    byte: In(8)
    busy: Out(1)
    low: Out(8)
    """Lowest byte of the CRC, that is of the inverted register."""
    good: Out(1)
    """The bytes end with the CRC of those before."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.shift, self.left = Signal(32, init=-1), Signal(8), Signal(range(9))  # register, bits to come, how many

    def elaborate(self, platform) -> Module:
        m = Module()
        value, shift, left = self.value, self.shift, self.left
        feedback = (value[0] ^ shift[0]) & ~self.plain
        m.d.comb += [self.busy.eq(left != 0), self.low.eq(~value[:8]), self.good.eq(value == CRC_RESIDUE)]
        with m.If(left != 0):
            m.d.sync += [value.eq((value >> 1) ^ Mux(feedback, CRC_POLYNOMIAL, 0)), shift.eq(shift >> 1), left.eq(left - 1)]
        with m.If(self.push):
            m.d.sync += [shift.eq(self.byte), left.eq(8)]
        with m.If(self.start):
            m.d.sync += value.eq(-1)
        return m
