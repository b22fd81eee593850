"""Random networks, machines, states and samples, steered to the corners, and what a run of them has seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np

from hw.machine import FAR, SPRAM_BITS, Machine, beyond
from hw.network import CADENCES, INPUTS, Network
from hw.notation import dense
from hw.numbers import DECAY_SAMPLES, FORMATS, NEURON_MULTIPLIERS, PIXEL_FRAC, RATE_MAX, Q
from sim.twin import Twin
from sw.common import checks
from sw.common.checks import RATES

Rng = np.random.Generator
T = TypeVar("T")
State = dict[str, np.ndarray]
FLOORS = {
    "spikes": 100, "ties": 5, "saturated currents": 10, "saturated membranes": 10, "saturated deltas": 10, "saturated weights": 10,
    "weights changed": 100, "thresholds at the floor": 10, "thresholds changed": 10, "leakages at the floor": 2, "leakages at 1": 2,
    "leakages changed": 5, "silent inputs": 2, "full inputs": 2, "samples of one step": 1, "sizes not divisible by the lanes": 1,
    "several neuron lanes": 1,
}  # fmt: skip
"""How often each must happen at least in a run of `exercise` over a few machines; without, a run proves nothing."""


def choose(rng: Rng, options: list[T], weights: list[float] | None = None) -> T:
    """One of the options."""
    p = None if weights is None else np.array(weights) / sum(weights)
    return options[int(rng.choice(len(options), p=p))]


def random_network(rng: Rng, **fixed: Any) -> Network:
    """A small legal network; fields in `fixed` are given."""

    def number() -> Q:
        bits = int(rng.integers(8, 19))
        f = int(rng.integers(5, min(bits - 1, 14)))
        return Q(bits - f, f)

    batches = fixed.get("cadence", "sample") == "sample" and not fixed.get("lazy")
    while True:
        hidden = int(rng.choice([0, 1, 1, 1, 2, 3]))
        fields: dict[str, Any] = {
            "net": dense([int(rng.integers(2, 24)), *(int(n) for n in rng.integers(1, 14, hidden)), int(rng.integers(2, 8))]),
            "steps": choose(rng, [1, int(rng.integers(2, 7))], [1, 4]),
            "batch": choose(rng, [1, 2, 3], [3, 1, 1]) if batches else 1,
            "stochastic": bool(rng.random() < 0.5),
            **{name: number() for name in FORMATS},
            "alpha_frac": int(rng.integers(4, 15)),
            "theta_min": int(rng.integers(1, 64)),
            **({} if fixed.get("lazy") else strong_fields(rng, hidden + 1)),
        }  # fmt: skip
        try:
            network = Network(**fields | fixed)
        except ValueError:
            continue  # formats that do not go together: draw again
        if not any(beyond(network)):
            return network


def strong_fields(rng: Rng, layers: int) -> dict[str, Any]:
    """Some of what makes networks learn better, in every second network."""
    if rng.random() < 0.5:
        return {}
    slower = tuple(int(k) for k in rng.integers(0, 4, layers))
    switches = {name: bool(rng.random() < 0.5) for name in ("centred", "decay", "remainder")}
    return switches | {"output_error": choose(rng, ["counted", "graded"]), "slower": choose(rng, [(), slower])}


def random_networks(rng: Rng, count: int, layers: int) -> list[Network]:
    """Networks of 1 to `layers` layers that one machine can hold, of each kind of input and both cadences in turn, every third one
    rounded by chance, some with batches."""
    first = random_network(rng, input="static", cadence="sample", stochastic=False)
    out: list[Network] = []
    while len(out) < count:
        n, depth = len(out), int(rng.integers(1, layers + 1))
        sizes = (*(int(size) for size in rng.integers(1, 20, depth)), int(rng.integers(2, 7)))
        kinds = {"input": INPUTS[n % len(INPUTS)], "cadence": CADENCES[n // len(INPUTS) % 2]} | strong_fields(rng, depth)
        fields = kinds | {"stochastic": n % 3 == 1, "batch": 1 + n % 4 if kinds["cadence"] == "sample" else 1}
        try:
            network = first.replace(net=dense(sizes), steps=int(rng.integers(2, 5)), **fields)
        except ValueError:
            continue
        if not any(beyond(network)):
            out.append(network)
    return out


def random_machine(rng: Rng, *networks: Network, **given: Any) -> Machine:
    """A legal machine that holds these networks, perhaps more, or has its only network wired in; fields in `given` are given."""
    first = networks[0]
    near, far = list(range(1, 9)), [1, 3, 12, 16, 20, 24]
    if any(network.stochastic for network in networks):  # random bits come for 8 lanes, or for some of 8
        near, far = [1, 2, 4, 8], [1, 8, 16, 24]
    while True:
        fields: dict[str, Any] = {"lanes": choose(rng, near), "neuron_lanes": choose(rng, [1, 2, 4], [3, 1, 1])}
        spram = rng.random() < 0.5
        if rng.random() < 0.3:
            fields |= {"wires": FAR, "lanes": choose(rng, far)}  # more lanes than one register reaches
        elif spram and first.w.bits in (8, 16):
            fields |= {"weight_memory": "spram", "lanes": SPRAM_BITS // first.w.bits}
            enough = fields["lanes"] >= NEURON_MULTIPLIERS * fields["neuron_lanes"]
            fields["shared"] = not first.lazy and enough and bool(rng.random() < 0.5)
        fields["both_ways"] = "weight_memory" not in fields and not first.lazy and bool(rng.random() < 0.4)
        fields["parity"] = "weight_memory" not in fields and bool(rng.random() < 0.2)
        more = (first.replace(net=dense(n + 3 for n in first.sizes)),) if rng.random() < 0.5 else ()
        if not more and len(networks) == 1 and rng.random() < 0.4:
            fields["fixed"] = first
        try:
            return Machine.holding(*networks, *more, **fields | given)
        except ValueError:
            continue


def random_design(rng: Rng, *, machine: dict[str, Any] | None = None, **fixed: Any) -> tuple[Network, Machine]:
    """A small network and a machine that holds it; `fixed` are fields of the network, `machine` those of the machine."""
    network = random_network(rng, **fixed)
    return network, random_machine(rng, network, **machine or {})


def random_state(network: Network, rng: Rng) -> dict[str, np.ndarray]:
    """A legal value for every array of the state: small or anywhere in its format, thresholds also low, leakages also 0 and 1."""
    out = {}
    for name, (shape, low, high) in checks.legal_state(network).items():
        kind = name.partition(".")[0]
        if name == "class":
            value = np.array(rng.integers(0, network.classes))
        elif name == "alpha":
            value = np.array([choose(rng, [low, high, int(rng.integers(low, high + 1))], [1, 1, 3]) for _ in range(*shape)])
        elif kind == "theta":
            top = choose(rng, [low, min(high, low + network.u.one), high])
            value = rng.integers(low, top + 1, shape)
        elif name == "aged":  # weights decay after the next sample, or later
            value = np.array(choose(rng, [high, int(rng.integers(low, high + 1))]))
        elif name == "alpha_grad":  # its format holds a sum that starts at 0
            value = np.zeros(shape, np.int64)
        elif name == "surrogate" and rng.random() < 0.5:
            value = np.full(shape, high)
        elif name == "error_table" and rng.random() < 0.5:
            value = rng.choice([low, high], shape)
        else:
            part = 1 if kind == "rng" else choose(rng, [1, 1, 8, 64])  # of the format
            value = rng.integers(-(-low // part), high // part + 1, shape)
        out[name] = value.astype(np.int64)
    return out


def random_sample(network: Network, rng: Rng) -> np.ndarray:
    """A sample: silent, all at its greatest, or anything between."""
    shape = network.sizes[:1] if network.static else (network.steps, network.sizes[0])
    density = choose(rng, [0.0, 1.0, rng.random()], [1, 1, 4])
    on = rng.random(shape) < density
    if network.input == "events":
        return on
    top = (1 << PIXEL_FRAC) - 1
    return (on * (top if density == 1.0 else rng.integers(1, top + 1, shape))).astype(np.uint8)


def exercise(network: Network, rng: Rng, *, machine: Machine | None = None, samples: int = 8, stall: float = 0.0,
             opt: str = "quick", engine: str = "cocotb", then: Iterable[Network] = ()) -> Counter:  # fmt: skip
    """Play random samples on gateware and golden model, with new states, rates and switches in between, for the network, and `then`
    for others on the same machine.

    Raises `sim.twin.Mismatch` at a difference. Returns what was seen, by the names of FLOORS, and `compared words`.
    """
    machine = machine or Machine.holding(network)
    seen: Counter = Counter()
    seen["samples of one step"] += network.steps == 1
    seen["sizes not divisible by the lanes"] += any(n % machine.lanes for n in network.sizes[1:])
    seen["several neuron lanes"] += machine.neuron_lanes > 1
    with Twin(network, machine, opt=opt, stall=stall, engine=engine) as twin:
        show(twin, rng, samples, seen)
        for other in then:
            twin.configure(other)
            show(twin, rng, samples, seen)
        seen["compared words"] += twin.compared_words
        seen["samples"] += twin.samples
        seen["machines"] += 1
    return seen


def show(twin: Twin, rng: Rng, samples: int, seen: Counter) -> None:
    """Random samples for the network that the twin runs, with new states, rates and switches in between."""
    network = twin.network
    for n in range(samples):
        if n % 3 == 0:
            twin.load(random_state(network, rng))
        twin.set_rates(**{name: int(rng.integers(0, choose(rng, [4, RATE_MAX + 1]))) for name in RATES})
        before = twin.golden.read()
        sample, label = random_sample(network, rng), int(rng.integers(0, network.classes))
        learn = choose(rng, ["wtl", "w", "wt", "wl", "t", "l", "tl", ""], [4, 1, 1, 1, 1, 1, 1, 1])
        (twin.run_steps if rng.random() < 0.3 else twin.run)(sample, label, learn)
        observe(network, sample, learn, before, twin.golden.read(), seen)


def observe(network: Network, sample: np.ndarray, learn: str, before: State, after: State, seen: Counter) -> None:
    """Count what a sample shows of FLOORS."""

    def kind(state: State, name: str) -> np.ndarray:
        found = [array.ravel() for key, array in state.items() if key.partition(".")[0] == name]
        return np.concatenate([np.zeros(0, np.int64), *found])

    c = network
    ends = {"currents": ("current", c.u), "membranes": ("membrane", c.u), "deltas": ("delta", c.delta), "weights": ("weight", c.w)}
    for name, (array, q) in ends.items():
        seen[f"saturated {name}"] += int(np.isin(kind(after, array), (q.low, q.high)).sum())
    for name, array in (("weights", "weight"), ("thresholds", "theta"), ("leakages", "alpha")):
        seen[f"{name} changed"] += int((kind(before, array) != kind(after, array)).sum())
    seen["spikes"] += int(after["count"].sum()) + int(kind(after, "spike").sum())
    seen["ties"] += int((after["count"] == after["count"].max()).sum() > 1)
    seen["thresholds at the floor"] += int((kind(after, "theta") == c.theta_min).sum())
    seen["leakages at the floor"] += int((after["alpha"] == c.alpha_min).sum())
    seen["leakages at 1"] += int((after["alpha"] == c.alpha_one).sum())
    weights = "w" in learn
    seen["decays"] += weights and c.decay and before["aged"] == DECAY_SAMPLES - 1
    seen["remainders"] += int((kind(after, "grad") != 0).sum()) if weights and c.remainder and after.get("gathered", 0) == 0 else 0
    seen["centred frames"] += weights and c.centres_frame
    seen["graded errors"] += int((after[f"delta.{c.n_layers}"] != 0).sum()) if learn and c.output_error == "graded" else 0
    seen["slower layers"] += weights and any(c.slower)
    seen["silent inputs"] += not sample.any()
    seen["full inputs"] += bool(sample.all())


def missing(seen: Counter) -> list[str]:
    """What was seen too seldom, as sentences."""
    return [f"{name}: {seen[name]} seen, at least {floor} are needed" for name, floor in FLOORS.items() if seen[name] < floor]
