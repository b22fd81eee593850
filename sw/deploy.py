"""Put a network from another framework on the chip: `python -m sw.deploy model.nir`.

Reads a NIR graph, chooses number formats from calibration data and the smallest board that holds it, as that is or built for it,
and writes network and integers as one image for the driver and for `sim.cosim --image`. Says what each choice costs, and what to do
next.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from boards import BOARDS
from hw.network import CADENCES, INPUTS, Network
from hw.options import output, whole
from sw import data
from sw.nir import graph as nirgraph
from sw.nir.deploy import Report, Samples, deploy
from sw.nir.graph import APPROXIMATIONS, DECAYS, RESETS, Reading


def calibration(source: str, inputs: int, classes: int, steps: int, kind: str, limit: int) -> Samples:
    """Calibration samples: the training part of a data set by name, or arrays `x` and, if known, `labels` from an .npz file."""
    if source in data.DATASETS:
        split = data.load(source, Network(net=f"{inputs}-1-{classes}", steps=steps, input=kind)).train
        n = min(len(split), limit)
        return Samples(np.stack([split.sample(i) for i in range(n)]), split.labels[:n])
    path = Path(source)
    if not path.is_file():
        raise ValueError(
            f"calibrate: {source} is neither a file nor a data set; legal is an .npz file or {' or '.join(data.DATASETS)}"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            samples = Samples(file["x"], file.get("labels"))
    except (ValueError, KeyError, OSError) as e:
        raise ValueError(f"calibrate: {source}: not an .npz file with samples `x` ({e})") from None
    return Samples(samples.x[:limit], None if samples.labels is None else samples.labels[:limit])


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m sw.deploy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    own = "(default: %(default)s)"
    p.add_argument("model", type=Path, metavar="MODEL.nir", help="the network, a NIR graph")
    p.add_argument("--image", type=output, metavar="FILE", help="where the image goes (default: MODEL.image.npz)")
    p.add_argument("--json", type=output, metavar="FILE", help="write the report there too (default: nowhere)")
    meaning = p.add_argument_group("what the graph leaves open")
    meaning.add_argument("--steps", type=int, default=Network().steps, metavar="T", help=f"time steps of a sample {own}")
    meaning.add_argument("--input", choices=INPUTS, default="static",
                         help=f"a frame held for T steps, events, or a frame in every step {own}")  # fmt: skip
    meaning.add_argument("--input-scale", type=float, default=1.0, metavar="X",
                         help="what the network was given where the core is given 1.0, a pixel of 256 or an event"
                              f" {own}")  # fmt: skip
    meaning.add_argument(
        "--dt", type=float, default=Reading().dt, metavar="SECONDS", help=f"of a time step {own}; snnTorch writes 1e-4"
    )
    meaning.add_argument("--decay", choices=DECAYS, default="euler", help=f"leakage factor 1 - dt/tau, or exp(-dt/tau) {own}")
    meaning.add_argument("--reset", choices=RESETS,
                         help="after a spike: the threshold is subtracted before the leak, after it, or all"
                              " (default: as the graph says)")  # fmt: skip
    meaning.add_argument("--approximate", action="append", choices=APPROXIMATIONS, default=[],
                         help="accept what is not exact: another reset, one leakage factor a layer, or one"
                              " threshold a channel (default: refuse)")  # fmt: skip
    choice = p.add_argument_group("what it becomes")
    choice.add_argument(
        "--board", choices=BOARDS, metavar="NAME", help=f"one of {', '.join(BOARDS)} (default: the smallest that holds it)"
    )
    choice.add_argument("--bits", type=int, default=16, metavar="N", help=f"of a weight {own}")
    choice.add_argument("--cadence", choices=CADENCES, help="when parameters change (default: the board's)")
    choice.add_argument("--stochastic", action="store_true", help="round weight updates by chance (default: if weights are coarse)")
    choice.add_argument("--calibrate", metavar="DATA",
                        help=f"{' or '.join(data.DATASETS)}, or an .npz file with samples `x`, uint8 (n, N0) or bool (n, T, N0),"
                             " and `labels` (default: formats by the weights alone, nothing measured)")  # fmt: skip
    choice.add_argument("--samples", type=whole(1), default=500, metavar="N", help=f"calibration samples to use, at most {own}")
    return p


def main(arguments: list[str] | None = None) -> int:
    p = parser()
    options = p.parse_args(arguments)
    torch.set_num_threads(1)  # the tensors are small
    path = options.image or options.model.with_suffix(".image.npz")
    try:
        graph = nirgraph.read(options.model)
        reading = Reading(dt=options.dt, decay=options.decay, reset=options.reset, approximate=frozenset(options.approximate))
        network, _ = nirgraph.layers(graph, reading)
        samples = None
        if options.calibrate:
            inputs, classes = network[0].inputs, network[-1].rows
            samples = calibration(options.calibrate, inputs, classes, options.steps, options.input, options.samples)
        report = deploy(graph, reading=reading, steps=options.steps, input=options.input, input_scale=options.input_scale,
                        bits=options.bits, board=options.board, cadence=options.cadence, stochastic=options.stochastic,
                        calibration=samples, quiet=False)  # fmt: skip
    except (ValueError, FileNotFoundError) as e:
        p.error(str(e))
    report.image.save(path)
    if options.json:
        options.json.write_text(json.dumps(report.as_dict(), indent=2) + "\n")
    print(as_text(report))
    print(f"\nimage           {path}")
    print(_table(zip(("next", *[""] * 9), report.place.next_steps(path), strict=False)))
    return 0


def as_text(report: Report) -> str:
    """The report for a reader."""
    r, c = report, report.image.network
    ones = r.image.origin.ones
    rows = [
        ("network", f"{c.title}, T = {c.steps}, {c.input} input"
                    + (f"; {ones} of its units{'' if c.all_dense else ' or channels'} are always on, for biases" if ones else "")),
        ("board", f"{r.place}, cadence {c.cadence}" + ", stochastic rounding" * c.stochastic),
        *(("also holds it", ", ".join(other.board.name for other in r.others if other.ready is ready) + how)
          for ready, how in ((True, " (as it is)"), (False, " (built for it)")) if any(other.ready is ready for other in r.others)),
        ("formats", f"weights {c.w}, membranes {c.u}"),
    ]
    for layer in r.layers:
        rows.append((f"layer {layer['name']}",
                     f"alpha {layer['alpha']:.5f} -> {layer['alpha_integer']:.5f}, threshold {layer['threshold']:.3g},"
                     f" {layer['weights_clipped']} of {layer['weights']} weights clipped,"
                     f" currents off by {100 * layer['disturbance']:.2g} % of a threshold"))  # fmt: skip
    rows += [("approximated", text) for text in r.approximations] or [("approximated", "nothing but numbers")]
    if not r.samples:
        return _table([*rows, ("measured", "nothing; --calibrate DATA does")])
    assert r.spikes is not None and r.spikes_differ is not None and r.steps_of_neurons and r.classes_equal is not None
    rows.append(("samples", str(r.samples)))
    if r.float_accuracy is not None and r.integer_accuracy is not None:
        rows.append(("accuracy", f"{100 * r.float_accuracy:.2f} % in floating point, {100 * r.integer_accuracy:.2f} % in integers"))
    rows.append(("classes equal", f"{100 * r.classes_equal:.2f} %"))
    share = r.spikes_differ / r.steps_of_neurons
    rows.append(("spikes differ", f"{r.spikes_differ} in {r.steps_of_neurons} steps of neurons ({100 * share:.3f} %),"
                                  f" {r.spikes} spikes"))  # fmt: skip
    return _table(rows)


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{name:<15} {value}" for name, value in rows)


if __name__ == "__main__":
    sys.exit(main())
