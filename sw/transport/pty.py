"""A device in this process behind a pseudo-terminal, so that any serial program can talk to it.

`python -m sw.transport.pty --help` tells the options.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
import threading
import tty
from pathlib import Path

from boards import BOARDS
from sw.transport.base import DeviceError, Transport
from sw.transport.process import WORLDS, open_world

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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sw.transport.pty", description=__doc__)
    parser.add_argument(
        "--world", choices=tuple(WORLDS), default="sim", help="the Verilated gateware or the golden model (default: sim)"
    )
    parser.add_argument("--board", choices=BOARDS, default="icebreaker", help="whose machine and link (default: icebreaker)")
    parser.add_argument("--flash", type=Path, metavar="FILE",
                        help="a file that is the flash of sim, with what it starts with (default: an erased one)")  # fmt: skip
    given = parser.parse_args(arguments)
    board = BOARDS[given.board]
    try:
        terminal = PseudoTerminal(open_world(given.world, board.design.machine, board.link, flash=given.flash))
    except (ValueError, DeviceError) as error:
        parser.error(str(error))
    with terminal as path:
        print(f"{given.board}, {board.design.machine.lanes} lanes, at {path}; end with Ctrl-C", flush=True)
        try:
            terminal.wait()
        except KeyboardInterrupt:
            print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
