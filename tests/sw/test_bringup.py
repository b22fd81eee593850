"""Bring-up: everything passes on a good device, and each fault put into one is named by its own check."""

import dataclasses

import numpy as np
import pytest

from boards import BOARDS
from hw.design import Design
from hw.host.manual import PAGE, manual
from hw.host.protocol import Link
from hw.memory_map import REGISTERS
from hw.network import Network
from sw import bringup, data, train_device
from sw.bringup import ADVICE, as_text, bring_up, main
from sw.data.images import Images
from sw.device import Device
from sw.golden.recipe import Recipe
from sw.image import Image
from sw.transport.golden import Model
from sw.transport.process import InProcess
from sw.transport.pty import PseudoTerminal

NETWORK = Network(net="6-4-3", steps=3, stochastic=True)
DESIGN = Design.of(NETWORK, lanes=2)
LINK = Link(clock=24_000_000, baud=3_000_000, buffer=512)


class Lights:
    """LEDs as a simulated device shows them."""

    lights = {"configured": True, "alive": True, "busy": False, "error": False}


def faulty(change=lambda model: None):
    model = Model(DESIGN.machine, LINK)
    model.__class__ = type("Lit", (Lights, Model), {})
    change(model)
    return InProcess("golden", model)


def checked(line):
    outcomes = list(bring_up(line, DESIGN, LINK))
    return outcomes, [outcome.check for outcome in outcomes if outcome.passed is False]


def wrap(model, name, change):
    """Replaces a method of the model's core by one that `change` makes of it."""
    setattr(model.core, name, change(getattr(model.core, name)))


def stuck_bit(model):
    """Bit 3 of every weight in lane 1, row 2 is 0."""
    base = model.core._regions[1].address(2, 1)

    def change(read):
        return lambda address, count: [w & ~8 if address + k == base else w for k, w in enumerate(read(address, count))]

    wrap(model, "read", change)


def shared_rows(model):
    """Thresholds 5 and 4 are one word."""
    region = next(r for r in model.core._regions.values() if r.name == "theta")

    def at(access):
        return lambda address, what: access(region.address(4) if address == region.address(5) else address, what)

    wrap(model, "read", at)
    wrap(model, "write", at)


def whenever(model, change):
    """Changes each golden network that the model makes for a host."""
    take = model.core._take

    def wrong(network):
        take(network)
        change(model.core.network)

    model.core._take = wrong


def slow_neurons(model):
    """Membranes lose a bit more than they should."""

    def change(network):
        forward = network._forward

        def wrong(spike, learn):
            forward(spike, learn)
            network.membrane -= 1

        network._forward = wrong

    whenever(model, change)


def wrong_learning(model):
    """A threshold is moved the other way."""

    def change(network):
        update = network._update_neurons

        def wrong(layer, learn):
            network.theta_grad *= -1
            update(layer, learn)
            network.theta_grad *= -1

        network._update_neurons = wrong

    whenever(model, change)


def stopped_generator(model):
    run = model.core._run

    def wrong(single):
        before = model.core.network.rng
        run(single)
        model.core.network.rng = before

    model.core._run = wrong


def forgetful(model):
    """The record of the network is lost when it is whole."""
    model.core._configured = lambda: model.core._words[model.core._named["network"].number].fill(0)


def lost_pixels(model):
    """The last pixel is not listed."""
    wrap(model, "_pixel", lambda pixel: lambda row, value: pixel(row, 0 if row == 5 else value))


def dead(model):
    model.run = lambda data=b"", **options: (len(data), b"")


def dark(model):
    model.lights = Lights.lights | {"alive": False}


def another(model):
    model.__init__(DESIGN.replace(lanes=1).machine, LINK)


FAULTS = {
    "link": dead, "machine": another, "network": forgetful, "memory weight": stuck_bit, "memory theta": shared_rows,
    "memory frame": lost_pixels,
    "lights": dark, "generator": stopped_generator, "neurons": slow_neurons, "learning": wrong_learning,
}  # fmt: skip


def test_a_good_device_passes():
    outcomes, failed = checked(faulty())
    assert not failed and sum(outcome.passed is True for outcome in outcomes) >= 20
    assert as_text(outcomes).endswith(f"all {len(outcomes)} checks passed")


@pytest.mark.parametrize("check", FAULTS)
def test_a_fault_is_named(check):
    outcomes, failed = checked(faulty(FAULTS[check]))
    # What stands on the part that fails may fail with it; the first to fail is the part.
    assert failed[0] == check, as_text(outcomes)
    assert ADVICE[check.split(" ")[0]] in as_text(outcomes)


def test_repeats_are_counted_against_the_speed(monkeypatch):
    with bringup.Device.open(faulty()) as device:
        device._transport.model.cycles = 0
        run = device.session.run

        def repeat(payloads):
            device.session.repeats += 2
            return run(payloads)

        monkeypatch.setattr(device.session, "run", repeat)
        with pytest.raises(bringup.Failure, match="4 requests of .* were sent again"):
            bringup.measure_speed(device)


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


def test_the_manual_page_is_up_to_date():
    assert PAGE.read_text() == manual(), "run python -m hw.host.manual"
    assert all(f"| {name} |" in manual() for name in REGISTERS)
