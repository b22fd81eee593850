"""Networks at run time: one device takes one after the other, keeps what it has if one does not fit, and mends what was cut off."""

from functools import cache

import numpy as np
import pytest

from hw.configuration import RECORD
from hw.design import Design
from hw.machine import FAR, Machine
from hw.memory_map import NETWORK_WORDS, REGISTERS, registers
from hw.network import Network
from hw.numbers import Q
from hw.plan import DoesNotFit
from sim.endpoint import Model as Simulation
from sim.transport import Simulated
from sw import data
from sw.driver.device import Device, first_rates
from sw.driver.flash import image
from sw.files.image import Image
from sw.golden.fast import FastNetwork
from sw.golden.recipe import Recipe
from sw.transport.base import DeviceError
from sw.transport.golden import Model
from sw.transport.process import InProcess
from tests.sw.driver.test_link import LINK, BadLine, digits, same, start

NETWORKS = [
    Network(net="6-3", steps=3),
    Network(net="12-9-4", steps=4, input="events", cadence="step", stochastic=True),
    Network(net="9-8-5-3", steps=2, cadence="step"),
    Network(net="7-6-5-6-3", steps=3, input="events", stochastic=True),
    Network(net="10-4-7-6-5-4", steps=5, stochastic=True),
    Network(net="9-6-3", steps=3, output_error="graded", centred=True, decay=True, slower=(0, 2)),
    Network(net="9-6-3", steps=3, remainder=True),
]
MACHINE = Machine.holding(*NETWORKS, lanes=4, neuron_lanes=2)
RATES = {"rate_w": 6, "rate_theta": 8, "rate_alpha": 7, "rate_decay": 9}


def has(device, rates):
    """Whether the device has these rates, as far as its machine knows them."""
    return device.rates == {name: rates[name] for name in rates if name in registers(device.machine)}


class Kept(Simulated):
    """A line to a simulated device that outlives it."""

    def close(self):
        pass


@cache
def simulation(machine):
    return Simulation(machine, LINK)


def new(world, machine=MACHINE, flash=b""):
    """The line to a device that was just switched on; it may be opened many times."""
    if world == "golden":
        return InProcess("golden", Model(machine, LINK))
    model = simulation(machine)
    model.flash = flash
    model.power_up()
    return Kept(model)


def without_class(state):
    return {name: array for name, array in state.items() if name != "class"}


def trained(network, grain, samples, labels, state=None):
    """A golden network after these samples, and the classes it gave them."""
    golden = FastNetwork(network, visits=[(grain, False)] * network.n_layers)
    golden.load(state or start(network, 1))
    vars(golden).update(RATES)
    return golden, [golden.run(x, int(y), "wtl").winner for x, y in zip(samples, labels, strict=True)]


def learns(device, network, n=12):
    """Trains the device from a state of its own, and compares all that is to be seen with the golden model."""
    samples, labels = digits(network, n)
    golden, classes = trained(network, device.machine.lanes, samples, labels)
    before = device.counters()
    device.load(start(network, 1))
    device.set_rates(**RATES)
    assert device.train(samples, labels).tolist() == classes
    spent = {name: count - before[name] for name, count in device.counters().items()}
    assert (spent["sops"], spent["sops_skipped"]) == (golden.sops, golden.sops_skipped)
    assert same(device.read_state(), golden.read()), network
    want = [golden.run(x) for x in samples]
    for got, wanted in zip(zip(*device.infer(samples), strict=True), want, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(got, wanted, strict=True))
    return sum(int(w.counts.sum()) for w in want)


@pytest.mark.parametrize(
    "machine", [MACHINE, Machine.holding(*NETWORKS, lanes=8, wires=FAR, parity=True)], ids=["small", "far and parity"]
)
@pytest.mark.parametrize("world", ["golden", "sim"])
def test_one_device_runs_networks_in_turn(world, machine):
    spikes = 0
    with Device.open(new(world, machine)) as device:
        assert device.network is None
        for network in (*NETWORKS, *reversed(NETWORKS)):
            device.configure(network)
            assert device.network == device.held() == network and has(device, first_rates())
            assert same(without_class(device.read_state()), without_class(FastNetwork(network).read())), "it is not fresh"
            spikes += learns(device, network)
    assert spikes > 100, "the scenario proves little"


