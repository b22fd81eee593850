"""The driver's half of the link: frames, batches, sessions over bad lines, checkpoints; against the golden device."""

import os
import random
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boards import BOARDS
from hw.host.protocol import DESCRIPTION_MOST, Link, Status, description, read_description
from hw.machine import FAR, Machine
from hw.memory_map import regions
from hw.network import Network
from hw.notation import dense
from hw.numbers import Q
from sw.driver.device import CHUNK, Device
from sw.golden.network import GoldenNetwork
from sw.golden.state import initial_state
from sw.transport.base import DeviceError, DeviceReset, Transport
from sw.transport.batch import Batch, pack
from sw.transport.frames import parse_reply, parse_request, reply, request
from sw.transport.golden import Model
from sw.transport.process import InProcess
from sw.transport.terminal import PseudoTerminal

CONFIG = Network(net="6-4-3", steps=3, stochastic=True)
EVENTS = Network(net="6-4-3", steps=3, input="events", cadence="step")
MACHINE = Machine.holding(CONFIG, lanes=2)
LINK = Link(clock=24_000_000, baud=3_000_000, buffer=512)


def digits(config, n, seed=1):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, config.classes, n)
    if config.static:
        return rng.integers(0, 256, (n, config.sizes[0])).astype(np.uint8), labels
    return rng.random((n, config.steps, config.sizes[0])) < 0.5, labels


def start(config, seed):
    """A state from which every layer spikes."""
    return initial_state(config, seed, gain=3.0, theta=0.25)


def golden(network=CONFIG, link=LINK, **machine):
    """A golden device of two lanes that runs a network."""
    line = InProcess("golden", Model(Machine.holding(network, **{"lanes": 2} | machine), link))
    Device.open(line, network=network)
    return line


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


# -- frames ----------------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 255), st.binary(max_size=400), st.booleans())
def test_a_request_comes_out_as_it_went_in(sequence, payload, opening):
    wire = request(sequence, payload, opening=opening)
    assert wire.count(0) == 1 and wire[-1] == 0
    assert parse_request(wire[:-1], 512) == (sequence, payload, opening)
    assert parse_request(wire[:-1], len(payload) + 7) is None  # one byte too long


@given(st.integers(0, 255), st.binary(max_size=118), st.sampled_from(Status), st.data())
def test_a_damaged_reply_is_none(sequence, data, status, draw):
    wire = bytearray(reply(sequence, data, status)[:-1])
    assert parse_reply(bytes(wire)) == (sequence, data, status)
    wire[draw.draw(st.integers(0, len(wire) - 1))] ^= draw.draw(st.integers(1, 255))
    assert parse_reply(bytes(wire)) is None


@pytest.mark.parametrize("machine", [MACHINE, Machine.holding(EVENTS, CONFIG, lanes=8, neuron_lanes=4, wires=FAR, parity=True),
    Machine.holding(Network(net="784-64-32-10", w=Q(6, 10)), lanes=4, weight_memory="spram"),
    Machine.holding(CONFIG, fixed=CONFIG, lanes=4),
    Machine.holding(Network(net=dense((1 << 16, *range(9, 24), 256)), steps=255), lanes=128),
    Machine.holding(Network(input="events", lazy=True, trace=Q(5, 8), stochastic=True)),
    *(board.design.machine for board in BOARDS.values())])  # fmt: skip
def test_a_description_holds_every_field(machine):
    data = description(machine, LINK)
    assert read_description(data.ljust(DESCRIPTION_MOST, b"\0")) == (machine, LINK)


@pytest.mark.parametrize(("field", "value"), [("buffer", 1000), ("buffer", 8192), ("reply", 32), ("reply", 512)])
def test_a_link_says_what_is_legal(field, value):
    with pytest.raises(ValueError, match=f"{field}: {value} is not legal; legal is a power of two"):
        Link(clock=1, baud=1, **{field: value})


def test_a_batch_fills_its_frames():
    machine = Machine.holding(Network(net="100-60-10"), lanes=1)
    batch, words, place = Batch(LINK), np.arange(3000), regions(machine)["weight"].address(0)
    batch.write(place, words, 2)
    batch.read(place, 3000, 2)
    batch.flush()
    most = LINK.request_bytes - 7
    assert max(map(len, batch.payloads)) <= most and min(map(len, batch.payloads[:20])) > most - 10
    model = Model(machine, LINK)
    replies = [model._execute(payload) for payload in batch.payloads]
    assert {status for _, status in replies} == {Status.OK}
    assert all(len(data) <= LINK.reply_data for data, _ in replies)
    assert np.array_equal(batch.collect(data for data, _ in replies), words)


def test_words_are_packed_least_byte_first():
    assert pack([-1, 258], 3) == b"\xff\xff\xff\x02\x01\x00"


# -- sessions over bad lines -----------------------------------------------------------------------------------------------------


