"""What the core costs against what it must: `python -m sim.bench --help`.

For each board's design it gives the clock cycles of a sample against the ideal, by phase. With the Fmax of a real build it
gives samples a second, and the time of one on-line training sample against float STOP and snnTorch's BPTT on this processor,
measured in the same run. It shows how cycles grow with neurons, steps, lanes and activity, and how fast the simulators are.
Output is a table, two plots, and a report with --json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm import tqdm

from boards import BOARDS, get_board
from hw.build import build as build_board
from hw.design import Design
from hw.memory_map import PHASES
from hw.network import Network
from hw.numbers import Q
from hw.options import DESIGN, flag, output, whole
from hw.report import BuildError
from sim.build import OPT
from sim.cosim import BAR
from sim.cycles import KINDS, Samples, cycles, random_samples, real_samples, total
from sim.device import ENGINES, SimDevice
from sim.ideal import FORMULA
from sim.simulator import SimulationError
from sw.golden.fast import FastNetwork
from sw.golden.network import GoldenNetwork
from sw.golden.recipe import Recipe
from sw.stop import Parameters, stop

FOLDER = Path(__file__).resolve().parent.parent / "build" / "bench"
COLOURS = dict(zip(PHASES, ("#1f5fa8", "#9aa0a6", "#d1495b", "#edae49"), strict=True))
LANES = ("lanes", "neuron_lanes", "wires")
GROWTH = Design.of(Network(net="64-32-10", input="events"), lanes=4)
"""Where growth starts from: one field at a time is changed."""
EVENTS = Design.of(Network(net="784-200-10", input="events", trace=Q(5, 8), grad=Q(6, 12)), lanes=8, neuron_lanes=2)
"""Whose growth is shown with lanes and with activity, the latter learned from traces and lazily."""
_FROM = f"{GROWTH.network.title}, T = {GROWTH.network.steps}, {GROWTH.machine.lanes} lanes"
LARGE = f"{EVENTS.network.title}, T = {EVENTS.network.steps}, {EVENTS.machine.neuron_lanes} neuron lanes"
ACTIVITIES = (0.05, 0.1, 0.25, 0.5, 1.0)


# -- growth ------------------------------------------------------------------------------------------------------------------------
def growth(samples: int, quiet: bool) -> dict[str, list[dict[str, Any]]]:
    """Cycles of a sample as one thing grows, by what grows: value, and cycles by kind."""
    axes: dict[str, list[tuple[float, Design, float]]] = {
        "neurons": [(n, GROWTH.replace(net=f"64-{n}-10"), 0.25) for n in (16, 32, 64, 128)],
        "steps": [(t, GROWTH.replace(steps=t), 0.25) for t in (2, 8, 32)],
        "lanes, large": [(n, EVENTS.replace(lanes=n), 0.25) for n in (4, 8, 20, 40, 100)],
        "activity": [(share, GROWTH, share) for share in ACTIVITIES],
        "activity, large": [(share, EVENTS, share) for share in ACTIVITIES],
        "activity, large, lazy": [(share, EVENTS.replace(lazy=True), share) for share in ACTIVITIES],
    }
    out: dict[str, list[dict[str, Any]]] = {}
    with tqdm(total=sum(map(len, axes.values())), desc="growth", unit=" points", disable=quiet) as bar:
        for name, points in axes.items():
            out[name] = []
            for value, design, activity in points:
                shown = random_samples(design.network, activity, samples)
                out[name].append({"value": value, "cycles": cycles(design, shown, shown, opt="quick")})
                bar.update()
    return out


# -- the processor -----------------------------------------------------------------------------------------------------------------
def median_ms(call: Callable[[], Any], runs: int) -> float:
    """Median of the processor's milliseconds of a call, after three that do not count; other programs hardly change it."""
    times = []
    for n in range(runs + 3):
        start = time.process_time()
        call()
        if n >= 3:
            times.append(1e3 * (time.process_time() - start))
    return statistics.median(times)


