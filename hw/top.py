"""The whole design of a board: clock, host port, core."""

from amaranth.hdl import ClockDomain, Elaboratable, Instance, Module
from amaranth.lib import io, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from boards.board import Board
from hw.host.boot import FLASH
from hw.host.command import command
from hw.host.link import Endpoint
from hw.host.protocol import Link
from hw.host.stored import Stored
from hw.host.uart import UARTReceiver, UARTTransmitter, divisor
from hw.machine import Machine
from hw.memory import HostBus
from hw.pll import Clocking

LIGHTS = ("configured", "alive", "busy", "error")
"""What a board's LEDs show, in this order: the bitstream runs (and has loaded what is stored), a host has a session, the core
works, a frame was dropped or illegal."""


class Pins(wiring.Component):
    """The board's pins that a design uses: serial line from and to the host, LEDs, and those of its SPI flash if `with_flash`."""

    rx: Out(1)
    tx: In(1)
    lights: In(len(LIGHTS))
    flash: In(FLASH)

    def __init__(self, board: Board, *, with_flash: bool = False):
        self.board, self.with_flash = board, with_flash
        super().__init__()

    def elaborate(self, platform) -> Module:
        m = Module()
        uart = platform.request("uart", dir="-")
        m.submodules.rx, m.submodules.tx = rx, tx = io.Buffer("i", uart.rx), io.Buffer("o", uart.tx)
        m.d.comb += [self.rx.eq(rx.i), tx.o.eq(self.tx)]
        for name, (resource, number) in self.board.lights.items():
            m.submodules[name] = light = io.Buffer("o", platform.request(resource, number, dir="-"))
            m.d.comb += light.o.eq(self.lights[LIGHTS.index(name)])
        if self.with_flash:
            self._flash(m, platform)
        return m

    def _flash(self, m: Module, platform) -> None:
        flash = platform.request(*self.board.flash_pins, dir="-")
        for name in ("cs", "clk", "copi", "wp", "hold"):
            if hasattr(flash, name):
                m.submodules[f"flash_{name}"] = pin = io.Buffer("o", getattr(flash, name))
                m.d.comb += pin.o.eq(getattr(self.flash, name, 0))  # neither protected nor on hold
        if self.board.chip.family.name == "ecp5":  # the clock's pin is that of the configuration
            m.submodules.flash_clk = Instance("USRMCLK", i_USRMCLKI=self.flash.clk, i_USRMCLKTS=0)
        m.submodules.flash_cipo = cipo = io.Buffer("i", flash.cipo)
        m.d.comb += self.flash.cipo.eq(cipo.i)


class Device(wiring.Component):
    """A core behind its link: bytes from and to the host, and the pins of the flash if a network is `stored` there.

    `quiet`: nothing is under way.
    """

    def __init__(self, machine: Machine, link: Link, stored: Stored | None = None):
        from hw.core import Core

        self.stored = stored
        self.endpoint, self.core = Endpoint(machine, link, stored), Core(machine)
        super().__init__(
            {
                "i": In(stream.Signature(8)),
                "damaged": In(1),
                "o": Out(stream.Signature(8)),
                "lights": Out(len(LIGHTS)),
                "quiet": Out(1),
            }
            | ({"flash": Out(FLASH)} if stored else {})
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.endpoint, m.submodules.core = endpoint, core = self.endpoint, self.core
        connect(m, flipped(self.i), endpoint.i)
        connect(m, endpoint.o, flipped(self.o))
        connect(m, endpoint.request, core.request)
        connect(m, core.reply, endpoint.reply)
        if self.stored:
            connect(m, endpoint.flash, flipped(self.flash))
        lights = {"configured": ~endpoint.booting, "alive": endpoint.open, "busy": core.busy, "error": endpoint.error}
        m.d.comb += [
            endpoint.damaged.eq(self.damaged),
            *(self.lights[LIGHTS.index(name)].eq(value) for name, value in lights.items()),
            self.quiet.eq(endpoint.idle & ~core.busy),
        ]
        return m


class SerialDevice(wiring.Component):
    """The same behind a UART of `link.baud` at a clock of `link.clock`."""

    def __init__(self, machine: Machine, link: Link, stored: Stored | None = None):
        self.device = Device(machine, link, stored)
        self.cycles_per_bit = divisor(link.clock, link.baud)
        pins = {"rx": In(1), "tx": Out(1), "lights": Out(len(LIGHTS)), "quiet": Out(1)}
        super().__init__(pins | ({"flash": Out(FLASH)} if stored else {}))

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.device = device = self.device
        m.submodules.receiver = receiver = UARTReceiver(self.cycles_per_bit)
        m.submodules.transmitter = transmitter = UARTTransmitter(self.cycles_per_bit)
        connect(m, receiver.o, device.i)
        connect(m, device.o, transmitter.i)
        if device.stored:
            connect(m, device.flash, flipped(self.flash))
        m.d.comb += [
            receiver.rx.eq(self.rx),
            self.tx.eq(transmitter.tx),
            device.damaged.eq(receiver.error),
            self.lights.eq(device.lights),
            self.quiet.eq(device.quiet & transmitter.i.ready),
        ]
        return m


class HostPort(wiring.Component):
    """UART, link and commands as one block, to see what they cost: all between the pins of the line and the bus of the memories."""

    def __init__(self, machine: Machine, link: Link):
        self.machine, self.link = machine, link
        super().__init__(
            {"rx": In(1), "tx": Out(1), "open": Out(1), "error": Out(1), "busy": In(1), "idle": In(1), "host": Out(HostBus())}
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        cycles = divisor(self.link.clock, self.link.baud)
        m.submodules.receiver, m.submodules.transmitter = receiver, transmitter = UARTReceiver(cycles), UARTTransmitter(cycles)
        m.submodules.endpoint, m.submodules.command = endpoint, commands = Endpoint(self.machine, self.link), command(self.machine)
        connect(m, receiver.o, endpoint.i)
        connect(m, endpoint.o, transmitter.i)
        connect(m, endpoint.request, commands.request)
        connect(m, commands.reply, endpoint.reply)
        connect(m, commands.host, flipped(self.host))
        m.d.comb += [receiver.rx.eq(self.rx), endpoint.damaged.eq(receiver.error)]
        m.d.comb += [commands.busy.eq(self.busy), commands.idle.eq(self.idle)]
        m.d.comb += [self.tx.eq(transmitter.tx), self.open.eq(endpoint.open), self.error.eq(endpoint.error)]
        return m


class Top(Elaboratable):
    """Host port and core at the board's clock; the LEDs show LIGHTS. A board with a flash loads the network stored there."""

    def __init__(self, machine: Machine, board: Board):
        stored = board.stored(machine)
        self.clocking, self.pins = Clocking(board), Pins(board, with_flash=stored is not None)
        self.device = SerialDevice(machine, board.link, stored)

    def elaborate(self, platform) -> Module:
        m = Module()
        m.domains.sync = ClockDomain()
        m.submodules.clocking, m.submodules.pins, m.submodules.device = self.clocking, self.pins, self.device
        m.d.comb += [self.device.rx.eq(self.pins.rx), self.pins.tx.eq(self.device.tx), self.pins.lights.eq(self.device.lights)]
        if self.pins.with_flash:
            connect(m, self.device.flash, self.pins.flash)
        return m
