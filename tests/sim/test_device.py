"""The simulated core as a device: state in and out, bad input refused before anything is written, failures reported."""

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.machine import Machine
from hw.memory_map import IDENTITY, LANE_BITS, MAX_BURST, PHASES, REGISTERS, ROW_BITS
from hw.network import Network, state_arrays
from hw.plan import DoesNotFit, compile
from sim.device import ENGINES, SimDevice
from sim.scenarios import random_sample, random_state
from sim.simulator import SimulationError
from sw.driver.layout import bursts
from sw.golden.network import GoldenNetwork

CONFIG = Network(net="6-5-3", steps=3)
OTHER = Network(net="4-3", steps=2, cadence="step")
MACHINE = Machine.holding(CONFIG, OTHER, lanes=2)
LOADABLE = [name for name in state_arrays(CONFIG) if name != "class"]


@pytest.fixture(scope="module", params=ENGINES)
def device(request):
    with SimDevice(CONFIG, MACHINE, opt="quick", engine=request.param) as device:
        yield device


@pytest.fixture(autouse=True, scope="module")
def rng():
    return np.random.default_rng(5)


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_state_goes_in_and_comes_out(device, rng):
    state = random_state(CONFIG, rng)
    device.load(state)
    assert equal(device.read(), state | {"class": device.read()["class"]})


@pytest.mark.parametrize("name", LOADABLE)
def test_loading_one_array_leaves_the_others(device, rng, name):
    before, new = device.read(), random_state(CONFIG, rng)[name]
    device.load({name: new})
    assert equal(device.read(), before | {name: new})


def test_words_and_registers(device):
    assert device.register("identity") == IDENTITY
    assert device.read_words(REGISTERS["machine"].address, 1)[0] == MACHINE.digest
    address = device.regions["theta"].address(2)
    device.write(address, [300, 301])
    assert device.read_words(address, 2).tolist() == [300, 301]
    device.rate_theta = 3
    assert device.rate_theta == device.register("rate_theta") == 3


def test_samples_on_their_way_come_back_in_order(device, rng):
    samples = [random_sample(CONFIG, rng) for _ in range(4)]
    apart = [device.run(sample) for sample in samples]
    for sample in samples:
        device.submit(sample)
    with pytest.raises(ValueError, match="4 samples were submitted and not collected"):
        device.read()
    together = [device.collect() for _ in samples]
    for a, b in zip(apart, together, strict=True):
        assert a.winner == b.result.winner == b.state["class"]
        assert a.counts.tolist() == b.result.counts.tolist() and a.membranes.tolist() == b.result.membranes.tolist()
    with pytest.raises(ValueError, match="no sample was submitted"):
        device.collect()


def test_counters_count(device, rng):
    before = device.counters()
    device.run(np.zeros(6, np.uint8))
    spent = {name: count - before[name] for name, count in device.counters().items()}
    assert spent["sops_skipped"] + spent["sops"] == 6 * 5 + CONFIG.steps * 5 * 3
    assert spent["cycles_forward"] > 0 and spent["cycles_neuron"] > 0 and spent["cycles_update"] == 0


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(sample=np.zeros(7, np.uint8)), r"sample: shape \(7,\) is not legal; legal is \(6,\)"),
    (dict(sample=np.full(6, np.nan)), "sample: 6 of 6 values are NaN"),
    (dict(sample=np.full(6, 256)), "sample: 6 of 6 values do not fit, the largest is 256; legal is 0 to 255"),
    (dict(sample=np.zeros(6, np.uint8), label=3, learn="w"), "label: 3 is not a class; legal is 0 to 2"),
    (dict(sample=np.zeros(6, np.uint8), label=None, learn="w"), "label: None is not a class"),
    (dict(sample=np.zeros(6, np.uint8), label=0, learn="x"), "learn: 'x' is not legal"),
])  # fmt: skip
@pytest.mark.parametrize("method", ["run", "steps", "submit"])
def test_bad_samples_change_nothing(device, method, arguments, message):
    before, counters = device.read(), device.counters()
    with pytest.raises(ValueError, match=message):
        getattr(device, method)(**arguments)
    assert equal(device.read(), before) and device.counters() == counters


