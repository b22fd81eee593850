"""Networks of snnTorch and Norse on the chip and back, in short; `make nir` is the long form.

Warnings inside those packages are theirs.
"""

import contextlib
import textwrap
from pathlib import Path

import nir
import numpy as np
import pytest
import torch

import sim.device
from hw.network import Network
from sim import nir_study
from sim.nir_study import (
    CONVOLUTIONS,
    NORSE_DT,
    compare,
    impossible,
    refusal,
    reset_once,
    run_norse,
    run_snntorch,
    samples,
    tensor,
)
from sw import data
from sw.golden.network import GoldenNetwork
from sw.nir import deploy, export
from sw.nir import graph as nirgraph
from sw.nir.graph import Reading

SOFT = Reading(reset="subtract")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(snntorch|nirtorch|norse|torch).*")
T = Network().steps


def digits(kind):
    return data.load("digits", Network(input=kind))


@pytest.fixture(scope="module", params=["static", "events"])
def trained(request):
    """Kind of input, the digits in that form, and a network that snnTorch has trained on them, with biases if the input is static.

    Its spikes subtract one threshold and that is all, so that what it loses is lost to rounding, whatever network a processor's
    floating point comes to. What snnTorch's own reset makes of it besides is in the figures of `make nir`.
    """
    dataset = digits(request.param)
    x, labels = samples(dataset.train)
    torch.manual_seed(0)
    network = nir_study.snntorch_network(bias=request.param == "static")
    reset_once(network)
    nir_study.train(network, tensor(x, T), torch.tensor(labels), epochs=6)
    return request.param, dataset, network


@pytest.mark.parametrize("bits, points", [(16, 1.0), (8, 2.0)])
def test_snntorch_loses_little_and_reads_back_the_same(trained, bits, points):
    kind, dataset, network = trained
    figure, image = compare(kind, network, dataset, kind, bits, SOFT, calibrate=40)
    assert figure.framework > 0.9 and image.network.w.bits == bits
    assert figure.lost_points <= points and figure.spikes_differ < (0.005 if bits == 16 else 0.03)
    assert min(figure.read_back["snnTorch"], figure.read_back["Norse"]) >= 0.99, figure.read_back
    assert figure.read_back["snnTorch with its own reset"] >= 0.95, figure.read_back


def test_norse_spikes_are_those_of_the_layers(trained):
    kind, dataset, network = trained
    x = samples(dataset.test, 100).x
    same = nir_study.norse_network(network)
    layers, said = nirgraph.layers(nir_study.norse_graph(same), Reading(dt=NORSE_DT, reset="subtract"))
    with torch.no_grad():
        spikes, _ = run_norse(same, tensor(x, T))
    run = deploy.simulate(layers, x, T)
    assert np.array_equal(run.spikes[..., -10:], spikes.numpy().transpose(1, 0, 2).astype(bool)) and not said
    assert run.spikes[..., -10:].sum() > 1000


def test_snntorch_spikes_are_those_of_the_layers(trained):
    """But where a membrane reaches twice its threshold: snnTorch then resets before it compares, a step later."""
    kind, dataset, network = trained
    x = samples(dataset.test, 200).x
    layers, _ = nirgraph.layers(nir_study.snntorch_graph(network), SOFT)
    own = nir_study.snntorch_network(bias=kind == "static")
    own.load_state_dict(network.state_dict())
    with torch.no_grad():
        once, twice = (run_snntorch(same, tensor(x, T))[0].numpy().transpose(1, 0, 2).astype(bool) for same in (network, own))
    spikes = deploy.simulate(layers, x, T).spikes[..., -10:]
    assert np.array_equal(spikes, once) and spikes.sum() > 1000
    differ, until_then = (spikes != twice).any(2), ~_reached_twice(layers, x)
    assert until_then.sum() > 200 and not differ[until_then].any() and differ.any()


def _reached_twice(layers, x):
    """Whether some membrane of a sample has reached twice its threshold, in this step or before: (n, T)."""
    u = [np.zeros((len(x), len(layer.theta))) for layer in layers]
    s, high = [v > 0 for v in u], np.zeros((len(x), T), bool)
    for t in range(T):
        below = x / 256 if x.ndim == 2 else x[:, t]
        for l, layer in enumerate(layers):
            u[l] = layer.step(u[l], s[l], below)
            s[l] = below = u[l] >= layer.theta
            high[:, t] |= (u[l] >= 2 * layer.theta).any(1)
    return np.logical_or.accumulate(high, 1)


@pytest.fixture(scope="module", params=["static", "events"])
def convolutional(request):
    """As `trained`, 8x8-4C3-P2-10."""
    dataset = digits(request.param)
    x, labels = samples(dataset.train)
    torch.manual_seed(0)
    network = nir_study.snntorch_network(CONVOLUTIONS, bias=request.param == "static")
    reset_once(network)
    nir_study.train(network, tensor(x, T, (1, 8, 8)), torch.tensor(labels), epochs=6)
    return request.param, dataset, network


