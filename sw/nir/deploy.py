"""A network from another framework on the chip. `python -m sw.deploy` is the program.

Number formats are chosen from calibration data, and the smallest board that holds the network, as that is or built for it; network
and integers become one image. What each choice costs is told.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from tqdm import tqdm

from boards import BOARDS, Board, get_board
from hw import build
from hw.design import Design
from hw.machine import lacks
from hw.network import Network
from hw.numbers import PIXEL_FRAC, Q
from hw.options import as_options, differences
from hw.plan import compile
from sw.files.image import ONE, Image, Origin
from sw.golden.error.output import error_table, surrogate_table
from sw.golden.fixed import clipped, raw
from sw.golden.network import GoldenNetwork
from sw.golden.recipe import Recipe
from sw.golden.weight.synapses import in_order
from sw.nir import graph as nirgraph
from sw.nir.graph import Reading
from sw.nir.layer import Layer, notation, same_thresholds

SCALES = 2.0 ** (np.arange(-8, 9) / 4)
"""Thresholds that a layer may have in the core: membranes and weights scale with them."""
NOISE = 2.0**-8
"""Weights that are rounded or clipped to formats may disturb a current by this share of a threshold; then the threshold is 1."""
DITHER_BELOW = 10
"""Weights with fewer fraction bits learn with stochastic rounding: to nearest, most of their updates would be lost."""
MEMBRANES = (Q(4, 12), Q(5, 11), Q(6, 10), Q(7, 9))
"""Formats of membranes to choose from, by range."""


class Samples(NamedTuple):
    """Samples as the network takes them, and labels (n,) if they are known.

    Samples are uint8 (n, inputs) for static input, bool (n, T, inputs) for events, uint8 (n, T, inputs) for frames; instead of
    inputs they may have the axes C, H, W of an image.
    """

    x: np.ndarray
    labels: np.ndarray | None = None


class Run(NamedTuple):
    """What a network did.

    The class of each sample (n,), spikes (n, T, neurons) as the golden model counts neurons (those of channels place by place), and
    the mean square of what each weight of a layer's neurons sees, (M,) for each layer.
    """

    winners: np.ndarray
    spikes: np.ndarray
    power: list[np.ndarray]


# -- the network as the core is built: biases become weights of inputs that are always on ------------------------------------------


def with_ones(network: Sequence[Layer], kind: str, input_scale: float = 1.0) -> tuple[list[Layer], int]:
    """The network as the core does it, with thresholds 1 and without biases, and how many layers got a unit that is always on.

    Scaling a neuron's weights, bias and threshold alike changes none of its spikes. A bias is the weight of a unit that is always
    on: an input of the greatest value, and in hidden layers a neuron far above its threshold (here 0) in every step. Below a
    convolution it is a channel of such units. Raises ValueError where a convolution has no weight that sees one wherever it stands.
    """
    ones = max((l for l, layer in enumerate(network, 1) if layer.bias.any()), default=0)
    out = []
    for l, layer in enumerate(network, 1):
        layer = same_thresholds(layer.core, np.ones(layer.rows))
        weight, theta, alpha, wiring = layer.weight * (input_scale if l == 1 else 1), layer.theta, layer.alpha, layer.wiring
        added = layer.bias
        if l <= ones and wiring.constant is None:
            raise ValueError(f"node {layer.name!r}: bias of a layer above it, but no part of its kernels always sees the image;"
                             " legal is a smaller padding, or no bias above it")  # fmt: skip
        if l < ones:
            weight = np.concatenate([weight, np.zeros_like(weight[:1])])
            theta = np.concatenate([theta, np.zeros_like(theta[:1])])  # as little as the core can
            alpha, added = np.concatenate([alpha, alpha[:1]]), np.append(added, np.inf)  # as much as the format holds
        if l <= ones:
            wiring, weight = wiring.with_channel(weight, added / (ONE[kind] / (1 << PIXEL_FRAC) if l == 1 else 1.0))
        out.append(replace(layer, weight=weight, theta=theta, alpha=alpha, bias=np.zeros(len(weight)), wiring=wiring))
    return out, ones


def simulate(network: Sequence[Layer], samples: np.ndarray, steps: int, input_scale: float = 1.0) -> Run:
    """Run a network in floating point on the samples it takes."""
    below = network[0].wiring.below
    static, n = samples[0].size == network[0].inputs, len(samples)
    one = 1 if samples.dtype == bool else 1 << PIXEL_FRAC
    x = samples.reshape(n, *below)[None] if static else samples.reshape(n, steps, *below).swapaxes(0, 1)
    x = x * input_scale / one
    membrane = [np.zeros((n, *layer.shape)) for layer in network]
    spike = [np.zeros_like(u, dtype=bool) for u in membrane]
    history = []
    power = [np.zeros(layer.wiring.below) for layer in network]
    for t in range(steps):
        units = x[0 if static else t]
        for l, layer in enumerate(network):
            power[l] += (units**2).sum(0).reshape(power[l].shape) / n / steps
            membrane[l] = layer.step(membrane[l], spike[l], units)
            spike[l] = membrane[l] >= layer.theta
            units = layer.units(spike[l])
        history.append(np.concatenate([in_order(s, layer.shape) for s, layer in zip(spike, network, strict=True)], -1))
    spikes = np.stack(history, 1)
    classes = network[-1].rows
    count = spikes[..., -classes:].sum(1)
    # The readout's keys, the last one first.
    order = np.lexsort((np.broadcast_to(-np.arange(classes), count.shape), membrane[-1], count))
    power[0] /= input_scale**2
    return Run(order[:, -1], spikes, [layer.wiring.seen(p) for layer, p in zip(network, power, strict=True)])


def run_golden(image: Image, samples: np.ndarray, *, quiet: bool = True) -> Run:
    """Run the golden model on the same samples."""
    network = GoldenNetwork(image.network)
    network.load(image.state)
    winners, spikes = [], []
    for sample in tqdm(samples, desc="measure", unit=" samples", leave=False, disable=quiet or not sys.stderr.isatty()):
        spikes.append([network.spike.numpy().astype(bool) for _ in network.steps(image.sample(sample))])
        winners.append(network.winner)
    return Run(np.array(winners), np.array(spikes), [])


# -- formats -----------------------------------------------------------------------------------------------------------------------


def quantise(layer: Layer, scale: float, w: Q) -> np.ndarray:
    """Raw weights of a layer whose thresholds become `scale`, in the shape of its weights."""
    return raw(layer.weight * scale, w.one, w.low, w.high)


def disturbance(layer: Layer, scale: float, w: Q, power: np.ndarray) -> float:
    """What rounding and clipping to a format do to a layer's currents.

    The worst neuron's root mean square error, as a share of the threshold.
    """
    error = (quantise(layer, scale, w) / w.one / scale - np.where(np.isinf(layer.weight), 0, layer.weight))[layer.thresholds > 0]
    return float(np.sqrt((error.reshape(len(error), -1) ** 2 @ power).max()))


def best_scale(layer: Layer, w: Q, power: np.ndarray) -> float:
    """1 if the scale 1 disturbs a current by NOISE at most, else the scale that disturbs least."""
    if disturbance(layer, 1.0, w, power) <= NOISE:
        return 1.0
    return float(min(SCALES, key=lambda scale: disturbance(layer, scale, w, power)))


def weight_formats(bits: int, most: int) -> list[Q]:
    """Formats of weights with that many bits and at most that many fraction bits, the finest first."""
    return [Q(bits - f, f) for f in range(min(bits - 1, most), max(0, bits - 8) - 1, -1)]


def membrane_formats(network: Network) -> Iterator[Network]:
    """The network as it is, and with the other formats of membranes that are legal."""
    yield network
    for u in MEMBRANES:
        with suppress(ValueError):
            if u != network.u:
                yield network.replace(u=u, theta_min=max(1, u.one // 16))


def integers(layers: Sequence[Layer], config: Network, scales: Sequence[float]) -> dict[str, np.ndarray]:
    """The state to load: weights, thresholds and leakage factors of the layers, and the recipe's tables to learn with."""
    c, recipe, state = config, Recipe(), {}
    for synapses, layer, scale in zip(c.synapses, layers, scales, strict=True):
        state[synapses.array("weight")] = quantise(layer, scale, c.w).reshape(synapses.weight_shape)
        state[f"theta.{synapses.layer}"] = raw(layer.thresholds * scale, c.u.one, c.theta_min, c.u.high)
    state["alpha"] = raw([layer.alpha.flat[0] for layer in layers], c.alpha_one, 0, c.alpha_one)
    state["error_table"] = error_table(c, beta=recipe.beta, scale=recipe.scale)
    state["surrogate"] = surrogate_table()
    if c.stochastic:
        state["rng"] = np.array(1)
    return state


