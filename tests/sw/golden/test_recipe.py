"""Initial states, the recipe and the learning program."""

import json

import numpy as np
import pytest

from hw.network import Network
from hw.notation import dense
from hw.numbers import Q
from sw import data, learn
from sw.common.checks import check_state
from sw.golden.learn import learn as learned
from sw.golden.network import GoldenNetwork
from sw.golden.recipe import RECIPES, Recipe
from sw.golden.state import initial_state
from tests.sw.golden.plain import TWELVE as C


def test_initial_state_is_legal_and_repeatable():
    for config in (C.replace(stochastic=True), C.replace(w=Q(1, 7), net="3-2-2-2"), C.replace(input="events", u=Q(6, 8))):
        state = initial_state(config, 5, gain=4.0)
        for name, array in state.items():
            check_state(config, name, array)
        again, other = initial_state(config, 5, gain=4.0), initial_state(config, 6, gain=4.0)
        assert all(np.array_equal(state[name], again[name]) for name in state)
        assert not np.array_equal(state["weight.1"], other["weight.1"]) and ("rng" in state) == config.stochastic


def test_initial_state_has_the_values_asked_for():
    state = initial_state(C, 0, theta=(0.5, 2.0), alpha=(1, 0.25), gain=(2.0, 0.5), beta=1.0, scale=0.5)
    assert set(state["theta.1"]) == {2048} and set(state["theta.2"]) == {8192} and state["alpha"].tolist() == [4096, 1024]
    assert abs(state["weight.1"].std() / 4096 * 8 - 2.0) < 0.1 and abs(state["weight.2"].std() / 4096 * 32**0.5 - 0.5) < 0.05
    assert state["error_table"][0, 0].tolist() == [205, -1843]  # half of 0.1 and of 0.1 - 1
    assert len({*state["weight.1"].flatten()}) > 1000


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"theta": 9.0}, "theta: 9.0 is not legal; legal is 0.0625 to 7.99976"),
        ({"alpha": 1.1}, "alpha: 1.1 is not legal; legal is 0 to 1"),
        ({"gain": -1.0}, "gain: -1.0 is not legal"),
        ({"gain": (1.0, 1.0, 1.0)}, "gain: 3 values are not legal; legal is one, or one for each of 2 layers"),
        ({"beta": 0.0}, "beta: 0.0 is not legal; legal is above 0"),
        ({"loss": "hinge"}, "loss: hinge is not legal; legal is cross_entropy or mse"),
    ],
)
def test_bad_initial_values_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        initial_state(C, 0, **arguments)


def test_bad_seed_is_named():
    with pytest.raises(ValueError, match="seed: -1 is not legal; legal is a whole number of at least 0"):
        initial_state(C, -1)


def test_deeper_networks_start_with_larger_weights():
    for sizes, gain in (((64, 32, 10), 0.25), ((64, 32, 32, 10), 0.5), ((64, 32, 32, 32, 32, 10), 1.0)):
        weight = Recipe().state(C.replace(net=dense(sizes)), 0)["weight.1"]
        assert abs(weight.std() / 4096 * 8 / gain - 1) < 0.05
    assert abs(Recipe(gain=2.0).state(C, 0)["weight.1"].std() / 4096 * 8 - 2) < 0.1


def test_rates_are_annealed_and_stay_in_the_register():
    recipe = Recipe(rate_w=6, theta_offset=2, alpha_offset=8, halve_at=(0.5, 0.9))
    assert [recipe.rates(done)["rate_w"] for done in (0, 0.49, 0.5, 0.89, 0.9, 1)] == [6, 6, 7, 7, 8, 8]
    assert recipe.rates(0.9) == {"rate_w": 8, "rate_theta": 10, "rate_alpha": 15, "rate_decay": 15}
    with pytest.raises(ValueError, match="done: 1.1 is not legal; legal is 0 to 1"):
        recipe.rates(1.1)


def test_there_is_a_recipe_for_every_data_set():
    assert RECIPES.keys() == set(data.DATASETS) and RECIPES["digits"] == Recipe()
    assert RECIPES["fashion-mnist"].rates(0)["rate_w"] > RECIPES["digits"].rates(0)["rate_w"]