@pytest.mark.parametrize("world", ["golden", "sim"])
def test_a_lazy_device_runs_networks_in_turn(world):
    first = Network(net="9-7-4", steps=4, input="events", lazy=True, trace=Q(5, 8))
    lazy = [first, first.replace(net="12-3", steps=2)]
    line = new(world, Machine.holding(*lazy, lanes=4))
    for network in (*lazy, lazy[0]):
        with Device.open(line, network=network) as device:
            assert learns(device, network) > 0


@pytest.mark.parametrize("world", ["golden", "sim"])
def test_another_host_finds_the_network_even_after_a_reset(world):
    """A reset leaves the programs and the record, and no settings: the next host writes them anew, and has rates that learn."""
    line, network = new(world), NETWORKS[3]
    samples, labels = digits(network, 10)
    golden, _ = trained(network, MACHINE.lanes, samples, labels)
    with Device.open(line, network=network) as device:
        device.load(start(network, 1))
        device.set_rates(**RATES)
        device.train(samples, labels)
    with Device.open(line, network=network) as device:  # nothing is lost
        assert has(device, RATES) and same(device.read_state(), golden.read())
    line.model.reset()
    with Device.open(line) as device:
        assert device.network == network and has(device, first_rates())
        words = [int(device.read_words(REGISTERS[name].address, 1)[0]) for name in ("last_step", "rounding")]
        assert words == [network.steps - 1, 1]
        device.load(golden.read())  # leakage factors and R are lost
        device.set_rates(**RATES)
        classes = [golden.run(x, int(y), "wtl").winner for x, y in zip(samples, labels, strict=True)]
        assert device.train(samples, labels).tolist() == classes and same(device.read_state(), golden.read())


# -- learning rates --------------------------------------------------------------------------------------------------------------


def test_a_device_that_was_just_configured_learns():
    """With the rates with which a recipe starts; those of power-up, which mean 2^0, learn nothing."""
    network = Network(net="64-20-10", steps=5)
    dataset, shares = data.load("digits", network), []
    images = [dataset.test.sample(i) for i in range(120)]
    for design in (Design.of(network), Design.of(network, fixed=True)):
        with Device.open("golden", machine=design.machine, network=network) as device:
            assert has(device, first_rates()) and first_rates() == Recipe().rates(0)
            for rates in ({}, dict.fromkeys(RATES, 0)):
                device.load(Recipe().state(network, 0))
                device.set_rates(**rates)
                device.train([dataset.train.sample(i) for i in range(400)], dataset.train.labels[:400])
                shares.append(device.evaluate(images, dataset.test.labels[:120]))
    assert shares[0] == shares[2] > 0.6 and max(shares[1], shares[3]) < 0.3


# -- what does not fit -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("network", "says"), [
    (Network(net="6-5-5-5-5-5-3"), "layers: 6-5-5-5-5-5-3 needs 6, the machine has 5"),
    (Network(net="6-10-3"), r"population: 6-10-3 needs 10, the machine has 9 \(neurons in a layer\)"),
    (Network(net="13-3"), "fan_in: 13-3 needs 13, the machine has 12"),
    (Network(net="6-5"), "classes: 6-5 needs 5, the machine has 4"),
    (Network(net="6-9-9-4"), "weight_rows: 6-9-9-4 needs 54, the machine has "),
    (NETWORKS[0].replace(w=Q(5, 12)), r"w: 6-3 has Q\(5,12\), the machine was built for Q\(4,12\)"),
    (NETWORKS[0].replace(theta_min=255), "theta_min: 6-3 has 255, the machine was built for 256"),
    (NETWORKS[0].replace(alpha_frac=11), "alpha_frac: 6-3 has 11, the machine was built for 12"),
    (NETWORKS[3].replace(lazy=True, trace=Q(4, 8)), "lazy: 7-6-5-6-3 has True, the machine was built for False"),
])  # fmt: skip
@pytest.mark.parametrize("held", [None, NETWORKS[1]], ids=["empty", "in use"])
def test_what_does_not_fit_changes_nothing(network, says, held):
    with Device.open(new("golden"), network=held) as device:
        if held:
            device.load(start(held, 1))
            device.set_rates(**RATES)
            state = device.read_state()
        for attempt in (device.configure, lambda n: device.load(FastNetwork(n)), lambda n: device.load(Image(n, {}))):
            with pytest.raises(DoesNotFit, match=f"^{says}"):
                attempt(network)
        assert device.network == device.held() == held
        if held:
            assert has(device, RATES) and same(device.read_state(), state)


