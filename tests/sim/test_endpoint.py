"""The whole device, Verilated: bytes in, bytes out, against the golden device and the driver."""

import random
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from hw.host.protocol import Link, Op, Status
from hw.machine import FAR, Machine
from hw.memory_map import REGISTERS
from hw.network import Network
from sim.endpoint import Model
from sim.fuzz import KINDS, LINK, Difference, Fuzz
from sim.transport import Simulated
from sw.driver.device import Device
from sw.golden.network import GoldenNetwork
from sw.golden.state import initial_state
from sw.transport.frames import parse_reply, request
from sw.transport.process import InProcess
from tests.sw.driver.test_link import CONFIG, MACHINE, digits, golden, pull_the_cable, same, start


class Kept(Simulated):
    """A line to a model that outlives it."""

    def close(self):
        pass


@pytest.fixture(scope="module")
def model():
    model = Model(MACHINE, LINK)
    yield model
    model.close()


@pytest.fixture
def line(model):
    """The device holds a network, and was reset."""
    Device.open(Kept(model)).configure(CONFIG)
    model.reset()
    return Kept(model)


def replies(model, data, **options):
    sent, out = model.run(data, limit=1_000_000, **options)
    assert sent == len(data)
    return [parse_reply(part) for part in out.split(b"\0") if part]


@pytest.fixture(scope="module")
def fuzz():
    fuzz = Fuzz()
    fuzz.send("opened", 0)
    yield fuzz
    fuzz.close()


@seed(1)  # the same frames in every run, and first of all those that ever failed here, which Hypothesis keeps
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from([*KINDS, "opened"]), st.integers(0, 2**32 - 1)), min_size=1, max_size=30))
def test_frames_of_every_kind(fuzz, frames):
    fuzz.restart()
    fuzz.send("opened", 0)
    for kind, number in frames:
        fuzz.send(kind, number)
    fuzz.flush()


def test_many_frames_and_the_whole_state(fuzz):
    fuzz.run(3000, 5)
    assert (
        min(fuzz.frames[kind] for kind in KINDS) >= 20
        and min(fuzz.answers[status] for status in (Status.OK, Status.SEQUENCE, Status.ILLEGAL)) > 100
    )


def test_the_fuzzer_sees_a_device_that_acts_on_damaged_frames(monkeypatch):
    fuzz = Fuzz()  # built already
    monkeypatch.setattr("sw.transport.golden.parse_request", lambda whole, buffer: None)
    with pytest.raises(Difference, match="the gateware answers"):
        fuzz.run(20, 1)
    fuzz.close()


def test_reset_in_any_state(fuzz):
    """The device is reset at many clock cycles, in the middle of frames, samples and replies, and goes on in the next session."""
    rng = random.Random(1)
    network = fuzz.plan.network
    lines = Kept(fuzz.gateware), InProcess("golden", fuzz.golden)
    for line in lines:  # a legal state, whatever was tested before
        Device.open(line, network=network).write_state(initial_state(network, 1))
        line.model.reset()
    fuzz.send("opened", 0)
    fuzz.flush()
    for cycles in [*range(1, 200, 9), *(rng.randrange(200, 3000) for _ in range(30))]:
        run = struct.pack("<BHBI", Op.WRITE, 1, 1, REGISTERS["run"].address) + b"\0"
        read = struct.pack("<BHBI", Op.READ, 1, 1, REGISTERS["class"].address)
        fuzz.gateware.run(request(fuzz.host.next, run + read), limit=cycles)
        fuzz.gateware.reset()
        assert replies(fuzz.gateware, b"\0" + request(3, b""))[0].status == Status.CLOSED
        state = Device.open(lines[0], network=network).read_state()
        Device.open(lines[1], network=network).write_state(state)
        for line in lines:
            line.model.reset()
        fuzz.send("opened", cycles)
        for part in fuzz.host.configuration:  # whose settings are lost
            fuzz._ask("a configuration", fuzz.host.configure(*part))
        for k in range(3):
            fuzz.send("good", 100 * cycles + k)
        fuzz.flush()


def test_a_reset_reaches_lanes_far_away():
    """Sums far from the reset are cleared by way of what the lanes are told, whichever sample it ends."""
    network = Network(net="30-24-4", steps=2, input="events", cadence="step")
    machine = Machine.holding(network, lanes=16, neuron_lanes=2, wires=FAR)
    rng, model, golden = np.random.default_rng(1), Model(machine, LINK), GoldenNetwork(network)
    state, moved = initial_state(network, 1), 0
    values = {"last_step": 1, "run": 0}
    run = b"".join(struct.pack("<BHBIB", Op.WRITE, 1, 1, REGISTERS[name].address, value) for name, value in values.items())
    for cycles in range(40, 700, 11):
        with Device.open(Kept(model), network=network) as device:
            device.write_state(state)
            every = device.region("event")
            for lane in range(every.lanes):
                device.write_words(every.address(0, lane), np.ones(every.depth, np.uint32))
        model.reset()
        assert replies(model, request(1, b"", opening=True))[0].status == Status.OK
        model.run(request(2, run), limit=cycles)
        model.reset()
        with Device.open(Kept(model)) as device:
            device.write_state(state)
            golden.load(state)
            sample = rng.random((2, 30)) < 0.5
            got, want = device.infer([sample]), golden.run(sample)
            assert np.array_equal(got.membranes[0], want.membranes) and np.array_equal(got.counts[0], want.counts), cycles
            moved += np.count_nonzero(want.membranes)
    assert moved > 40
    model.close()


