"""From layers to integers: biases, formats, boards, images and the commands."""

import argparse
import json

import nir
import numpy as np
import pytest

from boards import BOARDS
from hw.network import Network
from hw.notation import dense
from hw.numbers import Q
from hw.options import add_design, design
from hw.plan import compile
from sw import deploy as deploy_program
from sw import export as export_program
from sw.driver.device import Device
from sw.files.image import Image, Origin
from sw.golden.network import GoldenNetwork
from sw.nir import deploy, export
from sw.nir import graph as nirgraph
from sw.nir.deploy import Samples
from sw.nir.graph import Reading
from sw.nir.layer import Layer

SIZES = (12, 8, 6, 4)


def random_network(rng, sizes=SIZES, bias=0.4):
    return [
        Layer(name=f"lif{l}", weight=rng.normal(0.1, 0.5, (n, m)), bias=rng.normal(0, bias, n) if bias else np.zeros(n),
              theta=rng.uniform(0.5, 1.5, n), alpha=np.full(n, 0.75 + 0.05 * l))
        for l, (m, n) in enumerate(zip(sizes, sizes[1:], strict=False), 1)
    ]  # fmt: skip


def random_samples(rng, kind, n=30, steps=6, inputs=SIZES[0]):
    return rng.integers(0, 256, (n, inputs)).astype(np.uint8) if kind == "static" else rng.random((n, steps, inputs)) < 0.4


@pytest.mark.parametrize("kind", ["static", "events"])
def test_biases_survive_as_units_that_are_always_on(kind):
    rng = np.random.default_rng(1)
    network, x = random_network(rng), random_samples(rng, kind)
    report = deploy.deploy(nirgraph.graph(network), input=kind, steps=6, calibration=Samples(x), input_scale=1.25)
    assert report.image.network.sizes == (13, 9, 7, 4) and report.image.origin.ones == 3
    want, got = deploy.simulate(network, x, 6, 1.25), deploy.run_golden(report.image, x)
    assert got.spikes[..., [8, 15]].all()  # the units themselves
    own = np.delete(got.spikes, [8, 15], -1)
    assert (own != want.spikes).mean() < 0.005 and 0.1 < want.spikes.mean() < 0.9
    assert report.spikes_differ == (own != want.spikes).sum() and report.spikes == want.spikes.sum()
    without = [Layer(**vars(layer) | {"bias": np.zeros_like(layer.bias)}) for layer in network]
    assert (deploy.simulate(without, x, 6, 1.25).spikes != want.spikes).mean() > 0.05  # the biases mattered


def test_what_was_imported_comes_back_and_with_it_what_was_learned():
    rng = np.random.default_rng(2)
    network, x = random_network(rng), random_samples(rng, "static", 40)
    image = deploy.deploy(nirgraph.graph(network), steps=6, calibration=Samples(x), input_scale=0.5).image
    for old, new in zip(network, export.layers(image), strict=True):
        assert new.weight.shape == old.weight.shape and np.allclose(new.theta, old.theta)
        assert np.allclose(new.weight, old.weight, atol=2e-3) and np.allclose(new.bias, old.bias, atol=2e-3)
    golden = GoldenNetwork(image.network)
    golden.load(image.state)
    for k, sample in enumerate(x):
        golden.run(image.sample(sample), k % 4, "wtl")
    learned = image.learned(golden.read())
    assert (learned.state["weight.1"] != image.state["weight.1"]).any()
    assert (learned.state["theta.2"] != image.state["theta.2"]).any()
    back = export.layers(learned)
    assert all(np.allclose(layer.theta, old.theta) for layer, old in zip(back, network, strict=True))  # as the graph had them
    want, got = deploy.simulate(back, x, 6, 0.5), deploy.run_golden(learned, x)
    assert (np.delete(got.spikes, [8, 15], -1) != want.spikes).mean() < 0.01 and want.spikes.mean() > 0.05
    assert (want.winners == got.winners).mean() >= 0.95


def test_a_unit_that_is_no_longer_always_on_stays_a_neuron():
    rng = np.random.default_rng(3)
    network, x = random_network(rng, (12, 8, 4)), random_samples(rng, "events")
    image = deploy.deploy(nirgraph.graph(network), input="events", steps=6, calibration=Samples(x)).image
    state = {**image.state, "weight.1": image.state["weight.1"].copy()}
    state["weight.1"][8, :3] = image.network.w.low  # the others can now hold it down
    changed = image.learned(state)
    back = export.layers(changed)
    assert [len(layer.theta) for layer in back] == [9, 4] and back[0].weight.shape == (9, 12)
    want, got = deploy.simulate(back, x, 6), deploy.run_golden(changed, x)
    assert (got.spikes != want.spikes).mean() < 0.01 and not got.spikes[..., 8].all()


def test_formats_follow_the_weights():
    rng = np.random.default_rng(4)
    for size, least in ((1.0, 4), (40.0, 6)):
        network = random_network(rng, (12, 8, 4), bias=0)
        network[0].weight[0, 0] = size
        report = deploy.deploy(nirgraph.graph(network), steps=6, calibration=Samples(random_samples(rng, "static")))
        assert report.image.network.w.i >= least - (report.layers[0]["threshold"] < 1) * 2
        assert sum(layer["weights_clipped"] for layer in report.layers) == 0


