"""A line to a model of a device in this process, and the table of those models by the name of their port."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol

from hw.host.protocol import Link
from hw.machine import Machine
from sw.transport.base import DeviceError, Transport

WORLDS = {"sim": "sim.transport:simulated", "golden": "sw.transport.golden:golden"}
"""Ports that are a device in this process: `sim` the Verilated gateware, `golden` the golden model.

Each names the module and the function that make it. A module is imported when its port is opened, so that sw does without the
package sim.
"""
SLICE = 20_000_000  # clock cycles of the model in one call, so that an interrupt from the keyboard gets through


class Model(Protocol):
    """A device that takes and gives bytes, and whose time passes only in `run` (sim.endpoint.Model, sw.transport.golden.Model)."""

    def run(self, data: bytes = b"", *, limit: int = ..., capacity: int = ..., frame: bool = ...) -> tuple[int, bytes]:
        """Sends `data`, then runs until nothing more happens, for `limit` clock cycles or until `capacity` bytes came.

        With `frame` it also ends once a delimiter came. How many bytes were sent, and the bytes that came.
        """

    def reset(self) -> None:
        """Resets registers, not memories."""


class InProcess(Transport):
    """The line to a model. Its time stands still between calls, so that a timeout means that nothing will ever come."""

    def __init__(self, name: str, model: Model):
        self.name, self.model = name, model
        self._waiting = b""

    def send(self, data: bytes) -> None:
        self._waiting += data

    def receive(self, timeout: float) -> bytes:
        while True:
            sent, data = self.model.run(self._waiting, limit=SLICE, frame=True)
            idle = not data and sent == len(self._waiting)
            self._waiting = self._waiting[sent:]
            if data or idle:
                return data

    def close(self) -> None:
        getattr(self.model, "close", lambda: None)()


def open_world(name: str, machine: Machine, link: Link, *, flash: str | Path | None = None) -> Transport:
    """The line to a new device in this process, one of WORLDS.

    `flash`: the file that is the flash of `sim`; it is made if it is not there. With None the flash is forgotten in the end.

    Raises:
        DeviceError: the package that has the device cannot be imported.
        ValueError: `flash` cannot be the device's flash.
    """
    module, _, maker = WORLDS[name].partition(":")
    try:
        make = getattr(import_module(module), maker)
    except ImportError as error:
        raise DeviceError(f"port: {name} needs {module}, which cannot be imported ({error}); install the whole project"
                          " (`pip install -e .`), or use another port") from None  # fmt: skip
    line: Transport = make(machine, link, flash=flash)
    return line