def inputs_power(layers: Sequence[Layer], run: Run | None) -> list[np.ndarray]:
    """Mean square of each layer's inputs: as in the run, or a guess; 1 for a unit that is always on."""
    if run is None:
        return [np.full(layer.weight[0].size, 0.25) for layer in layers]
    return [np.append(p, np.ones(layer.weight[0].size - len(p))) for layer, p in zip(layers, run.power, strict=True)]


def ordinary(layers: Sequence[Layer]) -> np.ndarray:
    """Which neurons are the network's own, (neurons,), as the golden model counts them: not those that are always on."""
    return np.concatenate([in_order(layer.theta > 0, layer.shape) for layer in layers])


def formats(base: Network, layers: Sequence[Layer], bits: int, power: Sequence[np.ndarray],
            trial: Callable[[Network, Sequence[float]], int] | None, *, keep: bool = False,
            quiet: bool = False) -> tuple[Network, list[float]]:  # fmt: skip
    """The network with formats for weights of `bits` bits and for membranes, and the scale of each layer.

    `trial` counts the spikes that differ from floating point; the coarser format must save a twentieth of them. Without `trial` the
    weights decide. With `keep` so must any formats but those of `base`, which a machine has already.
    """
    candidates: list[tuple[float, Network, list[float]]] = []
    for w in [base.w] * keep + weight_formats(bits, base.grad.f):
        scales = [best_scale(layer, w, p) for layer, p in zip(layers, power, strict=True)]
        cost = max(disturbance(*args) for args in zip(layers, scales, [w] * len(layers), power, strict=True))
        try:
            candidates.append((cost, base.replace(w=w, stochastic=base.stochastic or w.f < DITHER_BELOW), scales))
        except ValueError:
            continue  # not a format of the core
    if not candidates:
        raise ValueError(f"bits: {bits} is not legal here; legal is 4 to 18, and 8 or 16 where weights are in SPRAM")
    first = candidates.pop(0) if keep else None
    ordered = sorted(candidates, key=lambda candidate: candidate[0])
    if first and first[0] <= max(NOISE, ordered[0][0]):
        ordered.insert(0, first)
    best, least = (ordered[0][1], ordered[0][2]), None
    if trial:
        trials = [(config, scales) for _, candidate, scales in ordered[:3] for config in membrane_formats(candidate)]
        for config, scales in tqdm(trials, desc="formats", leave=False, disable=quiet or not sys.stderr.isatty()):
            differ = trial(config, scales)
            if least is None or differ < 0.95 * least:
                best, least = (config, scales), differ
    return best


