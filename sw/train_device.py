"""Learn a data set on a device and print its accuracy: `python -m sw.train_device --port PORT|sim|golden --help`."""

from __future__ import annotations

import argparse
import sys
from argparse import Namespace
from pathlib import Path

from boards import BOARDS
from hw.machine import Machine
from hw.network import Network
from hw.notation import dense
from hw.options import net
from sw import data
from sw.common import checks
from sw.driver.device import Device
from sw.files.checkpoint import Checkpoint, read
from sw.files.image import Image
from sw.golden.recipe import recipe_for
from sw.transport.base import DeviceError
from sw.transport.loader import board_with_flash
from sw.transport.process import WORLDS

PART = 256  # samples between two looks at the learning rates


def train(
    device: Device, dataset: data.Dataset, switches: str, *, epochs: int, samples: int, seed: int, quiet: bool = False
) -> list[float]:
    """Learns `epochs` times `samples` samples, in an order that follows from the seed.

    The share of held-out samples that are right, after each epoch.
    """
    recipe, accuracies = recipe_for(dataset.name, device.config), []
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
    p = argparse.ArgumentParser(
        prog="python -m sw.train_device", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    p.add_argument("--port", required=True, help="serial port, sim, or golden")
    p.add_argument(
        "--board", choices=BOARDS, metavar="NAME",
        help="whose machine sim and golden are (just large enough if not given), and whose flash --store writes",
    )  # fmt: skip
    p.add_argument(
        "--net", type=net, metavar="NET",
        help="the network's sizes; if not given, the network in the device, or the board's first one",
    )  # fmt: skip
    p.add_argument("--dataset", choices=data.DATASETS, help="what to learn; what fits the network's input if not given")
    p.add_argument("--learn", default="wtl", metavar="SET", help="any of w (weights), t (thresholds), l (leakages)")
    p.add_argument("--epochs", type=int, default=1, metavar="N", help="passes over the training samples")
    p.add_argument("--samples", type=int, metavar="N", help="training samples of an epoch, all if not given")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="of the first weights and the order")
    p.add_argument("--restore", type=Path, metavar="FILE", help="go on from this checkpoint, instead of random weights")
    p.add_argument("--image", type=Path, metavar="FILE", help="go on from this image of sw.deploy or sw.train, likewise")
    p.add_argument("--keep", action="store_true", help="go on from the network in the device, for instance the one stored there")
    p.add_argument(
        "--store", action="store_true", help="store the network in the device's flash in the end: it starts with it from then on"
    )
    p.add_argument("--flash", type=Path, metavar="FILE", help="a file that is the flash of sim")
    p.add_argument("--save", type=Path, metavar="FILE", help="write a checkpoint there in the end")
    return p


def check(given: Namespace) -> Checkpoint | Image | None:
    """What to go on from, if it is in a file. ValueError for options that are not legal, before anything is done."""
    checks.check_learn(given.learn)
    if not given.learn:
        raise ValueError("--learn: '' is not legal; legal is any of w, t, l")
    of_network = [name for name in ("keep", "net", "restore", "image") if getattr(given, name)]
    if len(of_network) > 1:
        raise ValueError(f"--{of_network[0]}: not beside --{of_network[1]}")
    if given.save and not given.save.resolve().parent.is_dir():
        raise ValueError(f"--save: {given.save.parent} is not a folder")
    if given.store and given.port == "golden":
        raise ValueError("--store: golden has no flash; legal is sim, or the port of a board that has one")
    if given.store and given.port != "sim":
        board_with_flash(given.board)
    if given.seed < 0:
        raise ValueError(f"--seed: {given.seed} is not legal; legal is at least 0")
    return read(given.restore) if given.restore else Image.load(given.image) if given.image else None


def open_device(given: Namespace, kept: Checkpoint | Image | None) -> Device:
    """The device; one that is made here is the board's, or holds what it is to learn and no more."""
    board = BOARDS.get(given.board)
    if given.port not in WORLDS:
        return Device.open(given.port, flash=given.flash)
    if board:
        usual = None if given.flash else board.design.network
        return Device.open(given.port, network=usual, machine=board.design.machine, link=board.link, flash=given.flash)
    network = kept.network if kept else Network(net=given.net) if given.net else Network()
    return Device.open(given.port, machine=Machine.holding(network), flash=given.flash)


def wanted(given: Namespace, device: Device) -> Network:
    """The network that is to learn from random weights: as the device or the board has it, but for its sizes if they are given."""
    usual = BOARDS[given.board].design.network if given.board else Network(**device.machine.formats)
    network = device.network or usual
    return network.replace(net=given.net) if given.net else network


def prepare(given: Namespace, device: Device, kept: Checkpoint | Image | None) -> data.Dataset:
    """Gives the device what it goes on from, once all is known to fit; the data set."""
    network = kept.network if kept else device.config if given.keep else wanted(given, device)
    own = network.replace(net=dense((kept.inputs, *network.sizes[1:]))) if isinstance(kept, Image) else network
    name = given.dataset or ("fashion-mnist" if own.sizes[0] == 784 else "digits")
    dataset = data.load(name, own)
    for option, value, most in (("epochs", given.epochs, None), ("samples", given.samples, len(dataset.train))):
        if value is not None and not 1 <= value <= (most or value):
            raise ValueError(f"--{option}: {value} is not legal; legal is {f'1 to {most}' if most else 'at least 1'}")
    if given.restore:
        device.restore(given.restore)
    elif kept:
        device.load(kept)
    elif not given.keep:
        if network != device.network:
            device.configure(network)
        device.load(recipe_for(name, network).state(network, given.seed))
    return kept.dataset(dataset) if isinstance(kept, Image) else dataset


def main(arguments: list[str] | None = None) -> int:
    p = parser()
    given = p.parse_args(arguments)
    try:
        kept = check(given)
        with open_device(given, kept) as device:
            dataset = prepare(given, device, kept)
            samples = len(dataset.train) if given.samples is None else given.samples
            print(f"{dataset.name} on {device.info().port}: {device.config.title}, {device.machine.lanes} lanes", flush=True)
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
