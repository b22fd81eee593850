"""The bench: what work the equations need, counted by hand, and a whole report without a build."""

import json

import numpy as np
import pytest

from hw.design import Design
from hw.network import Network
from hw.numbers import Q
from sim import bench
from sim.cycles import KINDS
from sim.ideal import Counting
from sw.golden.state import initial_state

SMALL = Network(net="9-7-4", steps=5)


def test_needed_operations_of_a_silent_sample():
    """Nothing fires, so that no trace is there; every error and delta is a number."""
    network = Counting(Design.of(SMALL, lanes=3).plan)
    network.load(initial_state(SMALL, 1, theta=7.9, alpha=1.0) | {"surrogate": np.full(256, 4095)})
    network.run([0, 0, 255, 0, 9, 0, 0, 0, 1])
    assert network.needed == {"forward": 3 * 7, "neuron": 0, "backward": 0, "update": 0}
    assert network.ideal() == {"forward": 7, "neuron": 0, "backward": 0, "update": 0}
    network.run([0, 0, 255, 0, 9, 0, 0, 0, 1], 1, "w")
    assert (network.read()["delta.2"] != 0).all()
    changed = np.count_nonzero(network.read()["input_grad"])
    assert network.needed == {"forward": 3 * 7, "neuron": 0, "backward": 5 * 4 * 7, "update": 3 * changed} and changed > 0


def test_needed_operations_of_spikes_and_what_never_is_needed():
    spiking = SMALL.replace(cadence="step", input="events", steps=1)
    network = Counting(Design.of(spiking, lanes=3).plan)
    table = np.zeros((5, 2, 2), int)
    table[:, 0, 1] = 2000  # an error only at the label
    network.load(initial_state(spiking, 1, theta=7.9) | {"error_table": table, "surrogate": np.full(256, 4095)})
    sample = np.zeros((1, 9), bool)
    sample[0, [2, 5]] = True
    network.run(sample, 3, "w")
    hidden = np.count_nonzero(network.read()["delta.1"])
    assert network.needed == {"forward": 2 * 7, "neuron": 0, "backward": 1 * 7, "update": hidden * 2} and hidden > 0
    assert sum(network.needed.values()) <= network.sops  # the gateware counts whole groups of lanes


def test_needed_operations_of_lazy_learning():
    """Two inputs spike in step 1 and never else: their synapses with a gradient are visited once, none in a step."""
    spiking = SMALL.replace(input="events", trace=Q(5, 8), grad=Q(6, 12), lazy=True)
    network = Counting(Design.of(spiking, lanes=3).plan)
    network.load(initial_state(spiking, 1, theta=7.9, alpha=1.0) | {"surrogate": np.full(256, 4095)})
    sample = np.zeros((5, 9), bool)
    sample[1, [2, 5]] = True
    network.run(sample, 1, "w")
    hidden = np.count_nonzero(network.read()["delta.1"])
    assert (network.read()["delta.2"] != 0).all()
    assert network.needed == {"forward": 2 * 7, "neuron": 0, "backward": 5 * 4 * 7, "update": 2 * hidden} and hidden > 0


def test_report(tmp_path, capsys, monkeypatch):
    board = bench.get_board("icebreaker")
    small = Design.of(Network(net="64-6-10", steps=4), lanes=4)
    monkeypatch.setattr(bench, "get_board", lambda name: type(board)(**vars(board) | {"design": small}))
    monkeypatch.setattr(bench, "FOLDER", tmp_path)
    file = tmp_path / "report.json"
    options = ["--no-build", "--no-growth", "--no-simulators", "--samples", "3", "--warm", "5", "--runs", "2", "--opt", "quick"]
    options += ["--json", str(file)]
    assert bench.main(options) == 0
    (row,) = json.loads(file.read_text())["boards"]
    assert row["network"]["net"] == "64-6-10" and row["machine"]["lanes"] == 4
    for kind in KINDS:
        assert 0 < row[f"{kind}_share"] < 1
        assert all(phase["real"] >= phase["ideal"] for phase in row["cycles"][kind].values())
    assert row["cycles"]["inference"]["update"]["real"] == 0 < row["cycles"]["training"]["update"]["ideal"]
    assert row["processor_ms"]["float STOP"] > 0 and (tmp_path / "boards.png").stat().st_size > 10_000
    text = capsys.readouterr().out
    assert "ideal cycles = sum over phases of ceil" in text and "float STOP, this processor" in text


def test_bad_options(capsys):
    for options, message in (
        (["--board", "nexus"], "invalid choice: 'nexus'"),
        (["--samples", "0"], "'0' is not legal; legal is a whole number of at least 1"),
        (["--json", "/no/such/folder/x.json"], "--json: /no/such/folder is not a folder"),
    ):
        with pytest.raises(SystemExit) as exit_:
            bench.main(options)
        assert exit_.value.code == 2 and message in capsys.readouterr().err
