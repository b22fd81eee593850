"""A serial port of this computer."""

from __future__ import annotations

import serial

from sw.transport.base import DeviceError, Transport

BAUDS = (3_000_000, 2_000_000, 1_000_000, 4_000_000, 6_000_000, 12_000_000, 921_600, 460_800, 230_400, 115_200)
"""Bit rates to try: first that of the project's boards, then what common USB bridges do."""


class SerialPort(Transport):
    """Any serial port by its path or pyserial URL. DeviceError if it cannot be opened, or goes away."""

    bauds = BAUDS

    def __init__(self, path: str):
        self.name, self._baud = path, BAUDS[0]
        self._open()

    def _open(self) -> None:
        path = self.name
        try:
            self._port = serial.serial_for_url(path, baudrate=self._baud, timeout=0, write_timeout=10, exclusive=True)
        except (serial.SerialException, OSError, ValueError) as e:
            raise DeviceError(f"port: {path} cannot be opened ({e}); is the board plugged in, is the path right (`python -m"
                              " serial.tools.list_ports` lists the ports), does another program hold it, may you use it (on Linux:"
                              " group dialout)?") from None  # fmt: skip

    def send(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except (serial.SerialException, OSError) as e:
            raise self._gone(e) from None

    def receive(self, timeout: float) -> bytes:
        try:
            self._port.timeout = timeout
            first = self._port.read(1) if timeout else b""
            return first + self._port.read(self._port.in_waiting)
        except (serial.SerialException, OSError, TypeError) as e:  # TypeError: pyserial's, if the port is closed meanwhile
            raise self._gone(e) from None

    def set_baud(self, baud: int) -> None:
        try:
            self._port.baudrate = self._baud = baud
        except (serial.SerialException, OSError, ValueError) as e:
            raise DeviceError(f"baud: {self.name} does not do {baud} ({e})") from None

    def store(self, image: bytes, board: str | None) -> None:
        from sw.transport import loader  # which knows the boards

        known = loader.board_with_flash(board)
        self._port.close()  # the flash may be behind the same bridge
        try:
            loader.write(known, image)
        finally:
            self._open()

    def close(self) -> None:
        self._port.close()

    def _gone(self, e: Exception) -> DeviceError:
        return DeviceError(f"port: {self.name} is gone ({e}); check the cable and open the device again. A network in training"
                           " goes on from the state it had, or restore a checkpoint")  # fmt: skip
