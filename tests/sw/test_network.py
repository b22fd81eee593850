"""The whole network: against the second opinion of plain.py over random configurations, and what holds for every sample."""

from collections import Counter

import numpy as np
import pytest
import torch
from plain import TWELVE, Plain

from hw.config import CADENCES, INPUTS, Config, Q
from sw.checks import legal_state
from sw.golden.network import Network
from sw.golden.state import initial_state

SMALL = TWELVE.replace(sizes=(9, 7, 4), steps=5, lanes=3)


def random_config(random, **fixed):
    """Any configuration with small layers that Config accepts."""
    while True:
        formats = {
            name: Q(int(random.integers(1, 8)), int(random.integers(0, 16))) for name in ("w", "u", "trace", "delta", "grad")
        }
        formats["trace"] = Q(int(random.integers(2, 4)), int(random.integers(8, 16)))  # narrow enough to saturate
        try:
            return Config(
                sizes=tuple(int(n) for n in random.integers(1, 10, random.integers(3, 7))),
                steps=int(random.integers(1, 6)),
                lanes=int(random.integers(1, 9)),
                stochastic=bool(random.integers(2)),
                alpha_frac=int(random.integers(4, 17)),
                theta_min=int(random.integers(1, 9)),
                **formats,
                **fixed,
            )
        except ValueError:
            continue


def random_state(config, random):
    """Half of the time something that could learn, else anything legal, whatever it means."""
    state = {
        name: random.integers(legal.low, legal.high + 1, legal.shape)
        for name, legal in legal_state(config).items()
        if not name.startswith("alpha_grad")
    }
    theta = min(0.7, config.u.high / config.u.one)
    sane = initial_state(config, int(random.integers(1000)), theta=theta, alpha=float(random.choice([0, 0.5, 1])), gain=2.0)
    zero = {"alpha_grad": np.zeros(config.n_layers, int)} if config.cadence == "sample" else {}
    return state | zero | (sane if random.random() < 0.5 else {})


def random_sample(config, random):
    if config.static:
        return (random.integers(0, 256, config.sizes[0]) * (random.random(config.sizes[0]) < 0.7)).astype(np.uint8)
    return random.random((config.steps, config.sizes[0])) < random.choice([0, 0.2, 0.6, 1])


def corners(config, state):
    """How often a state shows what a comparison must have seen to prove something."""
    hit = Counter()
    for name, array in state.items():
        legal, kind = legal_state(config)[name], name.partition(".")[0]
        if kind == "spike":
            hit["spikes"] += int(array.sum())
        elif kind == "theta":
            hit["theta at its floor"] += int((array == legal.low).sum())
        elif kind == "alpha":
            hit["alpha 0"] += int((array == 0).sum())
            hit["alpha 1"] += int((array == legal.high).sum())
        elif kind == "delta":
            hit["errors"] += int((array != 0).sum())
        elif kind in ("weight", "membrane", "weight_trace", "theta_trace", "alpha_trace", "input_grad", "theta_grad"):
            hit[f"{kind} saturated"] += int(((array == legal.low) | (array == legal.high)).sum())
    count = np.sort(state["count"])
    hit["ties"] += int(len(count) > 1 and count[-1] == count[-2])
    return hit


@pytest.mark.parametrize("input", INPUTS)
@pytest.mark.parametrize("cadence", CADENCES)
def test_equals_the_contract_written_out(input, cadence):
    random, hit = np.random.default_rng(7), Counter()
    for _ in range(45):
        c = random_config(random, input=input, cadence=cadence)
        network, state = Network(c), random_state(c, random)
        network.load(state)
        rates = [int(k) for k in random.integers(0, random.choice([3, 8, 16]), 3)]
        network.rate_w, network.rate_theta, network.rate_alpha = rates
        plain = Plain(c, network.read(), rates)
        for _ in range(3):
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
    if input == "events":
        hit["input_grad saturated"] += 10
    if cadence == "step":
        hit["theta_grad saturated"] += 10
    assert len(hit) == 13 and min(hit.values()) >= 10, hit


def test_steps_are_the_run_in_pieces():
    for config in (SMALL, SMALL.replace(cadence="step", input="events")):
        a, b, random = Network(config), Network(config), np.random.default_rng(0)
        for network in (a, b):
            network.load(initial_state(config, 1))
        for _ in range(3):
            sample = random_sample(config, random)
            seen = list(a.steps(sample, 2, "wtl"))
            b.run(sample, 2, "wtl")
            assert seen == list(range(config.steps))
            assert all(np.array_equal(x, y) for x, y in zip(a.read().values(), b.read().values(), strict=True))


def test_inference_leaves_what_was_learned():
    network = Network(SMALL)
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
    network = Network(SMALL.replace(stochastic=True))
    network.load(initial_state(SMALL, 1, theta=0.3))
    network.rate_w = network.rate_theta = network.rate_alpha = 1
    before = network.read()
    network.run(np.full(9, 200), 1, switch)
    after = network.read()
    differ = {name.partition(".")[0] for name in after if not np.array_equal(before[name], after[name])}
    assert differ & {"weight", "theta", "alpha"} == {changed}
    assert ("rng" in differ) == (switch == "w")


def test_read_is_a_copy_and_load_brings_it_back():
    network, other = Network(SMALL), Network(SMALL)
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
    network = Network(SMALL)
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
    network = Network(SMALL)
    network.load(initial_state(SMALL, 1))
    network.run(np.full(9, 99), 1, "wtl")
    before = network.read()
    with pytest.raises(ValueError, match=message):
        network.steps(*arguments)
    assert all(np.array_equal(a, b) for a, b in zip(before.values(), network.read().values(), strict=True))


def test_bad_rate_is_named():
    network = Network(SMALL)
    network.rate_theta = 16
    with pytest.raises(ValueError, match="rate_theta: 16 is not legal; legal is a whole number of 0 to 15"):
        network.run(np.zeros(9, np.uint8))


# -- synaptic operations ------------------------------------------------------------------------
def quiet(config):
    """All thresholds out of reach but every error and trace a number: nothing fires, everything learns."""
    network = Network(config)
    network.load(initial_state(config, 1, theta=7.9, alpha=1.0))
    return network


def test_operations_of_a_silent_static_sample():
    """9-7-4 in three lanes: groups of 3, 3, 1 neurons, and of 3, 1."""
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
    network = Network(SMALL)
    network.load(initial_state(SMALL, 1, theta=0.3))
    network.run(np.full(9, 200), 1, "wtl")
    tensors = [v for owner in (network, *network.layers) for v in vars(owner).values() if isinstance(v, torch.Tensor)]
    assert len(tensors) > 15 and all(t.dtype == torch.int64 for t in tensors)
