"""Random configurations, states and samples, steered to the corners, and what a run of them has seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from hw.config import PIXEL_FRAC, RATE_MAX, Config, Q
from sim.twin import Twin
from sw import checks

Rng = np.random.Generator
T = TypeVar("T")
FLOORS = {
    "spikes": 100, "ties": 5, "saturated currents": 10, "saturated membranes": 10, "saturated deltas": 10, "saturated weights": 10,
    "weights changed": 100, "thresholds at the floor": 10, "thresholds changed": 10, "leakages at the floor": 2, "leakages at 1": 2,
    "leakages changed": 5, "silent inputs": 2, "full inputs": 2, "samples of one step": 1, "sizes not divisible by the lanes": 1, "several neuron lanes": 1,
}  # fmt: skip
"""How often each must happen at least in a run of `exercise` over a few configurations; without, a run proves nothing."""


def choose(rng: Rng, options: list[T], weights: list[float] | None = None) -> T:
    """One of the options."""
    p = None if weights is None else np.array(weights) / sum(weights)
    return options[int(rng.choice(len(options), p=p))]


def random_config(rng: Rng, **fixed: Any) -> Config:
    """A small legal configuration; fields in `fixed` are given."""

    def number() -> Q:
        bits = int(rng.integers(8, 19))
        f = int(rng.integers(5, min(bits - 1, 14)))
        return Q(bits - f, f)

    while True:
        spram = rng.random() < 0.15
        w = choose(rng, [Q(4, 12), Q(2, 6), Q(6, 10)]) if spram else number()
        fields: dict[str, Any] = {
            "sizes": (int(rng.integers(2, 24)), *(int(n) for n in rng.integers(1, 14, rng.choice([1, 1, 1, 2, 3]))), int(rng.integers(2, 8))),
            "steps": choose(rng, [1, int(rng.integers(2, 7))], [1, 4]),
            "lanes": 64 // w.bits if spram else int(rng.integers(1, 7)),
            "neuron_lanes": choose(rng, [1, 2, 4], [3, 1, 1]),
            "stochastic": bool(rng.random() < 0.5),
            "w": w, "u": number(), "trace": number(), "delta": number(), "grad": number(),
            "alpha_frac": int(rng.integers(4, 15)),
            "theta_min": int(rng.integers(1, 64)),
            "weight_memory": "spram" if spram else "block",
        }  # fmt: skip
        try:
            return Config(**fields | fixed)
        except ValueError:
            continue  # formats that do not go together: draw again


def random_state(config: Config, rng: Rng) -> dict[str, np.ndarray]:
    """A legal value for every array of the state: small or anywhere in its format, thresholds also low, leakages also 0 and 1."""
    out = {}
    for name, (shape, low, high) in checks.legal_state(config).items():
        kind = name.partition(".")[0]
        if name == "class":
            value = np.array(rng.integers(0, config.classes))
        elif name == "alpha":
            value = np.array([choose(rng, [low, high, int(rng.integers(low, high + 1))], [1, 1, 3]) for _ in range(*shape)])
        elif kind == "theta":
            top = choose(rng, [low, min(high, low + config.u.one), high])
            value = rng.integers(low, top + 1, shape)
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


def random_sample(config: Config, rng: Rng) -> np.ndarray:
    """A sample: silent, all at its greatest, or anything between."""
    shape = config.sizes[:1] if config.static else (config.steps, config.sizes[0])
    density = choose(rng, [0.0, 1.0, rng.random()], [1, 1, 4])
    on = rng.random(shape) < density
    if not config.static:
        return on
    top = (1 << PIXEL_FRAC) - 1
    return (on * (top if density == 1.0 else rng.integers(1, top + 1, shape))).astype(np.uint8)


def exercise(config: Config, rng: Rng, *, samples: int = 8, stall: float = 0.0, opt: str = "quick", engine: str = "cocotb",
             see: Callable[[Counter], None] = lambda _: None) -> Counter:  # fmt: skip
    """Play random samples on gateware and golden model, with new states, rates and switches in between.

    Raises `sim.twin.Mismatch` at a difference. Returns what was seen, by the names of FLOORS, and `compared words`.
    """
    seen: Counter = Counter()
    seen["samples of one step"] += config.steps == 1
    seen["sizes not divisible by the lanes"] += any(n % config.lanes for n in config.sizes[1:])
    seen["several neuron lanes"] += config.neuron_lanes > 1
    with Twin(config, opt=opt, stall=stall, engine=engine) as twin:
        for n in range(samples):
            if n % 3 == 0:
                twin.load(random_state(config, rng))
            twin.set_rates(**{name: int(rng.integers(0, choose(rng, [4, RATE_MAX + 1]))) for name in ("rate_w", "rate_theta", "rate_alpha")})
            before = twin.network.read()
            sample, label = random_sample(config, rng), int(rng.integers(0, config.classes))
            learn = choose(rng, ["wtl", "w", "wt", "wl", "t", "l", "tl", ""], [4, 1, 1, 1, 1, 1, 1, 1])
            (twin.run_steps if rng.random() < 0.3 else twin.run)(sample, label, learn)
            observe(config, sample, before, twin.network.read(), seen)
        seen["compared words"] += twin.compared_words
        seen["samples"] += twin.samples
        seen["configurations"] += 1
    return seen


def observe(config: Config, sample: np.ndarray, before: dict[str, np.ndarray], after: dict[str, np.ndarray], seen: Counter) -> None:
    """Count what a sample shows of FLOORS."""

    def kind(state: dict[str, np.ndarray], name: str) -> np.ndarray:
        return np.concatenate([array.ravel() for key, array in state.items() if key.partition(".")[0] == name])

    c = config
    for name, array, q in (("currents", "current", c.u), ("membranes", "membrane", c.u), ("deltas", "delta", c.delta), ("weights", "weight", c.w)):
        seen[f"saturated {name}"] += int(np.isin(kind(after, array), (q.low, q.high)).sum())
    for name, array in (("weights", "weight"), ("thresholds", "theta"), ("leakages", "alpha")):
        seen[f"{name} changed"] += int((kind(before, array) != kind(after, array)).sum())
    seen["spikes"] += int(after["count"].sum()) + int(kind(after, "spike").sum())
    seen["ties"] += int((after["count"] == after["count"].max()).sum() > 1)
    seen["thresholds at the floor"] += int((kind(after, "theta") == c.theta_min).sum())
    seen["leakages at the floor"] += int((after["alpha"] == c.alpha_min).sum())
    seen["leakages at 1"] += int((after["alpha"] == c.alpha_one).sum())
    seen["silent inputs"] += not sample.any()
    seen["full inputs"] += bool(sample.all())


def missing(seen: Counter) -> list[str]:
    """What was seen too seldom, as sentences."""
    return [f"{name}: {seen[name]} seen, at least {floor} are needed" for name, floor in FLOORS.items() if seen[name] < floor]
