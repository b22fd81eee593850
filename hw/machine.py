"""What is built: a machine's lanes, memories and wires, and how much of a network it holds.

Nothing here imports Amaranth or PyTorch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar

from hw.network import Network
from hw.numbers import FORMATS, NEURON_MULTIPLIERS, PIXEL_FRAC, STEPS_MAX, SUM_BITS, Numbers, Q, ceil_div, ceil_log2, whole

LANES_MAX = 128
ROWS_MAX = 1 << 20  # of weights, a lane
SPRAM_ROWS = 1 << 14
SPRAM_BITS = 64  # of a row: four memories of 16 bits side by side


@dataclass(frozen=True)
class Wires:
    """How far apart a machine's parts lie: registers on the long ways. They change no number and cost a few cycles."""

    name: str
    ends: int
    """Registers at each end of a long way: the host's bus, what neurons and lanes tell each other, behind the lanes' memories."""
    tree: int
    """Levels of registers on the way to the lanes, each of which reaches several of the next."""

    @property
    def latency(self) -> int:
        """Cycles from a row's address to its weights."""
        return 1 + self.ends + self.tree


NEAR, FAR = Wires("near", 0, 0), Wires("far", 1, 3)
WIRES = {wires.name: wires for wires in (NEAR, FAR)}
WEIGHT_MEMORIES = {"block": "two-port block RAM in every lane", "spram": "the single-port memories of the iCE40UP5K"}


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """The most that a machine holds, in each respect in which a network can be too large. 0, or False: not built."""

    layers: int = 0
    population: int = 0
    """Neurons of a layer."""
    fan_in: int = 0
    """Inputs of a layer."""
    classes: int = 0
    weight_rows: int = 0
    """Weights in a lane."""
    grad_rows: int = 0
    """Gradients that are gathered, in a lane."""
    delta_rows: int = 0
    """Neurons in a lane, again those of the first layer behind a held frame, and the inputs of a last layer that is banked by
    its inputs."""
    listed_deltas: int = 0
    """Entries of a list of deltas: groups of lanes, or neurons of a last layer that is banked by its inputs."""
    neuron_rows: int = 0
    """Neurons in a neuron lane."""
    unit_rows: int = 0
    """Presynaptic units with a weight trace, in a neuron lane."""
    lists: int = 0
    """Presynaptic layers whose spikes and traces are listed."""
    listed: int = 0
    """Units of these layers."""
    pixels: int = 0
    """Inputs of a held frame."""
    events: int = 0
    """Inputs with a trace: those that spike, or have a value in every step."""
    values: bool = False
    """Inputs may have a value in every step."""
    batch: int = 1
    """Samples of a batch."""
    sample: bool = False
    """Cadence `sample`: gradients gather until the sample is over."""
    step: bool = False
    """Cadence `step`."""
    graded: bool = False
    """Graded output errors."""
    centred: bool = False
    """A held frame may be centred."""
    decay: bool = False
    """Weights may decay."""
    remainder: bool = False
    """What an update rounds off may stay in G."""
    slower: int = 0
    """The most by which a layer may learn slower."""

    def __or__(self, other: Capacity) -> Capacity:
        """What holds the one as well as the other."""
        return Capacity(**{f.name: max(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)})


CAPACITY_DOCS = {
    "layers": "layers",
    "population": "neurons in a layer",
    "fan_in": "inputs of a layer",
    "classes": "classes",
    "weight_rows": "weight rows a lane",
    "grad_rows": "gradient rows a lane",
    "delta_rows": "delta rows a lane",
    "listed_deltas": "entries of a list of deltas",
    "neuron_rows": "neurons a neuron lane",
    "unit_rows": "weight traces a neuron lane",
    "lists": "listed layers",
    "listed": "listed units",
    "pixels": "pixels of a held frame",
    "events": "inputs that spike or change",
    "values": "inputs that have a value in every step (frames)",
    "batch": "samples of a batch",
    "sample": "gradients that gather over a sample (cadence sample)",
    "step": "updates in every step (cadence step)",
    "graded": "graded output errors",
    "centred": "held frames less their mean (centred)",
    "decay": "weights that decay",
    "remainder": "remainders kept in G",
    "slower": "added to the rate of a layer",
}


def narrow(network: Network, lanes: int) -> bool:
    """Whether sweeps of the last layer visit fewer rows, with as many lanes, if it is banked by its inputs, which are spikes."""
    n, m = network.sizes[-1], network.sizes[-2]
    spikes = network.n_layers > 1 or network.input == "events"
    return spikes and not network.lazy and n * ceil_div(m, lanes) < m * ceil_div(n, lanes)


def turned_layers(network: Network, machine: Machine) -> frozenset[int]:
    """Layers that are banked by their inputs: a last one, where the machine does that and it saves rows."""
    return frozenset({network.n_layers} if machine.both_ways and narrow(network, machine.lanes) else ())


