"""What is computed: a network's layers, input and numbers, and nothing of the machine that runs it.

Nothing here imports Amaranth or PyTorch.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

from hw.notation import Conv, Dense, NotationError, Population, Projection, Shape, canonical, read
from hw.numbers import (
    BATCH_MAX,
    DECAY_SAMPLES,
    GRADED_ENTRIES,
    GROWTH_BITS,
    LEARN_W,
    PHI_ENTRIES,
    PHI_FRAC,
    RATE_MAX,
    RECIPROCAL_BITS,
    STEPS_MAX,
    SUM_BITS_MAX,
    Numbers,
    Q,
    ceil_log2,
    whole,
)

INPUTS = ("static", "events", "frames")
CADENCES = ("sample", "step")
OUTPUT_ERRORS = ("counted", "graded")


@dataclass(frozen=True, kw_only=True)
class Network(Numbers):
    """Layers of leaky integrate-and-fire neurons that infer and learn with STOP (docs/numerics.md).

    A layer `l` counts from 1; layer 0 is the input. The fields below alone decide what a network computes and learns, on any
    machine.
    """

    net: str = "64-32-10"
    """Input and layers in the literature's notation (hw/notation.py); its shortest form once the network is made."""
    steps: int = 8
    """Time steps T of a sample."""
    input: str = "static"
    """`static`: a frame of bytes held for T steps. `events`: addresses of spiking inputs, step by step. `frames`: a frame of
    bytes in every step, with traces of its values, as a sensor gives them."""
    cadence: str = "sample"
    """When weights, thresholds and leakages change: after the sample, or in every time step."""
    batch: int = 1
    """Samples whose gradients are summed before they are applied, at cadence `sample`."""
    stochastic: bool = False
    """Weight updates are rounded up or down by chance in proportion, instead of to nearest."""
    lazy: bool = False
    """Weights learn from their inputs' events, not from traces step by step.

    A spike is learned from in the cycle in which it is summed forward, and after the sample each synapse whose input spiked is
    visited once. For events at cadence `sample`, in dense layers."""
    output_error: str = "counted"
    """The error of the last layer: `counted`, from a table of its spikes; `graded`, from one of the distances U - theta."""
    centred: bool = False
    """A neuron's weight gradients, or a filter's, are taken less their mean, in all layers but the last. At cadence `sample`, or
    where a dense layer behind a held frame is the only one of them."""
    decay: bool = False
    """Weights decay a little after every DECAY_SAMPLES-th sample, rounded by chance, at a rate of its own."""
    remainder: bool = False
    """What an update rounds off stays in G for the next one. At cadence `sample`, where weights are rounded to nearest."""
    slower: tuple[int, ...] = ()
    """For each layer, what is added to the rate of its weights: they learn with 2**-(rate + slower). Empty: 0 for all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.net, str):
            raise self.bad("net", "a text such as 64-32-10")
        try:
            object.__setattr__(self, "net", canonical(read(self.net)))
        except NotationError as error:
            raise NotationError(f"net: {error}") from None
        object.__setattr__(self, "slower", tuple(self.slower) if any(self.slower) else ())
        if not (whole(self.steps) and 1 <= self.steps <= STEPS_MAX):
            raise self.bad("steps", f"a whole number of 1 to {STEPS_MAX}")
        for field, legal in (("input", INPUTS), ("cadence", CADENCES), ("output_error", OUTPUT_ERRORS)):
            if getattr(self, field) not in legal:
                raise self.bad(field, " or ".join(legal))
        if not (whole(self.batch) and 1 <= self.batch <= (BATCH_MAX if self.cadence == "sample" and not self.lazy else 1)):
            raise self.bad("batch", f"a whole number of 1 to {BATCH_MAX}, and 1 at cadence step or where lazy is True")
        for field in ("stochastic", "lazy", "centred", "decay", "remainder"):
            if not isinstance(getattr(self, field), bool):
                raise self.bad(field, "True or False")
        if self.remainder and (self.cadence != "sample" or self.lazy):
            raise self.bad("remainder", "False at cadence step or where lazy is True")
        if self.centred and (self.lazy or (self.cadence != "sample" and self.centred_in_g)):
            limits = "False where lazy is True, or at cadence step unless the only other layer is dense, behind a held frame"
            raise self.bad("centred", limits)
        if self.decay and (self.lazy or self.w.i > self.grad.i or self.weight_unit >= self.trace.bits - 1):
            of_w = f"w = {self.w} has more integer bits than grad = {self.grad}"
            of_others = f"delta = {self.delta} and trace = {self.trace} have {self.trace.bits - 1} fraction bits more than w"
            raise self.bad("decay", f"False where lazy is True, where {of_w}, or where {of_others}")
        if self.remainder and self.stochastic:
            raise self.bad("remainder", "False where stochastic is True")
        if self.slower and not (len(self.slower) == self.n_layers and all(whole(k) and 0 <= k <= RATE_MAX for k in self.slower)):
            raise self.bad("slower", f"empty, or {self.n_layers} whole numbers of 0 to {RATE_MAX}, one a layer")
        if self.alpha_grad_bits > SUM_BITS_MAX:
            limits = f"so few that a leakage gradient, summed over them, a layer and a batch, has at most {SUM_BITS_MAX} bits"
            raise self.bad("steps", limits)
        if self.lazy:
            self._check_lazy()

    def _check_lazy(self) -> None:
        if self.input != "events":
            raise self.bad("input", "events where lazy is True")
        if not self.all_dense:
            raise self.bad("net", "dense layers where lazy is True")
        if self.cadence != "sample":
            raise self.bad("cadence", "sample where lazy is True")
        if self.reciprocal_bits + 1 > 18:
            raise self.bad("alpha_frac", f"at most {16 - RECIPROCAL_BITS} where lazy is True (1/alpha is a factor of 18 bits)")
        if self.grad.f < self.delta.f:
            raise self.bad("grad", f"at least as many fraction bits as delta = {self.delta} where lazy is True")
        if self.trace.high < self.steps * self.trace.one:
            legal = f"enough integer bits for a sum of {self.steps} spikes where lazy is True and there are as many steps"
            raise self.bad("trace", legal)

    def replace(self, **changes: Any) -> Network:
        """The same network with some fields changed (and checked again)."""
        known = [f.name for f in fields(self)]
        for name in changes:
            if name not in known:
                raise ValueError(f"{name}: no such field; legal is one of {', '.join(known)}")
        return replace(self, **changes)

    # -- layers -------------------------------------------------------------------------------
    @cached_property
    def populations(self) -> tuple[Population, ...]:
        """The input and the layers."""
        return read(self.net)

    @cached_property
    def synapses(self) -> tuple[Synapses, ...]:
        """The projections that have weights, from the first layer up; of a layer first the one from the layer below."""
        found: list[Synapses] = []
        for l in self.layers:
            for k, projection in enumerate(self.populations[l].projections):
                if projection.kind.weighted:
                    below, above = self.populations[projection.source].unit_shape, self.populations[l].shape
                    found.append(Synapses(len(found), l, k == 0, projection, below, above))
        return tuple(found)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Neurons of every layer; first the inputs."""
        return tuple(population.size for population in self.populations)

    @cached_property
    def all_dense(self) -> bool:
        """Whether every layer sees all of the layer before, and nothing else."""
        return all(len(p.shape) == 1 and all(isinstance(q.kind, Dense) for q in p.projections) for p in self.populations[1:])

    @property
    def n_layers(self) -> int:
        """Layers L."""
        return len(self.populations) - 1

    @property
    def layers(self) -> range:
        """Layer numbers 1..L."""
        return range(1, len(self.populations))

    @property
    def classes(self) -> int:
        return self.sizes[-1]

    @property
    def static(self) -> bool:
        return self.input == "static"

    def spiking_input(self, layer: int) -> bool:
        """Whether the layer's inputs are spikes, and not a static frame."""
        return layer > 1 or not self.static

    def shares_weights(self, layer: int) -> bool:
        """Whether the layer's positions share weights and thresholds."""
        return len(self.populations[layer].shape) > 1

    def gathers(self, layer: int) -> bool:
        """Whether gradients of the layer's weights gather in G. Of dense weights behind a held frame only those of several samples
        do."""
        return self.cadence == "sample" and (self.spiking_input(layer) or self.batch > 1 or self.shares_weights(layer))

    def centres(self, layer: int) -> bool:
        """Whether the layer's gradients are centred."""
        return self.centred and layer < self.n_layers

    @property
    def centres_frame(self) -> bool:
        """Whether a held frame is centred: so are dense gradients behind it, as they do not gather."""
        return self.static and self.centres(1) and not self.shares_weights(1)

    @property
    def centred_in_g(self) -> list[int]:
        """Layers whose gradients are centred when they have gathered."""
        return [l for l in self.layers if self.centres(l) and not (l == 1 and self.centres_frame)]

    def slower_by(self, layer: int) -> int:
        """What is added to the rate of the layer's weights."""
        return self.slower[layer - 1] if self.slower else 0

    def sharing_shift(self, layer: int) -> int:
        """Bits by which a threshold's gradient is divided, as it sums over many positions."""
        return ceil_log2(self.populations[layer].positions) // 3

    # -- neurons and units: neuron i of layer l stands at neuron_base[l] + i --------------------
    @cached_property
    def neuron_base(self) -> dict[int, int]:
        return {l: sum(self.sizes[1:l]) for l in self.layers}

    @property
    def neurons(self) -> int:
        return sum(self.sizes[1:])

    @cached_property
    def threshold_base(self) -> dict[int, int]:
        """The thresholds of layer l stand from here on: one a neuron, or one a channel."""
        return {l: sum(p.channels for p in self.populations[1:l]) for l in self.layers}

    @property
    def thresholds(self) -> int:
        return sum(p.channels for p in self.populations[1:])

    @property
    def input_units(self) -> int:
        """Presynaptic units with a weight trace in the input: each input, or one (constant 1.0) for a static frame."""
        return 1 if self.static else self.sizes[0]

    def traced_units(self, synapses: Synapses) -> int:
        """Weight traces of these synapses, one a unit."""
        return self.input_units if synapses.projection.source == 0 else synapses.units

    @property
    def hidden(self) -> int:
        """Neurons of the hidden layers."""
        return self.neurons - self.classes

    @property
    def units(self) -> int:
        """Weight traces of all synapses."""
        return sum(map(self.traced_units, self.synapses))

    @property
    def synapse_count(self) -> int:
        """Pairs of a neuron and a unit that it sees."""
        return sum(s.pairs for s in self.synapses)

    def dense_operations(self, learn: int, samples: int = 1, *, gathered: int = 0, aged: int = 0) -> int:
        """Synaptic operations of samples in which nothing is skipped.

        `learn`: bits of register `learn`; `gathered` and `aged`: the counters of these names before the samples."""
        each, of_weights = 0, bool(learn & LEARN_W)
        for synapses in self.synapses:
            l, spiking = synapses.layer, self.spiking_input(synapses.layer)
            passes = self.steps if spiking else 1  # forward
            passes += self.steps * (l > 1 and learn > 0)  # backward
            passes += of_weights * (self.steps * (not self.lazy) if spiking else 1)  # traces, or D after the sample
            each += passes * synapses.pairs
        weights = [(s.layer, math.prod(s.weight_shape)) for s in self.synapses]
        applied = (gathered + samples) // self.batch * sum(size for l, size in weights if self.gathers(l))
        decayed = self.decay * ((aged + samples) // DECAY_SAMPLES) * sum(size for _, size in weights)
        return samples * each + of_weights * (applied + decayed)

    @property
    def alpha_grad_bits(self) -> int:
        """Bits of A: a gradient summed exactly over the largest layer, and over all steps of a batch where they gather."""
        steps = ceil_log2(self.steps * self.batch) if self.cadence == "sample" else 0
        return self.grad.bits + ceil_log2(max(self.sizes[1:])) + steps

    @cached_property
    def alpha_min(self) -> int:
        """Least raw leakage factor: 0, but for lazy learning one with which, over the steps of a sample, a delta grows no more than
        2**GROWTH_BITS times, and the trace of a spike does not vanish."""
        if not self.lazy:
            return 0

        def legal(alpha: int) -> bool:
            trace = self.trace.one
            for _ in range(self.steps - 1):
                trace = alpha * trace >> self.alpha_frac
            return trace > 0 and alpha**self.steps << GROWTH_BITS >= self.alpha_one**self.steps

        low, high = (self.alpha_one >> RECIPROCAL_BITS) - 1, self.alpha_one  # the first is taken as not legal, the second is
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if legal(middle) else (middle, high)
        return high

    # -- identity -----------------------------------------------------------------------------
    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Network:
        """The network that `to_json` wrote. Raises ValueError if it is not legal, or not one at all."""
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"network: {text[:40]!r} is not legal; legal is a JSON object")
        try:
            formats = {name: Q(**value) for name, value in values.items() if isinstance(value, dict)}
            return cls(**values | formats)
        except TypeError as e:
            raise ValueError(f"network: {e}") from None

    @property
    def digest(self) -> int:
        """32 bits that name this network."""
        return int.from_bytes(hashlib.sha256(self.to_json().encode()).digest()[:4], "little")

    @property
    def title(self) -> str:
        """What a user calls it."""
        return self.net