def test_a_host_that_ignores_the_window_harms_nobody(line):
    """Frames that find the buffer full are dropped; those that were in it are answered, and then the session goes on."""
    model = line.model
    assert replies(model, request(1, b"", opening=True))[0].status == Status.OK
    ask = struct.pack("<BHBI", Op.READ, 20, 4, REGISTERS["identity"].address)
    got = replies(model, b"".join(request(2 + k, ask) for k in range(100)))
    assert all(got) and 20 < len(got) < 100, f"the scenario proves little: {len(got)} answers"
    done = [reply.sequence for reply in got if reply.status == Status.OK]
    assert done == list(range(2, 2 + len(done))), "a frame was executed out of order"
    assert replies(model, request(2 + len(done), b""))[0].status == Status.OK and model.lights["error"]


def test_a_host_that_stops_reading_loses_nothing(line):
    model = line.model
    replies(model, request(1, b"", opening=True))
    ask = struct.pack("<BHBI", Op.READ, 20, 4, REGISTERS["identity"].address)
    data, out = b"".join(request(2 + k, ask) for k in range(3)), b""
    sent, part = model.run(data, limit=100_000, capacity=1)
    while part or sent < len(data):  # one byte at a time
        out, data = out + part, data[sent:]
        sent, part = model.run(data, limit=100_000, capacity=1)
    assert [reply.sequence for reply in map(parse_reply, out.split(b"\0")[:-1])] == [2, 3, 4]


def test_lights(line):
    model = line.model
    assert not model.lights["configured"] and model.run() == (0, b"")  # it looks into its flash first
    assert model.lights == {"configured": True, "alive": False, "busy": False, "error": False}
    replies(model, request(1, b"", opening=True))
    assert model.lights["alive"] and not model.lights["error"]
    replies(model, b"\1\2\3\0")
    assert model.lights["error"]
    run = struct.pack("<BHBI", Op.WRITE, 1, 1, REGISTERS["run"].address) + b"\0"
    busy = set()
    data = request(2, run)
    for _ in range(60):
        sent, _ = model.run(data, limit=10)
        data = data[sent:]
        busy.add(model.lights["busy"])
    assert busy == {False, True}
    replies(model, request(7, b"", opening=True))
    assert not model.lights["error"]


# -- one script, three worlds ----------------------------------------------------------------------------------------------------


def learn(line, path=None):
    """The same training script for every world: 100 samples; `path` saves after 40 of them."""
    samples, labels = digits(CONFIG, 100)
    with Device.open(line, network=CONFIG) as device:
        device.load(start(CONFIG, 1))
        device.set_rates(rate_w=6, rate_theta=8, rate_alpha=8)
        classes = device.train(samples[:40], labels[:40])
        if path:
            device.save(path)
        classes = np.concatenate([classes, device.train(samples[40:], labels[40:])])
        return classes, device.read_state(), device.counters()


def test_the_cable_is_pulled_in_the_middle(model):
    def new():
        model.power_up()
        Device.open(Kept(model)).configure(CONFIG)
        return Kept(model)

    pull_the_cable(new, range(0, 500, 57))


def test_a_script_cannot_tell_sim_from_golden(model, tmp_path):
    model.reset()
    sim, gold = learn(Kept(model), tmp_path / "sim"), learn(golden(), tmp_path / "golden")
    assert np.array_equal(sim[0], gold[0]) and same(sim[1], gold[1])
    assert sim[2]["sops"] == gold[2]["sops"] > 1000 and len(set(sim[0])) == 3
    # Killed after 40 samples, and gone on with in the other world: as if nothing had been.
    samples, labels = digits(CONFIG, 100)
    for path, line in ((tmp_path / "sim", golden()), (tmp_path / "golden", Kept(model))):
        with Device.open(line) as device:
            device.restore(path)
            assert np.array_equal(device.train(samples[40:], labels[40:]), sim[0][40:])
            assert same(device.read_state(), sim[1]) and device.counters()["sops"] == sim[2]["sops"]


def test_the_line_is_in_use_while_samples_stream():
    """With the UART, bit by bit: 784-byte frames to a small network that is as slow as the board's."""
    network = Network(net="784-4-3", steps=2, cadence="step")
    model = Model(Machine.holding(network, lanes=1), Link(clock=24_000_000, baud=3_000_000), serial=True)
    rng = np.random.default_rng(1)
    samples = (rng.integers(0, 256, (12, 784)) * (rng.random((12, 784)) < 0.3)).astype(np.uint8)
    with (Device.open(Simulated(model), network=network) as device,
          Device.open(golden(network, device.info().link, lanes=1)) as twin):  # fmt: skip
        for d in (device, twin):
            d.load(initial_state(network, 1))
        before = model.cycles, model.line_cycles
        classes = device.train(samples, [0, 1, 2] * 4)
        cycles, busy = model.cycles - before[0], model.line_cycles - before[1]
        assert np.array_equal(classes, twin.train(samples, [0, 1, 2] * 4)) and same(device.read_state(), twin.read_state())
    payload = samples.size * 10 * 8  # clock cycles: ten bits a byte, eight cycles a bit
    print(f"line in use {busy / cycles:.1%}, by pixels {payload / cycles:.1%}")
    assert busy / cycles > 0.9
