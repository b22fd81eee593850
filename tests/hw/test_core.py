"""The whole core against the golden network, over random configurations, states, samples and switches: equal in every bit."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from hw.config import CADENCES, INPUTS, Config, Q
from sim.scenarios import exercise, missing, random_config

CONFIGURATIONS = 3
SEED = 5  # one that meets every floor of sim.scenarios


@pytest.mark.parametrize("cadence", CADENCES)
@pytest.mark.parametrize("kind", INPUTS)
def test_core_equals_golden(cadence: str, kind: str):
    torch.set_num_threads(1)
    rng = np.random.default_rng((SEED, CADENCES.index(cadence), INPUTS.index(kind)))
    seen: Counter = Counter()
    for n in range(CONFIGURATIONS):
        fixed: dict[str, Any] = [{"steps": 1}, {"delta": Q(3, 7)}, {"lanes": 4, "neuron_lanes": 2}][n]
        config = random_config(rng, cadence=cadence, input=kind, **fixed)
        if n == 1 and config.weight_memory == "block":
            config = config.replace(weight_latency=3 if cadence == "sample" else 5)
        seen += exercise(config, rng, samples=24, stall=0.3 if n == 1 else 0.0)
    assert not missing(seen)


def test_lazy_core_equals_golden():
    torch.set_num_threads(1)
    rng, seen = np.random.default_rng(SEED), Counter()
    cases: list[dict[str, Any]] = [
        {"steps": 1, "stochastic": False},
        {"steps": 5, "weight_memory": "block", "weight_latency": 5, "parity": True},
        {"steps": 4, "weight_memory": "block", "stochastic": True, "lanes": 4, "neuron_lanes": 2},
        {"steps": 4, "weight_memory": "spram", "stochastic": False},
    ]
    for n, fixed in enumerate(cases):
        config = random_config(rng, input="events", lazy=True, **fixed)
        seen += exercise(config, rng, samples=24, stall=0.3 if n == 1 else 0.0)
    assert not missing(seen)


FAR = Config(sizes=(8, 45, 5), steps=3, lanes=40, neuron_lanes=4, weight_latency=5, stochastic=True, w=Q(1, 8))
"""More lanes than two levels of registers reach from one, as on a large chip."""


@pytest.mark.parametrize("changes", [
    {"cadence": "step"},
    {"cadence": "step", "input": "events"},
    {"cadence": "sample", "weight_latency": 3, "parity": True},
    {"cadence": "sample", "input": "events", "neuron_lanes": 1, "lane_lists": True},
    {"input": "events", "lazy": True, "trace": Q(5, 8)},
], ids=lambda changes: "-".join(map(str, changes.values())))  # fmt: skip
def test_many_lanes_far_apart_equal_golden(changes):
    torch.set_num_threads(1)
    seen = exercise(FAR.replace(**changes), np.random.default_rng(6), samples=6)
    assert seen["spikes"] >= 40 and seen["weights changed"] >= 100, seen


@pytest.mark.parametrize("change, legal", [({"weight_latency": 2}, "1 or 3 or 5 where weight_memory is block"), ({"weight_latency": True}, "1 or 3 or 5"),
                                           ({"weight_memory": "spram", "lanes": 4, "w": Q(4, 12)}, "1 where weight_memory is spram")])  # fmt: skip
def test_latencies_that_cannot_be(change, legal):
    with pytest.raises(ValueError, match=f"weight_latency: .* is not legal; legal is {legal}"):
        FAR.replace(**change)


@pytest.mark.parametrize("kind", INPUTS)
def test_layers_of_one_neuron(kind: str):
    torch.set_num_threads(1)
    config = Config(sizes=(1, 1, 1), steps=3, lanes=2, input=kind)
    seen = exercise(config, np.random.default_rng(5), samples=90)
    assert seen["spikes"] >= 5 and seen["weights changed"] >= 2, seen
