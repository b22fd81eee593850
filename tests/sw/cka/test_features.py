"""Hooks on any module, time, the models of one definition, and the integer network as one of them."""

from dataclasses import replace

import numpy as np
import pytest
import snntorch
import torch
from torch import nn

from hw.network import Network
from sw.cka.energy import cost, operations
from sw.cka.features import Hooks, golden_features, in_time, layer_names
from sw.cka.lab import View
from sw.cka.measures import cka
from sw.cka.models import Definition, fit
from sw.golden.fast import FastNetwork
from sw.golden.network import GoldenNetwork
from sw.golden.state import initial_state
from sw.stop import Conv2d, Linear, populations, set_method, step_loss, unroll
from sw.training.nets import Spec, build
from sw.training.train import Options

SMALL = Options(samples=200, test_samples=60, hidden=(20, 16), steps=4, epochs=2, batch=20, gain=0.5, theta=0.75, alpha=0.9375)
ANN = replace(SMALL, neuron="relu", method="bptt-wt", steps=1)


def test_hooks_see_what_layers_put_out():
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 3), nn.Tanh()))
    x = torch.randn(7, 5)
    with Hooks(net, ["1", "2.*"]) as hooks:
        y = net(x)
    found = hooks.features()
    assert list(found) == ["1", "2.0", "2.1"]
    assert torch.equal(found["1"][0], net[1](net[0](x))) and torch.equal(found["2.1"][0], y)
    net(x)
    assert len(hooks.outputs["1"]) == 1, "no hook is left behind"
    assert layer_names(net) == ("0", "1", "2.0", "2.1")


def test_a_module_that_runs_in_steps_has_steps():
    net = nn.Sequential(nn.Linear(6, 9), snntorch.Leaky(beta=0.9, init_hidden=True))
    with torch.no_grad(), Hooks(net, ["1"]) as hooks:
        out = [net(x_t) for x_t in torch.rand(5, 8, 6)]
    assert torch.equal(hooks.features()["1"], torch.stack(out)) and out[0].shape == (8, 9)


def test_populations_are_found_and_held_frames_run_in_every_step():
    net = build(Spec("resnet", (1, 8, 8), blocks=1, width=0.25, norm="batch"))
    assert layer_names(net) == ("0", "1.first", "1.second", "2.first", "2.second", "3.first", "3.second", "5")
    with torch.no_grad(), Hooks(net.eval()) as hooks:
        out = [s.clone() for s in unroll(net, torch.rand(3, 1, 8, 8).expand(4, 3, 1, 8, 8))]
    found = hooks.features()
    assert all(f.shape[:2] == (4, 3) for f in found.values()) and torch.equal(found["5"], torch.stack(out))


