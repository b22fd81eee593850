"""The one configuration: gateware, golden model, simulation, boards and driver all derive from it.

Nothing here imports Amaranth or PyTorch, so that every side can afford to import it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

INPUTS = ("static", "events")
CADENCES = ("sample", "step")
WEIGHT_MEMORIES = ("block", "spram")

PIXEL_FRAC = 8  # a pixel byte is a fraction of 256; a spike is 256, that is 1.0
PHI_FRAC = 12  # surrogate derivative, unsigned, below 1.0
PHI_ENTRIES = 256  # length of the surrogate table
PHI_STEP_FRAC = 5  # table entry a stands for |v| in [a/32, (a+1)/32)
RECIPROCAL_BITS = 2  # lazy learning: 1/alpha is at most 2**RECIPROCAL_BITS
GROWTH_BITS = 4  # lazy learning: a delta may grow to 2**GROWTH_BITS times itself until the sample ends
RATE_MAX = 15  # a learning rate is 2**-k with k in 0..RATE_MAX
ROW_BITS = 16  # a lane's memory row in a host address
LANE_BITS = 8  # a lane number in a host address
NEURON_MULTIPLIERS = 4  # a neuron lane uses at once


@dataclass(frozen=True)
class Q:
    """Two's complement fixed point: `i` integer bits (sign included) and `f` fraction bits."""

    i: int
    f: int

    @property
    def bits(self) -> int:
        return self.i + self.f

    @property
    def low(self) -> int:
        """Least raw value."""
        return -(1 << (self.bits - 1))

    @property
    def high(self) -> int:
        """Greatest raw value."""
        return (1 << (self.bits - 1)) - 1

    @property
    def one(self) -> int:
        """Raw value of 1.0."""
        return 1 << self.f

    def __str__(self) -> str:
        return f"Q({self.i},{self.f})"


def ceil_log2(n: int) -> int:
    """Least k with 2**k >= n, for n >= 1."""
    return (n - 1).bit_length()


