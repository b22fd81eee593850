"""A device with a flash, Verilated: what is stored is there after power-up, and of what is not whole and its own nothing is."""

import random
import zlib

import numpy as np
import pytest

from hw.host.protocol import Link, Status
from hw.machine import Machine
from hw.memory_map import regions
from hw.network import Network
from hw.plan import compile
from sim.endpoint import Model
from sim.transport import Simulated
from sw.driver.device import Device
from sw.driver.flash import image
from sw.transport.base import DeviceError
from sw.transport.frames import parse_reply, request
from sw.transport.terminal import PseudoTerminal
from tests.sim.test_endpoint import Kept
from tests.sw.driver.test_link import CONFIG, LINK, MACHINE, digits, golden, same, start

PLAN = compile(CONFIG, MACHINE)
RATES = {"rate_w": 6, "rate_theta": 8, "rate_alpha": 7}


def golden_state(network):
    with Device.open(golden(network)) as device:
        device.load(start(network, 1))
        return device.read_state()


def without_class(state):
    return {name: array for name, array in state.items() if name != "class"}


@pytest.fixture(scope="module")
def model():
    model = Model(MACHINE, LINK)
    yield model
    model.close()


@pytest.fixture(scope="module")
def trained():
    """The golden network after some samples, and its image."""
    samples, labels = digits(CONFIG, 30)
    with Device.open(golden()) as device:
        device.load(start(CONFIG, 1))
        device.set_rates(**RATES)
        device.train(samples, labels)
        state = device.read_state()
    return state, image(PLAN, LINK, state, RATES)


def boots(model, flash):
    """The model after power-up with this flash, when the link is at rest: cycles that it took."""
    model.flash = flash
    model.power_up()
    assert model.run() == (0, b"")
    assert model.lights["configured"] and not model.lights["alive"]
    (refused,) = [parse_reply(part) for part in model.run(request(3, b""))[1].split(b"\0") if part]
    assert refused.status == Status.CLOSED  # nobody has opened a session
    return model.cycles


def state_of(model):
    with Device.open(Kept(model)) as device:
        assert device.network == CONFIG
        return device.read_state(), device.rates


def words_of(model):
    """All words of all memories, by name, and the rates."""
    with Device.open(Kept(model)) as device:
        memory = regions(MACHINE).values()
        words = {r.name: np.array([device.read_words(r.address(0, lane), r.depth) for lane in range(r.lanes)]) for r in memory}
        return device.network, words, device.rates


@pytest.fixture(scope="module")
def bare(model):
    """What a device without a stored network has."""
    boots(model, b"")
    return words_of(model)


def test_a_stored_network_goes_on_learning_after_power_up(model, trained):
    state, stored = trained
    boots(model, stored)
    assert not model.lights["error"]
    samples, labels = digits(CONFIG, 20, seed=2)
    with Device.open(Kept(model)) as device, Device.open(golden()) as twin:
        assert same(without_class(device.read_state()), without_class(state)) and device.rates == RATES
        twin.load(state)
        twin.set_rates(**RATES)
        assert np.array_equal(device.train(samples, labels), twin.train(samples, labels))
        learned = device.read_state()
        assert same(learned, twin.read_state()) and (learned["weight.1"] != state["weight.1"]).any()
        device.store()
        assert same(without_class(device.read_state()), without_class(learned)) and device.rates == RATES
        assert np.array_equal(device.train(samples, labels), twin.train(samples, labels))
        assert same(device.read_state(), twin.read_state()) and device.counters()["sops"] == twin.counters()["sops"]


def damaged(stored):
    """Flashes that hold no image of this device, by name."""
    rng, end = random.Random(1), len(stored[:-4].rstrip(b"\0"))
    yield "erased", b""
    yield "zeros", bytes(len(stored))
    bounds = {0, 3, 4, 5, 12, end - 1, end, end + 1, len(stored) - 5, len(stored) - 4, len(stored) - 1}
    places = bounds | set(rng.sample(range(len(stored)), 60))
    for place in sorted(places):
        flash = bytearray(stored)
        flash[place] ^= 1 << rng.randrange(8)
        yield f"bit of byte {place}", bytes(flash)
    for length in (1, 4, 5, 256, end - 256, end - 1, end, len(stored) - 256, len(stored) - 5, len(stored) - 4, len(stored) - 1):
        yield f"cut at {length}", stored[:length]
    one_lane, twice = Machine.holding(CONFIG, lanes=1), Link(clock=LINK.clock, baud=LINK.baud, buffer=2 * LINK.buffer)
    for name, plan, link in (("machine", compile(CONFIG, one_lane), LINK), ("buffer", PLAN, twice)):
        yield f"another {name}", image(plan, link, golden_state(CONFIG), RATES)
    older = image(PLAN, LINK, golden_state(CONFIG), RATES)
    yield "half an older image", stored[:512] + older[512:]
    frames = stored[4:-4].split(b"\0")  # whole frames, in another order
    frames[3], frames[4] = frames[4], frames[3]
    yield "frames exchanged", stored[:4] + b"\0".join(frames) + stored[-4:]


