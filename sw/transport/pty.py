"""A device in this process behind a pseudo-terminal, so that any serial program can talk to it.

`python -m sw.transport.pty --help` tells the options.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from boards import BOARDS
from sw.transport.base import DeviceError
from sw.transport.process import WORLDS, open_world
from sw.transport.terminal import PseudoTerminal


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
