"""Lanes that lend their multipliers to neurons, and change weights two by two: equal to the golden model, for a few cycles more."""

import numpy as np
import pytest
import torch

from hw.design import Design
from hw.host.protocol import Link, description, read_description
from hw.network import Network
from hw.numbers import Q
from sim.cycles import cycles, random_samples, total
from sim.scenarios import exercise

NETWORK = Network(net="20-19-13-5", steps=4, stochastic=True, w=Q(1, 7), u=Q(3, 7), trace=Q(3, 8), delta=Q(2, 6), grad=Q(2, 7),
                  alpha_frac=7, theta_min=8)  # fmt: skip
SMALL = Design.of(NETWORK, lanes=8, weight_memory="spram", shared=True)


@pytest.mark.parametrize("changes", [
    {"cadence": "step"},
    {"cadence": "step", "neuron_lanes": 2, "input": "events", "stochastic": False},
    {"cadence": "sample", "input": "events"},
    {"cadence": "sample", "lanes": 4, "w": Q(4, 12), "grad": Q(4, 12)},
], ids=lambda changes: "-".join(map(str, changes.values())))  # fmt: skip
def test_a_core_that_shares_equals_golden(changes):
    torch.set_num_threads(1)
    design = SMALL.replace(**changes)
    seen = exercise(design.network, np.random.default_rng(3), machine=design.machine, samples=24)
    assert seen["spikes"] > 30 and seen["weights changed"] > 100 and seen["thresholds changed"] > 10, seen


def test_sharing_costs_few_cycles():
    network = Network(net="64-32-10", cadence="step", w=Q(2, 6), stochastic=True)
    samples, design = random_samples(network, 0.3, 4), Design.of(network, lanes=8, weight_memory="spram")
    own, shared = (cycles(design.replace(shared=shared), samples, samples, opt="quick") for shared in (False, True))
    for kind, most in (("inference", 1.15), ("training", 1.35)):
        alone, together = total(own[kind], "real"), total(shared[kind], "real")
        print(f"{kind}: {alone:.0f} cycles, {together:.0f} with shared multipliers, {together / alone:.3f} times as many")
        assert 1 < together / alone < most


NOT_SHARED = "shared: True is not legal; legal is False unless weight_memory is spram, with 4 lanes to a neuron lane, and not lazy"


@pytest.mark.parametrize("change", [
    {"weight_memory": "block"}, {"neuron_lanes": 4}, {"lanes": 4, "w": Q(4, 12), "neuron_lanes": 2, "grad": Q(4, 12)},
    {"input": "events", "cadence": "sample", "trace": Q(4, 8), "lazy": True},
])  # fmt: skip
def test_sharing_that_cannot_be(change):
    with pytest.raises(ValueError, match=NOT_SHARED):
        SMALL.replace(**change)
    with pytest.raises(ValueError, match="shared: 1 is not legal; legal is True or False"):
        SMALL.replace(shared=1)


def test_a_device_tells_that_it_shares():
    own, shared = SMALL.replace(shared=False).machine, SMALL.machine
    for machine in (own, shared):
        assert read_description(description(machine, Link(clock=24_000_000, baud=3_000_000)))[0] == machine
    assert own.digest != shared.digest