def float_stop(network: Network, sample: np.ndarray) -> Callable[[], None]:
    """One on-line training sample of float STOP: gradients and a step."""
    torch.manual_seed(0)
    pairs = list(zip(network.sizes[1:], network.sizes[:-1], strict=True))
    weights, thresholds = [torch.randn(n, m) / m**0.5 for n, m in pairs], [torch.ones(n) for n, _ in pairs]
    p, x = Parameters(weights, thresholds, [torch.tensor(0.9) for _ in pairs]), as_float(network, sample)

    def call() -> None:
        grad, _ = stop(p, x, [1])
        for value, change in zip(p, grad, strict=True):
            value -= 0.001 * change

    return call


def snntorch_bptt(network: Network, sample: np.ndarray) -> Callable[[], None] | None:
    """One on-line training sample of the same network in snnTorch: forward, backward through time, a step of SGD.

    None without snnTorch."""
    try:
        import snntorch
    except ImportError:
        return None
    torch.manual_seed(0)
    pairs = zip(network.sizes[:-1], network.sizes[1:], strict=True)
    linear = torch.nn.ModuleList(torch.nn.Linear(m, n, bias=False) for m, n in pairs)
    leaky = torch.nn.ModuleList(snntorch.Leaky(beta=0.9, learn_beta=True, learn_threshold=True) for _ in linear)
    optimiser = torch.optim.SGD([*linear.parameters(), *leaky.parameters()], lr=0.001)
    x, label = as_float(network, sample), torch.tensor([1])

    def call() -> None:
        membranes, loss = [unit.init_leaky() for unit in leaky], torch.zeros(())
        for spikes in x:
            for l, (layer, unit) in enumerate(zip(linear, leaky, strict=True)):
                spikes, membranes[l] = unit(layer(spikes), membranes[l])
            loss = loss + torch.nn.functional.cross_entropy(spikes, label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return call


def as_float(network: Network, sample: np.ndarray) -> torch.Tensor:
    """A sample as (T, 1, N0) floats."""
    x = torch.from_numpy(sample.astype(np.float32))
    return (x / 256).expand(network.steps, 1, -1) if network.static else x[:, None, :]


def golden(model: GoldenNetwork, network: Network, sample: np.ndarray) -> Callable[[], Any]:
    model.load(Recipe().state(network, 0))
    return partial(model.run, sample, 1, "wtl")


def on_processor(network: Network, sample: np.ndarray, runs: int) -> dict[str, float | None]:
    """Milliseconds of one on-line training sample on this processor, one thread, by how."""
    calls = {"snnTorch BPTT": snntorch_bptt(network, sample), "float STOP": float_stop(network, sample),
             "golden model": golden(GoldenNetwork(network), network, sample),
             "golden model, compiled": golden(FastNetwork(network), network, sample)}  # fmt: skip
    return {name: None if call is None else median_ms(call, runs) for name, call in calls.items()}


# -- the simulators ----------------------------------------------------------------------------------------------------------------
def simulators(design: Design, samples: Samples, rounds: int = 5) -> dict[str, dict[str, float]]:
    """Samples learned a second by each engine in turn: medians over rounds, without and with reading the whole state after each."""
    rates: dict[str, dict[str, list[float]]] = {engine: {"result": [], "state": []} for engine in ENGINES}
    devices = {engine: SimDevice(design.network, design.machine, engine=engine) for engine in ENGINES}
    with ExitStack() as stack:
        for device in devices.values():
            stack.enter_context(device)
        states = []
        for device in devices.values():
            device.load(Recipe().state(design.network, 0))
        for _ in range(rounds):
            for engine, device in devices.items():
                for what, shown in (("result", samples), ("state", samples[: max(1, len(samples) // 8)])):
                    start = time.perf_counter()
                    for sample, label in shown:
                        device.submit(sample, label, "wtl", state=what == "state")
                        device.collect()
                    rates[engine][what].append(len(shown) / (time.perf_counter() - start))
        states = [device.read() for device in devices.values()]
    if any(not np.array_equal(states[0][name], state[name]) for state in states for name in state):
        raise SimulationError(f"{design.network.title}: the engines differ")
    return {engine: {what: statistics.median(values) for what, values in kinds.items()} for engine, kinds in rates.items()}


# -- the report --------------------------------------------------------------------------------------------------------------------
def measure(names: list[str], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each board, of its own design."""
    for name in names:
        board = get_board(name)
        design = board.design.replace(**{name: getattr(options, name) for name in LANES if getattr(options, name) is not None})
        network, machine = design.network, design.machine
        samples, warm = real_samples(network, options.samples, options.warm) if network.sizes[0] in (64, 784) else (
            random_samples(network, 0.3, options.samples), random_samples(network, 0.3, options.warm))  # fmt: skip
        row: dict[str, Any] = {"board": name, "title": network.title, "lanes": machine.lanes, "steps": network.steps,
                               "network": json.loads(network.to_json()), "machine": json.loads(machine.to_json()),
                               "target_mhz": board.clock / 1e6, "fmax_mhz": None}  # fmt: skip
        if not options.no_build:
            row["fmax_mhz"] = build_board(name, design, say=partial(print, file=sys.stderr, flush=True))["fmax_mhz"]
        row["cycles"] = cycles(design, samples, warm, opt=options.opt)
        mhz = row["fmax_mhz"] or row["target_mhz"]
        for kind in KINDS:
            row[f"{kind}_share"] = total(row["cycles"][kind], "ideal") / total(row["cycles"][kind], "real")
            row[f"{kind}_per_second"] = 1e6 * mhz / total(row["cycles"][kind], "real")
        update = row["cycles"]["training"]["update"]
        row["updates_per_cycle"] = update["done"] / update["real"]
        row["chip_ms"] = total(row["cycles"]["training"], "real") / mhz / 1e3
        row["processor_ms"] = on_processor(network, samples[0][0], options.runs)
        yield row


def training_rows(boards: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Times of an on-line training sample on each board's chip and on this processor."""
    rows: list[tuple[str, ...]] = [("on-line training sample", "ms, one thread", "samples/s", "chip is faster by")]
    for r in boards:
        rows.append((f"{r['board']}, {r['title']}: chip", f"{r['chip_ms']:.4f}", f"{1000 / r['chip_ms']:,.0f}", ""))
        for name, ms in r["processor_ms"].items():
            measured = ("not installed", "", "")
            if ms is not None:
                measured = f"{ms:.3f}", f"{1000 / ms:,.0f}", f"{ms / r['chip_ms']:.1f}"
            rows.append((f"  {name}, this processor", *measured))
    return rows


def growth_lines(growth: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The table of growing cycles, and how many fewer a quiet network takes."""
    which = (("real", "cycles"), ("ideal", "ideal"))
    rows = [("grows", "to", *(f"{kind} {title}" for kind in KINDS for _, title in which))]
    for name, points in growth.items():
        for p in points:
            figures = (f"{total(p['cycles'][kind], of):.0f}" for kind in KINDS for of, _ in which)
            rows.append((name, f"{p['value']:g}", *figures))
    lines = ["", *columns(rows)]
    lines.append(f"From {_FROM}, events, activity 25 %; activity is the share of inputs that spike in a step.")
    lines.append(f"Large: {LARGE}, and {EVENTS.machine.lanes} lanes where activity grows.")
    for name, points in growth.items():
        if name.startswith("activity"):
            fewer = [total(points[-1]["cycles"][kind], "real") / total(points[0]["cycles"][kind], "real") for kind in KINDS]
            lines.append(f"{name}: {ACTIVITIES[0]:.0%} takes {fewer[0]:.1f} times ({KINDS[0]}) and"
                         f" {fewer[1]:.1f} times ({KINDS[1]}) fewer cycles than {ACTIVITIES[-1]:.0%}")  # fmt: skip
    return lines


def as_text(report: dict[str, Any]) -> str:
    """The report for a reader."""
    rows = [("board", "network", "T", "lanes", "", *PHASES, "cycles", "ideal", "ideal/real", "MHz", "samples/s")]
    for r in report["boards"]:
        for kind in KINDS:
            figures = r["cycles"][kind]
            mhz = f"{r['fmax_mhz']:.1f}" if r["fmax_mhz"] else f"({r['target_mhz']:g})"
            phases = (f"{figures[p]['real']:.0f}/{figures[p]['ideal']:.0f}" for p in PHASES)
            rows.append((r["board"], r["title"], str(r["steps"]), str(r["lanes"]), kind, *phases,
                         f"{total(figures, 'real'):.0f}", f"{total(figures, 'ideal'):.0f}",
                         f"{r[f'{kind}_share']:.3f}", mhz, f"{r[f'{kind}_per_second']:,.0f}"))  # fmt: skip
    legend = "Phases: real/ideal cycles. MHz is the Fmax of the build; in brackets the board's clock, without a build."
    lines = [*columns(rows), "", legend, FORMULA, ""]
    lines += [f"{r['board']}: {r['updates_per_cycle']:.1f} weights or their gradients updated a cycle while updating,"
              f" {r['updates_per_cycle'] / r['lanes']:.2f} of the lanes" for r in report["boards"]] + [""]  # fmt: skip
    lines += columns(training_rows(report["boards"]))
    if "growth" in report:
        lines += growth_lines(report["growth"])
    if "simulators" in report:
        s = report["simulators"]
        rows = [("simulator", "samples/s", "with the whole state read")]
        rows += [(engine, f"{rates['result']:.1f}", f"{rates['state']:.2f}") for engine, rates in s["rates"].items()]
        for other in ENGINES:
            if other != "fast":
                ratio = [s["rates"]["fast"][what] / s["rates"][other][what] for what in ("result", "state")]
                rows.append((f"fast : {other}", f"{ratio[0]:.1f}", f"{ratio[1]:.1f}"))
        lines += ["", *columns(rows), f"{s['network']}, learning; in turn, medians"]
    return "\n".join(lines)


def columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


# -- plots -------------------------------------------------------------------------------------------------------------------------
def plot_boards(rows: list[dict[str, Any]], path: Path) -> None:
    """Real and ideal cycles by phase, and the time of a training sample."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 2.6 + 0.7 * len(rows)), layout="constrained")
    for axis, kind in zip(axes, KINDS, strict=False):
        labels = [f"{r['board']}\n{r['title']}, {r['lanes']} lanes\n{which}" for r in rows for which in ("real", "ideal")]
        left = np.zeros(len(labels))
        for phase in PHASES:
            values = [r["cycles"][kind][phase][which] for r in rows for which in ("real", "ideal")]
            axis.barh(labels, values, left=left, color=COLOURS[phase], label=phase)
            left += values
        for y, r in enumerate(rows):
            axis.annotate(f" ideal / real {r[f'{kind}_share']:.2f}", (left[2 * y], 2 * y), va="center", fontsize=9)
        axis.set(title=f"cycles of a sample, {kind}", xlim=(0, 1.5 * left.max()))
        axis.invert_yaxis()
    axes[1].set_yticklabels([])
    axes[0].legend(fontsize=8, loc="lower right")
    names, values, colours = [], [], []
    for r in rows:
        for name, ms in {f"{r['board']} (chip)": r["chip_ms"], **r["processor_ms"]}.items():
            if ms is not None:
                names.append(f"{name}\n{r['title']}")
                values.append(ms)
                colours.append("#d1495b" if "chip" in name else "#9aa0a6")
    axes[2].barh(range(len(names)), values, color=colours)
    axes[2].set_yticks(range(len(names)), names, fontsize=7)
    for y, ms in enumerate(values):
        axes[2].annotate(f" {ms:.3g} ms", (ms, y), va="center", fontsize=8)
    axes[2].set(xscale="log", title="time of one on-line training sample", xlabel="milliseconds",
                xlim=(min(values) / 2, 8 * max(values)))  # fmt: skip
    axes[2].invert_yaxis()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def plot_growth(points: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Cycles against each thing that grows, real and ideal."""
    figure, grid = plt.subplots(2, 3, figsize=(14, 7.5), layout="constrained")
    share = "share of inputs that spike in a step"
    names = {"neurons": "hidden neurons", "steps": "time steps T", "lanes, large": f"lanes\n{LARGE}", "activity": share,
             "activity, large": f"{share}\n{LARGE}, {EVENTS.machine.lanes} lanes",
             "activity, large, lazy": f"{share}\nthe same, learning lazily"}  # fmt: skip
    for axis, (name, series) in zip(grid.flat, points.items(), strict=True):
        x = [p["value"] for p in series]
        for kind, colour in zip(KINDS, ("#1f5fa8", "#d1495b"), strict=True):
            axis.plot(x, [total(p["cycles"][kind], "real") for p in series], "o-", color=colour, label=kind)
            axis.plot(x, [total(p["cycles"][kind], "ideal") for p in series], ":", color=colour, label=f"{kind}, ideal")
        axis.set(xlabel=names[name], ylabel="cycles of a sample", xscale="log", yscale="log")
        axis.set_xticks(x, [f"{100 * v:g} %" if name.startswith("activity") else f"{v:g}" for v in x])
        axis.minorticks_off()
        axis.grid(color="#e6e6e6", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    grid[0, 0].legend(fontsize=8)
    grid[1, 2].set_ylim(grid[1, 1].get_ylim())
    figure.suptitle(f"How cycles grow, from {_FROM}, events at 25 % activity")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m sim.bench", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    own = "(default: %(default)s)"
    p.add_argument("--board", choices=BOARDS, action="append", metavar="NAME",
                   help="a board whose design is measured and built; may be given again:"
                        f" {', '.join(BOARDS)} (default: icebreaker)")  # fmt: skip
    for name in LANES:
        p.add_argument(flag(name), **DESIGN[name] | {"help": f"{DESIGN[name]['help']}, in place of the board's"})
    p.add_argument("--samples", type=whole(1), default=10, metavar="N", help=f"samples to measure cycles with {own}")
    p.add_argument("--warm", type=whole(0), default=1000, metavar="N", help=f"samples that are learned first {own}")
    p.add_argument("--runs", type=whole(1), default=30, metavar="N", help=f"timed runs on this processor {own}")
    p.add_argument("--opt", choices=OPT, default="fast",
                   help=f"simulations quick to build, or fast to run; cycles are the same {own}")  # fmt: skip
    p.add_argument("--no-build", action="store_true", help="leave out the builds: no Fmax, the board's clock instead")
    p.add_argument("--no-growth", action="store_true", help="leave out how cycles grow (builds of ten small cores)")
    p.add_argument("--no-simulators", action="store_true", help="leave out the rates of the simulators")
    p.add_argument("--json", type=output, metavar="FILE", help="write the report there too")
    options = p.parse_args(arguments)
    torch.set_num_threads(1)
    names = list(dict.fromkeys(options.board or ["icebreaker"]))
    report: dict[str, Any] = {"formula": FORMULA, "boards": []}
    try:
        with tqdm(total=len(names), desc="boards", **BAR | {"unit": " boards"}) as bar:
            for row in measure(names, options):
                report["boards"].append(row)
                bar.update()
        if not options.no_growth:
            report["growth"] = growth(4, quiet=False)
        if not options.no_simulators:
            design = get_board(names[0]).design
            shown, _ = real_samples(design.network, 16, 0)
            report["simulators"] = {"network": f"{names[0]}, {design.network.title}", "rates": simulators(design, shown)}
    except (BuildError, SimulationError, FileNotFoundError, RuntimeError, ValueError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    plot_boards(report["boards"], FOLDER / "boards.png")
    if "growth" in report:
        plot_growth(report["growth"], FOLDER / "growth.png")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    print(as_text(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