# -- boards ------------------------------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """A board and the design with which it runs the network: `ready`, as the board is, else to be built."""

    board: Board
    design: Design
    ready: bool

    @property
    def options(self) -> list[str]:
        """Of `hw.build`."""
        return as_options(self.board.name, differences(self.design, self.board.name))

    @property
    def network(self) -> Network:
        return self.design.network

    def settle(self, network: Network) -> Place:
        """The same board with the network's formats: still as it is, or built for it."""
        own = self.board.design.network
        changes = {f.name: value for f in fields(network) if (value := getattr(network, f.name)) != getattr(own, f.name)}
        if self.ready and (design := as_it_is(self.board, changes)):
            return Place(self.board, design, True)
        design = built(self.board, {"w": network.w, "stochastic": network.stochastic, **changes})
        if design is None:
            raise ValueError(f"net: {network.title} with the formats chosen does not fit {self.board.name}; give another --board")
        return Place(self.board, design, False)

    def __str__(self) -> str:
        machine = self.design.machine
        return (f"{self.board.name}, {'as it is' if self.ready else 'built for it'}: {machine.lanes} lanes, weights in"
                f" {machine.weight_memory} RAM")  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        return {"board": self.board.name, "machine": json.loads(self.design.machine.to_json()), "ready": self.ready}

    def next_steps(self, path: Path) -> list[str]:
        """What brings the image at `path` to life: in the simulation, and on the board."""
        with_build = [] if self.ready else [f"python -m hw.build {' '.join(self.options)}    # then program it"]
        return [f"python -m sim.cosim --image {path}", *with_build,
                f'sw.driver.device.Device.open(PORT).load("{path}")    # in Python; or sw.train_device --image']


@dataclass(frozen=True)
class NoBoard:
    """The golden model runs the network, and no board does so far."""

    network: Network
    ready: ClassVar[bool] = False

    def settle(self, network: Network) -> NoBoard:
        return NoBoard(network)

    def __str__(self) -> str:
        return "none holds convolutions so far; the golden model runs it"

    def as_dict(self) -> dict[str, Any]:
        return {"board": None, "machine": None, "ready": False}

    def next_steps(self, path: Path) -> list[str]:
        """What runs the image at `path`, in Python."""
        return [f'image = sw.files.image.Image.load(Path("{path}"))    # in Python',
                "model = sw.golden.network.GoldenNetwork(image.network)",
                "model.load(image.state)", "model.run(image.sample(x)).winner"]  # fmt: skip