def test_eight_bits_scale_layers_and_say_what_they_lose():
    rng = np.random.default_rng(5)
    network = random_network(rng, (12, 8, 4), bias=0)
    network[1].weight[:] *= 0.2
    x = random_samples(rng, "static")
    fine, coarse = (deploy.deploy(nirgraph.graph(network), steps=6, bits=bits, calibration=Samples(x)) for bits in (16, 8))
    assert coarse.image.network.w.bits == 8 and coarse.image.network.stochastic and not fine.image.network.stochastic
    assert coarse.layers[1]["disturbance"] > 4 * fine.layers[1]["disturbance"]
    assert coarse.spikes_differ > fine.spikes_differ and coarse.spikes_differ < 0.1 * coarse.steps_of_neurons


def test_weights_are_rounded_to_nearest_and_clipped():
    layer = Layer(name="a", weight=np.array([[0.24, 0.26, 9.0, -9.0]]), bias=np.zeros(1), theta=np.ones(1), alpha=np.ones(1))
    assert deploy.quantise(layer, 1.0, Q(3, 1)).tolist() == [[0, 1, 7, -8]]
    assert deploy.quantise(layer, 0.5, Q(3, 1)).tolist() == [[0, 0, 7, -8]]
    power = np.array([4.0, 0, 0, 0])
    assert deploy.disturbance(layer, 1.0, Q(3, 1), power) == pytest.approx(0.48)


def test_the_smallest_board_that_holds_it():
    for sizes, bits, board in (
        ((64, 32, 10), 16, "icebreaker"),
        ((784, 64, 10), 16, "icebreaker"),
        ((784, 200, 10), 16, "ulx3s-85f"),
    ):
        wanted = {"net": dense(sizes), "steps": 8, "input": "static"}
        found, *others = deploy.places(wanted, bits)
        assert found.board.name == board and found.design.network.sizes == sizes and found.design.network.w.bits == bits
        compile(found.design.network, found.design.machine)
        assert all(found.board.chip.lut <= other.board.chip.lut for other in others)
        cheaper = [b for b in BOARDS.values() if b.chip.lut < found.board.chip.lut]
        assert not any(deploy.place(b, wanted, bits) for b in cheaper)
    with pytest.raises(ValueError, match="net: 4000-400-10 with weights of 16 bits fits no board"):
        deploy.places({"net": "4000-400-10", "steps": 8, "input": "static"}, 16)


def test_a_board_that_holds_it_as_it_is_needs_no_build(tmp_path):
    """And its machine's formats are kept; other boards, or other wishes, need a build whose options are told truly."""
    rng = np.random.default_rng(8)
    network, x = random_network(rng, (12, 8, 4), bias=0), Samples(random_samples(rng, "static"))
    for wishes, board, ready in (
        ({}, "ulx3s-12f", True),
        ({"cadence": "step", "bits": 16}, "ulx3s-12f", True),
        ({"stochastic": True}, "ulx3s-12f", False),  # its machine has no random bits
        ({"bits": 12}, "ulx3s-12f", False),
        ({"bits": 9}, "ulx3s-85f", True),
        ({"cadence": "sample", "bits": 9}, "ulx3s-85f", False),
        ({}, "icebreaker", False),  # another network is wired in
        ({"bits": 8}, "icebreaker-8bit", False),
    ):
        report = deploy.deploy(nirgraph.graph(network), steps=6, calibration=x, board=board, **wishes)
        place, image = report.place, report.image
        assert (place.board.name, place.ready) == (board, ready), (wishes, place)
        assert place.design.network == image.network and board not in [other.board.name for other in report.others]
        if ready:
            assert place.design.machine == BOARDS[board].design.machine
        else:
            assert build_of(place.options) == place.design
        steps = place.next_steps(tmp_path / "x.npz")
        assert sum("hw.build" in step for step in steps) == (not ready) and "sw.driver.device.Device.open" in steps[-1]
        with Device.open("golden", machine=place.design.machine, network=None) as device:
            device.load(image)
            assert device.network == image.network
            assert np.array_equal(device.infer([image.sample(s) for s in x.x]).classes, deploy.run_golden(image, x.x).winners)


def build_of(options):
    """The design that `hw.build` makes of options."""
    parser = argparse.ArgumentParser()
    add_design(parser)
    return design(parser.parse_args(options))