def test_time():
    f = {"a": torch.arange(24.0).view(2, 3, 4), "b": torch.rand(2, 3, 2, 2)}
    mean, concat, apart = (in_time(f, how) for how in ("mean", "concat", "apart"))
    assert torch.equal(mean["a"], f["a"].mean(0)) and mean["b"].shape == (3, 4)
    assert torch.equal(concat["a"][1], torch.cat([f["a"][0, 1], f["a"][1, 1]]))
    assert list(apart) == ["a@0", "a@1", "b@0", "b@1"] and torch.equal(apart["a@1"], f["a"][1])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda n: layer_names(n, ["convolution"]), "layers: convolution is not a layer of this network; legal is one of"),
        (
            lambda n: layer_names(n, ["first.weigth"]),
            "first.weigth is not a layer of this network; legal is one of first, and others",
        ),
        (lambda n: Hooks(n, ["second"]).__enter__().features(), "layers: second did not run"),
        (lambda n: in_time({}, "sum"), "time: sum is not legal; legal is concat or mean or apart"),
    ],
)
def test_bad_layers_are_named(make, message):
    net = nn.ModuleDict({"first": nn.Linear(2, 2), "second": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match=message):
        make(net)


def test_an_ann_is_an_ordinary_network():
    """The rectified twin against plain torch: outputs and gradients."""
    net = build(Spec("mlp", (6,), hidden=(5,), classes=3, neuron="relu"))
    set_method(net, "bptt-wt")
    first, last = populations(net)
    with torch.no_grad():
        first.neuron.theta.normal_()
        last.neuron.theta.normal_()
    x, label = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    (out,) = unroll(net, x[None])
    step_loss("cross_entropy", 2.0)(out, label).backward()
    w1, t1, w2, t2 = (p.detach().clone().requires_grad_() for p in (*_parameters(first), *_parameters(last)))
    want = torch.relu(x @ w1.T - t1) @ w2.T - t2
    torch.testing.assert_close(out, want)
    nn.functional.cross_entropy(2 * want, label).backward()
    for got, w in zip((*_parameters(first), *_parameters(last)), (w1, t1, w2, t2), strict=True):
        torch.testing.assert_close(got.grad, w.grad)
    assert (out < 0).any() and t1.grad.abs().max() > 0


def _parameters(population):
    return population.projections[0].weight, population.neuron.theta


def test_plain_networks_are_residual_ones_without_shortcuts():
    shapes = [
        [tuple(p.shape) for n, p in build(Spec(m, (1, 8, 8), blocks=2, width=0.25)).named_parameters() if "projections.1" not in n]
        for m in ("resnet", "plain")
    ]
    assert shapes[0] == shapes[1] and len(populations(build(Spec("plain", (1, 8, 8), blocks=2)))) == 14


def test_relu_needs_one_step():
    for options in ({"steps": 2, "method": "bptt-w"}, {"steps": 1, "method": "stop-w"}, {"steps": 1, "method": "bptt-wtl"}):
        with pytest.raises(ValueError, match="--neuron: relu needs --steps 1 and --method bptt-w or bptt-wt"):
            Options(neuron="relu", **options)


def test_models_of_one_seed_start_alike_and_are_kept(tmp_path):
    models = {
        name: fit(Definition(name, o, chip=name == "chip"), 1, tmp_path)
        for name, o in (("stop", SMALL), ("bptt", replace(SMALL, method="bptt-wtl")), ("ann", ANN), ("chip", SMALL))
    }
    starts = [m.states[0]["0.projections.0.1.weight"] for n, m in models.items() if n != "chip"]
    assert all(torch.equal(s, starts[0]) for s in starts)
    c = models["chip"].definition.config
    assert torch.equal(models["chip"].states[0]["weight.1"], (starts[0].double() * c.w.one + 0.5).floor().long())
    images = models["stop"].data.test[0]
    for m in models.values():
        assert len(m.states) == 3 and len(m.accuracy) == 2
        assert m.accuracy[-1] == pytest.approx(float((m.record(images).classes == m.data.test[1]).double().mean()), abs=1e-6)
    assert len(list(tmp_path.glob("*.pt"))) == 4
    again = fit(Definition("other name", SMALL), 1, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(again.states[-1].values(), models["stop"].states[-1].values(), strict=True))
    own = [cka(list(in_time(m.record(images).features, "concat").values())[:2], batch=60).diagonal() for m in models.values()]
    assert all((o - 1).abs().max() < 1e-9 for o in own)
    between = cka(
        *(list(in_time(models[n].record(images).features, "concat").values())[:1] for n in ("stop", "chip")), batch=60
    ).item()
    assert 0.1 < between < 0.999, "alike, and not the same"


def test_golden_features_are_the_golden_models_spikes():
    c = Network(net="9-7-5-4", steps=5)
    fast, plain = FastNetwork(c), GoldenNetwork(c)
    state = initial_state(c, 3, theta=0.25, gain=2.0)
    for network in (fast, plain):
        network.load(state)
    samples = np.random.default_rng(0).integers(0, 256, (6, 9)).astype(np.uint8)
    found, classes = golden_features(fast, samples)
    assert {n: tuple(f.shape) for n, f in found.items()} == {"0": (5, 6, 7), "1": (5, 6, 5), "2": (5, 6, 4)}
    for i, sample in enumerate(samples):
        for t, _ in enumerate(plain.steps(sample)):
            assert torch.equal(torch.cat([f[t, i] for f in found.values()]).long(), plain.spike), (i, t)
        assert classes[i] == plain.winner and torch.equal(found["2"][:, i].sum(0).long(), plain.count)
    assert all(0.02 < f.mean() < 0.98 for f in found.values()), "the case proves little"


def test_operations_are_those_the_golden_model_counts():
    model = fit(Definition("chip", SMALL, chip=True), 0)
    network, images = model.network(), model.data.test[0][:20]
    found = cost(View(model, network, images), [slice(0, 12), slice(12, 20)])
    before = network.sops
    spikes = sum(f.sum() for f in model.record(images, network=network).features.values())
    assert found.additions + found.multiplications == (network.sops - before) / 20 and found.spikes == spikes / 20
    c, hidden = model.definition.config, model.record(images).features
    assert found.additions == sum(float(hidden[str(l - 1)].sum()) * c.sizes[l + 1] for l in (1, 2)) / 20
    assert found.multiplications == float((images != 0).sum()) * c.sizes[1] / 20 and found.additions > 20


def test_operations_of_modules():
    conv = Conv2d(2, 3, 3, padding=1, bias=False)
    x = torch.zeros(1, 2, 4, 4)
    x[0, 0, 1, 1], x[0, 1, 0, 0] = 1, 0.5
    assert operations(conv, x) == 3 * (9 + 4), "an inner pixel meets nine places, a corner four"
    assert operations(Linear(4, 7), torch.tensor([[0.0, 1, 0, 2]])) == 14


def test_definitions_that_cannot_be():
    for make, message in (
        (lambda: Definition("a", replace(SMALL, method="bptt-w"), chip=True), "models.a: chip needs model mlp"),
        (lambda: Definition("a", replace(SMALL, coding="rate"), chip=True), "models.a: chip needs model mlp"),
        (lambda: Definition("a", SMALL, factory="here"), "factory 'here' is not legal; legal is package.module:function"),
        (lambda: Definition("a", SMALL, chip=True, factory="a:b"), "exclude each other"),
        (lambda: fit(Definition("a", SMALL, factory="no.such:thing"), 0).network(), "factory no.such:thing is not there"),
        (lambda: fit(Definition("a", SMALL, factory="builtins:str"), 0).network(), "factory builtins:str returned str"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