class BadLine(Transport):
    """Loses, damages and doubles what goes over another line, in both directions; `cut` bytes on, it is dead."""

    def __init__(self, line, seed, rate, cut=None):
        self.line, self.random, self.rate, self.cut, self.name = line, random.Random(seed), rate, cut, "bad"
        self.faults = 0

    def _spoil(self, data):
        out = bytearray()
        for byte in data:
            if self.random.random() < self.rate:
                self.faults += 1
                byte = self.random.choice(([], [byte, byte], [byte ^ 1 << self.random.randrange(8)], [self.random.randrange(256)]))
                out += bytes(byte)
            else:
                out.append(byte)
        return bytes(out)

    def send(self, data):
        if self.cut is not None:
            data, left = data[: self.cut], self.cut - len(data)
            self.cut = max(0, left)
            self.line.send(self._spoil(data))
            if left < 0:
                raise DeviceError("the cable was pulled")
        else:
            self.line.send(self._spoil(data))

    def receive(self, timeout):
        while data := self.line.receive(timeout):
            if spoilt := self._spoil(data):
                return spoilt
        return b""


@pytest.mark.parametrize("config", [CONFIG, EVENTS], ids=["static", "events"])
def test_a_bad_line_changes_nothing_but_the_time(config):
    samples, labels = digits(config, 150)
    state, network = start(config, 2), GoldenNetwork(config)
    network.load(state)
    want = [network.run(x, int(y), "wtl").winner for x, y in zip(samples, labels, strict=True)]
    line = BadLine(golden(config), 3, 0.0007)  # few faults, so that no request is lost five times in a row
    with Device.open(line) as device:
        device.load(state)
        device.set_rates(rate_w=8, rate_theta=8, rate_alpha=8)
        assert device.train(samples, labels).tolist() == want
        assert same(device.read_state(), network.read())
        assert line.faults > 8 and device.session.repeats > 10, "the scenario proves little"


def pull_the_cable(new, cuts):
    """Whatever byte is the last: what was asked for by whole frames is done, and nothing else."""
    samples, labels = digits(CONFIG, 8)
    network, states = GoldenNetwork(CONFIG), []
    network.load(start(CONFIG, 2))
    states.append(network.read())
    for x, y in zip(samples, labels, strict=True):
        network.run(x, int(y), "wtl")
        states.append(network.read())
    weights = [{name: a for name, a in s.items() if name.split(".")[0] in ("weight", "theta", "alpha", "rng")} for s in states]
    seen = set()
    for cut in cuts:
        line = new()
        with Device.open(line) as device:
            device.load(states[0])
            device.set_rates(rate_w=8, rate_theta=8, rate_alpha=8)
            device._transport = device.session.transport = BadLine(device._transport, 1, 0, cut)
            with pytest.raises(DeviceError, match="pulled"):
                for x, y in zip(samples, labels, strict=True):
                    device.train([x], [y])
        with Device.open(line) as device:
            after = device.read_state()
        done = [n for n, w in enumerate(weights) if same(w, {name: after[name] for name in w})]
        assert done, f"cut after {cut} bytes: a state that no number of samples leads to"
        seen.add(done[0])
    assert len(seen) >= 4, f"the scenario proves little: {seen}"


def test_the_cable_is_pulled_in_the_middle():
    pull_the_cable(golden, range(0, 500, 19))


def uninterrupted(samples, labels, kept, path):
    """The state after all samples; a checkpoint is written to `path` when `kept` of them are learned."""
    with Device.open(golden()) as device:
        device.load(start(CONFIG, 1))
        device.train(samples[:kept], labels[:kept])
        device.save(path)
        device.train(samples[kept:], labels[kept:])
        return device.read_state()


def test_the_host_is_killed_while_it_trains(tmp_path):
    """A process that trains is killed; another one goes on from its last checkpoint, as if nothing had been."""
    samples, labels = digits(CONFIG, 12)
    want = uninterrupted(samples, labels, 6, tmp_path / "kept")
    script = """
import sys
from sw.driver.device import Device
from tests.sw.driver.test_link import CONFIG, digits
device = Device.open(sys.argv[1])
print("on", flush=True)
while True:
    device.train(*digits(CONFIG, 500))
"""
    line = golden()
    with PseudoTerminal(line) as port:
        with Device.open(port) as device:
            device.load(start(CONFIG, 3))
        with subprocess.Popen([sys.executable, "-c", script, port], stdout=subprocess.PIPE) as host:
            assert host.stdout.readline() == b"on\n"
            while line.model.core.network.sops < 5000:  # until it is in the middle of it, however slow it is
                assert host.poll() is None
                time.sleep(0.01)
            host.kill()
        with Device.open(port) as device:
            device.restore(tmp_path / "kept")
            device.train(samples[6:], labels[6:])
            assert same(device.read_state(), want)


def test_a_reset_is_noticed_and_a_checkpoint_helps(tmp_path):
    samples, labels = digits(CONFIG, 30)
    want = uninterrupted(samples, labels, 10, tmp_path / "kept.safetensors")
    line = golden()
    with Device.open(line) as device:
        device.load(start(CONFIG, 1))
        line.model.reset()
        with pytest.raises(DeviceReset, match="open it again, and restore"):
            device.train(samples, labels)
    with Device.open(line) as device:
        device.restore(tmp_path / "kept.safetensors")
        device.train(samples[10:], labels[10:])
        assert same(device.read_state(), want)