def dense_shape(network: Network, machine: Machine) -> dict[int, tuple[int, int]]:
    """Outer and inner bound of a dense pass over a layer's weight rows.

    These are groups and inputs; in a layer that is turned, neurons and groups of inputs."""
    sizes, groups, turned = network.sizes, machine.groups_of, turned_layers(network, machine)
    by_layer = ((l, sizes[l], sizes[l - 1]) for l in network.layers)
    return {l: (neurons, groups(inputs)) if l in turned else (groups(neurons), inputs) for l, neurons, inputs in by_layer}


def demand(network: Network, machine: Machine) -> Capacity:
    """What a network needs of a machine with these lanes and neuron lanes, whatever its capacity."""
    n, sizes, groups, turned = network, network.sizes, machine.groups_of, turned_layers(network, machine)
    rows = {l: outer * inner for l, (outer, inner) in dense_shape(n, machine).items()}
    words = {l: machine.neuron_words(sizes[l]) for l in n.layers}
    listed = [sizes[l] for l in range(n.n_layers) if (l or not n.static) and l + 1 not in turned]
    of_frame, dealt = groups(sizes[1]) if n.static else 0, sum(groups(sizes[l - 1]) for l in turned)
    return Capacity(
        layers=n.n_layers,
        population=max(sizes[1:]),
        fan_in=max(sizes[:-1]),
        classes=n.classes,
        weight_rows=sum(rows.values()),
        grad_rows=sum(rows[l] for l in n.layers if n.gathers(l)),
        delta_rows=sum(groups(sizes[l]) for l in n.layers) + of_frame + dealt,
        listed_deltas=max(sizes[l] if l in turned else groups(sizes[l]) for l in n.layers),
        neuron_rows=sum(words.values()),
        unit_rows=sum(words.values()) - words[n.n_layers] + machine.neuron_words(n.input_units),
        lists=len(listed),
        listed=sum(listed),
        pixels=sizes[0] if n.static else 0,
        events=0 if n.static else sizes[0],
        values=n.input == "frames",
        batch=n.batch,
        sample=n.cadence == "sample",
        step=n.cadence == "step",
        graded=n.output_error == "graded",
        centred=n.centres_frame,
        decay=n.decay,
        remainder=n.remainder,
        slower=max(n.slower, default=0),
    )


