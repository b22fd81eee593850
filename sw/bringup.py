"""Is the board in order? `python -m sw.bringup --port PORT --board NAME [--program]`.

Prints a table of checks, and for each that fails what to look at.

The network in the device, if any, is overwritten. `--port sim` checks the Verilated gateware, `--port golden` the golden model.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace

from boards import BOARDS, Board
from hw.options import net
from hw.plan import compile
from sw.driver.bringup import Outcome, bring_up
from sw.transport.loader import openfpgaloader
from sw.transport.process import WORLDS


def program(board: Board, *, keep: bool = False) -> Outcome:
    """Builds the board's bitstream, if it is not there, and loads it with openFPGALoader; `keep`: into the flash, in any case."""
    from hw.build import BuildError, build

    try:
        report = build(board.name, say=lambda line: print(line, file=sys.stderr))
    except BuildError as e:
        return Outcome("program", False, str(e))
    well, said = openfpgaloader(board, *(["--write-flash"] if keep else []), report["bitstream"])
    return Outcome("program", well, report["bitstream"] if well else said)


def as_text(outcomes: list[Outcome]) -> str:
    """The table."""
    words = {True: "pass", False: "FAIL", None: "-"}
    width = max(len(o.check) for o in outcomes)
    lines = []
    for o in outcomes:
        lines.append(f"{o.check:<{width}}  {words[o.passed]}  {o.found}")
        if o.advice:
            lines.append(f"{'':<{width}}        look at: {o.advice}")
    failed = [o.check for o in outcomes if o.passed is False]
    lines.append(
        f"{len(failed)} of {len(outcomes)} checks failed: {', '.join(failed)}" if failed else f"all {len(outcomes)} checks passed"
    )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m sw.bringup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", required=True, help="serial port, sim, or golden")
    parser.add_argument("--board", choices=BOARDS, required=True, metavar="NAME", help=f"one of {', '.join(BOARDS)}")
    parser.add_argument(
        "--program", action="store_true", help="build and load the board's bitstream first (default: it runs already)"
    )
    parser.add_argument(
        "--keep", action="store_true",
        help="with --program: write it to the flash, so that the board starts with it (default: iCE40 only)",
    )  # fmt: skip
    parser.add_argument(
        "--net", type=net, metavar="NET", help="check with a network of these sizes (default: the board's first one)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the samples and weights (default: %(default)s)")
    given = parser.parse_args(arguments)
    board, outcomes = BOARDS[given.board], []
    design = board.design
    if given.net:
        try:
            network = design.network.replace(net=given.net)
            compile(network, design.machine)
        except ValueError as e:
            parser.error(f"--net: {e}")
        design = replace(design, network=network)
    if given.program and given.port in WORLDS:
        parser.error(f"--program: {given.port} is no board")
    if given.keep and not given.program:
        parser.error("--keep: goes with --program")
    if given.seed < 0:
        parser.error(f"--seed: {given.seed} is not legal; legal is at least 0")
    if given.program:
        outcomes.append(program(board, keep=given.keep))
        print(as_text(outcomes[-1:]).splitlines()[0], flush=True)
        time.sleep(1)
    for outcome in bring_up(given.port, design, board.link, seed=given.seed, quiet=False):
        outcomes.append(outcome)
    print(as_text(outcomes))
    return int(any(o.passed is False for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
