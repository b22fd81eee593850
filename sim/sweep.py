"""Random configurations, each with both cadences and both kinds of input, and as many that learn lazily: `python -m sim.sweep --help`.

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
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from hw.config import CADENCES, INPUTS, NEURON_MULTIPLIERS, Config
from sim.device import ENGINES
from sim.scenarios import exercise, missing, random_config
from sim.simulator import SimulationError
from sim.twin import Mismatch
from sw.options import output, whole


class Case(NamedTuple):
    """A configuration and what its samples are drawn from."""

    name: str
    config: Config
    seed: tuple[int, ...]
    samples: int
    engine: str


LATENCIES = (1, 3, 1, 5, 1, 5, 1, 3)
"""Of the weights; 3 and 5 with lists in the lanes and without."""
FAR_LANES = (10, 12, 16, 20, 24)
"""Lanes at latency 5: more than one register reaches (`hw.pipeline.NEAR`)."""


class Outcome(NamedTuple):
    case: Case
    seen: Counter
    failure: str | None


def cases(configs: int, seed: int, samples: int, engine: str) -> Iterator[Case]:
    """`configs` random configurations, every tenth with T = 1, of those in block RAM every second with registers around its weights and
    every second with lists in its lanes, of those in single-port memories every second with shared multipliers, times cadences times kinds of
    input, and one more each that learns lazily. Those with a latency of 5 have many lanes (FAR_LANES)."""

    def far(config: Config, n: int) -> Config:
        latency, lanes = LATENCIES[n % len(LATENCIES)], config.lanes
        if latency == 5:
            lanes = next(p for p in FAR_LANES[n % len(FAR_LANES) :] + FAR_LANES if p % config.neuron_lanes == 0)
        return config.replace(weight_latency=latency, lanes=lanes)

    for n in range(configs):
        fixed = {"steps": 1} if n % 10 == 0 else {}
        base = random_config(np.random.default_rng((seed, n)), **fixed)
        if base.weight_memory == "block":
            base = far(base, n)
            base = base.replace(lane_lists=n % 4 in (1, 2) and base.lanes > 1)
        elif base.lanes >= NEURON_MULTIPLIERS * base.neuron_lanes:
            base = base.replace(shared=n % 4 == 3)
        for k, (cadence, kind) in enumerate(itertools.product(CADENCES, INPUTS)):
            yield Case(f"{n}-{cadence}-{kind}", base.replace(cadence=cadence, input=kind), (seed, n, k), samples, engine)
        lazy = random_config(np.random.default_rng((seed, n, k + 1)), input="events", lazy=True, **fixed)
        if lazy.weight_memory == "block":
            lazy = far(lazy, n)
        yield Case(f"{n}-lazy", lazy, (seed, n, k + 1), samples, engine)


def play(case: Case) -> Outcome:
    """Runs one case; every third with stalls on the host's side."""
    torch.set_num_threads(1)
    try:
        stall = 0.3 if case.seed[1] % 3 == 2 else 0.0
        return Outcome(case, exercise(case.config, np.random.default_rng(case.seed), samples=case.samples, stall=stall, engine=case.engine), None)
    except (Mismatch, SimulationError, RuntimeError) as e:
        return Outcome(case, Counter(), f"{type(e).__name__}: {e}")


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m sim.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own = "(default: %(default)s)"
    p.add_argument("--configs", type=whole(1), default=30, metavar="N", help=f"random configurations {own}")
    p.add_argument("--samples", type=whole(1), default=12, metavar="N", help=f"samples of each {own}")
    p.add_argument("--seed", type=whole(0), default=1, metavar="N", help=own)
    p.add_argument("--engine", choices=ENGINES, default="cocotb", help=f"{'; '.join(f'{k}: {v}' for k, v in ENGINES.items())} {own}")
    p.add_argument("--jobs", type=whole(1), default=os.cpu_count(), metavar="N", help=f"simulations at the same time {own}")
    p.add_argument("--case", metavar="NAME", help="play only the case of this name, as a failure names it")
    p.add_argument("--json", type=output, metavar="FILE", help="write the report there too")
    options = p.parse_args(arguments)
    todo = [c for c in cases(options.configs, options.seed, options.samples, options.engine) if options.case in (None, c.name)]
    if not todo:
        p.error(f"--case: {options.case} is not legal; legal is 0-sample-static to {options.configs - 1}-lazy")
    start = time.monotonic()
    seen: Counter = Counter()
    failures = {}
    with ProcessPoolExecutor(options.jobs) as pool, tqdm(total=len(todo), unit=" builds") as bar:
        for outcome in pool.map(play, todo):
            bar.update()
            seen += outcome.seen
            if outcome.failure:
                failures[outcome.case.name] = outcome.failure
                bar.write(f"{outcome.case.name}: {outcome.failure}\n  {outcome.case.config}")
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
