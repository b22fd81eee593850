"""The whole design of a board: clock, host port, core."""

from amaranth.hdl import ClockDomain, Elaboratable, Module
from amaranth.lib import io, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from boards.board import Board
from hw.config import Config
from hw.host.link import Endpoint
from hw.host.protocol import Link
from hw.host.uart import UARTReceiver, UARTTransmitter, divisor
from hw.pll import Clocking

LIGHTS = ("configured", "alive", "busy", "error")
"""What a board's LEDs show: the bitstream runs, a host has a session, the core works, a frame was dropped or illegal."""


class Pins(wiring.Component):
    """The board's pins that a design uses: serial line from and to the host, LEDs."""

    rx: Out(1)
    tx: In(1)
    lights: In(len(LIGHTS))

    def __init__(self, board: Board):
        self.board = board
        super().__init__()

    def elaborate(self, platform) -> Module:
        m = Module()
        uart = platform.request("uart", dir="-")
        m.submodules.rx, m.submodules.tx = rx, tx = io.Buffer("i", uart.rx), io.Buffer("o", uart.tx)
        m.d.comb += [self.rx.eq(rx.i), tx.o.eq(self.tx)]
        for name, (resource, number) in self.board.lights.items():
            m.submodules[name] = light = io.Buffer("o", platform.request(resource, number, dir="-"))
            m.d.comb += light.o.eq(self.lights[LIGHTS.index(name)])
        return m


class Device(wiring.Component):
    """A core behind its link: bytes from and to the host. `quiet`: nothing is under way."""

    def __init__(self, config: Config, link: Link):
        from hw.core import Core

        self.endpoint, self.core = Endpoint(config, link), Core(config)
        super().__init__(
            {
                "i": In(stream.Signature(8)),
                "damaged": In(1),
                "o": Out(stream.Signature(8)),
                "lights": Out(len(LIGHTS)),
                "quiet": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.endpoint, m.submodules.core = endpoint, core = self.endpoint, self.core
        connect(m, flipped(self.i), endpoint.i)
        connect(m, endpoint.o, flipped(self.o))
        connect(m, endpoint.request, core.request)
        connect(m, core.reply, endpoint.reply)
        lights = {"configured": 1, "alive": endpoint.open, "busy": core.busy, "error": endpoint.error}
        m.d.comb += [
            endpoint.damaged.eq(self.damaged),
            *(self.lights[LIGHTS.index(name)].eq(value) for name, value in lights.items()),
            self.quiet.eq(endpoint.idle & ~core.busy),
        ]
        return m


class SerialDevice(wiring.Component):
    """The same behind a UART of `link.baud` at a clock of `link.clock`."""

    rx: In(1)
    tx: Out(1)
    lights: Out(len(LIGHTS))
    quiet: Out(1)

    def __init__(self, config: Config, link: Link):
        self.device = Device(config, link)
        self.cycles_per_bit = divisor(link.clock, link.baud)
        super().__init__()

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.device = device = self.device
        m.submodules.receiver = receiver = UARTReceiver(self.cycles_per_bit)
        m.submodules.transmitter = transmitter = UARTTransmitter(self.cycles_per_bit)
        connect(m, receiver.o, device.i)
        connect(m, device.o, transmitter.i)
        m.d.comb += [
            receiver.rx.eq(self.rx),
            self.tx.eq(transmitter.tx),
            device.damaged.eq(receiver.error),
            self.lights.eq(device.lights),
            self.quiet.eq(device.quiet & transmitter.i.ready),
        ]
        return m


class Top(Elaboratable):
    """Host port and core at the board's clock; the LEDs show LIGHTS."""

    def __init__(self, config: Config, board: Board):
        self.clocking, self.pins = Clocking(board), Pins(board)
        self.device = SerialDevice(config, board.link)

    def elaborate(self, platform) -> Module:
        m = Module()
        m.domains.sync = ClockDomain()
        m.submodules.clocking, m.submodules.pins, m.submodules.device = self.clocking, self.pins, self.device
        m.d.comb += [self.device.rx.eq(self.pins.rx), self.pins.tx.eq(self.device.tx), self.pins.lights.eq(self.device.lights)]
        return m