def test_networks_that_round_by_chance_need_random_bits():
    with Device.open(new("golden", Machine.holding(NETWORKS[0], lanes=2))) as device:
        with pytest.raises(DoesNotFit, match="stochastic: 6-3 rounds by chance, the machine was built without random bits"):
            device.configure(NETWORKS[0].replace(stochastic=True))
        with pytest.raises(DoesNotFit, match="step: 6-3 needs them, the machine was built without .updates in every step"):
            device.configure(NETWORKS[0].replace(cadence="step"))


@pytest.mark.parametrize("world", ["golden", "sim"])
def test_a_machine_with_a_network_wired_in_runs_no_other(world):
    network = NETWORKS[2]
    machine = Machine.holding(network, lanes=2, fixed=network)
    with Device.open(new(world, machine)) as device:
        assert device.network == network and has(device, first_rates())
        learns(device, network)
        device.configure(network)  # which makes it fresh
        assert same(without_class(device.read_state()), without_class(FastNetwork(network).read()))
        for other in (NETWORKS[0], network.replace(steps=3)):
            with pytest.raises(DoesNotFit, match="9-8-5-3 wired in|needs"):
                device.configure(other)
        assert device.network == network
    with pytest.raises(DoesNotFit, match="wired in"):
        Device.open(new(world, machine), network=network.replace(steps=3))


def test_without_a_network_everything_says_so():
    with Device.open(new("golden")) as device:
        for use in (lambda: device.train(*digits(NETWORKS[0], 1)), lambda: device.infer([]), device.read_state, lambda: device.plan,
                    lambda: device.write_state({"rng": np.array(1)}), lambda: device.load({}), lambda: device.save("x"),
                    device.store):  # fmt: skip
            with pytest.raises(ValueError, match=r"network: golden holds none; configure it \(Device.configure\), or load a"):
                use()


# -- interruptions ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", ["golden", "sim"])
def test_an_interrupted_configuration_is_noticed(world):
    """Wherever it was cut off: the device holds what it had, nothing, or the new network, of which the state may be missing."""
    first, second, line, seen = NETWORKS[0], NETWORKS[4], new(world), []
    for cut in range(0, 3000, 97 if world == "golden" else 221):
        with Device.open(line, network=first) as device:
            device.load(start(first, 1))
            before = device.read_state()
            device._transport = device.session.transport = BadLine(line, 1, 0, cut)
            with pytest.raises(DeviceError, match="pulled"):
                device.configure(second)
                device.load(start(second, 2))
            if device.network is None:
                with pytest.raises(ValueError, match="network: bad was configured only in part; configure it"):
                    device.train(*digits(second, 1))
        with Device.open(line) as device:
            seen.append(device.network)
            assert device.network in (first, None, second)
            if device.network == first:
                assert same(device.read_state(), before)
            device.configure(second)
            learns(device, second, n=2)
    at = [seen.index(network) for network in (first, None, second)]
    assert at == sorted(at) and seen == sorted(seen, key=[first, None, second].index)


@pytest.mark.parametrize(("words", "says"), [
    ([RECORD + 1, 3], "a record 0x4f4e0003 is not legal; legal is 0x4f4e0002, or 0 for no network"),
    ([RECORD, 0], "net: .* is not legal"),
    ([RECORD, 3 | 3 << 8 | 1 << 24, 1, 6, 3], "index out of range"),
    ([RECORD, 3 | 1 << 24, 1, 6, 0], "net: .* is not legal"),
    ([RECORD, 3 | 1 << 24, 0, 6, 3], "batch: 0 is not legal"),
    ([RECORD, 3 | 1 << 24, 1, 600, 3], "fan_in: 600-3 needs 600"),
])  # fmt: skip
@pytest.mark.parametrize("world", ["golden", "sim"])
def test_a_record_that_makes_no_sense_is_none(world, words, says):
    line, network = new(world), NETWORKS[0]
    with Device.open(line, network=network) as device:
        place = device.region("network").address(0)
        device.write_words(place, np.pad(words, (0, NETWORK_WORDS + 6 - len(words))))
    with Device.open(line) as device:
        assert device.network is None
        with pytest.raises(ValueError, match=f"holds none that makes sense .*{says}.*; configure"):
            device.read_state()
        device.configure(network)
        learns(device, network, n=3)


