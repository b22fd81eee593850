"""The compiled golden model against the plain one, over random configurations."""

from collections import Counter

import numpy as np
import pytest

from hw.network import Network
from hw.notation import dense
from sw.common import compiler
from sw.golden.fast import FastNetwork
from sw.golden.network import GoldenNetwork
from sw.golden.state import initial_state
from tests.sw.golden.scenarios import FORMS_AND_NETS, SMALL, corners, random_config, random_sample, random_state, seldom, title


def same(a: GoldenNetwork, b: GoldenNetwork) -> bool:
    x, y = a.read(), b.read()
    counted = (a.sops, a.sops_skipped) == (b.sops, b.sops_skipped)
    return counted and x.keys() == y.keys() and all(np.array_equal(x[name], y[name]) for name in x)


@pytest.mark.parametrize(("form", "net"), FORMS_AND_NETS, ids=title)
def test_equals_the_plain_one(form, net):
    random, hit = np.random.default_rng(11), Counter()
    for _ in range(90):
        c = random_config(random, net, **form)
        grain = int(random.integers(1, 9))
        visits = [(grain, False), (1, True)]
        visits, state = [visits[(l + grain) % 2] for l in range(c.n_layers)], random_state(c, random)
        plain, fast = GoldenNetwork(c, visits=visits), FastNetwork(c, visits=visits)
        names = ("rate_w", "rate_theta", "rate_alpha", "rate_decay")
        rates = dict(zip(names, random.integers(0, random.choice([3, 8, 16]), 4).tolist(), strict=True))
        for network in (plain, fast):
            network.load(state)
            vars(network).update(rates)
        for _ in range(17 if c.decay else 4):
            sample, label = random_sample(c, random), int(random.integers(c.classes))
            learn = "".join(letter for letter in "wtl" if random.random() < 0.7)
            want, got = plain.run(sample, label, learn), fast.run(sample, label, learn)
            assert same(plain, fast), (c, learn)
            assert got.winner == want.winner and all(np.array_equal(a, b) for a, b in zip(got[1:], want[1:], strict=True))
            hit += corners(c, plain.read())
            hit["stochastic updates"] += c.stochastic and "w" in learn
            hit["operations skipped"] += plain.sops_skipped > 0
    assert not seldom(hit, form, net, "stochastic updates", "operations skipped")


def test_step_by_step_is_the_same():
    for config in (SMALL, SMALL.replace(cadence="step", input="events", stochastic=True)):
        plain, fast, random = GoldenNetwork(config), FastNetwork(config), np.random.default_rng(0)
        for network in (plain, fast):
            network.load(initial_state(config, 1, theta=0.3))
        for label in range(3):
            sample = random_sample(config, random)
            steps = 0
            for _ in zip(plain.steps(sample, label, "wtl"), fast.steps(sample, label, "wtl"), strict=True):
                steps += 1
                assert same(plain, fast)
            assert steps == config.steps
        assert plain.read()["count"].sum() > 0


def test_all_layers_and_bad_samples():
    config = Network(net=dense((64, *range(24, 9, -1), 10)), steps=4)
    visits = [(5, False)] * config.n_layers
    plain, fast = GoldenNetwork(config, visits=visits), FastNetwork(config, visits=visits)
    for network in (plain, fast):
        network.load(initial_state(config, 1, theta=0.3, gain=3.0))
        for label in range(5):
            network.run(np.arange(64) * label, label, "wtl")
        with pytest.raises(ValueError, match="label: 10 is not a class; legal is 0 to 9"):
            network.run(np.arange(64), 10, "w")
    assert same(plain, fast) and plain.read()["count"].sum() > 0


def test_a_compiler_that_fails_is_named(tmp_path, monkeypatch):
    source = tmp_path / "wrong.cpp"
    source.write_text("int f() { return x; }")
    monkeypatch.setattr(compiler, "CACHE", tmp_path)
    with pytest.raises(RuntimeError, match=r"(?s)failed:.*x.*not declared"):
        compiler.shared_library(source)
    assert not list(tmp_path.glob("**/*.so"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match="no-such-compiler is missing; install a C"):
        compiler.shared_library(source)
