"""Programs for a device, from their command lines."""

import dataclasses

import numpy as np
import pytest

from boards import BOARDS
from hw.design import Design
from hw.host.protocol import Link
from hw.network import Network
from sw import bringup, data, switch, train_device
from sw.bringup import main
from sw.data.images import Images
from sw.driver.device import Device
from sw.files.image import Image
from sw.golden.recipe import Recipe
from sw.transport.golden import Model
from sw.transport.process import InProcess
from sw.transport.terminal import PseudoTerminal

NETWORK = Network(net="6-4-3", steps=3, stochastic=True)
DESIGN = Design.of(NETWORK, lanes=2)
LINK = Link(clock=24_000_000, baud=3_000_000, buffer=512)


def test_the_command(capsys, monkeypatch):
    monkeypatch.setattr(bringup, "BOARDS", {"small": type("Board", (), {"design": DESIGN, "link": LINK})})
    assert main(["--port", "golden", "--board", "small"]) == 0
    said = capsys.readouterr().out
    assert "memory weight" in said and "6-4-3, T = 3, static input, cadence sample" in said
    assert main(["--port", "golden", "--board", "small", "--net", "5-3-2"]) == 0
    assert "5-3-2, T = 3, static input" in capsys.readouterr().out
    assert main(["--port", "/dev/nonesuch", "--board", "small"]) == 1
    assert "link  FAIL  port: /dev/nonesuch cannot be opened" in capsys.readouterr().out
    for wrong, says in ((["--port", "sim", "--board", "small", "--program"], "sim is no board"), (["--port", "sim"], "--board"),
                        (["--port", "golden", "--board", "small", "--seed", "-1"], "--seed: -1 is not legal"),
                        (["--port", "golden", "--board", "small", "--net", "6-5-3"], "--net: population: 6-5-3")):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            main(wrong)
        assert stop.value.code == 2 and says in capsys.readouterr().err


@pytest.fixture
def few_digits(monkeypatch):
    """Ten held-out digits instead of all, and a Fashion-MNIST that needs no files."""
    read = data.read

    def few(name, folder=None):
        if name == "digits":
            whole = read(name, folder)
            return dataclasses.replace(whole, test=tuple(part[:10] for part in whole.test))
        part = np.zeros((10, 1, 28, 28), np.uint8), np.arange(10)
        return Images(name, 10, part, part)

    monkeypatch.setattr(data, "read", few)


def test_training_from_the_command_line(tmp_path, capsys, few_digits):
    kept = tmp_path / "kept.safetensors"
    assert train_device.main(["--port", "golden", "--samples", "20", "--save", str(kept)]) == 0
    said = capsys.readouterr().out
    assert "digits on golden: 64-32-10, 8 lanes" in said and "epoch 1: " in said
    assert train_device.main(["--port", "golden", "--samples", "10", "--restore", str(kept)]) == 0
    for wrong, says in (
        (["--samples", "0"], "--samples: 0"),
        (["--learn", "x"], "learn: 'x'"),
        (["--restore", "none"], "none is not a file"),
        (["--save", "none/kept"], "none is not a folder"),
        (["--dataset", "fashion-mnist"], "net: an input of 64"),
        (["--net", "64-10", "--restore", str(kept)], "--net: not beside --restore"),
        (["--net", "64-99-10", "--board", "ulx3s-12f"], "population: 64-99-10 needs 99, the machine has 32 (neurons in a layer)"),
        (["--image", "none"], "none: no such file"),
    ):
        with pytest.raises(SystemExit) as stop:
            train_device.main(["--port", "golden", *wrong])
        assert stop.value.code == 2 and says in capsys.readouterr().err
    assert train_device.main(["--port", "/dev/nonesuch"]) == 1


def test_a_network_is_chosen_on_the_command_line(tmp_path, capsys, few_digits):
    """By its sizes, a checkpoint or an image, or it is that of the device; on one device, and in worlds of their own."""
    kept, image = tmp_path / "kept", tmp_path / "image.npz"
    deep = Network(net="64-16-12-10", steps=4)
    Image(deep, Recipe().state(deep, 1)).save(image)
    board = BOARDS["ulx3s-12f"]
    line = InProcess("golden", Model(board.design.machine, board.link))
    with PseudoTerminal(line) as port:
        for given, says in (
            ([], "64-32-10, 8 lanes"),  # it holds none: what its formats have
            (["--net", "64-20-10", "--save", str(kept)], "64-20-10, 8 lanes"),
            ([], "64-20-10, 8 lanes"),
            (["--image", str(image)], "64-16-12-10, 8 lanes"),
            (["--keep"], "64-16-12-10, 8 lanes"),
            (["--restore", str(kept)], "64-20-10, 8 lanes"),
        ):
            assert train_device.main(["--port", port, "--samples", "3", *given]) == 0
            assert f"digits on {port}: {says}" in capsys.readouterr().out, given
        with Device.open(port) as device:
            assert device.network == Network(net="64-20-10") and device.rates["rate_w"] == 8
    options = {"--image": (image, "64-16-12-10"), "--restore": (kept, "64-20-10"), "--net": ("64-10", "64-10")}
    for option, (value, says) in options.items():
        given = [option, str(value)]
        assert train_device.main(["--port", "golden", "--samples", "3", *given]) == 0
        assert f"digits on golden: {says}" in capsys.readouterr().out


def test_the_time_of_a_change(capsys):
    assert switch.main(["--board", "ulx3s-12f", "--net", "64-32-10", "--net", "40-24-9"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "ulx3s-12f at golden, times in seconds; line: 10 bits a byte at 3,000,000 baud"
    assert [line.split()[:2] for line in said[3:]] == [[net, how] for how in ("fresh", "with") for net in ("64-32-10", "40-24-9")]
    for wrong, says in ((["--board", "icebreaker", "--net", "784-64-10"], "in icebreaker 784-64-10 is wired in"),
                        (["--board", "ulx3s-12f", "--net", "64-99-10"], "population: 64-99-10 needs 99, the machine has 32"),
                        (["--board", "ulx3s-12f", "--net", "64-32-10"], "networks: one after itself is not legal")):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            switch.main(wrong)
        assert stop.value.code == 2 and says in capsys.readouterr().err
    given = ["--board", "ulx3s-12f", "--net", "64-32-10", "--net", "40-24-9", "--port", "/dev/nonesuch"]
    assert switch.main(given) == 1 and "cannot be opened" in capsys.readouterr().err
