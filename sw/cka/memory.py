"""Peak memory of a comparison, each size in a process of its own."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from sw.cka.features import Hooks, in_time
from sw.cka.measures import CKA, splits
from sw.stop import unroll
from sw.training.cost import peak_of
from sw.training.nets import Spec, build

LAYERS, WIDTH, STEPS, BATCH = 20, 128, 4, 250
SAMPLES, LARGE = 2000, 10000


def probe(samples: int, quiet: bool = False) -> float:
    """The peak of resident memory above that before, MiB: 20 layers of a spiking network pairwise on random images.

    To be called in a fresh process.
    """

    def work() -> None:
        torch.manual_seed(0)
        net = build(Spec("mlp", (784,), hidden=(WIDTH,) * (LAYERS - 1), theta=0.3, gain=2.0)).eval()
        out = CKA()
        with torch.no_grad(), Hooks(net) as hooks:
            for part in tqdm(splits(samples, BATCH), desc=f"{samples} samples", disable=quiet, leave=False):
                x = torch.rand(part.stop - part.start, 784)
                hooks.clear()
                for _ in unroll(net, x.expand(STEPS, *x.shape)):
                    pass
                out.add(list(in_time(hooks.features(), "concat").values()))
        assert out.samples == samples and out.result().shape == (LAYERS, LAYERS)

    return peak_of(work)


def add_to(parts: Any) -> None:
    q = parts.add_parser("memory", help="peak memory of 20 layers pairwise")
    q.add_argument("--samples", type=int, metavar="N", help="of one size alone, in this process: prints MiB")


def main(a: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    if a.samples:
        print(probe(a.samples))
        return 0
    peaks = {n: float(subprocess.run([sys.executable, "-m", "sw.cka", "memory", "--samples", str(n)], cwd=Path.cwd(), check=True,
                                     stdout=subprocess.PIPE, text=True).stdout) for n in (SAMPLES, LARGE)}  # fmt: skip
    print(f"{LAYERS} layers of {WIDTH} x {STEPS} features pairwise, minibatches of {BATCH}, peak memory above that of the process: "
          f"{', '.join(f'{n} samples {mib:.0f} MiB' for n, mib in peaks.items())},"
          f" {peaks[LARGE] / peaks[SAMPLES]:.2f} times")  # fmt: skip
    return 0