@dataclass(frozen=True, kw_only=True)
class Machine(Numbers):
    """A core that holds any network within its `capacity`, loaded at run time.

    Or it holds one network, `fixed`, whose program is wired in."""

    lanes: int = 8
    """Synapses that are read, summed or updated in one clock cycle."""
    neuron_lanes: int = 1
    """Neurons that are updated in one clock cycle."""
    weight_memory: str = "block"
    """One of WEIGHT_MEMORIES."""
    wires: Wires = NEAR
    """Pipeline registers for long wires."""
    parity: bool = False
    """A parity bit beside every word of the lanes' and neurons' memories (the ECP5's have 18 bits a word). A flipped bit is
    noticed when its word is read. Leakage factors are registers and have no parity, nor has the copy in the lanes that lazy
    learning makes."""
    stochastic: bool = False
    """Has the random bits with which a network may round its weights."""
    lazy: bool = False
    """Learns lazily (`Network.lazy`), and nothing else."""
    both_ways: bool = False
    """A last layer may be banked by its inputs: lane j mod P holds the weights of input j.

    A narrow layer keeps more lanes busy so (`narrow`)."""
    shared: bool = False
    """The neurons use the multipliers of the first lanes, which take no row meanwhile.

    Two lanes share the logic that changes weights. That takes fewer multipliers and cells, and a few more cycles; the numbers
    are the same. It is for `weight_memory` spram, whose weights change in every second cycle."""
    capacity: Capacity = Capacity()
    fixed: Network | None = None
    """The only network of a machine whose program and tables are wired in, where cells are too scarce to load them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (whole(self.lanes) and 1 <= self.lanes <= LANES_MAX):
            raise self.bad("lanes", f"a whole number of 1 to {LANES_MAX}")
        if not (whole(self.neuron_lanes) and self.neuron_lanes in self._neuron_lanes):
            raise self.bad("neuron_lanes", f"a power of two that divides lanes: {', '.join(map(str, self._neuron_lanes))}")
        if self.weight_memory not in WEIGHT_MEMORIES:
            raise self.bad("weight_memory", " or ".join(WEIGHT_MEMORIES))
        if self.wires not in WIRES.values():
            raise self.bad("wires", " or ".join(WIRES))
        for field in ("parity", "stochastic", "lazy", "both_ways", "shared"):
            if not isinstance(getattr(self, field), bool):
                raise self.bad(field, "True or False")
        if self.capacity.weight_rows > ROWS_MAX:
            raise ValueError(f"weight_rows: {self.capacity.weight_rows} in each of {self.lanes} lanes are not legal;"
                             f" legal is at most {ROWS_MAX}")  # fmt: skip
        if self.fixed:
            self._check_fixed(self.fixed)
        if self.weight_memory == "spram":
            self._check_spram()
        if self.stochastic and self.lanes % 8 and 8 % self.lanes:
            raise self.bad("lanes", "1, 2, 4 or a multiple of 8 where weights are rounded by chance"
                                    " (random bits come in tiles of 8 neurons)")  # fmt: skip
        if self.both_ways and (self.weight_memory == "spram" or self.lazy):
            raise self.bad("both_ways", "False where weight_memory is spram or lazy is True")
        if self.shared and not (self.weight_memory == "spram" and self._lends and not self.lazy):
            legal = f"False unless weight_memory is spram, with {NEURON_MULTIPLIERS} lanes to a neuron lane, and not lazy"
            raise self.bad("shared", legal)

    _WIRED_IN: ClassVar = {"batch": 1, "output_error": "counted", "centred": False, "decay": False, "remainder": False,
                           "slower": ()}  # fmt: skip
    """Fields of a network that is wired in, and what they must be."""

    def _check_fixed(self, network: Network) -> None:
        for field, legal in self._WIRED_IN.items():
            value = getattr(network, field)
            if value != legal:
                raise ValueError(f"{field}: {value} is not legal in a network that is wired in; legal is {legal}")

    @property
    def _lends(self) -> bool:
        """Whether there are lanes enough to lend the neurons all multipliers they use."""
        return self.lanes >= NEURON_MULTIPLIERS * self.neuron_lanes

    def _check_spram(self) -> None:
        if self.w.bits not in (8, 16):
            raise self.bad("w", "a format of 8 or 16 bits where weight_memory is spram")
        if self.parity:
            raise self.bad("parity", "False where weight_memory is spram, which has no spare bit")
        if self.wires != NEAR:  # one port: reads and writes of rows under way would meet
            raise self.bad("wires", "near where weight_memory is spram")
        if self.lanes * self.w.bits != SPRAM_BITS:
            raise self.bad("lanes", f"{SPRAM_BITS // self.w.bits} where weight_memory is spram and w has {self.w.bits} bits")
        for field in ("decay", "remainder"):
            if getattr(self.capacity, field):
                raise ValueError(f"{field}: True is not legal where weight_memory is spram; legal is False")
        if self.capacity.weight_rows > SPRAM_ROWS:
            raise ValueError(f"weight_rows: {self.capacity.weight_rows} are not legal;"
                             f" legal is at most {SPRAM_ROWS} where weight_memory is spram")  # fmt: skip

    @classmethod
    def holding(cls, *networks: Network, **fields_: Any) -> Machine:
        """A machine that holds each of these networks, whose formats must be the same, and has what they need.

        Other `fields_` as given."""
        first = networks[0]
        for unknown in (line for network in networks for line in beyond(network)):
            raise ValueError(unknown)
        for other in networks[1:]:
            for name, wanted in first.formats.items():
                value = getattr(other, name)
                if value != wanted:
                    raise ValueError(f"{name}: {value} of {other.title} is not legal; legal is that of {first.title}, {wanted}")
        stochastic = any(n.stochastic or n.decay for n in networks)
        chosen: dict[str, Any] = {"lazy": first.lazy, "stochastic": stochastic, **first.formats} | fields_
        plain = cls(**chosen)
        capacity = Capacity()
        for network in networks:
            capacity = capacity | demand(network, plain)
        return replace(plain, capacity=capacity)

    def replace(self, **changes: Any) -> Machine:
        """The same machine with some fields changed (and checked again). The capacity stays, in rows."""
        return replace(self, **changes)

    @property
    def _neuron_lanes(self) -> list[int]:
        return [1 << k for k in range(LANES_MAX.bit_length()) if self.lanes % (1 << k) == 0]

    # -- what follows for the gateware ----------------------------------------------------------
    @property
    def holds_frames(self) -> bool:
        """Whether it takes held frames."""
        return self.capacity.pixels > 0

    @property
    def events(self) -> bool:
        """Whether it takes inputs that change from step to step: events, or values."""
        return self.capacity.events > 0

    @property
    def gathers(self) -> bool:
        """Whether gradients can gather over a sample."""
        return self.capacity.sample

    @property
    def groups(self) -> int:
        """Groups of lanes of the largest layer."""
        return self.groups_of(self.capacity.population)

    def turned(self, amount: int) -> int:
        """`amount` where a last layer may be banked by its inputs, else 0."""
        return amount if self.both_ways else 0

    @property
    def lane_groups(self) -> int:
        """Groups of lanes of the largest layer, in either direction."""
        return max(self.groups, self.turned(self.groups_of(self.capacity.fan_in)))

    def groups_of(self, n: int) -> int:
        """Groups of lanes that `n` neurons fill, or `n` inputs of a layer that is banked by its inputs."""
        return ceil_div(n, self.lanes)

    def neuron_words(self, n: int) -> int:
        """Rows that `n` neurons fill in each of the neuron lanes."""
        return ceil_div(n, self.neuron_lanes)

    @property
    def listed_deltas(self) -> int:
        """Entries of the longest list of deltas."""
        return max(self.capacity.listed_deltas, 1)

    @property
    def words(self) -> int:
        """Words of neurons, or of units, of the largest layer."""
        return self.neuron_words(max(self.capacity.population, self.capacity.events, 1))

    @property
    def own_bits(self) -> int:
        """Bits of what a lane keeps of a neuron: its delta, or, for a layer banked by its inputs, a trace with a spike on top."""
        return max(self.delta.bits, self.turned(self.trace.bits + 1), self.turned(self.delta.bits + 1))

    @property
    def alpha_grad_bits(self) -> int:
        """Bits of A, a gradient summed exactly over the largest layer and the most steps."""
        steps = self.fixed.steps if self.fixed else self.capacity.batch * (STEPS_MAX + 1)
        return min(SUM_BITS, self.grad.bits + ceil_log2(self.capacity.population) + (ceil_log2(steps) if self.gathers else 0))

    @property
    def current_sum_bits(self) -> int:
        """Bits of an exact sum of w * x over the widest fan-in, with room for the rounding half."""
        return ceil_log2((self.capacity.fan_in << (self.w.bits - 1 + PIXEL_FRAC)) + (1 << self.current_shift)) + 1

    @property
    def error_sum_bits(self) -> int:
        """Bits of an exact sum of w * delta over the largest layer, with room for the rounding half."""
        return ceil_log2((self.capacity.population << (self.w.bits + self.delta.bits - 2)) + (1 << self.w.f)) + 1

    @property
    def lane_sum_bits(self) -> int:
        """Bits of what a lane sums: a current; of a layer banked by its inputs an error."""
        return max(self.current_sum_bits, self.turned(self.error_sum_bits))

    @property
    def fold_sum_bits(self) -> int:
        """Bits of a sum over the lanes: an error; of a layer banked by its inputs a current."""
        return max(self.error_sum_bits, self.turned(self.current_sum_bits))

    # -- identity -----------------------------------------------------------------------------
    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Machine:
        """The machine that `to_json` wrote."""
        values = json.loads(text)
        values |= {name: Q(**values[name]) for name in FORMATS}
        values |= {"wires": Wires(**values["wires"]), "capacity": Capacity(**values["capacity"])}
        if values["fixed"]:
            values["fixed"] = Network.from_json(json.dumps(values["fixed"]))
        return cls(**values)

    @property
    def digest(self) -> int:
        """32 bits that name this machine; the core shows them in register `machine`."""
        return int.from_bytes(hashlib.sha256(self.to_json().encode()).digest()[:4], "little")


def beyond(network: Network) -> Iterable[str]:
    """What no machine does so far, however it is built: a line each."""
    if not network.all_dense:
        yield f"net: {network.title} has convolutions; machines run dense layers so far, the golden model runs it"
    if network.centred_in_g:
        gathers = f"{network.title} has gradients in layer {network.centred_in_g[0]} that gather"
        yield f"centred: {gathers}; machines centre those of a first layer behind a held frame so far, the golden model runs it"
    if network.alpha_grad_bits > SUM_BITS:
        needs = f"{network.alpha_grad_bits} bits for a leakage gradient, summed over a layer and a batch"
        yield f"steps: {network.title} needs {needs}; machines have {SUM_BITS}"


def lacks(machine: Machine, network: Network) -> Iterable[str]:
    """What keeps the machine from running the network: a line each, with what is needed and what there is."""
    for name, built_for in machine.formats.items():
        if getattr(network, name) != built_for:
            yield f"{name}: {network.title} has {getattr(network, name)}, the machine was built for {built_for}"
    if network.lazy != machine.lazy:
        yield f"lazy: {network.title} has {network.lazy}, the machine was built for {machine.lazy}"
    if (network.stochastic or network.decay) and not machine.stochastic:
        yield f"stochastic: {network.title} rounds by chance, the machine was built without random bits"
    unknown = list(beyond(network))
    if unknown:
        yield from unknown
        return
    need = demand(network, machine)
    for f in fields(Capacity):
        wanted, there = getattr(need, f.name), getattr(machine.capacity, f.name)
        if wanted > there:
            much = f"needs {wanted}, the machine has {there}" if wanted is not True else "needs them, the machine was built without"
            yield f"{f.name}: {network.title} {much} ({CAPACITY_DOCS[f.name]})"
