"""A device in this process behind a pseudo-terminal, so that any serial program can talk to it. `python -m sw.transport.pty` is the
program."""

from __future__ import annotations

import os
import select
import threading
import tty

from sw.transport.base import Transport

SLICE = 0.02  # seconds between two looks at whether to stop


class PseudoTerminal:
    """Serves a transport of this process; a context manager that gives the path of the serial port.

    The device runs only while bytes come, and has answered them all before it takes more: a program that stops reading stalls it.
    """

    def __init__(self, device: Transport):
        self.device = device
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"pty of {device.name}")

    def __enter__(self) -> str:
        self._thread.start()
        return self.path

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()
        os.close(self._master)
        os.close(self._slave)
        self.device.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            if select.select([self._master], [], [], SLICE)[0]:
                self.device.send(os.read(self._master, 4096))
                while data := self.device.receive(0):
                    self._write(data)

    def _write(self, data: bytes) -> None:
        while data and not self._over.is_set():
            if select.select([], [self._master], [], SLICE)[1]:
                data = data[os.write(self._master, data) :]

    def wait(self) -> None:
        """Serves until it is interrupted."""
        self._over.wait()
