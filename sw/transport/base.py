"""What a driver needs of a line to a device."""

from __future__ import annotations

from abc import ABC, abstractmethod


class DeviceError(Exception):
    """The device does not answer, or not as it should; the message says what to do next."""


class DeviceReset(DeviceError):
    """The device has forgotten its session: it was reset or powered off, or another program opened it."""


class Transport(ABC):
    """Bytes to and from a device."""

    name: str
    """For messages: the port's path, `sim` or `golden`."""
    bauds: tuple[int, ...] = ()
    """Bit rates to try, in this order; none where there is nothing to choose."""

    @abstractmethod
    def send(self, data: bytes) -> None:
        """Sends all of `data`, or leaves it to `receive` to do so. DeviceError if the line is gone."""

    @abstractmethod
    def receive(self, timeout: float) -> bytes:
        """What has come, at least one byte; nothing if none comes within `timeout` seconds. DeviceError if the line is gone."""

    def set_baud(self, baud: int) -> None:  # noqa: B027
        """Goes on with another bit rate, in Hz, of `bauds`."""

    def discard(self) -> None:
        """Forgets what has come."""
        while self.receive(0):
            pass

    def store(self, image: bytes, board: str | None) -> None:
        """Writes an image to the flash of the device, and starts the device anew. `board`: its name, where a board must be named.

        ValueError if there is no flash.
        """
        raise ValueError(f"flash: {self.name} has none; legal is sim, or the port of a board that has one")

    def close(self) -> None:  # noqa: B027
        """Gives the line back."""
