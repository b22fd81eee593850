"""How long a device takes to change its network: the bytes that go over the line, and their time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hw.network import Network
from sw.driver.device import Device
from sw.files.image import Image
from sw.golden.recipe import Recipe
from sw.transport.base import Transport

LINE_BITS = 10
"""Of a byte on the line, with its start and stop bit."""


class Counted(Transport):
    """Another line, with its bytes and the time in it counted."""

    def __init__(self, line: Transport):
        self.line, self.name, self.bauds = line, line.name, line.bauds
        self.sent = self.received = 0
        self.seconds = 0.0
        """Spent in the line, sending, waiting, or simulating."""

    def send(self, data: bytes) -> None:
        self.sent += len(data)
        start = time.perf_counter()
        self.line.send(data)
        self.seconds += time.perf_counter() - start

    def receive(self, timeout: float) -> bytes:
        start = time.perf_counter()
        data = self.line.receive(timeout)
        self.seconds += time.perf_counter() - start
        self.received += len(data)
        return data

    def set_baud(self, baud: int) -> None:
        self.line.set_baud(baud)

    def store(self, image: bytes, board: str | None) -> None:
        self.line.store(image, board)

    def close(self) -> None:
        self.line.close()

    @property
    def cycles(self) -> int | None:
        """Clock cycles of the device so far, if it is a model that counts them."""
        return getattr(getattr(self.line, "model", None), "cycles", None)


class Switch(NamedTuple):
    """One change of the network. Times are seconds."""

    network: Network
    trained: bool
    """Loaded with a state of its own (`Device.load`); else as a fresh network (`Device.configure`)."""
    sent: int
    received: int
    line: float
    """Of the bytes at the line's bit rate. Both ways at once: the longer one."""
    core: float | None
    """Of the device's clock cycles, with a line that never lets it wait; None if nobody counts them."""
    driver: float
    """Outside the line: what the driver computes."""
    whole: float
    """Measured on a serial port; else the sum of these, as if nothing went on beside the other."""


def switches(line: Transport, networks: Sequence[Network], *, seed: int = 0) -> Iterator[Switch]:
    """Opens the device behind a line, and gives it each of the networks in turn: as fresh ones, then each with random weights.

    What the device holds is lost. ValueError if one does not fit, or is the one before it (the first follows the last).
    """
    if any(a == b for a, b in zip(networks, [*networks[1:], *networks[:1]], strict=True)):
        raise ValueError("networks: one after itself is not legal; legal are at least two, each other than the one before it")
    counted = Counted(line)
    with Device.open(counted) as device:
        for network in networks:
            yield _measured(counted, device, network, None)
        for network in networks:
            yield _measured(counted, device, network, Image(network, Recipe().state(network, seed)))


def _measured(line: Counted, device: Device, network: Network, image: Image | None) -> Switch:
    """The change to a network, with the state of an image if there is one."""
    info, cycles, start = device.info(), line.cycles, time.perf_counter()
    sent, received, within = line.sent, line.received, line.seconds
    if image:
        device.load(image)
    else:
        device.configure(network)
    passed, within = time.perf_counter() - start, line.seconds - within
    sent, received, driver = line.sent - sent, line.received - received, passed - within
    on_line = max(sent, received) * LINE_BITS / (info.baud or info.link.baud)
    core = None if cycles is None or line.cycles is None else (line.cycles - cycles) / info.link.clock
    whole = passed if info.baud else on_line + (core or 0) + driver
    return Switch(network, image is not None, sent, received, on_line, core, driver, whole)
