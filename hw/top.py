"""The whole design of a board: clock, host port, core."""

from amaranth.hdl import ClockDomain, Elaboratable, Module, ResetInserter
from amaranth.lib import io, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect

from boards.board import Board
from hw.config import Config
from hw.host.uart import UARTReceiver, UARTTransmitter, divisor
from hw.host.words import BytesToWords, WordsToBytes
from hw.pll import Clocking

FIFO_BYTES = 512  # what a host may send ahead while the core is busy; one block RAM


class Pins(wiring.Component):
    """The board's pins that a design uses: serial line from and to the host, one LED."""

    rx: Out(1)
    tx: In(1)
    led: In(1)

    def __init__(self, board: Board):
        self.board = board
        super().__init__()

    def elaborate(self, platform) -> Module:
        m = Module()
        uart, led = platform.request("uart", dir="-"), platform.request(self.board.led, dir="-")
        m.submodules.rx, m.submodules.tx = rx, tx = io.Buffer("i", uart.rx), io.Buffer("o", uart.tx)
        m.submodules.led = light = io.Buffer("o", led)
        m.d.comb += [self.rx.eq(rx.i), tx.o.eq(self.tx), light.o.eq(self.led)]
        return m


class Top(Elaboratable):
    """UART -> bytes -> words -> Core -> words -> bytes -> UART, at the board's clock; the LED shows `busy`.

    A receive error (see UARTReceiver) resets core and host port: the host knows that every word counts from there, and it
    makes such an error at will by a break. Memories keep their contents.
    """

    def __init__(self, config: Config, board: Board):
        from hw.core import Core

        self.clocking, self.pins = Clocking(board), Pins(board)
        cycles = divisor(self.clocking.frequency, board.baud)
        self.core = Core(config)
        self.receiver, self.transmitter = UARTReceiver(cycles), UARTTransmitter(cycles)
        self.fifo = SyncFIFOBuffered(width=8, depth=FIFO_BYTES)
        self.to_words, self.to_bytes = BytesToWords(), WordsToBytes()

    def elaborate(self, platform) -> Module:
        m = Module()
        m.domains.sync = ClockDomain()
        m.submodules.clocking, m.submodules.pins, m.submodules.receiver = self.clocking, self.pins, self.receiver
        restart = ResetInserter(self.receiver.error)
        for name in ("core", "transmitter", "fifo", "to_words", "to_bytes"):
            m.submodules[name] = restart(getattr(self, name))
        m.d.comb += [self.receiver.rx.eq(self.pins.rx), self.pins.tx.eq(self.transmitter.tx), self.pins.led.eq(self.core.busy)]
        connect(m, self.receiver.o, self.fifo.w_stream)
        connect(m, self.fifo.r_stream, self.to_words.i)
        connect(m, self.to_words.o, self.core.request)
        connect(m, self.core.reply, self.to_bytes.i)
        connect(m, self.to_bytes.o, self.transmitter.i)
        return m
