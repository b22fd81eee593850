"""Bring-up: everything passes on a good device, and each fault put into one is named by its own check."""


import pytest

from hw.design import Design
from hw.host.manual import PAGE, manual
from hw.host.protocol import Link
from hw.memory_map import REGISTERS
from hw.network import Network
from sw.bringup import as_text
from sw.driver import bringup as checkup
from sw.driver.bringup import ADVICE, bring_up
from sw.driver.device import Device
from sw.transport.golden import Model
from sw.transport.process import InProcess

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
    with Device.open(faulty()) as device:
        device._transport.model.cycles = 0
        run = device.session.run

        def repeat(payloads):
            device.session.repeats += 2
            return run(payloads)

        monkeypatch.setattr(device.session, "run", repeat)
        with pytest.raises(checkup.Failure, match="4 requests of .* were sent again"):
            checkup.measure_speed(device)


def test_the_manual_page_is_up_to_date():
    assert PAGE.read_text() == manual(), "run python -m hw.host.manual"
    assert all(f"| {name} |" in manual() for name in REGISTERS)
