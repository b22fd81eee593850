"""Learn a data set on a device and print its accuracy: `python -m sw.train_device --port PORT|sim|golden --help`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from boards import BOARDS
from hw.config import Config
from hw.host.protocol import Link
from sw import checks, data
from sw.checkpoint import read
from sw.device import LINK, WORLDS, Device
from sw.flash import board_with_flash
from sw.golden.recipe import RECIPES
from sw.transport.base import DeviceError

PART = 256  # samples between two looks at the learning rates


def train(device: Device, dataset: data.Dataset, switches: str, *, epochs: int, samples: int, seed: int, quiet: bool = False) -> list[float]:
    """Learns `epochs` times `samples` samples, in an order that follows from the seed; share of the held-out ones right after each epoch."""
    recipe, accuracies = RECIPES[dataset.name], []
    images = [dataset.test.sample(i) for i in range(len(dataset.test))]
    for epoch in range(epochs):
        order = recipe.order(seed, epoch, samples)
        for at in range(0, samples, PART):
            device.set_rates(**recipe.rates((epoch * samples + at) / (epochs * samples)))
            part = order[at : at + PART]
            device.train([dataset.train.sample(i) for i in part], dataset.train.labels[part], switches, quiet=quiet)
        accuracies.append(device.evaluate(images, dataset.test.labels, quiet=quiet))
        print(f"epoch {epoch + 1}: {accuracies[-1]:.2%} of {len(images)} held-out samples", flush=True)
    return accuracies


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m sw.train_device", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--port", required=True, help="serial port, sim, or golden")
    p.add_argument("--board", choices=BOARDS, metavar="NAME", help="whose network sim and golden are (the digits' own if not given), and whose flash --store writes")
    p.add_argument("--dataset", choices=data.DATASETS, help="what to learn; what fits the network's input if not given")
    p.add_argument("--learn", default="wtl", metavar="SET", help="any of w (weights), t (thresholds), l (leakages)")
    p.add_argument("--epochs", type=int, default=1, metavar="N", help="passes over the training samples")
    p.add_argument("--samples", type=int, metavar="N", help="training samples of an epoch, all if not given")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="of the first weights and the order")
    p.add_argument("--restore", type=Path, metavar="FILE", help="go on from this checkpoint, instead of random weights")
    p.add_argument("--keep", action="store_true", help="go on from the network in the device, for instance the one stored there")
    p.add_argument("--store", action="store_true", help="store the network in the device's flash in the end: it starts with it from then on")
    p.add_argument("--flash", type=Path, metavar="FILE", help="a file that is the flash of sim")
    p.add_argument("--save", type=Path, metavar="FILE", help="write a checkpoint there in the end")
    return p


def main(arguments: list[str] | None = None) -> int:
    p = parser()
    given = p.parse_args(arguments)
    link: Link = LINK
    config: Config | None = None
    if given.port in WORLDS:
        config, link = (BOARDS[given.board].config, BOARDS[given.board].link) if given.board else (Config(), LINK)
    try:
        checks.check_learn(given.learn)
        if not given.learn:
            raise ValueError("--learn: '' is not legal; legal is any of w, t, l")
        if given.keep and given.restore:
            raise ValueError("--keep: not beside --restore")
        if given.restore:
            kept = read(given.restore)
            config = config if given.board else kept.config
        if given.save and not given.save.resolve().parent.is_dir():
            raise ValueError(f"--save: {given.save.parent} is not a folder")
        if given.store and given.port == "golden":
            raise ValueError("--store: golden has no flash; legal is sim, or the port of a board that has one")
        if given.store and given.port != "sim":
            board_with_flash(given.board)
        if given.seed < 0:
            raise ValueError(f"--seed: {given.seed} is not legal; legal is at least 0")
        with Device.open(given.port, config=config, link=link, flash=given.flash) as device:
            name = given.dataset or ("fashion-mnist" if device.config.sizes[0] == 784 else "digits")
            dataset = data.load(name, device.config)
            samples = len(dataset.train) if given.samples is None else given.samples
            for option, value, most in (("epochs", given.epochs, None), ("samples", samples, len(dataset.train))):
                if not 1 <= value <= (most or value):
                    raise ValueError(f"--{option}: {value} is not legal; legal is {f'1 to {most}' if most else 'at least 1'}")
            if given.restore:
                device.restore(given.restore)
            elif not given.keep:
                device.load(RECIPES[name].state(device.config, given.seed))
            info = device.info()
            print(f"{name} on {info.port}: {device.config.title}, {device.config.lanes} lanes", flush=True)
            train(device, dataset, given.learn, epochs=given.epochs, samples=samples, seed=given.seed)
            if given.save:
                device.save(given.save)
                print(f"checkpoint: {given.save}")
            if given.store:
                device.store(given.board)
                print("stored in the flash, and started with it")
            print(", ".join(f"{name} {count:,}" for name, count in device.counters().items()))
    except (ValueError, FileNotFoundError) as e:
        p.error(str(e))
    except DeviceError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
