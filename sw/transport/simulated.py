"""Devices that live in this process: the Verilated gateware, or the golden model behind the same protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from hw.config import Config
from hw.host.protocol import Link
from sw.transport.base import Transport

SLICE = 20_000_000  # clock cycles of the simulated device in one call, so that an interrupt from the keyboard gets through


class Model(Protocol):
    """A device that takes and gives bytes, and whose time passes only in `run` (sim.endpoint.Model, sw.transport.golden.Model)."""

    def run(self, data: bytes = b"", *, limit: int = ..., capacity: int = ..., frame: bool = ...) -> tuple[int, bytes]:
        """Sends `data` and runs until nothing more happens, for `limit` clock cycles, until `capacity` bytes or (`frame`) a delimiter came.

        How many bytes were sent, and the bytes that came.
        """

    def reset(self) -> None:
        """Resets registers, not memories."""


class Simulated(Transport):
    """The line to a model. Its time stands still between calls, so that a timeout means that nothing will ever come.

    `flash`: the file that stands for the model's flash.
    """

    def __init__(self, name: str, model: Model, flash: Path | None = None):
        self.name, self.model, self._flash = name, model, flash
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

    def store(self, image: bytes, board: str | None) -> None:
        if not hasattr(self.model, "flash"):
            return super().store(image, board)
        if self._flash:
            self._flash.write_bytes(image)
        self.model.flash = image  # type: ignore[attr-defined]
        self.model.power_up()  # type: ignore[attr-defined]
        self._waiting = b""

    def close(self) -> None:
        getattr(self.model, "close", lambda: None)()


def simulated(world: str, config: Config, link: Link, *, serial: bool = False, flash: str | Path | None = None) -> Simulated:
    """World `sim` (the Verilated gateware; `serial`: with its UART, bit by bit) or `golden`.

    `flash`: a file that is the flash of `sim`, erased if there is none yet; None: it is forgotten in the end. ValueError if it cannot be one.
    """
    if world == "golden":
        if flash is not None:
            raise ValueError(f"flash: {flash} is not legal at port golden; legal is none, as only that of sim is a file")
        from sw.transport.golden import Model as Golden

        return Simulated(world, Golden(config, link))
    from sim.endpoint import Model as Gateware

    path = Path(flash) if flash is not None else None
    if path and (path.is_dir() or not path.parent.is_dir()):
        raise ValueError(f"flash: {path} is not legal; legal is a file in a folder that is there")
    held = path.read_bytes() if path and path.is_file() else b""
    return Simulated(world, Gateware(config, link, serial=serial, flash=held), path)
