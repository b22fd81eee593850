"""Train a float spiking network with STOP, BPTT or OTTT: `python -m sw.train --help`.

    python -m sw.train --model lenet5 --dataset fashion-mnist --method stop-wtl --steps 6 --epochs 20 --out runs/lenet5
    python -m sw.train --out runs/lenet5 --resume        # goes on where it was stopped, to the bit
    torchrun --nproc_per_node 2 -m sw.train ...          # several processes share every batch

A run's folder holds checkpoint.pt, model.pt (the network alone, at its best), report.json and, with --tensorboard, its curves.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from hw.options import output, sizes
from sw.training.train import Data, Options, Run, chip_image, save_model, train


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m sw.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for f in fields(Options):
        flag, help = f"--{f.name.replace('_', '-')}", f.metadata["help"]
        default: Any = f.default
        if f.name == "hidden":
            p.add_argument(
                flag, type=sizes, default=default, metavar="N-N", help=f"{help} (default: {'-'.join(map(str, default))})"
            )
        elif isinstance(default, bool):
            p.add_argument(flag, action="store_true", help=help)
        else:
            p.add_argument(
                flag, type=type(default), default=default, choices=f.metadata.get("choices"), help=f"{help} (default: {default!r})"
            )
    p.add_argument("--out", type=Path, metavar="FOLDER", help="checkpoint, model and report go there")
    p.add_argument("--tensorboard", action="store_true", help="write curves for TensorBoard to --out")
    p.add_argument("--resume", action="store_true", help="go on with the run in --out; its own options hold")
    p.add_argument("--json", type=output, metavar="FILE", help="write the report there too")
    p.add_argument(
        "--chip", type=output, metavar="FILE", help="write the network in the chip's integers (.npz; mlp with direct coding)"
    )
    p.add_argument("--chip-samples", type=int, default=1000, metavar="N", help="held-out samples to compare it on (default: 1000)")
    p.add_argument(
        "--save-every", type=float, default=60.0, metavar="S", help="seconds between checkpoints within an epoch (default: 60)"
    )
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to train (default: cpu)")
    p.add_argument("--threads", type=int, default=1, metavar="N", help="of each process (default: 1)")
    p.add_argument("--quiet", action="store_true", help="no progress")
    return p


def main(arguments: list[str] | None = None) -> int:
    p = parser()
    a = p.parse_args(arguments)
    torch.set_num_threads(max(1, a.threads))
    shared = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if shared:
        dist.init_process_group("nccl" if a.device == "cuda" else "gloo")
        if a.device == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        return _main(p, a)
    finally:
        if shared:
            dist.destroy_process_group()


def _board(folder: Path) -> Any:
    """TensorBoard's writer (slow to import, and a package of its own)."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError("--tensorboard: the package tensorboard is not installed") from None
    return SummaryWriter(str(folder))


def _main(p: argparse.ArgumentParser, a: argparse.Namespace) -> int:
    checkpoint = a.out / "checkpoint.pt" if a.out else None
    try:
        if a.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device: cuda is not there; legal is cpu")
        options = Options(**{f.name: getattr(a, f.name) for f in fields(Options)})
        if a.chip and (options.model != "mlp" or options.neuron != "lif" or options.coding != "direct" or not options.still):
            raise ValueError(
                "--chip: needs --model mlp, --neuron lif, --coding direct and images; the chip has fully connected layers only"
            )
        if a.resume:
            if checkpoint is None or not checkpoint.is_file():
                raise ValueError(f"--resume: {checkpoint or 'no --out'} is not a checkpoint to go on with")
            saved = torch.load(checkpoint, weights_only=True, map_location="cpu")["options"]
            options = replace(Options(**saved), data=a.data or saved["data"])
        elif checkpoint and checkpoint.exists():
            raise ValueError(f"--out: {a.out} holds a run; name another folder, or --resume it")
        if a.tensorboard and not a.out:
            raise ValueError("--tensorboard: needs --out, where the curves go")
        run = Run(options, Data.load(options), a.device)
        board = _board(a.out) if a.tensorboard and run.rank == 0 else None
    except (ValueError, FileNotFoundError) as e:
        p.error(str(e))
    if a.out:
        a.out.mkdir(parents=True, exist_ok=True)
    if a.resume and checkpoint:
        run.resume(checkpoint)
    start = time.monotonic()
    train(run, a.out, board=board, save_every=a.save_every, quiet=a.quiet)
    if run.rank:
        return 0
    run.net.load_state_dict(run.best["state"])
    report: dict[str, Any] = {
        "options": asdict(options),
        "parameters": sum(q.numel() for q in run.net.parameters()),
        "accuracy": run.history[-1]["accuracy"],
        "best_accuracy": run.best["accuracy"],
        "best_epoch": run.best["epoch"],
        "seconds": round(time.monotonic() - start, 1),
        "history": run.history,
    }
    if a.chip:
        report["chip"] = chip = chip_image(run, a.chip, a.chip_samples, a.quiet)
        print(
            f"integers: {chip['integer']:.2%}, float {chip['float']:.2%} of {chip['samples']}; {chip['clipped']} clipped; {a.chip}"
        )
    if a.out:
        save_model(run, a.out / "model.pt")
    for path in filter(None, (a.json, a.out and a.out / "report.json")):
        path.write_text(json.dumps(report, indent=2) + "\n")
        print(f"report: {path}")
    print(f"{options.model}, {options.dataset}, {options.method}, T = {options.steps}: {report['accuracy']:.2%} of"
          f" {len(run.data.test[1])} held-out samples after epoch {run.epoch}, best {report['best_accuracy']:.2%}"
          f" (epoch {report['best_epoch']})")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
