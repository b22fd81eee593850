"""The whole core against the golden network, over random networks, machines, states, samples and switches: equal in every bit."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from hw.machine import FAR, NEAR, Machine
from hw.network import CADENCES, INPUTS, Network
from hw.notation import dense
from hw.numbers import Q
from hw.plan import DoesNotFit
from sim.scenarios import exercise, missing, random_machine, random_network, random_networks, random_sample, random_state, show
from sim.twin import Twin

SEED = 9  # one that meets every floor of sim.scenarios


@pytest.mark.parametrize("cadence", CADENCES)
@pytest.mark.parametrize("kind", INPUTS)
def test_core_equals_golden(cadence: str, kind: str):
    torch.set_num_threads(1)
    rng = np.random.default_rng((SEED, CADENCES.index(cadence), INPUTS.index(kind)))
    seen: Counter = Counter()
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"steps": 1, "stochastic": True}, {}),
        ({"delta": Q(3, 7), "steps": 6},
         {"weight_memory": "block", "shared": False, "wires": FAR} if cadence == "step" else {"fixed": None}),
        ({"stochastic": False, "steps": 5, "batch": 1}, {"lanes": 4, "neuron_lanes": 2, "shared": False}),
    ]  # fmt: skip
    for n, (of_network, of_machine) in enumerate(cases):
        network = random_network(rng, cadence=cadence, input=kind, **of_network)
        machine = random_machine(rng, network, **of_machine)
        seen += exercise(network, rng, machine=machine, samples=40, stall=0.3 if n == 1 else 0.0)
    assert not missing(seen)


def test_lazy_core_equals_golden():
    torch.set_num_threads(1)
    rng, seen = np.random.default_rng(SEED), Counter()
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"steps": 1, "stochastic": False}, {}),
        ({"steps": 5}, {"weight_memory": "block", "wires": FAR, "parity": True}),
        ({"steps": 4, "stochastic": True}, {"weight_memory": "block", "lanes": 4, "neuron_lanes": 2}),
        ({"steps": 4, "stochastic": False, "w": Q(6, 10)}, {"weight_memory": "spram", "lanes": 4, "wires": NEAR, "parity": False}),
    ]
    for n, (of_network, of_machine) in enumerate(cases):
        network = random_network(rng, input="events", lazy=True, **of_network)
        seen += exercise(network, rng, machine=random_machine(rng, network, **of_machine), samples=24, stall=0.3 if n == 1 else 0.0)
    assert not missing(seen)


def test_one_machine_runs_one_network_after_the_other():
    """Of 1 to 6 layers, each kind of input, both cadences, by chance and to nearest; what the last one left behind does not
    matter."""
    torch.set_num_threads(1)
    rng, seen = np.random.default_rng(19), Counter()
    networks = random_networks(rng, 6, layers=6)
    assert {network.n_layers for network in networks} >= {1, 6}
    with Twin(networks[-1], Machine.holding(*networks, lanes=8, neuron_lanes=2), opt="quick") as twin:
        for network in (*networks, networks[0]):
            twin.configure(network)
            show(twin, rng, 9, seen)
        with pytest.raises(DoesNotFit, match="population: .* needs 99"):
            twin.configure(networks[0].replace(net="9-99-3"))
    assert seen["spikes"] >= 100 and seen["weights changed"] >= 100, seen


def test_a_network_starts_without_the_gradients_of_the_last_one():
    torch.set_num_threads(1)
    rng, seen = np.random.default_rng(1), Counter()
    last = Network(net="9-12-4", steps=4, input="events", batch=3)
    network = Network(net="7-9-5-3", steps=4, input="events", cadence="step")
    with Twin(last, Machine.holding(last, network, lanes=4), opt="quick") as twin:
        for _ in range(4):
            twin.configure(last)
            twin.load(random_state(last, rng))
            while not twin.golden.read()["alpha_grad"].any():
                twin.load({"gathered": 0})
                twin.run(random_sample(last, rng), 1, "wtl")
            twin.configure(network)
            show(twin, rng, 3, seen)
    assert seen["leakages changed"], seen


def test_a_network_starts_without_the_frame_of_the_last_one():
    """An input for events has a spike, or none, in each step; one for frames keeps its value from step to step."""
    torch.set_num_threads(1)
    last = Network(net="9-6-4", steps=2, input="frames")
    network = last.replace(input="events")
    with Twin(last, Machine.holding(last, network, lanes=4), opt="quick") as twin:
        twin.run(np.full((2, 9), 255, np.uint8))
        twin.configure(network)
        twin.run(np.zeros((2, 9), bool))


def test_stochastic_learning_ends_alike_on_every_machine():
    """Random bits belong to a weight's layer, neuron and input: each machine equals the golden model, which knows none."""
    torch.set_num_threads(1)
    network = Network(net="11-70-5", steps=3, stochastic=True, cadence="step", w=Q(2, 6))
    ends = []
    for lanes, wires in ((1, NEAR), (8, FAR), (32, NEAR), (64, NEAR)):
        with Twin(network, Machine.holding(network, lanes=lanes, wires=wires), opt="quick", every=4) as twin:
            rng = np.random.default_rng(3)
            show(twin, rng, 8, Counter())
            twin.check()
            ends.append(twin.device.read())
    assert all(np.array_equal(ends[0][name], end[name]) for end in ends for name in ends[0])


