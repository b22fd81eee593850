"""Training: reproducible, resumable to the bit, shareable between processes, and its way to the chip."""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hw.network import Network
from sw.files.image import Image
from sw.golden.network import GoldenNetwork
from sw.stop import populations
from sw.stop.integer import integer_image
from sw.train import main
from sw.training.nets import Spec, build
from sw.training.train import Data, Options, Run, load_model, train

ROOT = Path(__file__).parents[3]
SMALL = Options(epochs=2, batch=32, samples=128, test_samples=64, hidden=(24,), lr=5e-3, gain=0.5, theta=0.5, steps=4)
OPTIONS = ["--batch", "32", "--samples", "128", "--hidden", "24", "--lr", "0.005", "--gain", "0.5", "--steps", "4", "--quiet"]
"""Of SMALL, for the command line, but for the epochs."""
RATE = replace(SMALL, coding="rate", augment="crop", optimiser="sgd")


def weights(run):
    return {k: v.clone() for k, v in run.net.state_dict().items()}


def run_of(options):
    return Run(options, Data.load(options))


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("options", [SMALL, RATE, replace(SMALL, method="bptt-wtl")], ids=["direct", "rate", "bptt"])
@pytest.mark.parametrize("stop_after", [2, 4, 7])
def test_resume_is_bit_exact(tmp_path, options, stop_after):
    whole = run_of(options)
    train(whole, None, quiet=True)
    killed = run_of(options)
    train(killed, None, quiet=True, stop_after=stop_after)
    killed.save(tmp_path / "checkpoint.pt")
    resumed = run_of(options)
    resumed.resume(tmp_path / "checkpoint.pt")
    assert not same(weights(resumed), weights(whole))
    train(resumed, None, quiet=True)
    assert same(weights(resumed), weights(whole))
    for a, b in zip(resumed.history, whole.history, strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}


def test_resume_after_a_kill(tmp_path):
    options = ["--epochs", "6", *OPTIONS]
    command = [sys.executable, "-m", "sw.train", *options, "--out", str(tmp_path / "killed"), "--save-every", "0"]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    while not (tmp_path / "killed" / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    left = torch.load(tmp_path / "killed" / "checkpoint.pt", weights_only=True)
    assert 0 < left["epoch"] * 4 + left["update"] < 24, "killed in the middle"
    assert main(["--out", str(tmp_path / "killed"), "--resume", "--quiet"]) == 0
    assert main([*options, "--out", str(tmp_path / "whole")]) == 0
    killed, whole = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("killed", "whole"))
    assert same(killed["net"], whole["net"]) and killed["best"]["epoch"] == whole["best"]["epoch"]


def test_seeds_decide():
    first, again, other = (run_of(replace(SMALL, seed=s)) for s in (3, 3, 4))
    for run in (first, again, other):
        train(run, None, quiet=True)
    assert same(weights(first), weights(again)) and not same(weights(first), weights(other))


def test_learns_digits():
    run = run_of(Options(epochs=5, hidden=(64,), gain=0.5, theta=0.5, lr=1e-2, batch=32, steps=4))
    train(run, None, quiet=True)
    assert run.history[-1]["accuracy"] > 0.9, run.history


def test_lenet_learns_by_mixed_precision():
    o = Options(model="lenet5", pad=28, epochs=2, batch=32, samples=320, gain=1.5, theta=0.5, lr=5e-3, steps=2, amp=True)
    run = run_of(o)
    train(run, None, quiet=True)
    assert run.history[-1]["accuracy"] > 0.3 and all(p.dtype == torch.float32 for p in run.net.parameters())


def test_early_stop():
    run = run_of(replace(SMALL, epochs=50, patience=1, lr=0.0, theta_lr=0.0, alpha_lr=0.0))
    train(run, None, quiet=True)
    assert run.epoch == 2 and run.best["epoch"] == 1


def test_command_line(tmp_path, capsys):
    out, report = tmp_path / "run", tmp_path / "report.json"
    assert main(["--epochs", "2", *OPTIONS, "--out", str(out), "--json", str(report), "--chip", str(tmp_path / "chip.npz")]) == 0
    assert "digits, stop-wtl, T = 4" in capsys.readouterr().out
    content = json.loads(report.read_text())
    assert content == json.loads((out / "report.json").read_text())
    assert len(content["history"]) == 2 and content["chip"]["samples"] == 360
    assert abs(content["chip"]["float"] - content["chip"]["integer"]) < 0.05
    net, chip = load_model(out / "model.pt"), Image.load(tmp_path / "chip.npz")
    assert np.array_equal(
        chip.state["weight.1"], np.floor(populations(net)[0].projections[0][1].weight.detach().numpy() * 4096 + 0.5)
    )
    assert chip.network == Network(net="64-24-10", steps=4) and chip.inputs == 64
    network, (x, y) = GoldenNetwork(chip.network), Data.load(Options()).test
    network.load(chip.state)
    right = sum(network.run(image.flatten().numpy()).winner == label for image, label in zip(x, y.tolist(), strict=True))
    assert right == round(content["chip"]["integer"] * 360) > 60
    assert main(["--out", str(out), "--resume", "--quiet"]) == 0  # nothing is left to do


