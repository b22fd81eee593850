"""The demonstration: `python -m sim.demo` (or `make demo`).

Trains the default network on scikit-learn's digits in the simulated gateware, compared with the golden model after every sample,
draws how it learned and how it spikes, builds the bitstream of that same core for a board, and ends with one table.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.ticker import PercentFormatter

from boards import BOARDS, get_board
from hw.design import Design
from hw.network import Network
from hw.options import whole
from hw.report import resource_names
from sim.cosim import Report, accuracy, train
from sim.twin import Mismatch, Twin
from sw import data

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "demo"
WINDOW = 100  # training samples in a point of the learning curve
TESTS = 6  # measurements of the test accuracy, evenly spread over the training
INK, HIDDEN, OUTPUT, QUIET = "#222222", "#1f5fa8", "#d1495b", "#9aa0a6"


def learning_curve(report: Report, tested: list[tuple[int, float]], path: Path) -> None:
    """Draws the share of right classes against the samples learned."""
    right = np.array(report.right, float)
    sums = np.cumsum(np.concatenate([[0.0], right]))
    ends = np.arange(1, len(right) + 1)
    starts = np.maximum(0, ends - WINDOW)
    recent = (sums[ends] - sums[starts]) / (ends - starts)
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    shown = ends >= min(WINDOW // 5, len(right))
    axes.plot(
        ends[shown], recent[shown], color=HIDDEN, linewidth=1.5, label=f"last {WINDOW} training samples, before learning from each"
    )
    axes.plot(*zip(*tested, strict=True), "o-", color=OUTPUT, linewidth=1, markersize=5, clip_on=False, label="held-out samples")
    for n, share in tested[-1:]:
        axes.annotate(f"{100 * share:.1f} %", (n, share), (-4, 8), textcoords="offset points", ha="right", color=OUTPUT)
    axes.axhline(1 / report.design.network.classes, color=QUIET, linewidth=1, linestyle=":", label="chance")
    axes.set(title=f"{report.design.network.title} learns handwritten digits in the gateware", xlabel="samples learned",
             ylabel="right classes", xlim=(0, len(right)), ylim=(0, 1))  # fmt: skip
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.12), facecolor="white", edgecolor="none", framealpha=1)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def spike_raster(twin: Twin, dataset: data.Dataset, path: Path) -> None:
    """Shows the first held-out digit of each class, step by step, and draws every spike of every layer."""
    c = twin.network
    chosen = [int(np.flatnonzero(dataset.test.labels == label)[0]) for label in range(c.classes)]
    spikes, classes = [], []
    for n in chosen:
        states = twin.run_steps(dataset.test[n][0])
        spikes.append([np.concatenate([state[f"spike.{l}"] for l in c.layers]) for state in states])
        classes.append(int(states[-1]["class"]))
    steps, neurons = np.nonzero(np.concatenate(spikes))
    figure, (top, axes) = plt.subplots(2, 1, figsize=(11, 6), height_ratios=(1, 8), layout="constrained", sharex=True)
    for k, n in enumerate(chosen):
        left = k * c.steps
        image = dataset.test.images[n].reshape(dataset.shape)
        inset = top.inset_axes((left + c.steps / 2 - 2, 0, 4, 1), transform=top.transData)
        inset.imshow(image, cmap="Greys", interpolation="nearest")
        inset.set(xticks=[], yticks=[])
        right = classes[k] == dataset.test.labels[n]
        inset.set_title(
            f"{classes[k]}", fontsize=11, pad=2, color=INK if right else OUTPUT, fontweight="normal" if right else "bold"
        )
        axes.axvline(left - 0.5, color=QUIET, linewidth=0.6)
    top.set(ylim=(0, 1))
    top.axis("off")
    names = [f"hidden layer {l}" for l in c.layers[:-1]] + ["output layer"]
    for l, name in zip(c.layers, names, strict=True):
        first, last = c.neuron_base[l], c.neuron_base[l] + c.sizes[l]
        mine = (neurons >= first) & (neurons < last)
        colour = OUTPUT if l == c.n_layers else HIDDEN
        axes.scatter(steps[mine], neurons[mine], s=14, marker="|", linewidths=1.8, color=colour, label=name)
        axes.axhline(last - 0.5, color=QUIET, linewidth=0.6)
    ticks = [c.neuron_base[l] + i for l in c.layers for i in range(0, c.sizes[l], 5 if c.sizes[l] <= 40 else 50)]
    base = np.array(list(c.neuron_base.values()))
    axes.set(xlabel=f"time (steps; {c.steps} for each digit)", ylabel="neuron", xlim=(-0.5, len(chosen) * c.steps - 0.5),
             ylim=(c.neurons - 0.5, -0.5), xticks=range(0, len(chosen) * c.steps, c.steps), yticks=ticks,
             yticklabels=[str(t - base[base <= t].max()) for t in ticks])  # fmt: skip
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=len(names), frameon=False, markerscale=1.5)
    figure.suptitle(f"Spikes of {c.title} for one held-out digit of each class; above each the class the core decided")
    figure.savefig(path, dpi=150)
    plt.close(figure)


class Bitstream:
    """A build for a board that runs beside the simulation, as `python -m hw.build` would; a context manager."""

    def __init__(self, board: str, design: Design):
        self._design, self._report, self._log = design, FOLDER / "build.json", FOLDER / "build.log"
        net = design.network.title
        command = [sys.executable, "-m", "hw.build", "--board", board, "--net", net, "--json", str(self._report)]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True)

    def __enter__(self) -> Bitstream:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # its tools too
            self._process.wait()

    def report(self) -> dict[str, Any]:
        """The report of the finished build. RuntimeError with the tool's messages if it failed."""
        if self._process.wait():
            raise RuntimeError(f"the bitstream was not built:\n{self._log.read_text().rstrip()}")
        report = json.loads(self._report.read_text())
        for name in ("network", "machine"):
            if report[name] != json.loads(getattr(self._design, name).to_json()):
                raise RuntimeError(f"the bitstream is not of the {name} that was simulated, but of {report[name]}")
        return report


