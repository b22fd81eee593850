"""Clock cycles of a sample in the gateware against the least that it must take, and the samples to measure them with."""

from __future__ import annotations

from typing import Any

import numpy as np

from hw.design import Design
from hw.memory_map import PHASES
from hw.network import Network
from sim.device import SimDevice
from sim.ideal import Counting
from sim.simulator import SimulationError
from sw import data
from sw.golden.fast import FastNetwork
from sw.golden.recipe import Recipe

KINDS = ("inference", "training")
Samples = list[tuple[np.ndarray, int]]


def random_samples(network: Network, activity: float, count: int) -> Samples:
    """Samples in which a share `activity` of the pixels, or of the inputs in each step, is not zero; and their labels."""
    rng = np.random.default_rng(0)
    shape = network.sizes[:1] if network.static else (network.steps, network.sizes[0])
    shown = [rng.random(shape) < activity for _ in range(count)]
    pixels = [on if network.input == "events" else (on * rng.integers(1, 256, shape)).astype(np.uint8) for on in shown]
    return [(sample, n % network.classes) for n, sample in enumerate(pixels)]


def real_samples(network: Network, count: int, warm: int) -> tuple[Samples, Samples]:
    """Held-out samples to measure with, and training samples to learn first: digits, or Fashion-MNIST, by the size of the input."""
    dataset = data.load("digits" if network.sizes[0] == 64 else "fashion-mnist", network)
    return [dataset.test[n] for n in range(count)], [dataset.train[n] for n in range(warm)]


def cycles(design: Design, samples: Samples, warm: Samples, *, opt: str) -> dict[str, Any]:
    """Mean cycles a sample, real and ideal, by kind and phase, after learning the samples `warm`.

    The gateware is followed by the golden model, and both must decide the same classes.
    """
    out: dict[str, Any] = {}
    network, trained = Counting(design.plan), FastNetwork(design.network)
    recipe = Recipe()
    trained.load(recipe.state(design.network, 0))
    for sample, label in warm:
        trained.run(sample, label, "wtl")
    state = trained.read()
    with SimDevice(design.network, design.machine, opt=opt, engine="fast") as device:
        for kind, learn in zip(KINDS, ("", "wtl"), strict=True):
            device.load(state)
            network.load(state)
            for name, rate in recipe.rates(0).items():
                setattr(device, name, rate)
                setattr(network, name, rate)
            before, ideal, done = device.counters(), dict.fromkeys(PHASES, 0), dict(network.done)
            for sample, label in samples:
                got, want = device.run(sample, label, learn), network.run(sample, label, learn)
                if got.winner != want.winner or not np.array_equal(got.membranes, want.membranes):
                    raise SimulationError(f"{design.network.title}: gateware and golden model differ")
                for phase, count in network.ideal().items():
                    ideal[phase] += count
            after = device.counters()
            out[kind] = {
                phase: {
                    "real": (after[f"cycles_{phase}"] - before[f"cycles_{phase}"]) / len(samples),
                    "ideal": ideal[phase] / len(samples),
                    "done": (network.done[phase] - done[phase]) / len(samples),
                }
                for phase in PHASES
            }
    return out


def total(figures: dict[str, dict[str, float]], which: str) -> float:
    """The sum over the phases of `real`, `ideal` or `done`."""
    return sum(phase[which] for phase in figures.values())
