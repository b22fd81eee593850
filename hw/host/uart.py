"""The host port: bytes over an asynchronous serial line (8 data bits, no parity, 1 stop bit, least bit first)."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

MIN_DIVISOR = 4  # clock cycles a bit; fewer leave no middle to sample
MAX_BAUD_ERROR = 0.02  # of a bit over a frame of ten bits: a fifth of a bit


def divisor(clock: float, baud: float) -> int:
    """Clock cycles a bit for a clock and a bit rate in Hz; ValueError if the rate is too high or misses by over 2 %."""
    cycles = round(clock / baud) if baud > 0 else 0
    if cycles < MIN_DIVISOR:
        raise ValueError(f"baud: {baud:g} is not legal; legal is 1 to {clock / MIN_DIVISOR:g} at a clock of {clock:g} Hz")
    if abs(clock / cycles / baud - 1) > MAX_BAUD_ERROR:
        raise ValueError(f"baud: {baud:g} cannot be made from a clock of {clock:g} Hz; near it are"
                         f" {clock / (cycles + 1):g}, {clock / cycles:g} and {clock / (cycles - 1):g}")  # fmt: skip
    return cycles


class UARTReceiver(wiring.Component):
    """Serial line to bytes.

    Timing:  a byte is valid half a bit into its stop bit; it is held until taken or overwritten by the next one
    Errors:  `error` is high for a cycle if a byte's stop bit is low (a wrong rate, noise, or a break sent on purpose), or if
             a byte was not taken when the next one was complete. The first byte is dropped, in the second case the older one;
             after a low stop bit the receiver waits for the idle line.
    """

    rx: In(1)
    o: Out(stream.Signature(8))
    error: Out(1)

    def __init__(self, cycles_per_bit: int):
        if cycles_per_bit < MIN_DIVISOR:
            raise ValueError(f"cycles_per_bit: {cycles_per_bit} is not legal; legal is {MIN_DIVISOR} or more")
        self.cycles_per_bit = cycles_per_bit
        super().__init__()

    def elaborate(self, platform) -> Module:
        m = Module()
        line = Signal(init=1)
        m.submodules.sync = FFSynchronizer(self.rx, line, init=1)
        timer = Signal(range(self.cycles_per_bit))
        shift = Signal(8)
        m.d.sync += self.error.eq(0)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(timer != 0):
            m.d.sync += timer.eq(timer - 1)

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [
                    timer.eq(self.cycles_per_bit // 2 - 1),
                    shift.eq(1 << 7),  # a mark ahead of the first bit: when it is pushed out, the last bit is in
                ]
                with m.If(~line):
                    m.next = "START"
            with m.State("START"), m.If(timer == 0):
                m.d.sync += timer.eq(self.cycles_per_bit - 1)
                m.next = "DATA"
                with m.If(line):  # a glitch
                    m.next = "IDLE"
            with m.State("DATA"), m.If(timer == 0):
                m.d.sync += [timer.eq(self.cycles_per_bit - 1), shift.eq(Cat(shift[1:], line))]
                with m.If(shift[0]):
                    m.next = "STOP"
            with m.State("STOP"), m.If(timer == 0):
                with m.If(line):
                    m.d.sync += [self.o.payload.eq(shift), self.o.valid.eq(1), self.error.eq(self.o.valid & ~self.o.ready)]
                    m.next = "IDLE"
                with m.Else():
                    m.d.sync += self.error.eq(1)
                    m.next = "BREAK"
            with m.State("BREAK"), m.If(line):
                m.next = "IDLE"
        return m


class UARTTransmitter(wiring.Component):
    """Bytes to serial line.

    Timing:  ten bits a byte, without a pause between bytes if the next one waits
    """

    i: In(stream.Signature(8))
    tx: Out(1, init=1)

    def __init__(self, cycles_per_bit: int):
        if cycles_per_bit < MIN_DIVISOR:
            raise ValueError(f"cycles_per_bit: {cycles_per_bit} is not legal; legal is {MIN_DIVISOR} or more")
        self.cycles_per_bit = cycles_per_bit
        super().__init__()

    def elaborate(self, platform) -> Module:
        m = Module()
        timer = Signal(range(self.cycles_per_bit))
        shift = Signal(10, init=1)  # zeros come after the stop bit, which stays: the line is idle
        m.d.comb += [self.tx.eq(shift[0]), self.i.ready.eq((shift[1:] == 0) & (timer == 0))]
        with m.If(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Elif(shift[1:] != 0):
            m.d.sync += [shift.eq(shift >> 1), timer.eq(self.cycles_per_bit - 1)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [shift.eq(Cat(0, self.i.payload, 1)), timer.eq(self.cycles_per_bit - 1)]
        return m
