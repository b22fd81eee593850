"""Random networks on random machines, of both cadences and each kind of input, and as many that learn lazily; networks one after
the other on one machine; and one network on machines of 1 to 64 lanes: `python -m sim.sweep --help`.

Every array of the state is compared after every sample. Exit code 1 if anything differs, or if corner cases (spikes, ties,
saturations, ...) were seen so seldom that the run proves nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from hw.machine import FAR, Machine
from hw.network import CADENCES, INPUTS, Network
from hw.numbers import Q
from hw.options import output, whole
from sim.device import ENGINES
from sim.scenarios import exercise, missing, random_design, random_machine, random_network, random_networks
from sim.simulator import SimulationError
from sim.twin import Mismatch

LAYERS = 12  # of the networks that one machine runs in turn, at most
LANES = (1, 8, 32, 64)
"""On which one network rounds its weights by chance, and on all ends alike: as the golden model does, which knows no machine."""
KINDS: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({}, {}),
    ({}, {"wires": FAR}),
    ({"w": Q(2, 6)}, {"weight_memory": "spram"}),
    ({}, {}),
    ({"w": Q(4, 12)}, {"weight_memory": "spram"}),
    ({}, {"parity": True}),
)
"""Fields of network and machine that are given, in turn: the rest is drawn."""


class Case(NamedTuple):
    """Networks that a machine runs one after the other, and what their samples are drawn from."""

    name: str
    networks: tuple[Network, ...]
    machine: Machine
    seed: tuple[int, ...]
    samples: int
    engine: str


class Outcome(NamedTuple):
    case: Case
    seen: Counter
    failure: str | None


def cases(designs: int, switch: int, seed: int, samples: int, engine: str) -> Iterator[Case]:
    """`designs` times a random network and machine for each cadence and kind of input, and one more that learns lazily; every tenth
    time with T = 1. Then a machine that runs `switch` networks in turn, and LANES."""
    for n in range(designs):
        network, machine = KINDS[n % len(KINDS)]
        kinds: dict[str, dict[str, Any]] = {
            f"{cadence}-{kind}": {"cadence": cadence, "input": kind} for cadence, kind in itertools.product(CADENCES, INPUTS)
        }
        for k, (name, fields) in enumerate((kinds | {"lazy": {"input": "events", "lazy": True}}).items()):
            fields |= network | ({"steps": 1} if n % 10 == 0 else {})
            drawn = random_design(np.random.default_rng((seed, n, k)), machine=machine, **fields)
            yield Case(f"{n}-{name}", drawn[:1], drawn[1], (seed, n, k), samples, engine)
    if switch:
        rng = np.random.default_rng((seed, designs))
        networks = random_networks(rng, switch, LAYERS)
        yield Case("switch", tuple(networks), random_machine(rng, *networks, lanes=8), (seed, designs), samples, engine)
    chance = random_network(np.random.default_rng(seed), net="11-70-5", steps=3, stochastic=True)
    for lanes in LANES:
        yield Case(f"lanes-{lanes}", (chance,), Machine.holding(chance, lanes=lanes), (seed, 0), samples, engine)


def play(case: Case) -> Outcome:
    """Runs one case; every third with stalls on the host's side."""
    torch.set_num_threads(1)
    first, *then = case.networks
    try:
        stall = 0.3 if case.seed[1] % 3 == 2 else 0.0
        seen = exercise(first, np.random.default_rng(case.seed), machine=case.machine, samples=case.samples, stall=stall,
                        engine=case.engine, then=then)  # fmt: skip
        return Outcome(case, seen, None)
    except (Mismatch, SimulationError, RuntimeError) as e:
        return Outcome(case, Counter(), f"{type(e).__name__}: {e}")


def main(arguments: list[str] | None = None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(prog="python -m sim.sweep", description=__doc__, formatter_class=raw)
    own = "(default: %(default)s)"
    engines = "; ".join(f"{name}: {what}" for name, what in ENGINES.items())
    p.add_argument("--designs", type=whole(1), default=30, metavar="N", help=f"random designs, of each cadence and input {own}")
    p.add_argument("--switch", type=whole(0), default=20, metavar="N", help=f"networks that one machine runs in turn {own}")
    p.add_argument("--samples", type=whole(1), default=12, metavar="N", help=f"samples of each network {own}")
    p.add_argument("--seed", type=whole(0), default=1, metavar="N", help=own)
    p.add_argument("--engine", choices=ENGINES, default="cocotb", help=f"{engines} {own}")
    p.add_argument("--jobs", type=whole(1), default=os.cpu_count(), metavar="N", help=f"simulations at the same time {own}")
    p.add_argument("--case", metavar="NAME", help="play only the case of this name, as a failure names it")
    p.add_argument("--json", type=output, metavar="FILE", help="write the report there too")
    options = p.parse_args(arguments)
    every = list(cases(options.designs, options.switch, options.seed, options.samples, options.engine))
    todo = [case for case in every if options.case in (None, case.name)]
    if not todo:
        p.error(f"--case: {options.case} is not legal; legal is {every[0].name} to {every[-1].name}")
    start = time.monotonic()
    seen: Counter = Counter()
    failures = {}
    with ProcessPoolExecutor(options.jobs) as pool, tqdm(total=len(todo), unit=" builds") as bar:
        for outcome in pool.map(play, todo):
            bar.update()
            seen += outcome.seen
            if outcome.failure:
                failures[outcome.case.name] = outcome.failure
                bar.write(f"{outcome.case.name}: {outcome.failure}\n  {outcome.case.networks}\n  {outcome.case.machine}")
    lacking = [] if options.case else missing(seen)
    report = {"cases": len(todo), "seed": options.seed, "mismatches": len(failures), "failures": failures, "lacking": lacking,
              "seen": dict(seen), "seconds": round(time.monotonic() - start, 1)}  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    for name, count in (("cases", len(todo)), ("mismatches", len(failures)), *sorted(seen.items()), ("seconds", report["seconds"])):
        print(f"{name:<32} {count}")
    for line in lacking:
        print(f"not enough {line}", file=sys.stderr)
    return 1 if failures or lacking else 0


if __name__ == "__main__":
    sys.exit(main())
