"""Lazy learning: which configurations may, how low a leakage factor may be, and that such a factor is refused."""

import numpy as np
import pytest

from hw.machine import Machine
from hw.network import Network
from hw.numbers import GROWTH_BITS, Q
from hw.plan import DoesNotFit, compile
from sw.golden.network import GoldenNetwork
from sw.golden.state import initial_state

LAZY = Network(net="9-7-4", input="events", trace=Q(5, 8), lazy=True)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"input": "static"}, "input: static is not legal; legal is events where lazy is True"),
        ({"cadence": "step"}, "cadence: step is not legal; legal is sample where lazy is True"),
        ({"trace": Q(4, 8)}, r"trace: Q\(4,8\) is not legal; legal is enough integer bits for a sum of 8 spikes"),
        ({"steps": 16}, r"trace: Q\(5,8\) is not legal; legal is enough integer bits for a sum of 16 spikes"),
        ({"delta": Q(4, 13)}, r"grad: Q\(4,12\) is not legal; legal is at least as many fraction bits as delta = Q\(4,13\)"),
        ({"alpha_frac": 15, "grad": Q(3, 15)}, "alpha_frac: 15 is not legal; legal is at most 14 where lazy is True"),
        ({"lazy": 1}, "lazy: 1 is not legal; legal is True or False"),
    ],
)
def test_configurations_that_cannot(change, message):
    with pytest.raises(ValueError, match=message):
        LAZY.replace(**change)


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 15])
@pytest.mark.parametrize("alpha_frac", [4, 8, 12])
def test_the_floor_of_leakages(steps, alpha_frac):
    """At the floor a delta grows by 16 at most and a trace lasts, or 1/alpha is 4; below it one of that is not so."""
    c = LAZY.replace(steps=steps, alpha_frac=alpha_frac)

    def legal(alpha):
        trace = c.trace.one
        for _ in range(steps - 1):
            trace = trace * alpha // c.alpha_one
        return trace > 0 and (c.alpha_one / alpha) ** steps <= 1 << GROWTH_BITS and c.alpha_one / alpha <= 4

    assert [legal(alpha) for alpha in range(1, c.alpha_one + 1)] == [alpha >= c.alpha_min for alpha in range(1, c.alpha_one + 1)]


def test_below_the_floor_nothing_is_loaded():
    network = GoldenNetwork(LAZY)
    network.load(initial_state(LAZY, 1))
    before = network.read()
    low = LAZY.alpha_min
    with pytest.raises(ValueError, match=f"alpha: 1 of 2 values do not fit, the largest is {low - 1}; legal is {low} to 4096"):
        network.load({"theta.1": before["theta.1"] + 1, "alpha": np.array([LAZY.alpha_min - 1, 4096])})
    assert all(np.array_equal(array, before[name]) for name, array in network.read().items())
    with pytest.raises(ValueError, match="alpha: 0.5 is not legal; legal is 0.70"):
        initial_state(LAZY, 1, alpha=0.5)


def test_digests_tell_a_lazy_network_and_a_machine_for_it():
    eager = LAZY.replace(lazy=False)
    assert LAZY.digest != eager.digest and Machine.holding(LAZY).digest != Machine.holding(eager).digest


def test_a_machine_learns_lazily_or_does_not():
    for network, machine in ((LAZY, Machine.holding(LAZY.replace(lazy=False))), (LAZY.replace(lazy=False), Machine.holding(LAZY))):
        with pytest.raises(DoesNotFit, match=f"lazy: 9-7-4 has {network.lazy}, the machine was built for {machine.lazy}"):
            compile(network, machine)