ALL_OVER = Network(net="8-45-5", steps=3, stochastic=True, w=Q(1, 8))
"""On more lanes than two levels of registers reach from one, as on a large chip."""


@pytest.mark.parametrize("changes, machine", [
    ({"cadence": "step"}, {}),
    ({"cadence": "step", "input": "events"}, {}),
    ({"cadence": "sample"}, {"parity": True}),
    ({"cadence": "sample", "input": "events"}, {"neuron_lanes": 1}),
    ({"input": "events", "lazy": True, "trace": Q(5, 8)}, {}),
], ids=lambda changes: "-".join(map(str, changes.values())))  # fmt: skip
def test_many_lanes_far_apart_equal_golden(changes, machine):
    torch.set_num_threads(1)
    network = ALL_OVER.replace(**changes)
    built = Machine.holding(network, **{"lanes": 40, "neuron_lanes": 4, "wires": FAR, **machine})
    seen = exercise(network, np.random.default_rng(6), machine=built, samples=12)
    assert seen["spikes"] >= 40 and seen["weights changed"] >= 100, seen


@pytest.mark.parametrize("change, message", [
    ({"wires": "far"}, "wires: far is not legal; legal is near or far"),
    ({"wires": FAR, "weight_memory": "spram", "lanes": 4, "w": Q(4, 12)}, "wires: .*; legal is near where weight_memory is spram"),
    ({"lanes": 129}, "lanes: 129 is not legal; legal is a whole number of 1 to 128"),
    ({"neuron_lanes": 3}, "neuron_lanes: 3 is not legal; legal is a power of two that divides lanes: 1, 2, 4, 8"),
])  # fmt: skip
def test_machines_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        Machine.holding(ALL_OVER, **change)


def test_what_makes_learning_stronger_equals_golden():
    """Graded errors, a centred frame, decay, remainders and slower layers, together and apart, on one machine."""
    torch.set_num_threads(1)
    strong = Network(net="20-9-5", steps=3, output_error="graded", centred=True, decay=True, slower=(0, 2), w=Q(3, 13),
                     delta=Q(3, 12), grad=Q(4, 14))  # fmt: skip
    networks = [
        strong,
        strong.replace(net="14-6-4", remainder=True, batch=2),
        strong.replace(net="14-6-4", input="events", centred=False, cadence="step", stochastic=True),
        strong.replace(net="10-4-3", output_error="counted", centred=False, decay=False, slower=()),
    ]
    seen = exercise(networks[0], np.random.default_rng(3), then=networks[1:], samples=24, engine="fast",
                    machine=Machine.holding(*networks, lanes=8, neuron_lanes=2, both_ways=True))  # fmt: skip
    wanted = {"decays": 8, "remainders": 100, "centred frames": 20, "graded errors": 200, "slower layers": 40}
    assert all(seen[name] >= least for name, least in wanted.items()) and seen["weights changed"] > 2000, seen


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("layers", [1, 2])
def test_layers_of_one_neuron(kind: str, layers: int):
    torch.set_num_threads(1)
    network = Network(net=dense([1] * (layers + 1)), steps=3, input=kind)
    seen = exercise(network, np.random.default_rng(5), machine=Machine.holding(network, lanes=2), samples=90)
    assert seen["spikes"] >= 5 and seen["weights changed"] >= 2, seen
