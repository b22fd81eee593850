"""The command: what it reports when all is well, when gateware and golden model differ, and when an option is wrong."""

import json

import numpy as np
import pytest

import sim.twin
from hw.memory_map import PHASES
from hw.network import Network
from sim import cosim
from sw import data
from sw.files.image import Image
from sw.golden.network import GoldenNetwork
from sw.golden.recipe import Recipe
from sw.nir import graph as nirgraph
from sw.nir.deploy import deploy
from sw.nir.layer import Layer

OPTIONS = ["--net", "64-6-10", "--lanes", "4", "--steps", "4", "--opt", "quick", "--seed", "3"]
NETWORK = Network(net="64-6-10", steps=4)


def test_report(tmp_path, capsys):
    file = tmp_path / "report.json"
    assert cosim.main([*OPTIONS, "--samples", "12", "--test", "5", "--epochs", "2", "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert report["mismatches"] == 0 and report["difference"] is None and report["samples"] == 29
    assert report["compared_words"] > 29 * NETWORK.synapse_count
    assert tuple(report["cycles"]) == PHASES and min(report["cycles"].values()) > 0
    assert report["sops"] > 0 and report["skipped"] > 0 and 0 <= report["test_accuracy"] <= 1
    assert report["network"]["net"] == "64-6-10" and report["machine"]["lanes"] == 4 and report["seed"] == 3
    assert "mismatches      0" in capsys.readouterr().out


class Faulty(GoldenNetwork):
    """Differs from the contract in step 2 of one certain sample."""

    def __init__(self, network: Network, **options):
        super().__init__(network, **options)
        train = data.load("digits", network).train
        self.bad, self.t = train.sample(int(Recipe().order(3, 0, 8)[5])), -1

    def _begin(self, sample, learn):
        super()._begin(sample, learn)
        self.t = 0 if np.array_equal(sample.numpy(), self.bad) else -9

    def _learn(self, target, learn):
        super()._learn(target, learn)
        if self.t == 2:
            self.alpha_trace[3] += 1
            self.theta_grad[7] -= 5000  # enough to change the threshold for good
        self.t += 1


@pytest.mark.parametrize("every", [1, 4])
def test_first_difference_is_found(every, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sim.twin, "GoldenNetwork", Faulty)
    file = tmp_path / "report.json"
    assert cosim.main([*OPTIONS, "--samples", "8", "--test", "0", "--every", str(every), "--json", str(file)]) == 1
    difference = json.loads(file.read_text())["difference"]
    got, want = difference.pop("got"), difference.pop("want")
    assert difference == {"sample": 5, "step": 2, "phase": "neuron", "memory": "alpha_trace.1", "index": [3]} and want == got + 1
    assert "sample 5, step 2, phase neuron: alpha_trace.1[3]" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "message"), [
    (["--net", "64"], "'64' is not legal; legal is an input, then 1 to 16 layers"),
    (["--net", "64-x-10"], "'x' at character 4 of '64-x-10' is not legal; legal is a layer"),
    (["--net", "60-8-10"], "net: an input of 60 is not legal; digits has images of 64 pixels"),
    (["--steps", "0"], "steps: 0 is not legal; legal is a whole number of 1 to 255"),
    (["--learn", "wx"], "learn: 'wx' is not legal"),
    (["--samples", "1438"], "--samples: 1438 is not legal; digits has 1437"),
    (["--epochs", "-1"], "'-1' is not legal; legal is a whole number of at least 0"),
    (["--board", "nexus"], "invalid choice: 'nexus'"),
    (["--dataset", "letters"], "invalid choice: 'letters'"),
    (["--cadence", "never"], "invalid choice: 'never'"),
    (["--engine", "fast", "--waves"], "--waves, --log: the engine fast has none; legal is --engine cocotb"),
    (["--every", "0"], "'0' is not legal; legal is a whole number of at least 1"),
    (["--dataset", "fashion-mnist", "--net", "784-8-10", "--folder", "/no/such/folder"],
     "fashion-mnist is not in /no/such/folder"),
    (["--json", "/no/such/folder/x.json"], "--json: /no/such/folder is not a folder"),
])  # fmt: skip
def test_bad_options(options, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        cosim.main(options)
    assert exit_.value.code == 2 and message in capsys.readouterr().err


def test_an_imported_network_learns_in_the_gateware_and_is_saved(tmp_path, capsys):
    """With biases: an input and a hidden neuron that are always on."""
    rng = np.random.default_rng(0)
    network = [
        Layer(name=name, weight=rng.normal(0.05, 0.2, (n, m)), bias=rng.normal(0, 0.2, n), theta=np.ones(n), alpha=np.full(n, 0.9))
        for name, m, n in (("a", 64, 5), ("b", 5, 10))
    ]
    image = deploy(nirgraph.graph(network), steps=4, board="ulx3s-12f").image
    image.save(tmp_path / "in.npz")
    assert image.network.sizes == (65, 6, 10)
    arguments = ["--image", str(tmp_path / "in.npz"), "--opt", "quick", "--samples", "8", "--test", "2"]
    assert cosim.main([*arguments, "--save", str(tmp_path / "out.npz")]) == 0
    assert "mismatches      0" in capsys.readouterr().out
    learned, golden = Image.load(tmp_path / "out.npz"), GoldenNetwork(image.network)
    dataset = image.dataset(data.load("digits", NETWORK))
    golden.load(image.state)
    for k, i in enumerate(Recipe().order(0, 0, 8)):
        vars(golden).update(Recipe().rates(k / 8))
        golden.run(*dataset.train[i], "wtl")
    want = golden.read()
    assert all(np.array_equal(array, want[name]) for name, array in learned.state.items())
    assert (learned.state["weight.1"] != image.state["weight.1"]).any() and learned.origin == image.origin


def test_an_image_has_its_network_and_runs_on_any_machine(tmp_path, capsys):
    Image(NETWORK, {}).save(tmp_path / "x.npz")
    options = cosim.parser().parse_args(["--image", str(tmp_path / "x.npz"), "--lanes", "2", "--wires", "far"])
    image, design = cosim.image_of(options)
    assert image.network == design.network == NETWORK and (design.machine.lanes, design.machine.wires.name) == (2, "far")
    for arguments, message in (
        (["--image", str(tmp_path / "x.npz"), "--net", "64-6-10"], "--net: not beside --image, which has its network"),
        (["--image", str(tmp_path / "y.npz")], "y.npz: no such file"),
        (["--save", "no/folder/x.npz"], "--save: no/folder is not a folder"),
    ):
        with pytest.raises(SystemExit) as e:
            cosim.main(arguments)
        assert e.value.code == 2 and message in capsys.readouterr().err