def table(report: Report, board: str, built: dict[str, Any], files: dict[str, str], seconds: float) -> str:
    """The result of it all."""
    network, machine = report.design.network, report.design.machine
    rows = [("network", f"{network.title}, T = {network.steps}, {machine.lanes} lanes, learning {report.learn}"),
            ("training samples", str(len(report.right))), ("test accuracy", f"{100 * (report.test_accuracy or 0):.1f} %"),
            ("words compared", f"{report.compared_words:,}"), ("mismatches", str(report.mismatches))]  # fmt: skip
    mhz = built["target_mhz"]
    for kind, name in (("learn", "learned"), ("infer", "inferred")):
        cycles = report.cycles_per_sample[kind]
        total = sum(cycles.values())
        rows.append((f"cycles a sample {name}", f"{total:,.0f} ({total / mhz:.0f} us at {mhz:g} MHz)"))
        rows += [(f"  {phase}", f"{count:,.0f}") for phase, count in cycles.items() if count]
    share = report.skipped / max(1, report.sops + report.skipped)
    rows.append(("synaptic operations", f"{report.sops:,} done, {report.skipped:,} skipped ({100 * share:.0f} %)"))
    rows.append((board, built["chip"]))
    names = resource_names(get_board(board).chip.family)
    rows += [(f"  {names[r]}", f"{v['used']:,} of {v['available']:,} ({100 * v['used'] / v['available']:.0f} %)")
             for r, v in built["resources"].items() if v["available"]]  # fmt: skip
    rows.append(("  Fmax", f"{built['fmax_mhz']:.1f} MHz, {mhz:g} MHz wanted"))
    rows += [(name, path) for name, path in files.items()]
    rows.append(("seconds", f"{seconds:.0f}"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        prog="python -m sim.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--board", choices=BOARDS, default="icebreaker", metavar="NAME", help="what to build for (default: %(default)s)")
    p.add_argument("--samples", type=whole(1), metavar="N", help="training samples (default: all)")
    p.add_argument(
        "--seed", type=whole(0), default=0, metavar="N", help="of the initial weights and the order (default: %(default)s)"
    )
    options = p.parse_args(arguments)
    start = time.monotonic()
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    design = get_board(options.board).design.replace(net=Network().net)  # what is simulated is what is built
    network = design.network
    dataset = data.load("digits", network, seed=options.seed)
    count = options.samples or len(dataset.train)
    if count > len(dataset.train):
        p.error(f"--samples: {count} is not legal; legal is 1 to {len(dataset.train)}")
    report = Report(design, "digits", "wtl", options.seed, epochs=1)
    tested: list[tuple[int, float]] = []
    when = {round(count * k / TESTS) for k in range(1, TESTS)}
    curve, raster, written = (FOLDER / name for name in ("learning_curve.png", "spike_raster.png", "report.json"))
    try:
        with Bitstream(options.board, design) as bitstream:
            print(f"Simulating {network.title}; {options.board}'s bitstream is built meanwhile", flush=True)
            with Twin(network, design.machine) as twin:
                after = lambda n: tested.append((n, accuracy(twin, dataset))) if n in when else None  # noqa: E731
                train(twin, report, dataset, samples=count, after=after)
                tested.append((count, report.test_accuracy or 0.0))
                spike_raster(twin, dataset, raster)
                report.take(twin)
            learning_curve(report, tested, curve)
            print(
                f"Learned: {100 * (report.test_accuracy or 0):.1f} % of the held-out digits; waiting for the bitstream", flush=True
            )
            built = bitstream.report()
    except Mismatch as mismatch:
        print(f"difference: {mismatch}", file=sys.stderr)
        return 1
    except RuntimeError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    written.write_text(json.dumps({"training": report.as_dict(), "build": built}, indent=2) + "\n")
    files = {"learning curve": curve, "spike raster": raster, "bitstream": ROOT / built["bitstream"],
             "floorplan": ROOT / built["floorplan"], "report": written}  # fmt: skip
    print(
        table(report, options.board, built, {name: os.path.relpath(path) for name, path in files.items()}, time.monotonic() - start)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
