"""Faults put into the gateware, each of which bring-up must name: `python -m sim.faults --help` (or `make faults`).

A fault is a small change of one file, made in a copy of the tree; the device is Verilated there, and `sw.bringup` is run against
it. The row of its table that fails first must be the fault's own (rows that need what is broken may fail as well). Without a fault
all rows must pass. Exit code 1 if not so, or if a fault's text is no longer in the gateware.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from tqdm import tqdm

from sim.fuzz import DESIGN, LINK
from sim.mutants import Outdated, changed_tree, copy_of_the_tree


class Fault(NamedTuple):
    """`old` in `file` becomes `new`; `row` is the check of sw.bringup that must be the first to fail."""

    name: str
    file: str
    old: str
    new: str
    row: str


_WRITE = 'hosts = {"addr": row, "data": word, '
_SENT = "m.d.comb += [reader.addr.eq(Cat(at, slot)), self.o.payload.eq(reader.data)"

FAULTS = (
    Fault("replies with a wrong CRC", "hw/host/crc.py", "self.low.eq(~value[:8])", "self.low.eq(value[:8])", "link"),
    Fault("another bitstream", "hw/top.py", "Endpoint(machine, link, stored), Core(machine)",
          "Endpoint(machine.replace(lanes=1), link, stored), Core(machine.replace(lanes=1))", "machine"),
    Fault("a weight's bit is stuck at 0", "hw/memory.py", _WRITE,
          _WRITE.replace("word", "word & ~(8 * (self.region.name == 'weight' and self.lane == 1))"), "memory weight"),
    Fault("an address line is stuck at 0", "hw/memory.py", _WRITE,
          _WRITE.replace("row", "row & ~(self.region.name == 'theta')"), "memory theta"),
    Fault("pixels lose their lowest bit", "hw/spike/lists.py", "bank.write_data.eq(pixel |", "bank.write_data.eq(pixel & 0xFE |",
          "memory frame"),
    Fault("an LED is inverted", "hw/top.py", '"error": endpoint.error}', '"error": ~endpoint.error}', "lights"),
    Fault("the generator stands still", "hw/weight/dither.py", "state.eq(xorshift32(self.state))", "state.eq(self.state)",
          "generator"),
    Fault("no soft reset", "hw/spike/membrane.py", "i.u - Mux(i.s, i.theta, 0).as_signed()", "i.u - 0", "neurons"),
    Fault("thresholds move the other way", "hw/error/threshold.py", "minus_halves(pipe.reg(i.theta), change)",
          "minus_halves(pipe.reg(i.theta), -change)", "learning"),
    Fault("every 512th byte sent is damaged", "hw/host/reply.py", _SENT,
          "noise = Signal(9)\n        m.d.sync += noise.eq(noise + taken)\n        "
          + _SENT.replace("reader.data", "reader.data ^ (noise == 0)"), "speed"),
)  # fmt: skip


def failed_rows() -> list[str]:
    """The rows that fail on the device as it is in this tree."""
    from sim.endpoint import Model
    from sim.transport import Simulated
    from sw.driver.bringup import bring_up

    return [outcome.check for outcome in bring_up(Simulated(Model(DESIGN.machine, LINK)), DESIGN, LINK) if outcome.passed is False]


def rows_with(fault: Fault | None) -> list[str] | str:
    """The rows that fail with a fault, or what went wrong."""
    try:
        with changed_tree(fault.file, fault.old, fault.new) if fault else copy_of_the_tree() as tree:
            done = subprocess.run(
                [sys.executable, "-m", "sim.faults", "--here"], cwd=tree, capture_output=True, text=True, check=False
            )
    except Outdated as outdated:
        return str(outdated)
    if done.returncode:
        return (done.stdout + done.stderr).strip().splitlines()[-1]
    rows: list[str] = json.loads(done.stdout)
    return rows


def judge(fault: Fault | None, rows: Sequence[str] | str) -> bool:
    """Whether bring-up says what it should."""
    return not isinstance(rows, str) and (rows[:1] == [fault.row] if fault else not rows)


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        prog="python -m sim.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--only", metavar="TEXT", default="", help="faults whose name or row has this text (default: all)")
    p.add_argument("--here", action="store_true", help="only bring up the device of this tree, and print the rows that fail")
    options = p.parse_args(arguments)
    if options.here:
        print(json.dumps(failed_rows()))
        return 0
    chosen = [f for f in FAULTS if options.only in f.name or options.only in f.row]
    if not chosen:
        p.error(f"--only: no fault has {options.only!r}; legal is a part of {', '.join(f.name for f in FAULTS)}")
    wrong = 0
    results = [(fault, rows_with(fault)) for fault in tqdm([None, *chosen], unit=" devices")]
    for fault, rows in results:
        right = judge(fault, rows)
        wrong += not right
        said = rows if isinstance(rows, str) else ", ".join(rows) or "all checks passed"
        print(f"{'right' if right else 'WRONG'}  {fault.name if fault else 'no fault':<30} {said}")
    print(f"{len(results) - wrong} of {len(results)} named")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
