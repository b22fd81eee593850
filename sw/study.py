"""STOP against BPTT and OTTT on this machine: `python -m sw.study cost|learning --help`.

    python -m sw.study cost --model vgg11 --steps 2,8,64       # memory and time of a training step
    python -m sw.study learning --dataset digits --seeds 3     # accuracy of what learns, thresholds and leakages over training

Each writes a table (markdown), its numbers (JSON) and a picture (PNG) to --out.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from hw.options import whole
from sw.data import images
from sw.stop import METHODS
from sw.training.cost import SNNTORCH, case, peak_memory
from sw.training.nets import MODELS, NORMS, Spec
from sw.training.train import Data, Options, Run, train

SHAPES = {"cifar": (3, 32, 32), "dvs": (2, 64, 64), "mnist": (1, 28, 28)}


def cost(a: argparse.Namespace) -> dict[str, Any]:
    """Memory, every case in a process of its own; then time, all methods in turn in this process.

    They take turns so that other work on the machine slows all alike.
    """
    spec, rows = _spec(a), []
    for steps in tqdm(a.steps, desc="time steps"):
        steppers = {m: case(spec, m, steps, a.batch, a.events) for m in a.methods}
        times: dict[str, list[float]] = {m: [] for m in a.methods}
        for _ in tqdm(range(a.repeat), desc="training steps", leave=False):
            for method, step in steppers.items():
                start = time.process_time()
                step()
                times[method].append(time.process_time() - start)
        del steppers
        for method in tqdm(a.methods, desc="memory", leave=False):
            command = [sys.executable, "-m", "sw.study", "probe", "--model", a.model, "--shape", a.shape, "--norm", a.norm,
                       "--width", str(a.width), "--batch", str(a.batch), "--steps", str(steps), "--methods", method]  # fmt: skip
            done = subprocess.run([*command, *(["--events"] if a.events else [])], capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{method}, T = {steps} failed:\n{done.stderr[-2000:]}")
            ms = [1e3 * t for t in times[method]]
            rows.append(
                {"method": method, "steps": steps, "mib": float(done.stdout), "ms": float(np.median(ms)), "least_ms": min(ms)}
            )
    return {name: getattr(a, name) for name in ("model", "shape", "norm", "width", "batch", "events")} | {"rows": rows}


def _spec(a: argparse.Namespace) -> Spec:
    return Spec(a.model, SHAPES[a.shape], norm=a.norm, width=a.width, theta=0.5)


def cost_table(report: dict[str, Any]) -> str:
    methods = list(dict.fromkeys(r["method"] for r in report["rows"]))
    cell = {(r["method"], r["steps"]): r for r in report["rows"]}
    lines = [
        f"{report['model']}, {report['shape']}-shaped {'events' if report['events'] else 'frames held for T steps'}, "
        f"batch {report['batch']}, norm {report['norm']}, width {report['width']:g}: one training step, peak memory and "
        "processor time (median)",
        "",
        "| T | " + " | ".join(f"{m}, MiB | {m}, ms" for m in methods) + " |",
        "|---" * (1 + 2 * len(methods)) + "|",
    ]
    for t in sorted({r["steps"] for r in report["rows"]}):
        lines.append(f"| {t} | " + " | ".join(f"{cell[m, t]['mib']:.0f} | {cell[m, t]['ms']:.1f}" for m in methods) + " |")
    return "\n".join(lines) + "\n"


def cost_picture(report: dict[str, Any], path: Path) -> None:
    from matplotlib.ticker import NullLocator

    plt = _pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for method in dict.fromkeys(r["method"] for r in report["rows"]):
        rows = sorted((r for r in report["rows"] if r["method"] == method), key=lambda r: r["steps"])
        for axis, name in zip(axes, ("mib", "ms"), strict=True):
            axis.plot([r["steps"] for r in rows], [r[name] for r in rows], marker="o", label=method)
    for axis, label in zip(axes, ("peak memory, MiB", "processor time, ms"), strict=True):
        axis.set(xlabel="time steps T", ylabel=label, xscale="log", yscale="log")
        axis.set_xticks(ticks := sorted({r["steps"] for r in report["rows"]}), ticks)
        axis.xaxis.set_minor_locator(NullLocator())
        for formatter in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            formatter("{x:g}")
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle(f"one training step of {report['model']}, batch {report['batch']}")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def learning(a: argparse.Namespace) -> dict[str, Any]:
    """Every method, number of steps and seed trained with the same budget."""
    rows = []
    cases = [(m, t, s) for t in a.steps for m in a.methods for s in range(a.seeds)]
    for method, steps, seed in (bar := tqdm(cases, desc="runs")):
        bar.set_postfix_str(f"{method}, T = {steps}, seed {seed}")
        o = Options(model=a.model, dataset=a.dataset, data=a.data, method=method, steps=steps, seed=seed, epochs=a.epochs,
                    batch=32, lr=a.lr, hidden=(a.hidden,), samples=a.samples, gain=0.5, theta=0.5, alpha=0.6)  # fmt: skip
        run = Run(o, Data.load(o))
        train(run, None, quiet=True)
        rows.append({"method": method, "steps": steps, "seed": seed, "history": run.history})
    return {"model": a.model, "dataset": a.dataset, "epochs": a.epochs, "seeds": a.seeds, "rows": rows}


def learning_table(report: dict[str, Any]) -> str:
    steps = sorted({r["steps"] for r in report["rows"]})
    lines = [
        f"{report['model']}, {report['dataset']}, {report['epochs']} epochs, {report['seeds']} seeds: held-out accuracy in %, "
        "mean and standard deviation over seeds",
        "",
        "| method | " + " | ".join(f"T = {t}" for t in steps) + " |",
        "|---" * (1 + len(steps)) + "|",
    ]
    for method in dict.fromkeys(r["method"] for r in report["rows"]):
        cells = []
        for t in steps:
            last = [100 * r["history"][-1]["accuracy"] for r in report["rows"] if (r["method"], r["steps"]) == (method, t)]
            cells.append(f"{np.mean(last):.2f} ± {np.std(last, ddof=1) if len(last) > 1 else 0:.2f}")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def learning_picture(report: dict[str, Any], path: Path) -> None:
    """Accuracy of every method, and thresholds and leakages over training where they are learned, at the largest T, seed 0."""
    plt = _pyplot()
    most = max(r["steps"] for r in report["rows"])
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for row in report["rows"]:
        if row["seed"] or row["steps"] != most:
            continue
        epochs = range(1, len(row["history"]) + 1)
        axes[0].plot(epochs, [100 * h["accuracy"] for h in row["history"]], label=row["method"])
        for axis, name, switch in zip(axes[1:], ("theta", "alpha"), "tl", strict=True):
            if switch in row["method"].partition("-")[2]:
                for layer in range(len(row["history"][0][name])):
                    axis.plot(epochs, [h[name][layer] for h in row["history"]], label=f"{row['method']}, layer {layer + 1}")
    for axis, label in zip(axes, ("accuracy, %", "mean threshold", "leakage factor"), strict=True):
        axis.set(xlabel="epoch", ylabel=label)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=6)
    figure.suptitle(f"{report['model']} on {report['dataset']}, T = {most}, seed 0")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m sw.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = p.add_subparsers(dest="part", required=True)
    for name, help in (
        ("cost", "memory and time of a training step"),
        ("probe", "the memory of one case of it, in MiB"),
        ("learning", "accuracy"),
    ):
        q = parts.add_parser(name, help=help, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        learn = name == "learning"
        methods = "stop-w,stop-wt,stop-wl,stop-wtl,bptt-wtl,ottt" if learn else "stop-wtl,bptt-wtl,ottt"
        q.add_argument("--model", choices=MODELS, default="mlp", help="network")
        q.add_argument("--steps", type=_steps, default="8" if learn else "2,4,8,16,32,64", metavar="T,T", help="time steps")
        q.add_argument("--methods", type=_methods, default=methods, metavar="M,M", help=f"any of {', '.join((*METHODS, SNNTORCH))}")
        if learn:
            q.add_argument("--dataset", choices=images.READERS, default="digits", help="what to learn")
            q.add_argument("--data", default="", help="folder of the data set's files, if not in the usual place")
            q.add_argument("--seeds", type=whole(1), default=3, metavar="N", help="repetitions")
            q.add_argument("--epochs", type=whole(1), default=10, metavar="N", help="passes over the training samples")
            q.add_argument("--samples", type=whole(0), default=0, metavar="N", help="training samples, 0 is all")
            q.add_argument("--hidden", type=whole(1), default=32, metavar="N", help="hidden neurons of an mlp")
            q.add_argument("--lr", type=float, default=5e-3, help="learning rate")
        else:
            q.add_argument("--shape", choices=SHAPES, default="mnist", help="shape of an input")
            q.add_argument("--norm", choices=NORMS, default="none", help="of convolutions")
            q.add_argument("--width", type=float, default=1.0, help="factor of all channels")
            q.add_argument("--batch", type=whole(1), default=64, metavar="N", help="samples of a step")
            q.add_argument("--repeat", type=whole(1), default=5, metavar="N", help="training steps timed, of each method in turn")
            q.add_argument("--events", action="store_true", help="random events instead of a held frame")
        if name != "probe":
            q.add_argument(
                "--out", type=Path, default=Path("build/study"), metavar="FOLDER", help="table, numbers and picture go there"
            )
    return p


def _steps(text: str) -> list[int]:
    return [whole(1)(t) for t in text.split(",")]


def _methods(text: str) -> list[str]:
    for name in text.split(","):
        if name not in (*METHODS, SNNTORCH):
            raise argparse.ArgumentTypeError(f"{name} is not legal; legal is {', '.join((*METHODS, SNNTORCH))}")
    return text.split(",")


def main(arguments: Sequence[str] | None = None) -> int:
    p = parser()
    a = p.parse_args(arguments)
    torch.set_num_threads(1)
    if a.part == "probe":
        print(peak_memory(_spec(a), a.methods[0], a.steps[0], a.batch, a.events))
        return 0
    if a.part == "learning" and (SNNTORCH in a.methods or not 0 < a.lr < math.inf):
        p.error(
            f"--methods: {SNNTORCH} is for cost only" if SNNTORCH in a.methods else f"--lr: {a.lr} is not legal; legal is above 0"
        )
    a.out.mkdir(parents=True, exist_ok=True)
    try:
        report = cost(a) if a.part == "cost" else learning(a)
    except (ValueError, FileNotFoundError) as e:
        p.error(str(e))
    text = cost_table(report) if a.part == "cost" else learning_table(report)
    stem = a.out / f"{a.part}-{a.model}"
    stem.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    stem.with_suffix(".md").write_text(text)
    (cost_picture if a.part == "cost" else learning_picture)(report, stem.with_suffix(".png"))
    print(text)
    print(f"report: {stem}.md, .json, .png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