@pytest.mark.parametrize("executed", range(6))
def test_a_new_host_gets_a_session_of_its_own_whatever_number_it_draws(executed, monkeypatch):
    model = golden().model
    monkeypatch.setattr(os, "urandom", lambda n: b"\x07" * n)
    for number in (7, 135):  # the numbers of both openings
        model.run(request(number, b"", opening=True))
        for k in range(executed):
            model.run(request(number + 1 + k, b""))
        with Device.open(InProcess("golden", model)) as device:
            assert device.config == CONFIG


def test_a_driver_without_the_simulation(monkeypatch):
    monkeypatch.setitem(sys.modules, "sim.transport", None)  # as if it were not installed
    with pytest.raises(DeviceError, match="port: sim needs sim.transport, which cannot be imported .*; install the whole project"):
        Device.open("sim")
    Device.open("golden").close()


def test_nobody_answers():
    class Dead(Transport):
        name = "dead"

        def send(self, data):
            pass

        def receive(self, timeout):
            return b""

    with pytest.raises(DeviceError, match="dead: no device answers; is it powered, programmed"):
        Device.open(Dead())


def test_a_serial_port_that_is_not_there():
    with pytest.raises(DeviceError, match="port: /dev/nonesuch cannot be opened .* is the board plugged in"):
        Device.open("/dev/nonesuch")


def test_any_serial_program_may_talk_to_a_pseudo_terminal():
    samples, labels = digits(CONFIG, 12)
    with PseudoTerminal(golden()) as port, Device.open(port, network=CONFIG) as device:
        assert device.info().port == port and device.info().baud == 3_000_000 and device.config == CONFIG
        device.load(start(CONFIG, 1))
        got = device.train(samples, labels), device.read_state()
    with Device.open(golden()) as device:
        device.load(start(CONFIG, 1))
        assert np.array_equal(got[0], device.train(samples, labels)) and same(got[1], device.read_state())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pty")]


# -- the driver ------------------------------------------------------------------------------------------------------------------


def test_the_driver_equals_the_network():
    for config in (CONFIG, EVENTS):
        samples, labels = digits(config, CHUNK + 5)
        network = GoldenNetwork(config, visits=[(2, False)] * config.n_layers)
        network.load(start(config, 1))
        network.rate_w, network.rate_theta, network.rate_alpha = 8, 9, 10
        with Device.open(golden(config)) as device:
            device.load(network)
            device.set_rates(rate_w=8, rate_theta=9, rate_alpha=10)
            assert device.train(samples, labels, "wtl").tolist() == [
                network.run(x, int(y), "wtl").winner for x, y in zip(samples, labels, strict=True)
            ]
            counters = device.counters()
            assert (counters["sops"], counters["sops_skipped"]) == (network.sops, network.sops_skipped)
            results, want = device.infer(samples), [network.run(x) for x in samples]
            for got, wanted in zip(zip(*results, strict=True), want, strict=True):
                assert all(np.array_equal(a, b) for a, b in zip(got, wanted, strict=True))
            assert device.evaluate(samples, labels) == np.mean([w.winner == y for w, y in zip(want, labels, strict=True)])
            assert same(device.read_state(), network.read())
        assert results.counts.sum() > 10 and len(set(results.classes)) > 1, "the scenario proves little"


@pytest.mark.parametrize(("call", "says"), [
    (lambda d: d.train(np.zeros((2, 6), np.uint8), [0]), "labels: 1 are not legal"),
    (lambda d: d.train(np.zeros((1, 6), np.uint8), [3]), "label: 3 is not a class"),
    (lambda d: d.train(np.zeros((1, 5), np.uint8), [0]), "sample: shape"),
    (lambda d: d.train(np.zeros((1, 6), np.uint8), [0], "x"), "learn: 'x' is not legal"),
    (lambda d: d.infer([np.full(6, np.nan)]), "NaN"),
    (lambda d: d.evaluate([], []), "labels: none"),
    (lambda d: d.set_rates(rate_w=16), "rate_w: 16 is not legal"),
    (lambda d: d.set_rates(rate=1), "rate: no such rate"),
    (lambda d: d.write_state({"weight.1": np.zeros((4, 6), int), "theta.1": np.zeros(4, int)}),
     "theta.1: 4 of 4 values do not fit"),
    (lambda d: d.load(GoldenNetwork(EVENTS)), "unit_rows: 6-4-3 needs 10, the machine has 5"),
    (lambda d: d.restore("nonesuch"), "path: nonesuch is not a file"),
    (lambda d: d.save("nonesuch/kept"), "path: nonesuch is not a folder"),
])  # fmt: skip
def test_bad_arguments_change_nothing(call, says):
    with Device.open(golden()) as device:
        device.load(start(CONFIG, 1))
        before = device.read_state()
        with pytest.raises(ValueError, match=says):
            call(device)
        assert same(device.read_state(), before)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=8))
def test_the_golden_device_survives_any_bytes(parts):
    model = golden().model
    before = model.core.network.read()
    for part in parts:
        model.run(part + b"\0")
    assert same(model.core.network.read(), before)