class Synapses(NamedTuple):
    """A projection with weights: `number` among all of the network, into `layer`, from units of shape `below` to neurons of shape
    `above`."""

    number: int
    layer: int
    main: bool
    """They are no shortcut, and come from the layer below."""
    projection: Projection
    below: Shape
    above: Shape

    def array(self, kind: str) -> str:
        """Name of an array of the learning state: `kind` is `weight` or `grad`."""
        if self.main:
            return f"{kind}.{self.layer}"
        return f"shortcut.{self.layer}" if kind == "weight" else f"shortcut_{kind}.{self.layer}"

    @property
    def trace_array(self) -> str:
        """Name of the array of their weight traces."""
        return f"weight_trace.{self.projection.source}" if self.main else f"shortcut_trace.{self.layer}"

    @property
    def units(self) -> int:
        return math.prod(self.below)

    @property
    def weight_shape(self) -> Shape:
        kind = self.projection.kind
        return (self.above[0], self.below[0], kind.kernel, kind.kernel) if isinstance(kind, Conv) else (self.above[0], *self.below)

    @property
    def fan_in(self) -> int:
        return math.prod(self.weight_shape[1:])

    @property
    def pairs(self) -> int:
        """Pairs of a neuron and a unit that it sees."""
        kind, total = self.projection.kind, self.above[0] * self.below[0]
        if not isinstance(kind, Conv):
            return self.above[0] * self.units
        for outputs, inputs in zip(self.above[1:], self.below[1:], strict=True):
            places = (y * kind.stride + tap - kind.padding for y in range(outputs) for tap in range(kind.kernel))
            total *= sum(0 <= place < inputs for place in places)
        return total