# -- checkpoints, images, flash --------------------------------------------------------------------------------------------------


def test_a_checkpoint_goes_on_on_another_machine(tmp_path):
    """Of 4 lanes, then of 8, of which it is the second network: random bits belong to weights, and not to lanes."""
    network = Network(net="12-19-11-4", steps=4, stochastic=True)
    samples, labels = digits(network, 30)
    golden, classes = trained(network, 8, samples, labels)
    with Device.open("golden", machine=Machine.holding(network, lanes=4), network=network) as device:
        device.load(start(network, 1))
        device.set_rates(**RATES)
        assert device.train(samples[:15], labels[:15]).tolist() == classes[:15]
        device.save(tmp_path / "kept")
        counters = device.counters()
    for world in ("golden", "sim"):
        line = new(world, Machine.holding(NETWORKS[3], network, lanes=8, neuron_lanes=2))
        with Device.open(line, network=NETWORKS[3]) as device:
            device.restore(tmp_path / "kept")
            assert device.network == network and has(device, RATES) and device.counters() == counters
            assert device.train(samples[15:], labels[15:]).tolist() == classes[15:]
            assert same(device.read_state(), golden.read())
    with Device.open(new("golden"), network=NETWORKS[0]) as device:
        before = device.read_state()
        with pytest.raises(DoesNotFit, match="12-19-11-4 needs"):
            device.restore(tmp_path / "kept")
        assert device.network == NETWORKS[0] and same(device.read_state(), before)


def test_an_image_is_loaded_without_a_build(tmp_path):
    network, path = NETWORKS[3], tmp_path / "image.npz"
    made = Image(network, start(network, 5))
    made.save(path)
    golden = FastNetwork(network)
    golden.load(made.state)
    for what in (made, path, str(path)):
        with Device.open(new("golden"), network=NETWORKS[1]) as device:
            learns(device, NETWORKS[1], n=3)
            device.load(what)
            assert device.network == network and has(device, first_rates())
            assert same(without_class(device.read_state()), without_class(golden.read()))
            before = device.read_state()
            path.with_name("bad").write_bytes(path.read_bytes()[:-30])
            with pytest.raises(ValueError, match="bad"):
                device.load(path.with_name("bad"))
            assert same(device.read_state(), before)


def test_a_stored_network_starts_on_its_own():
    """The flash holds programs, state and rates; the machine could run others, until the next power-up."""
    network, line = NETWORKS[4], new("sim")
    samples, labels = digits(network, 20)
    golden, _ = trained(network, MACHINE.lanes, samples[:10], labels[:10])
    with Device.open(line, network=network) as device:
        device.load(start(network, 1))
        device.set_rates(**RATES)
        device.train(samples[:10], labels[:10])
        device.store()
        assert device.network == network
    for _ in range(2):
        line.model.power_up()
        with Device.open(line) as device:
            assert device.network == network and has(device, RATES)
            assert same(without_class(device.read_state()), without_class(golden.read()))
            device.configure(NETWORKS[0])
            learns(device, NETWORKS[0], n=3)
    line.model.power_up()
    with Device.open(line) as device:
        classes = [golden.run(x, int(y), "wtl").winner for x, y in zip(samples[10:], labels[10:], strict=True)]
        assert device.train(samples[10:], labels[10:]).tolist() == classes and same(device.read_state(), golden.read())


def test_of_an_image_with_a_damaged_program_nothing_is_loaded():
    network = NETWORKS[1]
    with Device.open(new("golden"), network=network) as device:
        device.load(start(network, 1))
        stored = image(device.plan, LINK, device.read_state(), RATES)
        words = [row & 0xFFFF_FFFF for row in device.plan.tables[0]]
    with Device.open(new("sim", flash=stored)) as device:
        assert device.network == network
        place = device.region("lane_program").address(0)
        assert device.read_words(place, len(words)).tolist() == words
    frame = stored.index(b"\0", 4) + 1  # the one that follows the opening of the session begins with the programs
    for at in (frame, frame + 40, frame + 90):
        damaged = bytearray(stored)
        damaged[at] ^= 4
        with Device.open(new("sim", flash=bytes(damaged))) as device:
            assert device.network is None and not device.read_words(place, len(words)).any()
            device.configure(network)