@pytest.mark.parametrize("bits, points", [(16, 1.0), (8, 3.0)])
def test_convolutions_of_snntorch_lose_little_and_read_back_the_same(convolutional, bits, points):
    kind, dataset, network = convolutional
    figure, image = compare(kind, network, dataset, kind, bits, SOFT, calibrate=40)
    channels = 5 if kind == "static" else 4  # one carries biases
    assert image.network.populations[1].shape == (channels, 6, 6) and image.network.populations[1].pool == 2
    assert figure.framework > 0.85 and figure.same_class >= (0.98 if bits == 16 else 0.95)
    assert figure.lost_points <= points and figure.spikes_differ < (0.005 if bits == 16 else 0.04)
    assert min(figure.read_back["snnTorch"], figure.read_back["Norse"]) >= 0.98, figure.read_back


def test_convolutions_of_snntorch_and_norse_spike_as_the_layers_do(convolutional):
    kind, dataset, network = convolutional
    x, same = samples(dataset.test, 100).x, nir_study.norse_network(convolutional[2])
    frames = tensor(x, T, (1, 8, 8))
    with torch.no_grad():
        spikes = run_snntorch(network, frames)[0], run_norse(same, frames)[0]
    graphs = nir_study.snntorch_graph(network), nir_study.norse_graph(same)
    readings = SOFT, Reading(dt=NORSE_DT, reset="subtract")
    for graph, reading, theirs in zip(graphs, readings, spikes, strict=True):
        layers, said = nirgraph.layers(graph, reading)
        run = deploy.simulate(layers, x, T)
        assert np.array_equal(run.spikes[..., -10:], theirs.numpy().transpose(1, 0, 2).astype(bool)) and not said
        assert run.spikes[..., -10:].sum() > 500


def test_convolutions_of_norse_have_the_same_class_on_the_chip(convolutional, tmp_path):
    kind, dataset, network = convolutional
    same, test = nir_study.norse_network(network), samples(dataset.test, 100)
    nir.write(tmp_path / "x.nir", nir_study.norse_graph(same))
    report = deploy.deploy(nirgraph.read(tmp_path / "x.nir"), reading=Reading(dt=NORSE_DT, reset="subtract"), input=kind,
                           calibration=samples(dataset.train, 40))  # fmt: skip
    with torch.no_grad():
        theirs = nir_study.classes(*run_norse(same, tensor(test.x, T, (1, 8, 8))))
    assert (theirs == nir_study.chip_classes(report.image, test.x)).sum() >= 97


def test_delayed_reset_is_followed_in_floating_point_and_approximated_on_the_chip():
    torch.manual_seed(1)
    network = nir_study.snntorch_network(reset_delay=True)
    with torch.no_grad():
        for layer in network[::2]:
            layer.weight *= 3
        x = samples(digits("static").test, 100).x
        spikes, _ = run_snntorch(network, tensor(x, T))
    graph = nir_study.snntorch_graph(network)
    reading = Reading(reset="delayed", approximate=frozenset({"reset"}))
    layers, said = nirgraph.layers(graph, reading)
    assert (
        np.array_equal(deploy.simulate(layers, x, T).spikes[..., -10:], spikes.numpy().transpose(1, 0, 2).astype(bool))
        and len(said) == 2
    )
    core = deploy.simulate([layer.core for layer in layers], x, T)
    report = deploy.deploy(graph, reading=reading, calibration=deploy.Samples(x))
    assert (core.spikes[..., -10:] != spikes.numpy().transpose(1, 0, 2)).any()
    assert report.spikes_differ > 0.01 * report.steps_of_neurons and report.approximations == said  # it is measured, too


@pytest.mark.parametrize("trained", ["static"], indirect=True)  # events are in make nir
def test_learns_rotated_digits_from_imported_weights_and_goes_back(trained, tmp_path):
    kind, dataset, network = trained
    image = deploy.deploy(nir_study.snntorch_graph(network), reading=SOFT, calibration=samples(dataset.train, 40)).image
    shift, learned = nir_study.adapt(image, dataset, "rotated by 30 degrees", bits=16, cosim=0, n=300)
    assert shift.clean - shift.before > 0.2 and shift.regained >= 0.5
    assert min(shift.read_back["snnTorch"], shift.read_back["Norse"]) >= 0.99, shift.read_back
    nir.write(tmp_path / "x.nir", export.graph(learned))
    again, _ = nirgraph.layers(nirgraph.read(tmp_path / "x.nir"))
    assert all(np.allclose(a.weight, b.weight, atol=1e-5) for a, b in zip(again, export.layers(learned), strict=True))


def test_the_example_of_the_readme_runs(monkeypatch, tmp_path):
    """With the golden model in the place of the gateware, which is its equal."""
    section = (Path(__file__).parents[2] / "README.md").read_text().partition("## Your own network")[2]
    lines = [line for line in section.split("The same from files")[0].splitlines() if line.startswith("    ") or not line]
    monkeypatch.setattr(sim.device, "SimDevice", lambda network: contextlib.nullcontext(GoldenNetwork(network)))
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(textwrap.dedent("\n".join(lines)), names)
    assert (names["chip"].read()["weight.1"] != names["image"].state["weight.1"]).any()
    learned, _ = nirgraph.layers(nirgraph.read(tmp_path / "learned.nir"))
    assert [layer.weight.shape for layer in learned] == [(32, 64), (10, 32)] and learned[0].bias.any()


@pytest.mark.parametrize("case", impossible())
def test_what_the_core_cannot_do_is_named(case):
    graph, reading, node, what = impossible()[case]
    text = refusal(graph, reading)
    assert text.startswith("node") and repr(node) in text and what in text
    assert "the nearest that can be done" in text or "legal is" in text