@dataclass(frozen=True, kw_only=True)
class Config:
    """What a core is built for. Every derived number below follows from these fields alone.

    A layer `l` counts from 1; layer 0 is the input. `n_layers` is the number of weight layers.
    """

    sizes: tuple[int, ...] = (64, 32, 10)
    """Units of the input and of every layer; two to five weight layers."""
    steps: int = 8
    """Time steps T of a sample."""
    lanes: int = 8
    """Synapses that are read, summed or updated in one clock cycle."""
    neuron_lanes: int = 1
    """Neurons that are updated in one clock cycle."""
    input: str = "static"
    """`static`: a frame of bytes held for T steps. `events`: addresses of spiking inputs, step by step."""
    cadence: str = "sample"
    """When weights, thresholds and leakages change: after the sample, or in every time step."""
    stochastic: bool = False
    """Weight updates are rounded up or down by chance in proportion, instead of to nearest."""
    w: Q = Q(4, 12)
    """Weights."""
    u: Q = Q(4, 12)
    """Membranes, currents, thresholds and the leakage trace."""
    trace: Q = Q(4, 8)
    """Weight and threshold traces."""
    delta: Q = Q(4, 8)
    """Errors: output table, back-propagated error, delta."""
    grad: Q = Q(4, 12)
    """Gradients of weights and thresholds."""
    alpha_frac: int = 12
    """Fraction bits of a leakage factor, which lies in 0 .. 2**alpha_frac (1.0)."""
    theta_min: int = 256
    """Floor of a threshold, raw in format `u`."""
    weight_memory: str = "block"
    """`block`: two-port block RAM. `spram`: the single-port 16K x 16 memories of the iCE40UP5K."""
    weight_latency: int = 1
    """Cycles from a row's address to its weights: 1; 3 with registers before and behind the memories, where they lie far apart, and on
    every other long way through a large chip: the host's bus, what a pass says to the schedule, deltas, traces; 5 with three registers on the way
    to the lanes, where those are many and lie all over the chip."""
    parity: bool = False
    """A parity bit beside every word of the lanes' and neurons' memories (the ECP5's have 18 bits a word): one in which a bit flipped is noticed
    when it is read. Leakage factors are registers and have none, nor has what lazy learning copies to the lanes."""
    lazy: bool = False
    """Weights learn from their inputs' events, not from traces step by step: a spike that is summed forward is learned from in the same cycle, and
    after the sample each synapse whose input spiked is visited once. For events at cadence `sample`; keeps leakages above `alpha_min`."""
    shared: bool = False
    """Fewer multipliers and cells, a few more cycles, the same numbers: the neurons use the multipliers of the first lanes, which take no row
    meanwhile; two lanes share what changes their weights. For `weight_memory` spram, whose weights change in every second cycle at most."""
    lane_lists: bool = False
    """Every lane has row addresses of its own and walks its own list of neurons that have a delta, so that no lane visits one that has none.
    For two lanes or more, `weight_memory` block, and learning that is not `lazy`."""

    def __post_init__(self) -> None:
        def bad(field: str, legal: str) -> ValueError:
            return ValueError(f"{field}: {getattr(self, field)!s} is not legal; legal is {legal}")

        def whole(value: object) -> bool:
            return isinstance(value, int) and not isinstance(value, bool)

        object.__setattr__(self, "sizes", tuple(self.sizes))
        if not (3 <= len(self.sizes) <= 6 and all(whole(n) and 1 <= n <= 4096 for n in self.sizes)):
            raise bad("sizes", "3 to 6 whole numbers of 1 to 4096 (input, then two to five layers)")
        if self.sizes[-1] > 256:
            raise bad("sizes", "a last layer of at most 256 classes")
        if not (whole(self.steps) and 1 <= self.steps <= 255):
            raise bad("steps", "a whole number of 1 to 255")
        if not (whole(self.lanes) and 1 <= self.lanes <= 1 << LANE_BITS):
            raise bad("lanes", f"a whole number of 1 to {1 << LANE_BITS}")
        if not (whole(self.neuron_lanes) and self.neuron_lanes in self._neuron_lanes):
            raise bad("neuron_lanes", f"a power of two that divides lanes: {', '.join(map(str, self._neuron_lanes))}")
        for field, legal in (("input", INPUTS), ("cadence", CADENCES), ("weight_memory", WEIGHT_MEMORIES)):
            if getattr(self, field) not in legal:
                raise bad(field, " or ".join(legal))
        for field in ("stochastic", "parity", "lazy", "shared", "lane_lists"):
            if not isinstance(getattr(self, field), bool):
                raise bad(field, "True or False")
        for field in ("w", "u", "trace", "delta", "grad"):
            q = getattr(self, field)
            if not (isinstance(q, Q) and q.i >= 1 and q.f >= 0 and 4 <= q.bits <= 18):
                raise bad(field, "Q(i, f) with i >= 1 (the sign is one of them), f >= 0 and 4 to 18 bits in all")
        if not (whole(self.alpha_frac) and 4 <= self.alpha_frac <= 16):
            raise bad("alpha_frac", "a whole number of 4 to 16")
        if self.u.f < PHI_STEP_FRAC:
            raise bad("u", f"at least {PHI_STEP_FRAC} fraction bits (the surrogate table's resolution)")
        if self.w.f + PIXEL_FRAC < self.u.f:
            raise bad("w", f"at least {self.u.f - PIXEL_FRAC} fraction bits, so that a current has no fewer than u = {self.u}")
        if self.trace.f < PIXEL_FRAC or self.trace.i < 2:
            raise bad("trace", f"at least 2 integer and {PIXEL_FRAC} fraction bits (it holds 1.0 and a pixel exactly)")
        if self.u.i < 2:
            raise bad("u", "at least 2 integer bits (it holds 1.0)")
        for field in ("w", "u"):
            if self.grad.f < getattr(self, field).f:
                raise bad("grad", f"at least as many fraction bits as {field} = {getattr(self, field)}")
        if self.grad.f < self.alpha_frac:
            raise bad("grad", f"at least alpha_frac = {self.alpha_frac} fraction bits")
        if self.delta.f + min(self.trace.f, self.u.f) < self.grad.f:
            raise bad("grad", f"at most {self.delta.f + min(self.trace.f, self.u.f)} fraction bits (those of the product)")
        if not (whole(self.theta_min) and 1 <= self.theta_min <= self.u.high):
            raise bad("theta_min", f"a whole number of 1 to {self.u.high}")
        latencies = (1,) if self.weight_memory == "spram" else (1, 3, 5)  # one port: reads and writes of rows under way would meet
        if not (whole(self.weight_latency) and self.weight_latency in latencies):
            raise bad("weight_latency", " or ".join(map(str, latencies)) + f" where weight_memory is {self.weight_memory}")
        if self.lazy:
            if self.input != "events":
                raise bad("input", "events where lazy is True")
            if self.cadence != "sample":
                raise bad("cadence", "sample where lazy is True")
            if self.shared:
                raise bad("shared", "False where lazy is True")
            if self.reciprocal_bits + 1 > 18:
                raise bad("alpha_frac", f"at most {16 - RECIPROCAL_BITS} where lazy is True (1/alpha is a factor of 18 bits)")
            if self.grad.f < self.delta.f:
                raise bad("grad", f"at least as many fraction bits as delta = {self.delta} where lazy is True")
            if self.trace.high < self.steps * self.trace.one:
                raise bad("trace", f"enough integer bits for a sum of {self.steps} spikes where lazy is True and there are as many steps")
        if self.weight_memory == "spram":
            if self.w.bits not in (8, 16):
                raise bad("w", "a format of 8 or 16 bits where weight_memory is spram")
            if self.parity:
                raise bad("parity", "False where weight_memory is spram, which has no spare bit")
            if self.lanes * self.w.bits != 64:
                raise bad("lanes", f"{64 // self.w.bits} where weight_memory is spram and w has {self.w.bits} bits")
            if self.rows > 1 << 14:
                raise ValueError(f"sizes: {self.sizes} need {self.rows} rows; legal is at most {1 << 14} where weight_memory is spram")
        if self.lane_lists and (self.lazy or self.weight_memory != "block" or self.lanes == 1):
            raise bad("lane_lists", "False where lazy is True, weight_memory is spram or there is one lane")
        if self.shared and not (self.weight_memory == "spram" and self.lanes >= NEURON_MULTIPLIERS * self.neuron_lanes):
            raise bad("shared", f"False unless weight_memory is spram, with {NEURON_MULTIPLIERS} lanes to a neuron lane")
        if self.rows > 1 << ROW_BITS:
            raise ValueError(f"sizes: {self.sizes} with {self.lanes} lanes need {self.rows} rows a lane; legal is at most {1 << ROW_BITS}")

    @property
    def _neuron_lanes(self) -> list[int]:
        return [1 << k for k in range(LANE_BITS + 1) if self.lanes % (1 << k) == 0]

    def replace(self, **changes: Any) -> Config:
        """The same configuration with some fields changed (and checked again)."""
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

    @cached_property
    def unit_base(self) -> dict[int, int]:
        """First presynaptic unit of a layer (0 is the input). A hidden neuron's unit has the neuron's own number; the input
        stands behind them; the last layer has none."""
        return {0: self.hidden, **{l: self.neuron_base[l] for l in self.layers[:-1]}}

    @cached_property
    def list_base(self) -> dict[int, int]:
        """First place of a presynaptic layer in the lists of its units (hw/spike/lists.py). A static frame has its own list."""
        return {l: base for l, base in self.unit_base.items() if l or not self.static}

    @property
    def listed_units(self) -> int:
        return sum(self.sizes[l] for l in self.list_base)

    # -- neuron lanes: neuron or unit i of a layer is in neuron lane i mod M, row = base + i div M ------
    def neuron_words(self, n: int) -> int:
        """Rows that `n` neurons fill in each of the neuron lanes."""
        return -(-n // self.neuron_lanes)

    @cached_property
    def neuron_row(self) -> dict[int, int]:
        """First row of a layer's neurons, the same in every neuron lane."""
        return {l: sum(map(self.neuron_words, self.sizes[1:l])) for l in self.layers}

    @property
    def neuron_rows(self) -> int:
        return sum(map(self.neuron_words, self.sizes[1:]))

    @cached_property
    def unit_row(self) -> dict[int, int]:
        """First row of the presynaptic units of a layer (see `unit_base`)."""
        return {0: self.neuron_rows - self.neuron_words(self.classes), **{l: self.neuron_row[l] for l in self.layers[:-1]}}

    @property
    def unit_rows(self) -> int:
        return self.unit_row[0] + self.neuron_words(self.input_units)

    @property
    def hidden(self) -> int:
        """Neurons of the hidden layers."""
        return self.neurons - self.classes

    @property
    def units(self) -> int:
        return self.hidden + self.input_units

    # -- lanes: neuron i is in lane i mod P, group i div P; row = row_base + group * fan_in + j ---
    @cached_property
    def groups(self) -> dict[int, int]:
        """Groups of lanes a layer needs: ceil(neurons / lanes)."""
        return {l: -(-self.sizes[l] // self.lanes) for l in self.layers}

    @cached_property
    def row_base(self) -> dict[int, int]:
        """First weight row of a layer, the same in every lane."""
        base, at = {}, 0
        for l in self.layers:
            base[l] = at
            at += self.groups[l] * self.sizes[l - 1]
        return base

    @property
    def rows(self) -> int:
        """Weight rows a lane."""
        return sum(self.groups[l] * self.sizes[l - 1] for l in self.layers)

    @property
    def addresses(self) -> int:
        """Weight rows that are read or written at once: one for all lanes, or one in each."""
        return self.lanes if self.lane_lists else 1

    @property
    def visited(self) -> int:
        """Neurons that are skipped together, if none of them has a delta: those of a group of lanes, or of one lane."""
        return 1 if self.lane_lists else self.lanes

    @property
    def weight_registers(self) -> int:
        """Registers behind the memories of the lanes, and at each end of the other long ways (`weight_latency`)."""
        return min(self.weight_latency - 1, 1)

    @property
    def lane_registers(self) -> int:
        """Registers on the way to the lanes, and so before their memories."""
        return self.weight_latency - 1 - self.weight_registers

    @property
    def lanes_all_over(self) -> bool:
        """Whether the lanes are so many that they lie all over a large chip (`weight_latency`)."""
        return self.lane_registers >= 3

    @property
    def grad_row_offset(self) -> int:
        """Gradient row = weight row - grad_row_offset: a static first layer has no gradient memory."""
        return self.row_base[2] if self.static else 0

    @property
    def grad_rows(self) -> int:
        """Gradient rows a lane; none at cadence `step`."""
        return self.rows - self.grad_row_offset if self.cadence == "sample" else 0

    @cached_property
    def delta_base(self) -> dict[int, int]:
        """First delta row of a layer; key 0 is the input gradient D of a static frame, behind the last layer."""
        base, at = {}, 0
        for l in self.layers:
            base[l] = at
            at += self.groups[l]
        return {**base, 0: at}

    @property
    def delta_rows(self) -> int:
        return sum(self.groups.values()) + (self.groups[1] if self.static else 0)

    # -- shifts: the only places where fraction bits are dropped --------------------------------
    @property
    def current_shift(self) -> int:
        """sum of w * x to a current."""
        return self.w.f + PIXEL_FRAC - self.u.f

    @property
    def weight_grad_shift(self) -> int:
        """delta * weight trace (or delta * threshold trace) to a gradient."""
        return self.delta.f + self.trace.f - self.grad.f

    @property
    def alpha_grad_shift(self) -> int:
        """delta * leakage trace to a gradient."""
        return self.delta.f + self.u.f - self.grad.f

    def weight_shift(self, rate: int) -> int:
        """Gradient to weight update at learning rate 2**-rate."""
        return self.grad.f - self.w.f + rate

    def theta_shift(self, rate: int) -> int:
        """Gradient to threshold update at learning rate 2**-rate."""
        return self.grad.f - self.u.f + rate

    def alpha_shift(self, layer: int, rate: int) -> int:
        """Summed gradient to leakage update: the mean divides by the next power of two above the layer's size."""
        return self.grad.f - self.alpha_frac + ceil_log2(self.sizes[layer]) + rate

    @property
    def alpha_grad_bits(self) -> int:
        """Bits of A: a gradient summed exactly over the largest layer and all steps."""
        return self.grad.bits + ceil_log2(max(self.sizes[1:])) + (ceil_log2(self.steps) if self.cadence == "sample" else 0)

    @property
    def alpha_one(self) -> int:
        """Raw value of a leakage factor of 1.0."""
        return 1 << self.alpha_frac

    # -- lazy learning ------------------------------------------------------------------------
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

    @property
    def reciprocal_bits(self) -> int:
        """Bits of 1/alpha, unsigned, `alpha_frac` of them fraction."""
        return self.alpha_frac + RECIPROCAL_BITS + 1

    # -- identity -----------------------------------------------------------------------------
    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Config:
        """The configuration that `to_json` wrote. Raises ValueError if it is not legal, or not one at all."""
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"config: {text[:40]!r} is not legal; legal is a JSON object")
        try:
            formats = {name: Q(**value) for name, value in values.items() if isinstance(value, dict)}
            return cls(**values | formats)
        except TypeError as e:
            raise ValueError(f"config: {e}") from None

    @property
    def digest(self) -> int:
        """32 bits that name this configuration; the core shows them in register `config`. What is False and came later is left out of them."""
        values = asdict(self)
        for name in ("parity", "lazy", "shared", "lane_lists"):
            if not values[name]:
                del values[name]
        return int.from_bytes(hashlib.sha256(json.dumps(values, sort_keys=True).encode()).digest()[:4], "little")

    @property
    def title(self) -> str:
        return "-".join(map(str, self.sizes))


DIGITS = Config()
"""The default demo: scikit-learn's 8 x 8 digits."""