class Legal(NamedTuple):
    """What an array of the learning state may hold: its shape, and its least and greatest value."""

    shape: tuple[int, ...]
    low: int
    high: int


def state_arrays(network: Network) -> dict[str, Legal]:
    """The arrays of the learning state by name (`weight.1`, `theta.2`, ...), which a host may read and load between samples.

    Neurons of a convolution have the shape (C, H, W), its thresholds (C,), its weights (C, channels below, k, k). Dense weights
    have the shape (N, M), or (N, C, H, W) behind a convolution. A residual block's weights of 1 x 1 are `shortcut.l`."""
    n, out = network, {}

    def add(name: str, shape: tuple[int, ...], q: Q) -> None:
        out[name] = Legal(shape, q.low, q.high)

    of_layer = {l: [s for s in n.synapses if s.layer == l] for l in n.layers}
    for l in n.layers:
        shape = n.populations[l].shape
        for synapses in of_layer[l]:
            add(synapses.array("weight"), synapses.weight_shape, n.w)
            if n.gathers(l):
                add(synapses.array("grad"), synapses.weight_shape, n.grad)
        add(f"delta.{l}", shape, n.delta)
        add(f"membrane.{l}", shape, n.u)
        out[f"spike.{l}"] = Legal(shape, 0, 1)
        out[f"theta.{l}"] = Legal(shape[:1], n.theta_min, n.u.high)
        for name, q in (("theta_trace", n.trace), ("alpha_trace", n.u), ("current", n.u)):
            add(f"{name}.{l}", shape, q)
        if n.cadence == "sample":
            add(f"theta_grad.{l}", shape[:1], n.grad)
        if n.lazy:
            add(f"delta_sum.{l}", shape, n.grad)
    if n.static:
        add("input_grad", n.populations[1].shape, n.delta)
    for synapses in n.synapses:
        held = n.static and synapses.projection.source == 0
        add(synapses.trace_array, (1,) if held else synapses.below, n.trace)
    out["alpha"] = Legal((n.n_layers,), n.alpha_min, n.alpha_one)
    out["count"] = Legal((n.classes,), 0, 255)
    if n.cadence == "sample":
        add("alpha_grad", (n.n_layers,), Q(n.alpha_grad_bits, 0))
    out["surrogate"] = Legal((PHI_ENTRIES,), 0, (1 << PHI_FRAC) - 1)
    if n.output_error == "counted":
        add("error_table", (n.classes + 1, 2, 2), n.delta)
    else:
        add("graded_table", (2, GRADED_ENTRIES), n.delta)
    if n.batch > 1:
        out["gathered"] = Legal((), 0, n.batch - 1)
    if n.decay:
        out["aged"] = Legal((), 0, DECAY_SAMPLES - 1)
    if n.stochastic or n.decay:
        out["rng"] = Legal((), 1, (1 << 32) - 1)
    out["class"] = Legal((), 0, 255)
    return out