def test_of_a_damaged_image_nothing_is_loaded(model, trained, bare):
    _, stored = trained
    flashes = dict(damaged(stored))
    assert len(flashes) > 70
    quick, slow = boots(model, b""), boots(model, stored[:-1])
    assert quick * 10 < slow, "an erased flash is read to its end"
    for name, flash in flashes.items():
        cycles = boots(model, flash)
        network, words, rates = words_of(model)
        assert network is None and same(words, bare[1]) and rates == bare[2], f"{name}: something was loaded"
        assert cycles <= slow and not model.lights["error"], name
    boots(model, stored)
    assert not same(words_of(model)[1], bare[1])


def test_the_last_frame_is_awaited(model, trained):
    """A frame right before the CRC: it is executed, and its reply dropped, before the link is the host's."""
    state, stored = trained
    body = stored[4:-4].rstrip(b"\0") + b"\0"
    body = body.rjust(len(stored) - 8, b"\0")
    boots(model, stored[:4] + body + zlib.crc32(body).to_bytes(4, "little"))
    assert same(without_class(state_of(model)[0]), without_class(state))


def test_bytes_of_a_host_wait_until_it_has_started(model, trained):
    state, stored = trained
    whole = boots(model, stored)
    for at in (0, whole // 3, whole - whole // 4):
        model.power_up()
        model.run(limit=at)
        assert not model.lights["configured"] and model.lights["alive"] == (at > whole // 2)
        _, out = model.run(b"\0" + request(9, b"", opening=True))
        assert parse_reply(out[:-1]).sequence == 9
        assert same(without_class(state_of(model)[0]), without_class(state))


def test_a_reset_starts_it_anew(model, trained):
    state, stored = trained
    whole, rng = boots(model, stored), random.Random(1)
    for at in (rng.randrange(whole) for _ in range(12)):
        model.power_up()
        model.run(limit=at)
        model.reset()
        assert model.run() == (0, b"")
        assert same(without_class(state_of(model)[0]), without_class(state))


def test_a_flash_that_fails_while_it_is_loaded_shows(model, trained):
    """The check was good, and then a bit changes: the frame is dropped, as are those behind it, and the LED says so."""
    _, stored = trained
    boots(model, stored)
    whole = model.cycles
    model.power_up()
    model.run(limit=whole // 2)
    assert not model.lights["configured"]
    bad = bytearray(stored)
    bad[len(stored) // 2] ^= 1
    model.flash = bytes(bad)
    assert model.run() == (0, b"") and model.lights["configured"] and model.lights["error"]
    with Device.open(Kept(model)):
        assert model.lights["alive"] and not model.lights["error"]


def test_with_its_uart():
    network, link = Network(net="784-4-3", steps=2, cadence="step"), Link(clock=24_000_000, baud=3_000_000)
    plan, state = compile(network, Machine.holding(network, lanes=1)), golden_state(network)
    model = Model(plan.machine, link, serial=True, flash=image(plan, link, state, RATES))
    model.run(b"\0\1\2" + request(1, b"", opening=True), limit=50_000)  # is not heard, and does no harm
    with Device.open(Simulated(model)) as device:
        assert same(without_class(device.read_state()), without_class(state)) and device.rates == RATES


def test_a_board_behind_a_serial_port(model, trained, monkeypatch):
    """Its port is given back while openFPGALoader has the board, which then starts anew."""
    state, written = trained[0], []

    class Line(Kept):
        def send(self, data):  # in the thread in which the device runs
            if written:
                model.flash = written.pop()
                model.power_up()
            super().send(data)

    def write(board, stored):
        assert board.name == "icebreaker"
        written.append(stored)

    boots(model, b"")
    monkeypatch.setattr("sw.transport.loader.write", write)
    with PseudoTerminal(Line(model)) as port, Device.open(port, network=CONFIG) as device:
        device.load(state)
        device.set_rates(**RATES)
        device.store("icebreaker")
        assert same(without_class(device.read_state()), without_class(state)) and device.rates == RATES
        with pytest.raises(ValueError, match="board: none has no flash"):
            device.store()


def test_a_file_is_the_flash_of_sim(trained, tmp_path):
    state, stored = trained
    file = tmp_path / "flash"
    with Device.open("sim", network=CONFIG, machine=MACHINE, link=LINK, flash=file) as device:
        device.load(state)
        device.set_rates(**RATES)
        device.store()
        assert file.read_bytes() == stored
    with Device.open("sim", network=CONFIG, machine=MACHINE, link=LINK, flash=file) as device:
        assert same(without_class(device.read_state()), without_class(state)) and device.rates == RATES
    for port, flash, says in (
        ("golden", file, "only that of sim"),
        ("sim", tmp_path, "a file in a folder"),
        ("sim", tmp_path / "no" / "f", "a file in"),
    ):
        with pytest.raises(ValueError, match=f"flash: .*{says}"):
            Device.open(port, machine=MACHINE, link=LINK, flash=flash)


def test_a_device_that_does_not_start_with_it(model, trained, monkeypatch):
    def forgetful(line, stored, board):
        boots(line.model, b"")

    boots(model, b"")
    monkeypatch.setattr(Kept, "store", forgetful)
    with Device.open(Kept(model), network=CONFIG) as device:
        device.load(trained[0])
        with pytest.raises(DeviceError, match="the device has another network after its start"):
            device.store()
        assert device.network is None