def test_every_epoch_shows_every_sample_once_in_its_own_order():
    orders = [Recipe().order(seed, epoch, 100) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("switches", ["w", "wtl"])
@pytest.mark.parametrize("cadence, input", [("sample", "static"), ("step", "events")])
def test_a_third_of_an_epoch_learns_most_digits(cadence, input, switches):
    config = Network(net="64-20-10", steps=5, cadence=cadence, input=input)
    digits, network = data.load("digits", config), GoldenNetwork(config)
    n = max(learned(network, digits, switches, epochs=1, samples=480))
    right = sum(network.run(digits.test.sample(i)).winner == digits.test.labels[i] for i in range(120))
    assert n == 480 and right >= 80, f"{right} of 120"


def test_program_prints_and_writes_the_same_figures(tmp_path, capsys):
    path = tmp_path / "report.json"
    short = ["--net", "64-5-10", "--steps", "2", "--samples", "40", "--seeds", "2", "--epochs", "2"]
    assert learn.main([*short, "--learn", "w,tl", "--json", str(path)]) == 0
    text, report = capsys.readouterr().out, json.loads(path.read_text())
    assert report["network"]["net"] == "64-5-10" and np.shape(report["test_accuracy"]["tl"]) == (2, 2)
    assert report["mean"]["w"] == pytest.approx(np.mean([row[-1] for row in report["test_accuracy"]["w"]]))
    assert f"{100 * report['mean']['tl']:.2f}" in text and "digits, 64-5-10, T = 2" in text


def test_a_recipe_is_chosen_without_the_test_samples(tmp_path):
    digits = data.load("digits", Network())
    chosen = digits.validation(360)
    images = {image.tobytes() for image in digits.test.images}
    assert len(chosen.test) == 360 and len(chosen.train) == 1437 - 360
    assert not images & {image.tobytes() for image in chosen.test.images}
    assert np.array_equal(np.sort(np.concatenate([chosen.train.images, chosen.test.images]), 0), np.sort(digits.train.images, 0))
    again = digits.validation(360)
    assert np.array_equal(again.test.images, chosen.test.images) and min(np.bincount(chosen.test.labels)) > 30
    short = ["--net", "64-5-10", "--steps", "2", "--samples", "60", "--seeds", "1", "--epochs", "1"]
    paths = [tmp_path / n for n in "ab"]
    assert learn.main([*short, "--validate", "360", "--json", str(paths[0])]) == 0
    assert learn.main([*short, "--validate", "360", "--rate-w", "3", "--halve-at", "0.5", "--beta", "6", "--scale", "0.25",
                       "--json", str(paths[1])]) == 0  # fmt: skip
    a, b = (json.loads(path.read_text()) for path in paths)
    assert (b["validate"], *(b["recipe"][name] for name in ("rate_w", "halve_at", "beta", "scale"))) == (360, 3, [0.5], 6, 0.25)
    assert a["recipe"]["rate_w"] == RECIPES["digits"].rate_w and a["test_accuracy"] != b["test_accuracy"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--net", "64-x-10"], "--net: 'x' at character 4 of '64-x-10' is not legal; legal is a layer"),
        (["--net", "63-9-10"], "net: an input of 63 is not legal; digits has images of 64 pixels"),
        (["--steps", "0"], "steps: 0 is not legal; legal is a whole number of 1 to 255"),
        (["--learn", "wz"], "learn: 'wz' is not legal"),
        (["--seeds", "0"], "--seeds: '0' is not legal; legal is a whole number of at least 1"),
        (["--samples", "1438"], "--samples: 1438 is not legal; legal is 1 to 1437"),
        (["--rate-w", "16"], "rate_w: 16 is not legal; legal is a whole number of 0 to 15"),
        (["--validate", "9"], "validate: 9 is not legal; legal is 10 to 1427"),
        (["--samples", "1000", "--validate", "438"], "--samples: 1000 is not legal; legal is 1 to 999"),
        (["--halve-at", "0.5,2"], "--halve-at: '0.5,2' is not legal; legal is numbers of 0 to 1 joined by commas"),
        (["--beta", "0"], "--beta: '0' is not legal; legal is a number above 0"),
        (["--json", "no/such/folder/x"], "--json: no/such/folder is not a folder"),
    ],
)
def test_program_refuses_bad_options(arguments, message, capsys):
    with pytest.raises(SystemExit) as e:
        learn.main(arguments)
    assert e.value.code == 2 and message in capsys.readouterr().err
