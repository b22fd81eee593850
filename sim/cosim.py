"""Train the simulated gateware and the golden model side by side: `python -m sim.cosim --help`.

Every array of the learning state is compared after every sample (or every so many: --every), and after the last. The first
difference ends the run with exit code 1 and says where it is; bad options end it with exit code 2. For long runs:

    python -m sim.cosim --engine fast --every 1000 --dataset fashion-mnist --net 784-200-10 --lanes 32 --stochastic
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from tqdm import tqdm

from boards import BOARDS
from hw.design import MACHINE_FIELDS, NETWORK_FIELDS, Design
from hw.memory_map import PHASES
from hw.notation import dense
from hw.options import add_design, chosen, design, flag, output, whole
from hw.plan import compile
from sim.build import OPT, WAVES
from sim.device import ENGINES
from sim.simulator import SimulationError
from sim.twin import Mismatch, Twin
from sw import data
from sw.common import checks
from sw.files.image import Image
from sw.golden.recipe import Recipe, recipe_for

BAR: dict[str, Any] = {"unit": " samples", "mininterval": 0.1 if sys.stderr.isatty() else 15}
"""Options of progress bars; a log file gets a line now and then."""


@dataclass
class Report:
    """What a run of a network on a machine did. Accuracies are shares; `cycles` and operations are sums over all samples."""

    design: Design
    dataset: str
    learn: str
    seed: int
    epochs: int
    samples: int = 0
    compared_words: int = 0
    mismatches: int = 0
    difference: dict[str, Any] | None = None
    test_accuracy: float | None = None
    cycles: dict[str, int] = field(default_factory=dict)
    cycles_per_sample: dict[str, dict[str, float]] = field(default_factory=dict)
    sops: int = 0
    skipped: int = 0
    seconds: float = 0.0
    right: list[bool] = field(default_factory=list, repr=False)
    """Of each sample learned, whether the class was right before learning from it."""

    def take(self, twin: Twin) -> None:
        """Figures of the twin."""
        self.samples, self.compared_words = twin.samples, twin.compared_words
        learned = twin.counters["learn"]
        self.cycles = {phase: learned[f"cycles_{phase}"] for phase in PHASES}
        self.sops, self.skipped = learned["sops"], learned["sops_skipped"]
        self.cycles_per_sample = {
            kind: {phase: round(twin.counters[kind][f"cycles_{phase}"] / runs, 1) for phase in PHASES}
            for kind, runs in twin.runs.items()
            if runs
        }

    def as_dict(self) -> dict[str, Any]:
        values = {name: value for name, value in vars(self).items() if name not in ("design", "right")}
        network, machine = (json.loads(part.to_json()) for part in (self.design.network, self.design.machine))
        return values | {"network": network, "machine": machine}


def train(twin: Twin, report: Report, dataset: data.Dataset, *, recipe: Recipe | None = None, samples: int | None = None,
          test: int | None = None, quiet: bool = False, after: Callable[[int], None] = lambda n: None,
          state: Mapping[str, ArrayLike] | None = None) -> Report:  # fmt: skip
    """Learn `report.epochs` epochs of the first `samples` training samples, then measure the accuracy on `test` held-out ones.

    `samples` and `test`: all if None. Rates, order and, unless one is given, the initial state are those of the recipe. `after` is
    called after each sample that was learned, with how many they are. Raises Mismatch (the report then holds the difference) and
    SimulationError.
    """
    start = time.monotonic()
    recipe = recipe or recipe_for(dataset.name, twin.network)
    count = len(dataset.train) if samples is None else samples
    try:
        twin.load(recipe.state(twin.network, report.seed) if state is None else state)
        with tqdm(total=report.epochs * count, desc="learn", **BAR, disable=quiet) as bar:
            for epoch in range(report.epochs):
                for k, n in enumerate(recipe.order(report.seed, epoch, count)):
                    twin.set_rates(**recipe.rates((epoch + k / count) / report.epochs))
                    sample, label = dataset.train[n]
                    report.right.append(twin.run(sample, label, report.learn).winner == label)
                    bar.update()
                    bar.set_postfix_str(f"last 100 right: {100 * np.mean(report.right[-100:]):.0f} %", refresh=False)
                    after(len(report.right))
        if test != 0:
            report.test_accuracy = accuracy(twin, dataset, test, quiet=quiet)
        twin.check()
    except Mismatch as mismatch:
        report.mismatches = 1
        report.difference = asdict(mismatch.difference)
        raise
    finally:
        report.take(twin)
        report.seconds = round(time.monotonic() - start, 1)
    return report


def accuracy(twin: Twin, dataset: data.Dataset, test: int | None = None, *, quiet: bool = False) -> float:
    """Share of the first `test` held-out samples (all if None) whose class is right; compared like those learned."""
    count = len(dataset.test) if test is None else test
    with tqdm(range(count), desc="test ", leave=False, **BAR, disable=quiet or not sys.stderr.isatty()) as bar:
        return sum(twin.run(dataset.test[n][0]).winner == dataset.test[n][1] for n in bar) / count


def learn_switches(text: str) -> str:
    try:
        return checks.check_learn("" if text == "none" else text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"{e}, or none") from None


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m sim.cosim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    own = "(default: %(default)s)"
    add_design(p)
    p.add_argument(
        "--image", type=Path, metavar="FILE",
        help="network and initial state, from sw.deploy or sw.train --chip (default: random weights)",
    )  # fmt: skip
    work = p.add_argument_group("the work")
    work.add_argument("--dataset", choices=data.DATASETS, default="digits", help=own)
    work.add_argument(
        "--folder", type=Path, metavar="FOLDER", help="where the files of fashion-mnist are (default: where Debian puts them)"
    )
    work.add_argument("--samples", type=whole(1), metavar="N", help="training samples an epoch (default: all)")
    work.add_argument("--test", type=whole(0), metavar="N", help="held-out samples after training (default: all)")
    work.add_argument("--epochs", type=whole(0), default=1, metavar="N", help=own)
    work.add_argument("--learn", type=learn_switches, default="wtl", metavar="SET",
                      help=f"any of w (weights), t (thresholds), l (leakages), or none {own}")  # fmt: skip
    work.add_argument("--seed", type=whole(0), default=0, metavar="N", help=f"of the initial state, the order and the events {own}")
    run = p.add_argument_group("the run")
    run.add_argument(
        "--engine", choices=ENGINES, default="cocotb", help=f"{'; '.join(f'{k}: {v}' for k, v in ENGINES.items())} {own}"
    )
    run.add_argument("--every", type=whole(1), default=1, metavar="N", help=f"compare the whole state after every N samples {own}")
    run.add_argument("--opt", choices=OPT, default="fast", help=f"quick to build, or fast to run {own}")
    run.add_argument(
        "--waves", action="store_true", help=f"record every signal in {WAVES.name}/cosim.vcd under build/ (slow, large)"
    )
    run.add_argument("--log", type=output, metavar="FILE", help="the simulator's messages (default: shown if it fails)")
    run.add_argument("--json", type=output, metavar="FILE", help="write the report there too")
    run.add_argument("--save", type=output, metavar="FILE", help="write what was learned there, an image")
    return p


def image_of(options: argparse.Namespace) -> tuple[Image, Design]:
    """The image that is named, or one of the network that options name, with random weights; and what it is simulated on.

    ValueError if it is not legal.
    """
    if not options.image:
        named = design(options)
        return Image(named.network, recipe_for(options.dataset, named.network).state(named.network, options.seed)), named
    given = chosen(options)
    for name in given:
        if name in NETWORK_FIELDS:
            raise ValueError(f"{flag(name)}: not beside --image, which has its network")
    image = Image.load(options.image)
    if "board" in options:
        machine = BOARDS[options.board].design.machine
        given = {name: getattr(machine, name) for name in MACHINE_FIELDS} | given
    return image, Design.of(image.network, **given)


def main(arguments: list[str] | None = None) -> int:
    p = parser()
    options = p.parse_args(arguments)
    try:
        image, simulated = image_of(options)
        network = simulated.network
        compile(network, simulated.machine)  # says what the machine lacks
        own = network.replace(net=dense((image.inputs, *network.sizes[1:])))
        dataset = image.dataset(data.load(options.dataset, own, folder=options.folder, seed=options.seed))
        for name, split in (("samples", dataset.train), ("test", dataset.test)):
            if (getattr(options, name) or 0) > len(split):
                raise ValueError(f"--{name}: {getattr(options, name)} is not legal; {options.dataset} has {len(split)}")
        if options.engine == "fast" and (options.waves or options.log):
            raise ValueError("--waves, --log: the engine fast has none; legal is --engine cocotb")
    except (ValueError, FileNotFoundError) as e:
        p.error(str(e))
    torch.set_num_threads(1)  # the simulator has the other core
    report = Report(simulated, options.dataset, options.learn, options.seed, options.epochs)
    waves = WAVES / "cosim.vcd" if options.waves else None
    try:
        with Twin(network, simulated.machine, opt=options.opt, waves=waves, log=options.log, engine=options.engine,
                  every=options.every) as twin:  # fmt: skip
            train(twin, report, dataset, samples=options.samples, test=options.test, state=image.state)
            if options.save:
                image.learned(twin.device.read()).save(options.save)
    except Mismatch as mismatch:
        print(f"difference: {mismatch}", file=sys.stderr)
    except (SimulationError, RuntimeError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    if options.json:
        options.json.write_text(json.dumps(report.as_dict(), indent=2) + "\n")
    print(as_text(report))
    return 1 if report.mismatches else 0


def as_text(report: Report) -> str:
    """The report for a reader."""
    r = report
    accuracy = "not measured" if r.test_accuracy is None else f"{100 * r.test_accuracy:.2f} %"
    n, machine = r.design.network, r.design.machine
    rows = [
        ("network", f"{n.title}, T = {n.steps}, {n.input} input, cadence {n.cadence}"),
        ("machine", f"{machine.lanes} lanes, {machine.neuron_lanes} neuron lane{'s' * (machine.neuron_lanes > 1)}"),
        ("samples", f"{r.samples} ({len(r.right)} learned: {r.learn or 'nothing'})"),
        ("test accuracy", accuracy),
        ("words compared", f"{r.compared_words}"),
        ("mismatches", f"{r.mismatches}"),
    ]
    for kind, cycles in r.cycles_per_sample.items():
        rows.append(
            (f"cycles/{kind}", f"{sum(cycles.values()):.0f} (" + ", ".join(f"{p} {n:.0f}" for p, n in cycles.items()) + ")")
        )
    if r.sops:
        rows.append(("synaptic ops", f"{r.sops} done, {r.skipped} skipped ({100 * r.skipped / (r.sops + r.skipped):.0f} %)"))
    rows.append(("seconds", f"{r.seconds}"))
    return "\n".join(f"{name:<15} {value}" for name, value in rows)


if __name__ == "__main__":
    sys.exit(main())
