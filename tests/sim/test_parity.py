"""A bit flips in each memory of a device: the driver says where, and after a network is loaded all is well."""

import numpy as np
import pytest
from amaranth.lib.memory import Memory

from hw.configuration import record
from hw.design import Design
from hw.host.protocol import Link
from hw.memory import Bank
from hw.memory_map import regions
from hw.network import Network
from sim.endpoint import Model
from sim.scenarios import exercise
from sim.transport import Simulated
from sim.twin import Twin
from sw.driver.device import DamagedError, Device
from sw.golden.network import GoldenNetwork
from tests.sw.driver.test_link import digits, same, start

LINK = Link(clock=24_000_000, baud=3_000_000, buffer=512)
STATIC = Design.of(Network(net="6-4-3", steps=3), lanes=2, parity=True)
EVENTS = Design.of(
    Network(net="6-5-3", steps=3, input="events", cadence="step", stochastic=True),
    lanes=4, neuron_lanes=2, parity=True, wires="far",
)  # fmt: skip


@pytest.mark.parametrize("design", [STATIC, EVENTS])
def test_a_core_with_parity_equals_golden_and_finds_nothing(design, monkeypatch):
    found = []
    monkeypatch.setattr(Twin, "__exit__", _then(Twin.__exit__, lambda twin: found.append(twin.device.register("damaged"))))
    seen = exercise(design.network, np.random.default_rng(3), machine=design.machine, samples=12, stall=0.2)
    assert found == [0] and seen["weights changed"] > 50 and seen["spikes"] > 20


def _then(leave, look):
    def wrapped(twin, *exception):
        look(twin)
        return leave(twin, *exception)

    return wrapped


def damaged(monkeypatch, design, row_of):
    """A device that holds its network from the start, and in each memory, in every lane, a word with a bit flipped: that in row
    `row_of(region)`, if there is one. In a program it is the parity bit: what cannot be trusted is right."""
    elaborate, banks = Bank.elaborate, []
    tables = dict(zip(("lane_program", "neuron_program"), design.plan.tables, strict=True))

    def begin(bank, platform):
        banks.append(bank)
        return elaborate(bank, platform)

    def filled(*, shape, depth, init):
        region, lane, row = banks[-1].region, banks[-1].lane or 0, row_of(banks[-1].region)
        if region.name in tables:
            words = [word >> 32 * lane & 0xFFFF_FFFF for word in tables[region.name]]
            init = [word | (word.bit_count() + (n == row)) % 2 << region.bits for n, word in enumerate(words)]
        elif region.name == "network":
            init = record(design.network)
        elif row is not None:
            init = [0] * row + [1]
        return Memory(shape=shape, depth=depth, init=init)

    monkeypatch.setattr(Bank, "elaborate", begin)
    monkeypatch.setattr("hw.memory.Memory", filled)
    model = Model(design.machine, LINK)
    monkeypatch.undo()
    return Simulated(model)


def flipped(monkeypatch, name, row):
    """A device in which the lowest bit of a row of one memory is flipped, in every lane."""
    return damaged(monkeypatch, STATIC, lambda region: row if region.name == name else None)


def test_what_came_of_a_damaged_word_is_never_saved(monkeypatch, tmp_path):
    """A host that writes over it mends the word, but not what was learned from it."""
    samples, labels = digits(STATIC.network, 5)
    with Device.open(flipped(monkeypatch, "weight", 0)) as device:
        for use in (lambda: device.train(samples, labels), lambda: device.save(tmp_path / "kept")):
            with pytest.raises(DamagedError, match="in memory weight"):
                use()
        device.write_state({"weight.1": np.zeros((4, 6), int)})
        with pytest.raises(DamagedError, match="in memory weight"):
            device.save(tmp_path / "kept")
        device.load(start(STATIC.network, 1))
        with pytest.raises(DamagedError):  # that was not all of a network
            device.save(tmp_path / "kept")
        assert not (tmp_path / "kept").exists()
        device.load(GoldenNetwork(STATIC.network))
        device.load(start(STATIC.network, 1))
        device.train(samples, labels)
        device.save(tmp_path / "kept")


def test_an_entry_of_the_frame_that_no_sample_uses_is_repaired(monkeypatch):
    samples, labels = digits(STATIC.network, 5)
    samples[:, 3:] = 0
    region = regions(STATIC.machine)["frame"]
    with Device.open(flipped(monkeypatch, "frame", region.depth - 1)) as device:
        device.read_words(region.address(0), region.depth)
        with pytest.raises(DamagedError, match="in memory frame"):
            device.train(samples, labels)
        device.load(GoldenNetwork(STATIC.network))
        device.read_words(region.address(0), region.depth)
        device.train(samples, labels)


@pytest.mark.parametrize("design", [STATIC, EVENTS])
def test_a_bit_flipped_in_each_memory_is_reported_and_can_be_repaired(design, monkeypatch, tmp_path):
    line = damaged(monkeypatch, design, lambda region: 0)
    samples, labels = digits(design.network, 5)
    network = GoldenNetwork(design.network)
    network.load(start(design.network, 1))
    with Device.open(line) as device:
        assert device.network == design.network
        with pytest.raises(
            DamagedError, match="sim: a bit flipped in memory weight, .*load a whole network, or restore a checkpoint"
        ) as used:
            device.train(samples, labels)
        with pytest.raises(DamagedError) as read:
            device.read_state()
        with pytest.raises(DamagedError):
            device.save(tmp_path / "checkpoint")
        assert not (tmp_path / "checkpoint").exists()
        protected = {region.name for region in regions(design.machine).values() if region.parity}
        assert protected - {*used.value.memories, *read.value.memories} <= {"frame", "event", "count"}, (
            "these are written anew before they are read"
        )
        device.load(network)
        for name, rate in (("rate_w", 6), ("rate_theta", 7), ("rate_alpha", 8)):
            setattr(network, name, rate)
            device.set_rates(**{name: rate})
        classes = [network.run(x, int(y), "wtl").winner for x, y in zip(samples, labels, strict=True)]
        assert device.train(samples, labels).tolist() == classes and same(device.read_state(), network.read())
        device.save(tmp_path / "checkpoint")
        device.restore(tmp_path / "checkpoint")
        assert same(device.read_state(), network.read())