def as_it_is(board: Board, wanted: dict[str, Any]) -> Design | None:
    """The board's own design with a network of these fields, if its machine runs it."""
    try:
        network = board.design.network.replace(**wanted)
        compile(network, board.design.machine)
    except ValueError:
        return None
    return replace(board.design, network=network)


def built(board: Board, wanted: dict[str, Any]) -> Design | None:
    """The board's own design with the fields `wanted`, in fewer lanes if need be; None if it does not fit."""
    own = board.design.machine
    bits = wanted["w"].bits
    for memory in dict.fromkeys((own.weight_memory, "block")):
        lanes = 64 // bits if memory == "spram" and bits in (8, 16) else own.lanes
        for fewer in (lanes, *(1 << k for k in reversed(range(lanes.bit_length())) if 1 << k < lanes)):
            try:
                design = board.design.replace(
                    **{"lanes": fewer, "neuron_lanes": math.gcd(own.neuron_lanes, fewer), "weight_memory": memory, **wanted}
                )
            except ValueError:
                continue
            if all(need <= getattr(board.chip, resource) for resource, need in build.needs(design.machine, board).items()):
                return design
    return None


def place(board: Board, wanted: dict[str, Any], bits: int) -> Place | None:
    """How the board runs a network of the fields `wanted` with weights of `bits` bits, as it is or built for it; or None."""
    own = board.design.network
    if bits == own.w.bits and (design := as_it_is(board, wanted)):
        return Place(board, design, True)
    w = Q(bits - min(bits - 1, own.w.f), min(bits - 1, own.w.f))
    design = built(board, {"w": w, "stochastic": bits < 12, **wanted})
    return Place(board, design, False) if design else None


def places(wanted: dict[str, Any], bits: int, only: str | None = None) -> list[Place]:
    """Of the boards that hold it, or the one named: those with the fewest LUTs first."""
    boards = [get_board(only)] if only else sorted(BOARDS.values(), key=lambda board: board.chip.lut)
    found = [found for board in boards if (found := place(board, wanted, bits))]
    if not found:
        net, where = wanted["net"], only or "no board"
        raise ValueError(f"net: {net} with weights of {bits} bits fits {where}; `python -m hw.build --list` shows what does")
    return found


def choose(wanted: dict[str, Any], bits: int, board: str | None) -> tuple[Place | NoBoard, list[Place]]:
    """Where a network of these fields runs, and what else would hold it."""
    network = Network(**wanted)
    if not network.all_dense:
        if board:
            why = next(iter(lacks(get_board(board).design.machine, network)))
            raise ValueError(f"board: {board} is not legal; legal is none, for the golden model ({why})")
        return NoBoard(network), []
    chosen, *others = places(wanted, bits, board)
    if board:
        others = [other for other in places(wanted, bits) if other.board.name != board]
    return chosen, others


# -- all of it ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What was deployed, and what it cost. Shares are of 1."""

    image: Image
    place: Place | NoBoard
    others: list[Place]
    """What else would hold it."""
    layers: list[dict[str, Any]]
    approximations: list[str]
    samples: int = 0
    float_accuracy: float | None = None
    integer_accuracy: float | None = None
    classes_equal: float | None = None
    spikes: int | None = None
    spikes_differ: int | None = None
    steps_of_neurons: int | None = None

    def as_dict(self) -> dict[str, Any]:
        out = {name: value for name, value in vars(self).items() if name not in ("image", "place", "others")}
        out |= self.place.as_dict() | {"others": {other.board.name: other.ready for other in self.others}}
        return out | {"network": json.loads(self.image.network.to_json()), "origin": asdict(self.image.origin)}