@pytest.mark.parametrize("size, ready", [(1.0, True), (40.0, False)])
def test_formats_are_kept_only_where_they_lose_nothing(size, ready):
    network = random_network(np.random.default_rng(4), (12, 8, 4), bias=0)
    network[0].weight[0, 0] = size
    report = deploy.deploy(nirgraph.graph(network), steps=6, board="ulx3s-12f")
    assert report.place.ready == (report.image.network.w == Q(4, 12)) == ready
    assert sum(layer["weights_clipped"] for layer in report.layers) == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"calibration": Samples(np.zeros((3, 11), np.uint8))}, r"samples: shape \(3, 11\) is not legal; legal is \(n, 12\)"),
        ({"calibration": Samples(np.zeros((3, 12)))}, "samples: type float64 is not legal; legal is uint8 for static input"),
        ({"calibration": Samples(np.zeros((3, 12), np.uint8), np.zeros(2))}, r"labels: shape \(2,\) is not legal"),
        ({"input_scale": 0.0}, "input_scale: 0.0 is not legal"),
        ({"bits": 30}, "30 bits fits no board|bits: 30 is not legal"),
        ({"steps": 300}, "steps: 300 is not legal"),
        ({"board": "none"}, "board: 'none' is not known"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    network = random_network(np.random.default_rng(0), (12, 8, 4), bias=0)
    with pytest.raises(ValueError, match=message):
        deploy.deploy(nirgraph.graph(network), **arguments)


def test_images_survive_a_file(tmp_path):
    config = Network(net="4-3-2", stochastic=True, input="events", w=Q(2, 6))
    state = {"weight.1": np.full((3, 4), -5), "alpha": np.array([7, 4096]), "rng": np.array(9)}
    image = Image(config, state, Origin(names=("a", "b"), theta=((1.5,) * 3, (1.0, 2.0)), ones=1))
    image.save(tmp_path / "x.npz")
    again = Image.load(tmp_path / "x.npz")
    assert again.network == config and again.origin == image.origin and again.inputs == 3
    assert all(np.array_equal(again.state[name], array) for name, array in image.state.items()) and len(again.state) == 3
    np.savez(tmp_path / "y.npz", network=np.array(config.to_json()), origin=np.array("{}"), **{"theta.1": np.zeros(3, int)})
    (tmp_path / "z.npz").write_text("nothing")
    for name, message in (("y.npz", "theta.1: 3 of 3 values do not fit"), ("z.npz", "not an image"), ("none.npz", "no such file")):
        with pytest.raises(ValueError, match=message):
            Image.load(tmp_path / name)


def test_networks_survive_json():
    config = Network(net="4-3-2", w=Q(2, 6), cadence="step", theta_min=9)
    assert Network.from_json(config.to_json()) == config
    for text, message in (("[1]", "legal is a JSON object"), ('{"lines": 4}', "lines"), ('{"steps": 0}', "steps: 0 is not legal")):
        with pytest.raises(ValueError, match=message):
            Network.from_json(text)


def test_commands(tmp_path, capsys):
    rng = np.random.default_rng(6)
    network = random_network(rng, (12, 8, 4))
    model, samples, out = tmp_path / "m.nir", tmp_path / "x.npz", tmp_path / "back.nir"
    nir.write(model, nirgraph.graph(network))
    np.savez(samples, x=random_samples(rng, "static"), labels=rng.integers(0, 4, 30))
    options = ["--steps", "6", "--calibrate", str(samples), "--board", "ulx3s-12f", "--json", str(tmp_path / "r.json")]
    assert deploy_program.main([str(model), *options]) == 0
    text, report = capsys.readouterr().out, json.loads((tmp_path / "r.json").read_text())
    assert report["board"] == "ulx3s-12f" and report["samples"] == 30 and report["network"]["net"] == "13-9-4"
    assert report["ready"] and report["others"]["orangecrab-25f"] and not report["others"]["icebreaker"]
    assert "ulx3s-12f, as it is: 8 lanes" in text and "orangecrab-25f (as it is)" in text and "icebreaker" in text
    assert f"{report['spikes_differ']} in {report['steps_of_neurons']} steps" in text and "0 of" in text
    assert export_program.main([str(tmp_path / "m.image.npz"), "--nir", str(out)]) == 0
    back, _ = nirgraph.layers(nirgraph.read(out), Reading())
    assert np.allclose(back[1].weight, network[1].weight, atol=2e-3)


@pytest.mark.parametrize(
    "program, arguments, message",
    [
        (deploy_program, ["none.nir"], "none.nir: no such file"),
        (deploy_program, ["m.nir", "--calibrate", "none"], "calibrate: none is neither a file nor a data set"),
        (deploy_program, ["m.nir", "--image", "no/folder/x"], "--image: no/folder is not a folder"),
        (deploy_program, ["m.nir", "--reset", "zero"], "node 'lif1' (LIF): v_reset: neurons are set to 0 when they have fired"),
        (deploy_program, ["m.nir", "--samples", "0"], "--samples: '0' is not legal"),
        (export_program, ["m.nir", "--nir", "x.nir"], "m.nir: not an image of a network"),
        (export_program, ["m.nir", "--nir", "no/folder/x"], "--nir: no/folder is not a folder"),
    ],
)
def test_commands_refuse_bad_options(program, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    nir.write("m.nir", nirgraph.graph(random_network(np.random.default_rng(0), (12, 8, 4))))
    with pytest.raises(SystemExit) as e:
        program.main(arguments)
    assert e.value.code == 2 and message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["m.nir"]
