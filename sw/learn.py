"""Learn a data set with the golden model, the arithmetic of the chip, and print its accuracy: `python -m sw.learn --help`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from boards import BOARDS
from hw.network import Network
from hw.options import add_design, network, output, positive, shares, whole
from sw import data
from sw.common import checks
from sw.golden.error.output import SURROGATES
from sw.golden.learn import learn_seeds
from sw.golden.recipe import recipe_for, strong


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m sw.learn", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add_design(p)
    p.add_argument("--dataset", choices=data.DATASETS, default="digits", help="what to learn")
    p.add_argument(
        "--folder", type=Path, metavar="FOLDER", help="where the files of fashion-mnist are, if not where Debian puts them"
    )
    p.add_argument(
        "--learn", default="wtl", metavar="SET", help="any of w (weights), t (thresholds), l (leakages); several sets: w,wtl"
    )
    p.add_argument(
        "--seeds", type=whole(1), default=5, metavar="N", help="repetitions, from other random weights and in other orders"
    )
    p.add_argument("--epochs", type=whole(1), default=10, metavar="N", help="passes over the training samples")
    p.add_argument("--samples", type=whole(1), metavar="N", help="training samples of an epoch, all if not given")
    p.add_argument("--validate", type=whole(1), metavar="N",
                   help="hold out N of the training samples in the place of the test samples: to choose a recipe by")  # fmt: skip
    p.add_argument(
        "--rate-w", type=whole(0), metavar="K", help="first learning rate of the weights, 2^-K; that of the recipe if not given"
    )
    p.add_argument("--halve-at", type=shares, metavar="S,S", help="shares of the training after which rates are halved, likewise")
    p.add_argument("--beta", type=positive, metavar="X", help="inverse temperature of the cross entropy, likewise")
    p.add_argument("--scale", type=positive, metavar="X", help="factor of all output errors, likewise")
    p.add_argument("--surrogate", choices=SURROGATES, help="surrogate derivative, likewise")
    p.add_argument("--band", type=positive, metavar="X", help="graded errors below this are 0, likewise")
    p.add_argument("--strong", action=argparse.BooleanOptionalAction,
                   help="start from what makes a network learn well: graded errors, centred gradients, decay, fine numbers;"
                        " convolutional networks do unless told not to")  # fmt: skip
    p.add_argument("--json", type=output, metavar="FILE", help="write network and accuracies there too")
    return p


CHOSEN = ("rate_w", "halve_at", "beta", "scale", "surrogate", "band")
"""Fields of a recipe that are options."""


def wanted(options: argparse.Namespace) -> Network:
    """The network that the options name; ValueError if it is not legal."""
    base = BOARDS[options.board].design.network if "board" in options else Network()
    net = getattr(options, "net", base.net)
    if options.strong if options.strong is not None else not Network(net=net).all_dense:
        base = strong(net)
    return network(options, base)


def main(arguments: list[str] | None = None) -> int:
    p = parser()
    options = p.parse_args(arguments)
    torch.set_num_threads(1)  # the tensors are small: more threads only cost
    try:
        sets = [checks.check_learn(switches) for switches in options.learn.split(",")]
        config = wanted(options)
        dataset = data.load(options.dataset, config, folder=options.folder)
        if options.validate:
            dataset = dataset.validation(options.validate)
        chosen = {
            name: getattr(options, name) for name in CHOSEN if getattr(options, name) is not None
        }
        recipe = replace(recipe_for(dataset.name, config), **chosen)
        checks.check_rate("rate_w", recipe.rate_w)
        if (options.samples or 0) > len(dataset.train):
            raise ValueError(f"--samples: {options.samples} is not legal; legal is 1 to {len(dataset.train)}")
    except (ValueError, FileNotFoundError) as e:
        p.error(str(e))
    start = time.monotonic()
    tables = {
        switches: learn_seeds(
            config, dataset, switches, seeds=options.seeds, epochs=options.epochs, samples=options.samples, recipe=recipe
        )
        for switches in sets
    }
    print(as_text(config, dataset, tables))
    if options.json:
        report = {
            "network": json.loads(config.to_json()),
            "dataset": options.dataset,
            "recipe": asdict(recipe),
            "validate": options.validate,
            "seconds": round(time.monotonic() - start, 1),
            "test_accuracy": tables,
            "mean": {switches: float(np.mean([row[-1] for row in table])) for switches, table in tables.items()},
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")
        print(f"report: {options.json}")
    return 0


def as_text(config: Network, dataset: data.Dataset, tables: dict[str, list[list[float]]]) -> str:
    """Accuracies for a reader, in per cent: spread is the standard deviation over seeds."""
    c = config
    lines = [
        f"{dataset.name}, {c.title}, T = {c.steps}, {c.input} input, cadence {c.cadence}: % of {len(dataset.test)} held-out"
        " samples",
        f"{'learn':<6} {'epochs':>6} {'seeds':>6} {'mean':>7} {'spread':>7} {'least':>7} {'most':>7} {'epoch 1':>8}",
    ]
    for switches, table in tables.items():
        last, first = 100 * np.array(table)[:, -1], 100 * np.array(table)[:, 0]
        spread = last.std(ddof=1) if len(last) > 1 else 0.0
        lines.append(
            f"{switches:<6} {len(table[0]):>6} {len(table):>6} {last.mean():>7.2f} {spread:>7.2f} {last.min():>7.2f}"
            f" {last.max():>7.2f} {first.mean():>8.2f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
