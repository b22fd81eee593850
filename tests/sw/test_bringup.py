"""Bring-up: everything passes on a good device, and each fault put into one is named by its own check."""

import dataclasses

import pytest

from hw.config import Config
from hw.host.manual import PAGE, manual
from hw.host.protocol import Link
from hw.memory_map import REGISTERS
from sw import bringup, data, train_device
from sw.bringup import ADVICE, as_text, bring_up, main
from sw.transport.golden import Model
from sw.transport.simulated import Simulated

CONFIG = Config(sizes=(6, 4, 3), lanes=2, steps=3, stochastic=True)
LINK = Link(clock=24_000_000, baud=3_000_000, buffer=512)


whole_load = data.load


class Lights:
    """LEDs as a simulated device shows them."""

    lights = {"configured": True, "alive": True, "busy": False, "error": False}


def faulty(change=lambda model: None):
    model = Model(CONFIG, LINK)
    model.__class__ = type("Lit", (Lights, Model), {})
    change(model)
    return Simulated("golden", model)


def checked(line):
    outcomes = list(bring_up(line, CONFIG, LINK))
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


def slow_neurons(model):
    """Membranes lose a bit more than they should."""
    network, forward = model.core.network, model.core.network._forward

    def wrong(spike, learn):
        forward(spike, learn)
        network.membrane -= 1

    network._forward = wrong


def wrong_learning(model):
    """A threshold is moved the other way."""
    network, update = model.core.network, model.core.network._update_neurons

    def wrong(layer, learn):
        network.theta_grad *= -1
        update(layer, learn)
        network.theta_grad *= -1

    network._update_neurons = wrong


def stopped_generator(model):
    network, run = model.core.network, model.core._run

    def wrong(single):
        before = network.rng
        run(single)
        network.rng = before

    model.core._run = wrong


def lost_pixels(model):
    """The last pixel is not listed."""
    wrap(model, "_pixel", lambda pixel: lambda row, value: pixel(row, 0 if row == 5 else value))


def dead(model):
    model.run = lambda data=b"", **options: (len(data), b"")


def dark(model):
    model.lights = Lights.lights | {"alive": False}


def another(model):
    model.__init__(CONFIG.replace(lanes=1), LINK)


FAULTS = {"link": dead, "configuration": another, "memory weight": stuck_bit, "memory theta": shared_rows, "memory frame": lost_pixels,
          "lights": dark, "generator": stopped_generator, "neurons": slow_neurons, "learning": wrong_learning}  # fmt: skip


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
    monkeypatch.setattr(bringup, "BOARDS", {"small": type("Board", (), {"config": CONFIG, "link": LINK})})
    assert main(["--port", "golden", "--board", "small"]) == 0
    assert "memory weight" in capsys.readouterr().out
    assert main(["--port", "/dev/nonesuch", "--board", "small"]) == 1
    assert "link  FAIL  port: /dev/nonesuch cannot be opened" in capsys.readouterr().out
    for wrong, says in ((["--port", "sim", "--board", "small", "--program"], "sim is no board"), (["--port", "sim"], "--board"),
                        (["--port", "golden", "--board", "small", "--seed", "-1"], "--seed: -1 is not legal")):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            main(wrong)
        assert stop.value.code == 2 and says in capsys.readouterr().err


def test_training_from_the_command_line(tmp_path, capsys, monkeypatch):
    whole = data.load("digits", Config())
    few = dataclasses.replace(whole, test=data.Split(Config(), whole.test.images[:10], whole.test.labels[:10], 0))
    monkeypatch.setattr(data, "load", lambda name, config: few if name == "digits" else whole_load(name, config))
    kept = tmp_path / "kept.safetensors"
    assert train_device.main(["--port", "golden", "--samples", "20", "--save", str(kept)]) == 0
    said = capsys.readouterr().out
    assert "digits on golden: 64-32-10" in said and "epoch 1: " in said
    assert train_device.main(["--port", "golden", "--samples", "10", "--restore", str(kept)]) == 0
    for wrong, says in ((["--samples", "0"], "--samples: 0"), (["--learn", "x"], "learn: 'x'"), (["--restore", "none"], "none is not a file"),
                        (["--save", "none/kept"], "none is not a folder"), (["--dataset", "fashion-mnist"], "sizes: an input of 64")):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            train_device.main(["--port", "golden", *wrong])
        assert stop.value.code == 2 and says in capsys.readouterr().err
    assert train_device.main(["--port", "/dev/nonesuch"]) == 1


def test_the_manual_page_is_up_to_date():
    assert PAGE.read_text() == manual(), "run python -m hw.host.manual"
    assert all(f"| {name} |" in manual() for name in REGISTERS)
