"""After a reset, the network stored in the board's SPI flash is loaded as a host would load it (hw/host/stored.py)."""

from __future__ import annotations

import math

from amaranth.hdl import Array, C, Cat, Module, Mux, Signal
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.config import ceil_log2
from hw.host.stored import COMMAND_BYTES, READ, SECTOR, WAKE, WAKE_SECONDS, Stored
from hw.streams import bits_for

FLASH = wiring.Signature({"cs": Out(1), "clk": Out(1), "copi": Out(1), "cipo": In(1)})
"""Pins of a SPI flash, `cs` active high; mode 0: a bit is taken as the clock rises, and the next one comes as it falls."""


class Stage(enum.Enum):
    """What the flash is asked for: to wake up, for an image to be checked, for the same image to be acted on."""

    WAKE = 0
    CHECK = 1
    LOAD = 2


class Boot(wiring.Component):
    """Reads the image twice: first only its identity and its CRC are checked, then its frames go to the receiver of the link.

    A flash without a valid image is read once, until the identity differs or to the end, and nothing comes of it. Nothing moves while the
    link executes a frame, that is, is not `idle`.

    `o`: bytes of the image behind its identity, always taken. `check`: they are only for the CRC, which is `good` if it ends the image.
    `over`: high for a cycle when the image ends. `active`: from the reset until all is done.

    Timing:   2 cycles a bit; what the flash sends as the clock falls is taken as it falls again, after a whole period
    """

    def __init__(self, stored: Stored, clock: float):
        self.stored = stored
        self.rest = ceil_log2(math.ceil(WAKE_SECONDS * clock / 2) + 8 * COMMAND_BYTES)  # bit of `position` that ends a rest, after WAKE above all
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
        stored, sector = self.stored, ceil_log2(8 * SECTOR)
        stage, selected, high, tick = Signal(Stage), Signal(), Signal(), Signal()
        position, again = Signal(sector + bits_for(stored.sectors + 1)), Signal()  # bits since the flash was selected; it is selected again
        bit, ended = Signal(), Signal()
        m.d.comb += [
            self.flash.cs.eq(selected),
            self.flash.clk.eq(high),
            self.flash.copi.eq(bit),
            tick.eq(high & self.idle),
            ended.eq(position[sector:] == stored.sectors),
            self.active.eq(1),
        ]
        m.d.sync += self.o.valid.eq(0)
        with m.If(self.idle & self.active):
            m.d.sync += high.eq(~high)
        with m.If(tick):
            m.d.sync += [position.eq(position + 1), self.o.payload.eq(Cat(self.flash.cipo, self.o.payload))]
            with m.If(again):
                m.d.sync += position.eq(Mux(stage == Stage.LOAD, 8 * COMMAND_BYTES, 0))  # so that LOAD ends before the CRC

        def bits(data: bytes):
            return Array(C(byte >> k & 1, 1) for byte in data for k in reversed(range(8)))[position[:5]]

        def deselect(state: str) -> None:
            m.d.sync += selected.eq(0)
            m.next = state

        with m.FSM():
            with m.State("REST"), m.If(tick & position[self.rest]):
                m.d.comb += again.eq(1)
                m.d.sync += selected.eq(1)
                m.next = "COMMAND"
            with m.State("COMMAND"):
                address = stored.offset.to_bytes(COMMAND_BYTES - 1, "big")
                m.d.comb += bit.eq(Mux(stage == Stage.WAKE, bits(bytes([WAKE]) + address), bits(bytes([READ]) + address)))
                with m.If(tick & position[:5].all()):
                    m.next = "IDENTITY"
                    with m.If(stage == Stage.WAKE):
                        m.d.sync += stage.eq(Stage.CHECK)
                        deselect("REST")
            with m.State("IDENTITY"):
                m.d.comb += bit.eq(bits(stored.identity))
                with m.If(tick):
                    with m.If(position[:5].all()):
                        m.next = "DATA"
                    with m.If(self.flash.cipo != bit):
                        deselect("DONE")
            with m.State("DATA"):
                m.d.comb += self.check.eq(stage == Stage.CHECK)
                with m.If(tick & position[:3].all()):
                    m.d.sync += self.o.valid.eq(~ended)
                    with m.If(ended):
                        m.d.comb += self.over.eq(1)
                        m.d.sync += stage.eq(Stage.LOAD)
                        deselect("DONE")
                        with m.If(self.check & self.good):
                            m.next = "REST"
            with m.State("DONE"):
                m.d.comb += self.active.eq(0)
        return m
