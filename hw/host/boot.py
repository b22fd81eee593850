"""After a reset, the network stored in the board's SPI flash is loaded as a host would load it (hw/host/stored.py)."""

from __future__ import annotations

import math

from amaranth.hdl import Array, C, Cat, Module, Mux, Signal
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.host.stored import COMMAND_BYTES, READ, SECTOR, WAKE, WAKE_SECONDS, Stored
from hw.numbers import bits_for, ceil_log2

FLASH = wiring.Signature({"cs": Out(1), "clk": Out(1), "copi": Out(1), "cipo": In(1)})
"""Pins of a SPI flash, `cs` active high; mode 0: a bit is taken as the clock rises, and the next one comes as it falls."""


class Stage(enum.Enum):
    """What the flash is asked for: to wake up, for an image to be checked, for the same image to be acted on."""

    WAKE = 0
    CHECK = 1
    LOAD = 2


class Boot(wiring.Component):
    """Reads the image twice: first only its identity and its CRC are checked, then its frames go to the receiver of the link.

    A flash without a valid image is read once, until its identity differs or to the end, and nothing comes of it. Boot stands
    still while the link executes a frame, that is, while the link is not `idle`.

    `o`: the bytes of the image behind its identity; they are always taken. `check`: high while these bytes are only for the CRC.
    `good`: the CRC is right. `over`: high for a cycle when the image ends. `active`: high from the reset until all is done.

    Timing:   2 cycles a bit; what the flash sends as the clock falls is taken as it falls again, after a whole period
    """

    def __init__(self, stored: Stored, clock: float):
        self.stored = stored
        # A rest lasts until this bit of `position` is set; the longest that must fit is the flash's after WAKE.
        self.rest = ceil_log2(math.ceil(WAKE_SECONDS * clock / 2) + 8 * COMMAND_BYTES)
        super().__init__(
            {
                "flash": Out(FLASH),
                "idle": In(1),
                "o": Out(stream.Signature(8, always_ready=True)),
                "check": Out(1),
                "good": In(1),
                "over": Out(1),
                "active": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        sector = ceil_log2(8 * SECTOR)
        self.stage, self.selected, high, self.tick = Signal(Stage), Signal(), Signal(), Signal()
        self.position, self.again = (
            Signal(sector + bits_for(self.stored.sectors + 1)),  # bits since the flash was selected
            Signal(),  # the flash is selected again
        )
        self.bit, self.ended = Signal(), Signal(name="ended")
        m.d.comb += [
            self.flash.cs.eq(self.selected),
            self.flash.clk.eq(high),
            self.flash.copi.eq(self.bit),
            self.tick.eq(high & self.idle),
            self.ended.eq(self.position[sector:] == self.stored.sectors),
            self.active.eq(1),
        ]
        m.d.sync += self.o.valid.eq(0)
        with m.If(self.idle & self.active):
            m.d.sync += high.eq(~high)
        with m.If(self.tick):
            m.d.sync += [self.position.eq(self.position + 1), self.o.payload.eq(Cat(self.flash.cipo, self.o.payload))]
            with m.If(self.again):  # so that LOAD ends before the CRC
                m.d.sync += self.position.eq(Mux(self.stage == Stage.LOAD, 8 * COMMAND_BYTES, 0))
        with m.FSM():
            self._command(m)
            self._image(m)
            with m.State("DONE"):
                m.d.comb += self.active.eq(0)
        return m

    def _bits(self, data: bytes):
        """The bit of four bytes that is due, the highest first."""
        return Array(C(byte >> k & 1, 1) for byte in data for k in reversed(range(8)))[self.position[:5]]

    def _deselect(self, m: Module, state: str) -> None:
        m.d.sync += self.selected.eq(0)
        m.next = state

    def _command(self, m: Module) -> None:
        """The states up to the end of a command to the flash."""
        with m.State("REST"), m.If(self.tick & self.position[self.rest]):
            m.d.comb += self.again.eq(1)
            m.d.sync += self.selected.eq(1)
            m.next = "COMMAND"
        with m.State("COMMAND"):
            address = self.stored.offset.to_bytes(COMMAND_BYTES - 1, "big")
            wake, read = self._bits(bytes([WAKE]) + address), self._bits(bytes([READ]) + address)
            m.d.comb += self.bit.eq(Mux(self.stage == Stage.WAKE, wake, read))
            with m.If(self.tick & self.position[:5].all()):
                m.next = "IDENTITY"
                with m.If(self.stage == Stage.WAKE):
                    m.d.sync += self.stage.eq(Stage.CHECK)
                    self._deselect(m, "REST")

    def _image(self, m: Module) -> None:
        """The states in which the image comes: its identity is compared, and the bytes behind it are sent."""
        with m.State("IDENTITY"):
            m.d.comb += self.bit.eq(self._bits(self.stored.identity))
            with m.If(self.tick):
                with m.If(self.position[:5].all()):
                    m.next = "DATA"
                with m.If(self.flash.cipo != self.bit):
                    self._deselect(m, "DONE")
        with m.State("DATA"):
            m.d.comb += self.check.eq(self.stage == Stage.CHECK)
            with m.If(self.tick & self.position[:3].all()):
                m.d.sync += self.o.valid.eq(~self.ended)
                with m.If(self.ended):
                    m.d.comb += self.over.eq(1)
                    m.d.sync += self.stage.eq(Stage.LOAD)
                    self._deselect(m, "DONE")
                    with m.If(self.check & self.good):
                        m.next = "REST"
