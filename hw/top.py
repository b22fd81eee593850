"""The whole design of a board: clock, host port, core."""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, ResetInserter
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import connect

from boards.board import Board
from hw.config import Config
from hw.host.uart import UARTReceiver, UARTTransmitter, divisor
from hw.host.words import BytesToWords, WordsToBytes
from hw.pll import Clocking

FIFO_BYTES = 512  # what a host may send ahead while the core is busy; one block RAM


class Top(Elaboratable):
    """UART -> bytes -> words -> Core -> words -> bytes -> UART, at the board's clock; the LED shows `busy`.

    A receive error (see UARTReceiver) resets core and host port: the host knows that every word counts from there, and it
    makes such an error at will by a break. Memories keep their contents.
    """

    def __init__(self, config: Config, board: Board):
        from hw.core import Core

        self.board = board
        self.clocking = Clocking(board)
        cycles = divisor(self.clocking.frequency, board.baud)
        self.core = Core(config)
        self.receiver, self.transmitter = UARTReceiver(cycles), UARTTransmitter(cycles)
        self.fifo = SyncFIFOBuffered(width=8, depth=FIFO_BYTES)
        self.to_words, self.to_bytes = BytesToWords(), WordsToBytes()

    def elaborate(self, platform):
        m = Module()
        uart, led = platform.request("uart"), platform.request(self.board.led)
        m.submodules.clocking = self.clocking
        m.submodules.receiver = self.receiver
        restart = ResetInserter(self.receiver.error)
        for name in ("core", "transmitter", "fifo", "to_words", "to_bytes"):
            m.submodules[name] = restart(getattr(self, name))
        m.d.comb += [self.receiver.rx.eq(uart.rx.i), uart.tx.o.eq(self.transmitter.tx), led.o.eq(self.core.busy)]
        connect(m, self.receiver.o, self.fifo.w_stream)
        connect(m, self.fifo.r_stream, self.to_words.i)
        connect(m, self.to_words.o, self.core.request)
        connect(m, self.core.reply, self.to_bytes.i)
        connect(m, self.to_bytes.o, self.transmitter.i)
        return m
