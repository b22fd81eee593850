"""How long does it take to give a board another network? `python -m sw.switch --board NAME --net N-N-N --net N-N-N`.

Loads the networks in turn, without a build: as fresh ones, then each with a state, as from a file. Prints the bytes on the line and
their time. `--port golden` counts bytes, `--port sim` the core's cycles, too; on a serial port the whole is measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from boards import BOARDS, Board
from hw.network import Network
from hw.options import net
from hw.plan import compile
from sw.driver.switching import LINE_BITS, Switch, switches
from sw.transport.base import DeviceError
from sw.transport.process import WORLDS, open_world
from sw.transport.serialport import SerialPort

HEAD = ("network", "loaded", "bytes out", "bytes in", "line", "core", "driver", "whole")
HOW = {False: "fresh", True: "with a state"}


def networks(board: Board, given: Sequence[tuple[int, ...]]) -> list[Network]:
    """The board's network in other sizes. ValueError if it is wired in, or the board does not hold one of them."""
    design = board.design
    if design.machine.fixed:
        raise ValueError(f"--board: in {board.name} {design.machine.fixed.title} is wired in; another one needs a build")
    found = [design.network.replace(net=one) for one in given]
    for network in found:
        compile(network, design.machine)
    return found


def as_text(rows: Sequence[Switch]) -> str:
    """The table; times in seconds."""
    cells: list[tuple[str, ...]] = [HEAD]
    for row in rows:
        times = (row.line, row.core, row.driver, row.whole)
        cells.append((row.network.title, HOW[row.trained], f"{row.sent:,}", f"{row.received:,}",
                      *("-" if seconds is None else f"{seconds:.3f}" for seconds in times)))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligned = (
        [cell.ljust(width) if n < 2 else cell.rjust(width) for n, (cell, width) in enumerate(zip(line, widths, strict=True))]
        for line in cells
    )
    return "\n".join("  ".join(line).rstrip() for line in aligned)


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        prog="python -m sw.switch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--board", choices=BOARDS, required=True, metavar="NAME", help=f"one of {', '.join(BOARDS)}")
    p.add_argument("--net", type=net, action="append", required=True, metavar="NET", help="a network; at least two")
    p.add_argument("--port", default="golden", help="serial port, sim, or golden (default: %(default)s)")
    given = p.parse_args(arguments)
    board = BOARDS[given.board]
    try:
        found = networks(board, given.net)
        world = given.port in WORLDS
        line = open_world(given.port, board.design.machine, board.link) if world else SerialPort(given.port)
        rows = list(switches(line, found))
    except ValueError as e:
        p.error(str(e))
    except DeviceError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    print(f"{board.name} at {given.port}, times in seconds; line: {LINE_BITS} bits a byte at {board.link.baud:,} baud\n")
    print(as_text(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
