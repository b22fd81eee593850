"""What is computed: a network's layers, input and numbers, and nothing of the machine that runs it.

Nothing here imports Amaranth or PyTorch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

from hw.numbers import (
    BATCH_MAX,
    CLASSES_MAX,
    GROWTH_BITS,
    LAYERS_MAX,
    LEARN_W,
    PHI_ENTRIES,
    PHI_FRAC,
    RECIPROCAL_BITS,
    STEPS_MAX,
    SUM_BITS,
    UNITS_MAX,
    Numbers,
    Q,
    ceil_log2,
    whole,
)

INPUTS = ("static", "events", "frames")
CADENCES = ("sample", "step")


@dataclass(frozen=True, kw_only=True)
class Network(Numbers):
    """Layers of leaky integrate-and-fire neurons, fully connected, that infer and learn with STOP (docs/numerics.md).

    A layer `l` counts from 1; layer 0 is the input. `n_layers` is the number of weight layers. The fields below alone decide
    what a network computes and learns, on any machine.
    """

    sizes: tuple[int, ...] = (64, 32, 10)
    """Units of the input and of every layer."""
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
    visited once. For events at cadence `sample`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sizes", tuple(self.sizes))
        if not (2 <= len(self.sizes) <= LAYERS_MAX + 1 and all(whole(n) and 1 <= n <= UNITS_MAX for n in self.sizes)):
            limits = f"2 to {LAYERS_MAX + 1} whole numbers of 1 to {UNITS_MAX} (input, then 1 to {LAYERS_MAX} layers)"
            raise self.bad("sizes", limits)
        if self.sizes[-1] > CLASSES_MAX:
            raise self.bad("sizes", f"a last layer of at most {CLASSES_MAX} classes")
        if not (whole(self.steps) and 1 <= self.steps <= STEPS_MAX):
            raise self.bad("steps", f"a whole number of 1 to {STEPS_MAX}")
        for field, legal in (("input", INPUTS), ("cadence", CADENCES)):
            if getattr(self, field) not in legal:
                raise self.bad(field, " or ".join(legal))
        if not (whole(self.batch) and 1 <= self.batch <= (BATCH_MAX if self.cadence == "sample" and not self.lazy else 1)):
            raise self.bad("batch", f"a whole number of 1 to {BATCH_MAX}, and 1 at cadence step or where lazy is True")
        for field in ("stochastic", "lazy"):
            if not isinstance(getattr(self, field), bool):
                raise self.bad(field, "True or False")
        if self.alpha_grad_bits > SUM_BITS:
            limits = f"so few that a leakage gradient, summed over them, a layer and a batch, has at most {SUM_BITS} bits"
            raise self.bad("steps", limits)
        if self.lazy:
            self._check_lazy()

    def _check_lazy(self) -> None:
        if self.input != "events":
            raise self.bad("input", "events where lazy is True")
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
    @property
    def n_layers(self) -> int:
        """Weight layers L."""
        return len(self.sizes) - 1

    @property
    def layers(self) -> range:
        """Layer numbers 1..L."""
        return range(1, len(self.sizes))

    @property
    def classes(self) -> int:
        return self.sizes[-1]

    @property
    def static(self) -> bool:
        return self.input == "static"

    def spiking_input(self, layer: int) -> bool:
        """Whether the layer's inputs are spikes, and not a static frame."""
        return layer > 1 or not self.static

    def gathers(self, layer: int) -> bool:
        """Whether gradients of the layer's weights gather in G. Behind a held frame only those of several samples do."""
        return self.cadence == "sample" and (self.spiking_input(layer) or self.batch > 1)

    @property
    def synapses(self) -> int:
        return sum(self.sizes[l] * self.sizes[l - 1] for l in self.layers)

    # -- neurons and units: neuron i of layer l stands at neuron_base[l] + i --------------------
    @cached_property
    def neuron_base(self) -> dict[int, int]:
        return {l: sum(self.sizes[1:l]) for l in self.layers}

    @property
    def neurons(self) -> int:
        return sum(self.sizes[1:])

    @property
    def input_units(self) -> int:
        """Presynaptic units with a weight trace in the input: each input, or one (constant 1.0) for a static frame."""
        return 1 if self.static else self.sizes[0]

    @property
    def hidden(self) -> int:
        """Neurons of the hidden layers."""
        return self.neurons - self.classes

    @property
    def units(self) -> int:
        return self.hidden + self.input_units

    def dense_operations(self, learn: int, *, completes: bool = True) -> int:
        """Synaptic operations of a sample in which nothing is skipped.

        `learn`: bits of register `learn`; `completes`: the sample is the last of a batch."""
        total, steps = 0, self.steps
        for l in self.layers:
            synapses, spiking = self.sizes[l] * self.sizes[l - 1], self.spiking_input(l)
            passes = steps if spiking else 1  # forward
            passes += steps * (l > 1 and learn > 0)  # backward
            if learn & LEARN_W:
                passes += steps * (spiking and not self.lazy)  # traces
                passes += (not spiking) + (completes and self.gathers(l))  # after the sample: D, G
            total += passes * synapses
        return total

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
        """Its sizes in the literature's notation."""
        return "-".join(map(str, self.sizes))


class Legal(NamedTuple):
    """What an array of the learning state may hold: its shape, and its least and greatest value."""

    shape: tuple[int, ...]
    low: int
    high: int


def state_arrays(network: Network) -> dict[str, Legal]:
    """The arrays of the learning state by name (`weight.1`, `theta.2`, ...), which a host may read and load between samples."""
    n, sizes = network, network.sizes
    out: dict[str, Legal] = {}

    def add(name: str, shape: tuple[int, ...], q: Q) -> None:
        out[name] = Legal(shape, q.low, q.high)

    for l in n.layers:
        add(f"weight.{l}", (sizes[l], sizes[l - 1]), n.w)
        if n.gathers(l):
            add(f"grad.{l}", (sizes[l], sizes[l - 1]), n.grad)
        add(f"delta.{l}", (sizes[l],), n.delta)
        add(f"membrane.{l}", (sizes[l],), n.u)
        out[f"spike.{l}"] = Legal((sizes[l],), 0, 1)
        out[f"theta.{l}"] = Legal((sizes[l],), n.theta_min, n.u.high)
        for name, q in (("theta_trace", n.trace), ("alpha_trace", n.u), ("current", n.u)):
            add(f"{name}.{l}", (sizes[l],), q)
        if n.cadence == "sample":
            add(f"theta_grad.{l}", (sizes[l],), n.grad)
        if n.lazy:
            add(f"delta_sum.{l}", (sizes[l],), n.grad)
    if n.static:
        add("input_grad", (sizes[1],), n.delta)
    for l in range(n.n_layers):
        add(f"weight_trace.{l}", (sizes[l] if l else n.input_units,), n.trace)
    out["alpha"] = Legal((n.n_layers,), n.alpha_min, n.alpha_one)
    out["count"] = Legal((n.classes,), 0, 255)
    if n.cadence == "sample":
        add("alpha_grad", (n.n_layers,), Q(n.alpha_grad_bits, 0))
    out["surrogate"] = Legal((PHI_ENTRIES,), 0, (1 << PHI_FRAC) - 1)
    add("error_table", (n.classes + 1, 2, 2), n.delta)
    if n.batch > 1:
        out["gathered"] = Legal((), 0, n.batch - 1)
    if n.stochastic:
        out["rng"] = Legal((), 1, (1 << 32) - 1)
    out["class"] = Legal((), 0, 255)
    return out
