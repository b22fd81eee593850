"""The line to the Verilated gateware in this process: port `sim` of sw.driver.device."""

from __future__ import annotations

from pathlib import Path

from hw.host.protocol import Link
from hw.machine import Machine
from sim.endpoint import Model
from sw.transport.process import InProcess


class Simulated(InProcess):
    """The line to a device of the simulation. `file` stands for its flash; with None what is stored is forgotten in the end."""

    model: Model

    def __init__(self, model: Model, file: Path | None = None):
        super().__init__("sim", model)
        self._file = file

    def store(self, image: bytes, board: str | None) -> None:
        if self._file:
            self._file.write_bytes(image)
        self.model.flash = image
        self.model.power_up()
        self._waiting = b""


def simulated(machine: Machine, link: Link, *, flash: str | Path | None = None) -> Simulated:
    """A new device. `flash`: the file that is its flash, erased if the file is not there. ValueError if it cannot be one."""
    path = Path(flash) if flash is not None else None
    if path and (path.is_dir() or not path.parent.is_dir()):
        raise ValueError(f"flash: {path} is not legal; legal is a file in a folder that is there")
    held = path.read_bytes() if path and path.is_file() else b""
    return Simulated(Model(machine, link, flash=held), path)
