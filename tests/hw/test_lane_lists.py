"""Lanes that walk lists of their own: equal to the golden model, no lane visits a neuron without a delta."""

import numpy as np
import pytest
import torch

from hw.config import Config, Q
from hw.host.protocol import Link, description, read_description
from sim.bench import cycles, real_samples, total
from sim.scenarios import exercise
from sw.checkpoint import check_fits

SMALL = Config(sizes=(20, 19, 13, 5), steps=4, lanes=4, lane_lists=True)


@pytest.mark.parametrize("changes", [
    {"cadence": "step", "stochastic": True, "w": Q(1, 8), "weight_latency": 5},
    {"cadence": "step", "input": "events", "neuron_lanes": 2},
    {"cadence": "sample", "neuron_lanes": 4, "weight_latency": 3, "parity": True},
    {"cadence": "sample", "input": "events", "stochastic": True, "lanes": 6},
    {"cadence": "step", "lanes": 2},
], ids=lambda changes: "-".join(map(str, changes.values())))  # fmt: skip
def test_a_core_with_lane_lists_equals_golden(changes):
    torch.set_num_threads(1)
    seen = exercise(SMALL.replace(**changes), np.random.default_rng(3), samples=24)
    assert seen["spikes"] > 30 and seen["weights changed"] > 100 and seen["thresholds changed"] > 10, seen


def test_lane_lists_spare_cycles_of_training():
    config = Config(sizes=(64, 60, 10), lanes=4, neuron_lanes=4, cadence="step")
    samples, warm = real_samples(config, 4, 300)
    shared, own = (cycles(config.replace(lane_lists=lists), samples, warm, opt="quick") for lists in (False, True))
    assert total(own["inference"], "real") == total(shared["inference"], "real")
    ratio = total(own["training"], "real") / total(shared["training"], "real")
    print(f"{total(shared['training'], 'real'):.0f} cycles, {total(own['training'], 'real'):.0f} with lists of the lanes' own, {ratio:.3f} times as many")
    assert ratio < 0.97
    assert total(own["training"], "ideal") == total(shared["training"], "ideal") and total(own["training"], "done") < total(shared["training"], "done")


@pytest.mark.parametrize("change", [{"input": "events", "lazy": True, "trace": Q(5, 8)}, {"weight_memory": "spram"}, {"lanes": 1}])
def test_lane_lists_that_cannot_be(change):
    with pytest.raises(ValueError, match="lane_lists: True is not legal; legal is False where lazy is True, weight_memory is spram or there is one lane"):
        SMALL.replace(**change)
    with pytest.raises(ValueError, match="lane_lists: 1 is not legal; legal is True or False"):
        SMALL.replace(lane_lists=1)


def test_a_device_tells_that_its_lanes_have_lists():
    for config in (SMALL, SMALL.replace(lane_lists=False)):
        assert read_description(description(config, Link(clock=24_000_000, baud=3_000_000)))[0] == config
    check_fits(SMALL, SMALL.replace(lane_lists=False, weight_latency=5))  # what was learned on one goes on on the other
    assert SMALL.digest != SMALL.replace(lane_lists=False).digest