def deploy(graph: Any, *, reading: Reading | None = None, steps: int = Network().steps, input: str = "static",
           input_scale: float = 1.0, bits: int = 16, board: str | None = None, cadence: str | None = None, stochastic: bool = False,
           calibration: Samples | None = None, search: int = 100, quiet: bool = True) -> Report:  # fmt: skip
    """A NIR graph as an image for a board, and what that costs on the calibration samples. Convolutions: for the golden model.

    Args:
        graph: a `nir.NIRGraph`.
        reading: what the graph leaves open.
        steps: time steps of a sample.
        input: one of hw.network.INPUTS.
        input_scale: what the network was given where the core is given 1.0, a pixel of 256 or an event.
        bits: of a weight.
        board: name; None chooses the smallest that holds it.
        cadence: when parameters change; None is the board's own.
        stochastic: round weight updates by chance; weights of few fraction bits always do.
        calibration: samples to choose formats with and to measure.
        search: samples that are used to choose formats; all are measured.

    Raises:
        ValueError: what the core cannot do, by node and parameter; a network that fits no board; samples that are not the
            network's.
    """
    reading = reading or Reading()
    network, said = nirgraph.layers(graph, reading)
    if not 0 < input_scale < np.inf:
        raise ValueError(f"input_scale: {input_scale} is not legal; legal is above 0")
    layers, ones = with_ones(network, input, input_scale)
    wanted: dict[str, Any] = {"net": notation(layers), "steps": steps, "input": input}
    try:
        Network(**wanted)  # says what is not legal, whatever the board
    except ValueError as e:
        raise ValueError(f"nodes {', '.join(repr(layer.name) for layer in network)}: {e}") from None
    wanted |= ({"cadence": cadence} if cadence else {}) | ({"stochastic": True} if stochastic else {})
    chosen, others = choose(wanted, bits, board)
    config = chosen.network
    x = None if calibration is None else _checked(calibration, config, network[0])
    run = None if x is None else simulate(network, x, steps, input_scale)
    power, own = inputs_power(layers, run), ordinary(layers)

    def trial(config: Network, scales: Sequence[float]) -> int:
        assert x is not None and run is not None
        golden = run_golden(Image(config, integers(layers, config, scales), Origin(ones=ones)), x[:search])
        return int((golden.spikes[..., own] != run.spikes[:search]).sum())

    config, scales = formats(config, layers, bits, power, trial if run else None, keep=chosen.ready, quiet=quiet)
    origin = Origin(names=tuple(layer.name for layer in network),
                    theta=tuple(tuple(layer.thresholds.tolist()) for layer in network),
                    dt=reading.dt, decay=reading.decay, unit_gain=all(layer.unit_gain for layer in network), ones=ones,
                    input_scale=input_scale)  # fmt: skip
    image = Image(config, integers(layers, config, scales), origin)
    costs = [_costs(*args, config) for args in zip(layers, scales, power, strict=True)]
    report = Report(image, chosen.settle(config), others, costs, said)
    if calibration is not None and x is not None and run is not None:
        measure(report, run, x, own, calibration.labels, quiet=quiet)
    return report


def _checked(samples: Samples, config: Network, first: Layer) -> np.ndarray:
    """The samples, flat, if they are the network's."""
    x, lead = np.asarray(samples.x), () if config.static else (config.steps,)
    legal: tuple[int, ...] = (*lead, first.inputs)
    if x.shape[1:] == (*lead, *first.wiring.below):
        x = x.reshape(len(x), *legal)
    if x.ndim != len(legal) + 1 or x.shape[1:] != legal or not len(x):
        raise ValueError(
            f"samples: shape {x.shape} is not legal; legal is (n, {', '.join(map(str, legal))}) for {config.input} input"
        )
    wanted = np.dtype(bool if config.input == "events" else np.uint8)
    if x.dtype != wanted:
        raise ValueError(f"samples: type {x.dtype} is not legal; legal is {wanted} for {config.input} input")
    if samples.labels is not None and np.shape(samples.labels) != x.shape[:1]:
        raise ValueError(f"labels: shape {np.shape(samples.labels)} is not legal; legal is {x.shape[:1]}")
    return x


def _costs(layer: Layer, scale: float, power: np.ndarray, config: Network) -> dict[str, Any]:
    """What a layer's numbers lose."""
    c = config
    weight = layer.weight[layer.thresholds > 0] * scale
    return {
        "name": layer.name,
        "neurons": layer.theta.size,
        "alpha": float(layer.alpha.flat[0]),
        "alpha_integer": int(raw(layer.alpha.flat[0], c.alpha_one, 0, c.alpha_one)) / c.alpha_one,
        "threshold": scale,
        "weights": weight.size,
        "weights_clipped": clipped(weight, c.w.one, c.w.low, c.w.high),
        "disturbance": disturbance(layer, scale, c.w, power),
    }


def measure(report: Report, run: Run, x: np.ndarray, own: np.ndarray, labels: np.ndarray | None, *, quiet: bool) -> None:
    """Compare the network in floating point, which did `run`, with the golden model on the samples."""
    golden = run_golden(report.image, x, quiet=quiet)
    report.samples, report.spikes, report.steps_of_neurons = len(x), int(run.spikes.sum()), run.spikes.size
    report.spikes_differ = int((run.spikes != golden.spikes[..., own]).sum())
    report.classes_equal = float((run.winners == golden.winners).mean())
    if labels is not None:
        report.float_accuracy, report.integer_accuracy = (float((r.winners == labels).mean()) for r in (run, golden))
