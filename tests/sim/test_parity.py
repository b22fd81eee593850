"""A bit flips in each memory of a device: the driver says where, and after a network is loaded all is well."""

import numpy as np
import pytest
from amaranth.lib.memory import Memory

from hw.config import Config
from hw.host.protocol import Link
from hw.memory_map import regions
from sim.endpoint import Model
from sim.scenarios import exercise
from sim.twin import Twin
from sw.device import DamagedError, Device
from sw.golden.network import Network
from sw.transport.simulated import Simulated
from tests.sw.test_link import digits, same, start

LINK = Link(clock=24_000_000, baud=3_000_000, buffer=512)
STATIC = Config(sizes=(6, 4, 3), lanes=2, steps=3, parity=True)
EVENTS = Config(sizes=(6, 5, 3), lanes=4, neuron_lanes=2, steps=3, input="events", cadence="step", stochastic=True, parity=True, weight_latency=3)


@pytest.mark.parametrize("config", [STATIC, EVENTS])
def test_a_core_with_parity_equals_golden_and_finds_nothing(config, monkeypatch):
    found = []
    monkeypatch.setattr(Twin, "__exit__", _then(Twin.__exit__, lambda twin: found.append(twin.device.register("damaged"))))
    seen = exercise(config, np.random.default_rng(3), samples=12, stall=0.2)
    assert found == [0] and seen["weights changed"] > 50 and seen["spikes"] > 20


def _then(leave, look):
    def wrapped(twin, *exception):
        look(twin)
        return leave(twin, *exception)

    return wrapped


def flipped(monkeypatch, name, row):
    """A device in which the lowest bit of a row of one memory is flipped, in every lane."""
    region = regions(STATIC)[name]
    flips = {(region.bits + 1, region.depth): [0] * row + [1]}
    monkeypatch.setattr("hw.memory.Memory", lambda *, shape, depth, init: Memory(shape=shape, depth=depth, init=flips.get((shape, depth), init)))
    line = Simulated("sim", Model(STATIC, LINK))
    monkeypatch.undo()
    return line


def test_what_came_of_a_damaged_word_is_never_saved(monkeypatch, tmp_path):
    """A host that writes over it mends the word, but not what was learned from it."""
    samples, labels = digits(STATIC, 5)
    with Device.open(flipped(monkeypatch, "weight", 0)) as device:
        for use in (lambda: device.train(samples, labels), lambda: device.save(tmp_path / "kept")):
            with pytest.raises(DamagedError, match="in memory weight"):
                use()
        device.write_state({"weight.1": np.zeros((4, 6), int)})
        with pytest.raises(DamagedError, match="in memory weight"):
            device.save(tmp_path / "kept")
        device.load(start(STATIC, 1))
        with pytest.raises(DamagedError):  # that was not all of a network
            device.save(tmp_path / "kept")
        assert not (tmp_path / "kept").exists()
        device.load(Network(STATIC))
        device.load(start(STATIC, 1))
        device.train(samples, labels)
        device.save(tmp_path / "kept")


def test_an_entry_of_the_frame_that_no_sample_uses_is_repaired(monkeypatch):
    samples, labels = digits(STATIC, 5)
    samples[:, 3:] = 0
    region = regions(STATIC)["frame"]
    with Device.open(flipped(monkeypatch, "frame", region.depth - 1)) as device:
        device.read_words(region.address(0), region.depth)
        with pytest.raises(DamagedError, match="in memory frame"):
            device.train(samples, labels)
        device.load(Network(STATIC))
        device.read_words(region.address(0), region.depth)
        device.train(samples, labels)


@pytest.mark.parametrize("config", [STATIC, EVENTS])
def test_a_bit_flipped_in_each_memory_is_reported_and_can_be_repaired(config, monkeypatch, tmp_path):
    # All memories start with the lowest bit of their first word flipped.
    monkeypatch.setattr("hw.memory.Memory", lambda *, shape, depth, init: Memory(shape=shape, depth=depth, init=[1]))
    model = Model(config, LINK)
    monkeypatch.undo()
    samples, labels = digits(config, 5)
    network = Network(config)
    network.load(start(config, 1))
    with Device.open(Simulated("sim", model)) as device:
        with pytest.raises(DamagedError, match="sim: a bit flipped in memory weight, .*load a whole network, or restore a checkpoint") as used:
            device.train(samples, labels)
        with pytest.raises(DamagedError) as read:
            device.read_state()
        with pytest.raises(DamagedError):
            device.save(tmp_path / "checkpoint")
        assert not (tmp_path / "checkpoint").exists()
        protected = {region.name for region in regions(config).values() if region.parity}
        assert protected - {*used.value.memories, *read.value.memories} <= {"frame", "event", "count"}, "these are written anew before they are read"
        device.load(network)
        for name, rate in (("rate_w", 6), ("rate_theta", 7), ("rate_alpha", 8)):
            setattr(network, name, rate)
            device.set_rates(**{name: rate})
        classes = [network.run(x, int(y), "wtl").winner for x, y in zip(samples, labels, strict=True)]
        assert device.train(samples, labels).tolist() == classes and same(device.read_state(), network.read())
        device.save(tmp_path / "checkpoint")
        device.restore(tmp_path / "checkpoint")
        assert same(device.read_state(), network.read())