def test_bad_state_changes_nothing(device):
    before = device.read()
    theta = np.full(5, CONFIG.theta_min)
    for state, message in (
        ({"theta.1": theta, "weight.1": np.full((5, 6), 40000)}, "weight.1: 30 of 30 values do not fit, the largest is 40000"),
        ({"theta.1": theta, "theta.2": np.full(3, 255)}, "theta.2: 3 of 3 values do not fit"),
        ({"theta.1": theta, "theta.3": theta}, "theta.3: no such array"),
    ):
        with pytest.raises(ValueError, match=message):
            device.load(state)
    with pytest.raises(ValueError, match="rate_w: 16 is not legal"):
        device.rate_w = 16
    with pytest.raises(ValueError, match="rows below 8"):
        device.read_words(device.regions["theta"].address(6), 3)
    with pytest.raises(ValueError, match="no such region"):
        device.write(31 << LANE_BITS + ROW_BITS, [0])
    assert equal(device.read(), before)


def test_bursts_are_runs_and_not_too_long():
    assert bursts(np.array([3, 4, 5, 9, 11, 12])) == [(3, 3), (9, 1), (11, 2)]
    assert bursts(np.arange(MAX_BURST + 2)) == [(0, MAX_BURST), (MAX_BURST, 2)]


class Deaf(wiring.Component):
    """A host port that never answers, stuck in a phase."""

    def __init__(self) -> None:
        super().__init__(
            {"request": In(stream.Signature(32)), "reply": Out(stream.Signature(32)), "phase": Out(range(len(PHASES)))}
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        taken = Signal(8)
        m.d.comb += [self.request.ready.eq(1), self.phase.eq(PHASES.index("backward"))]
        m.d.sync += taken.eq(taken + self.request.valid)
        return m


@pytest.mark.parametrize("engine", ENGINES)
def test_a_core_that_hangs_is_reported_with_its_phase(engine):
    with (
        pytest.raises(SimulationError, match="does not answer in phase backward: hang: after .* phase = 2"),
        SimDevice(CONFIG, opt="quick", core=Deaf(), engine=engine),
    ):
        pass


def test_another_core_is_noticed():
    from hw.core import Core

    with (
        pytest.raises(SimulationError, match="not a core built as"),
        SimDevice(CONFIG, MACHINE.replace(lanes=4), opt="quick", core=Core(MACHINE)),
    ):
        pass


def test_another_network_and_back(device, rng):
    golden, state = GoldenNetwork(OTHER, visits=compile(OTHER, MACHINE).visits), random_state(OTHER, rng)
    device.submit(random_sample(CONFIG, rng))
    with pytest.raises(ValueError, match="configure: 1 samples were submitted and not collected"):
        device.configure(OTHER)
    device.collect()
    with pytest.raises(DoesNotFit, match="fan_in: 7-3 needs 7, the machine has 6"):
        device.configure(OTHER.replace(net="7-3"))
    assert device.network == CONFIG
    device.configure(OTHER)
    for network in (golden, device):
        network.load({name: array for name, array in state.items() if name != "class"})
        network.rate_w = network.rate_theta = network.rate_alpha = 5
    for label in range(3):
        sample = random_sample(OTHER, rng)
        assert device.run(sample, label, "wtl").winner == golden.run(sample, label, "wtl").winner
    assert equal(device.read(), golden.read())
    device.configure(CONFIG)
    device.load({name: array for name, array in random_state(CONFIG, rng).items() if name != "class"})
    assert device.read().keys() == state_arrays(CONFIG).keys()


def test_a_simulator_that_dies_is_reported():
    with SimDevice(CONFIG, opt="quick") as device:
        device._simulator._process.kill()
        with pytest.raises(SimulationError, match="the simulator ended with exit code -9; its messages:"):
            device.read()
