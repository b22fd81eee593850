"""Lanes that lend their multipliers to the neurons, and change weights two by two: equal to the golden model, for a few cycles more."""

import numpy as np
import pytest
import torch

from hw.config import Config, Q
from hw.host.protocol import Link, description, read_description
from sim.bench import cycles, random_samples, total
from sim.scenarios import exercise

SMALL = Config(
    sizes=(20, 19, 13, 5), steps=4, lanes=8, weight_memory="spram", shared=True, stochastic=True,
    w=Q(1, 7), u=Q(3, 7), trace=Q(3, 8), delta=Q(2, 6), grad=Q(2, 7), alpha_frac=7, theta_min=8,
)  # fmt: skip


@pytest.mark.parametrize("changes", [
    {"cadence": "step"},
    {"cadence": "step", "neuron_lanes": 2, "input": "events", "stochastic": False},
    {"cadence": "sample", "input": "events"},
    {"cadence": "sample", "lanes": 4, "w": Q(4, 12), "grad": Q(4, 12)},
], ids=lambda changes: "-".join(map(str, changes.values())))  # fmt: skip
def test_a_core_that_shares_equals_golden(changes):
    torch.set_num_threads(1)
    seen = exercise(SMALL.replace(**changes), np.random.default_rng(3), samples=24)
    assert seen["spikes"] > 30 and seen["weights changed"] > 100 and seen["thresholds changed"] > 10, seen


def test_sharing_costs_few_cycles():
    config = Config(sizes=(64, 32, 10), lanes=8, cadence="step", weight_memory="spram", w=Q(2, 6), stochastic=True)
    samples = random_samples(config, 0.3, 4)
    own, shared = (cycles(config.replace(shared=shared), samples, samples, opt="quick") for shared in (False, True))
    for kind, most in (("inference", 1.15), ("training", 1.35)):
        ratio = total(shared[kind], "real") / total(own[kind], "real")
        print(f"{kind}: {total(own[kind], 'real'):.0f} cycles, {total(shared[kind], 'real'):.0f} with shared multipliers, {ratio:.3f} times as many")
        assert 1 < ratio < most


@pytest.mark.parametrize("change", [{"weight_memory": "block"}, {"neuron_lanes": 4}, {"lanes": 4, "w": Q(4, 12), "neuron_lanes": 2, "grad": Q(4, 12)}])
def test_sharing_that_cannot_be(change):
    with pytest.raises(ValueError, match="shared: True is not legal; legal is False unless weight_memory is spram, with 4 lanes to a neuron lane"):
        SMALL.replace(**change)
    with pytest.raises(ValueError, match="shared: 1 is not legal; legal is True or False"):
        SMALL.replace(shared=1)


def test_a_device_tells_that_it_shares():
    for config in (SMALL, SMALL.replace(shared=False)):
        assert read_description(description(config, Link(clock=24_000_000, baud=3_000_000)))[0] == config
    assert SMALL.digest != SMALL.replace(shared=False).digest
