"""The whole network: against the second opinion of plain.py over random configurations, and what holds for every sample."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

from hw.network import Network
from hw.numbers import Q
from sw import data
from sw.golden.network import GoldenNetwork
from sw.golden.recipe import Recipe
from sw.golden.state import initial_state
from tests.sw.golden.plain import Plain
from tests.sw.golden.scenarios import FORMS_AND_NETS, SMALL, corners, random_config, random_sample, random_state, seldom, title


@pytest.mark.parametrize(("form", "net"), FORMS_AND_NETS, ids=title)
def test_equals_the_contract_written_out(form, net):
    random, hit = np.random.default_rng(7), Counter()
    for _ in range(90):
        c = random_config(random, net, **form)
        network, state = GoldenNetwork(c), random_state(c, random)
        network.load(state)
        rates = [int(k) for k in random.integers(0, random.choice([3, 8, 16]), 4)]
        network.rate_w, network.rate_theta, network.rate_alpha, network.rate_decay = rates
        plain = Plain(c, network.read(), rates)
        for _ in range(20 if c.decay else 3):
            sample, label = random_sample(c, random), int(random.integers(c.classes))
            learn = "".join(letter for letter in "wtl" if random.random() < 0.7)
            result = network.run(sample, label, learn)
            plain.run(sample, label, learn)
            got, want = network.read(), plain.read()
            assert got.keys() == want.keys()
            for name in got:
                assert np.array_equal(got[name], want[name]), (name, c, learn)
            assert result.winner == got["class"] and np.array_equal(result.counts, got["count"])
            assert np.array_equal(result.membranes, got[f"membrane.{c.n_layers}"])
            hit += corners(c, got)
    assert not seldom(hit, form, net)


@pytest.mark.parametrize("seed", range(5))
def test_lazy_learning_without_leak_is_learning_from_traces(seed):
    """With leakage factors of 1.0 nothing is rounded, and while nothing saturates the order of the sums is free."""
    random, changed = np.random.default_rng(seed), 0
    base = SMALL.replace(input="events", trace=Q(4, 12), grad=Q(6, 12), stochastic=seed % 2 == 1)
    networks = [GoldenNetwork(base), GoldenNetwork(base.replace(lazy=True))]
    for network in networks:
        network.load(initial_state(base, seed, theta=0.5, alpha=1.0, gain=2.0, scale=0.25))
        network.rate_w = 5
    for label in range(4):
        sample = random.random((base.steps, base.sizes[0])) < 0.4
        for network in networks:
            before = network.read()
            network.run(sample, label, "wt")
        a, b = (network.read() for network in networks)
        assert all(np.array_equal(a[name], b[name]) for name in a)
        changed += sum(int((b[name] != before[name]).sum()) for name in ("weight.1", "weight.2"))
    assert changed > 100


@pytest.mark.parametrize("alpha, least", [(15 / 16, 0.999), (None, 0.99)])
def test_lazy_learning_is_close_to_learning_from_traces(alpha, least):
    """With a leak, down to the floor, it differs by rounding only: the changes of weights point the same way."""
    base = Network(input="events", trace=Q(5, 8), grad=Q(6, 12))
    networks = [GoldenNetwork(base), GoldenNetwork(base.replace(lazy=True))]
    alpha = alpha or networks[1].config.alpha_min / base.alpha_one
    state = Recipe(alpha=alpha).state(base, 0)
    changes = [[], []]
    for sample, label in islice(data.load("digits", base).train, 20):
        for network, change in zip(networks, changes, strict=True):
            network.load(state)
            network.run(sample, label, "w")
            after = network.read()
            change.append(np.concatenate([(after[name] - state[name]).ravel() for name in ("weight.1", "weight.2")]))
    a, b = (np.concatenate(change).astype(float) for change in changes)
    assert (a != 0).mean() > 0.1
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > least


def test_steps_are_the_run_in_pieces():
    for config in (SMALL, SMALL.replace(cadence="step", input="events")):
        a, b, random = GoldenNetwork(config), GoldenNetwork(config), np.random.default_rng(0)
        for network in (a, b):
            network.load(initial_state(config, 1))
        for _ in range(3):
            sample = random_sample(config, random)
            seen = list(a.steps(sample, 2, "wtl"))
            b.run(sample, 2, "wtl")
            assert seen == list(range(config.steps))
            assert all(np.array_equal(x, y) for x, y in zip(a.read().values(), b.read().values(), strict=True))


def test_inference_leaves_what_was_learned():
    network = GoldenNetwork(SMALL)
    network.load(initial_state(SMALL, 1, theta=0.3))
    network.run(np.full(9, 200), 1, "wtl")
    before = network.read()
    result = network.run(np.full(9, 200))
    after = network.read()
    forward = ("membrane", "spike", "theta_trace", "alpha_trace", "weight_trace", "current", "count", "class")
    for name in after:
        if name.partition(".")[0] not in forward:
            assert np.array_equal(before[name], after[name]), name
    assert result.counts.sum() > 0


@pytest.mark.parametrize("switch, changed", [("w", "weight"), ("t", "theta"), ("l", "alpha")])
def test_each_switch_learns_its_own(switch, changed):
    network = GoldenNetwork(SMALL.replace(stochastic=True))
    network.load(initial_state(SMALL, 1, theta=0.3))
    network.rate_w = network.rate_theta = network.rate_alpha = 1
    before = network.read()
    network.run(np.full(9, 200), 1, switch)
    after = network.read()
    differ = {name.partition(".")[0] for name in after if not np.array_equal(before[name], after[name])}
    assert differ & {"weight", "theta", "alpha"} == {changed}
    assert ("rng" in differ) == (switch == "w")


def test_read_is_a_copy_and_load_brings_it_back():
    network, other = GoldenNetwork(SMALL), GoldenNetwork(SMALL)
    network.load(initial_state(SMALL, 1, theta=0.3))
    network.run(np.full(9, 99), 1, "wtl")
    state = network.read()
    other.load(state)
    assert all(a.dtype == np.int64 for a in state.values())
    for sample, label in ((np.full(9, 180), 2), (np.arange(9), 0)):
        network.run(sample, label, "wtl")
        other.run(sample, label, "wtl")
    assert all(np.array_equal(a, b) for a, b in zip(network.read().values(), other.read().values(), strict=True))
    assert not np.array_equal(state["weight.1"], network.read()["weight.1"])


def test_load_changes_nothing_if_one_array_is_not_legal():
    network = GoldenNetwork(SMALL)
    before = network.read()
    with pytest.raises(ValueError, match="theta.1: 2 of 7 values do not fit, the largest is 40000; legal is 256 to 32767"):
        network.load({"weight.1": np.ones((7, 9), int), "theta.1": [40000, 255, 300, 300, 300, 300, 300]})
    assert all(np.array_equal(a, b) for a, b in zip(before.values(), network.read().values(), strict=True))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.zeros(8, np.uint8),), r"sample: shape \(8,\) is not legal; legal is \(9,\)"),
        ((np.zeros(9),), "sample: type float64 is not legal"),
        ((np.full(9, 256),), "sample: 9 of 9 values do not fit, the largest is 256; legal is 0 to 255"),
        ((np.zeros(9, np.uint8), 4, "w"), "label: 4 is not a class; legal is 0 to 3"),
        ((np.zeros(9, np.uint8), None, "w"), "label: None is not a class"),
        ((np.zeros(9, np.uint8), 1, "wx"), "learn: 'wx' is not legal"),
    ],
)
def test_bad_samples_change_nothing(arguments, message):
    network = GoldenNetwork(SMALL)
    network.load(initial_state(SMALL, 1))
    network.run(np.full(9, 99), 1, "wtl")
    before = network.read()
    with pytest.raises(ValueError, match=message):
        network.steps(*arguments)
    assert all(np.array_equal(a, b) for a, b in zip(before.values(), network.read().values(), strict=True))


def test_bad_rate_is_named():
    network = GoldenNetwork(SMALL)
    network.rate_theta = 16
    with pytest.raises(ValueError, match="rate_theta: 16 is not legal; legal is a whole number of 0 to 15"):
        network.run(np.zeros(9, np.uint8))


# -- synaptic operations ------------------------------------------------------------------------
def quiet(config):
    """All thresholds out of reach but every error and trace a number: nothing fires, everything learns."""
    network = GoldenNetwork(config, visits=[(3, False)] * config.n_layers)
    network.load(initial_state(config, 1, theta=7.9, alpha=1.0))
    return network


def test_operations_of_a_silent_static_sample():
    """9-7-4 on a machine of three lanes: groups of 3, 3, 1 neurons, and of 3, 1."""
    network, steps = quiet(SMALL), SMALL.steps
    network.run([0, 0, 255, 0, 9, 0, 0, 0, 1])
    assert network.sops == 7 * 3  # the current of three pixels, once; no spike reaches layer 2
    assert network.sops_skipped == 7 * 6 + steps * 28
    network.sops = network.sops_skipped = 0
    network.load({"surrogate": np.full(256, 4095)})
    network.run([0, 0, 255, 0, 9, 0, 0, 0, 1], 1, "w")
    backward, summed = 28 * steps, 0  # every error is non-zero, no trace of layer 1 is
    assert network.sops == 7 * 3 + backward + summed + 28 + 7 * 3
    assert network.sops + network.sops_skipped == 63 + 28 * steps + 28 * steps + 28 * steps + 28 + 63


def test_operations_count_groups_and_traces():
    config = SMALL.replace(cadence="step", input="events", steps=1)
    network = quiet(config)
    table = np.zeros((5, 2, 2), int)
    table[:, 0, 1] = 4000  # an error only at the label: neuron 3, alone in the second group
    network.load({"error_table": table, "surrogate": np.full(256, 4095), "weight.2": np.arange(28).reshape(4, 7) * 512 // 28})
    sample = np.zeros((1, 9), bool)
    sample[0, [2, 5]] = True
    network.run(sample, 3, "w")
    hidden = 7  # weights 21.. of neuron 3 carry errors to every neuron of layer 1
    assert (network.read()["delta.1"] != 0).sum() == hidden
    assert network.sops == 7 * 2 + 7 * 1 + 0 + hidden * 2
    assert network.sops + network.sops_skipped == 63 + 28 + 28 + 28 + 63


def test_float_is_never_used():
    network = GoldenNetwork(SMALL)
    network.load(initial_state(SMALL, 1, theta=0.3))
    network.run(np.full(9, 200), 1, "wtl")
    tensors = [v for owner in (network, *network.layers) for v in vars(owner).values() if isinstance(v, torch.Tensor)]
    assert len(tensors) > 15 and all(t.dtype == torch.int64 for t in tensors)