def test_tensorboard_gets_the_curves(tmp_path):
    assert main(["--epochs", "1", *OPTIONS, "--tensorboard", "--out", str(tmp_path)]) == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = EventAccumulator(str(tmp_path)).Reload()
    assert {"loss", "accuracy", "alpha/layer 1", "theta/layer 2"} <= set(curves.Tags()["scalars"])
    accuracy = json.loads((tmp_path / "report.json").read_text())["accuracy"]
    assert abs(curves.Scalars("accuracy")[0].value - accuracy) < 1e-6


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--method", "bp"], "--method: invalid choice: 'bp'"),
        (["--steps", "0"], "--steps: 0 is not legal; legal is at least 1"),
        (["--samples", "5000"], "--samples: 5000 is not legal; digits has 1437"),
        (["--lr", "nan"], "--lr: nan is not legal"),
        (["--beta", "0"], "beta: 0 is not legal"),
        (["--alpha", "2"], "alpha: 2.0 is not legal; legal is 0 to 1"),
        (["--pad", "4"], "--pad: 4 is not legal"),
        (["--device", "cuda"], "--device: cuda is not there; legal is cpu"),
        (["--tensorboard"], "--tensorboard: needs --out"),
        (["--resume"], "--resume: no --out is not a checkpoint"),
        (["--out", "HERE", "--resume"], "checkpoint.pt is not a checkpoint to go on with"),
        (["--dataset", "cifar10", "--data", "HERE/none"], "fetch cifar-10-python.tar.gz"),
        (["--model", "lenet5", "--chip", "x.npz"], "--chip: needs --model mlp"),
        (["--json", "HERE/no/such/x.json"], "is not a folder"),
        (["--hidden", "a-b"], "--hidden: 'a-b' is not legal; legal is whole numbers of at least 1 joined by hyphens"),
    ],
)
def test_bad_options_end_with_2(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([a.replace("HERE", str(tmp_path)) for a in arguments])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(SystemExit, match="2"):
        main(["--out", str(tmp_path)])
    assert "holds a run; name another folder, or --resume it" in capsys.readouterr().err


# -- several processes ---------------------------------------------------------------------------
def test_two_processes_learn_what_one_learns(tmp_path):
    options = ["--epochs", "1", *OPTIONS, "--coding", "rate"]
    assert main([*options, "--out", str(tmp_path / "one")]) == 0
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = os.environ | dict(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo"
    )
    command = [sys.executable, "-m", "sw.train", *options, "--out", str(tmp_path / "two")]
    processes = [subprocess.Popen(command, cwd=ROOT, env=env | {"RANK": str(r), "LOCAL_RANK": str(r)}) for r in range(2)]
    assert [p.wait(timeout=120) for p in processes] == [0, 0]
    one, two = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("one", "two"))
    start = weights(run_of(SMALL))
    for name, value in one["net"].items():
        moved = (value - start[name]).abs().max()
        assert (value - two["net"][name]).abs().max() <= 0.01 * moved and moved > 1e-3, name
    assert two["history"][0]["accuracy"] == one["history"][0]["accuracy"]


# -- the chip ------------------------------------------------------------------------------------
def test_integers_follow_the_float_network():
    torch.manual_seed(0)
    net = build(Spec("mlp", (1, 8, 8), hidden=(32,), gain=1.5, theta=0.6, alpha=0.7))
    config = Network(net="64-32-10", steps=8)
    image, clipped = integer_image(net, config, beta=3.0)
    network = GoldenNetwork(config)
    network.load(image.state)
    run = run_of(replace(SMALL, hidden=(32,), steps=8))
    run.net = net
    x, _ = run.data.test
    with torch.no_grad():
        want = run.classify(run.data.code(x, torch.Generator()))
    got = torch.tensor([network.run(frame.flatten().numpy()).winner for frame in x])
    assert clipped == 0 and (got == want).float().mean() > 0.9 and len(got.unique()) > 3


def test_integers_clip_and_say_so():
    net = build(Spec("mlp", (64,), hidden=(32,)))
    with torch.no_grad():
        populations(net)[0].projections[0].weight[0, :3] = torch.tensor([9.0, -9.0, 7.9])
    image, clipped = integer_image(net, Network())
    assert clipped == 2 and image.state["weight.1"][0, :3].tolist() == [32767, -32768, round(7.9 * 4096)]
    with pytest.raises(ValueError, match="net: 64-16-10 is not legal; legal is 64-32-10"):
        integer_image(net, Network(net="64-16-10"))
    with pytest.raises(ValueError, match="model: the chip has fully connected layers"):
        integer_image(build(Spec("lenet5", (1, 28, 28))), Network())
