"""The simulator for long runs: equal to the one that cocotb drives, clock cycles too, and as strict about faults."""

import numpy as np
import pytest
from amaranth import Value
from faulty import Faulty

from hw.machine import Machine
from hw.network import Network
from sim.build import build_library
from sim.device import ENGINES, SimDevice
from sim.fast import FastSimulator
from sim.scenarios import exercise, random_sample, random_state
from sim.simulator import Hang, SimulationError

NETWORK = Network(net="6-5-3", steps=3)
MACHINE = Machine.holding(NETWORK, lanes=2)


class Echo(Faulty):
    """Each word plus 1."""

    def __init__(self, fault: str = "none", bits: int = 32):
        super().__init__(bits, bits, fault, 50)

    def result(self) -> Value:
        return self.i.payload + 1


def test_words_pass_whatever_the_stalls():
    words = np.arange(1000, dtype="<u4") * 4_000_037
    with FastSimulator(build_library(Echo(), opt="quick")) as simulator:
        cycles = []
        for n, (a, b) in enumerate([(0, 0), (0.5, 0), (0, 0.5), (0.7, 0.7)]):
            simulator.submit(words.tobytes(), 1000, limit=3000, linger=64, stall_in=a, stall_out=b, seed=n)
        for _ in range(4):
            play = simulator.collect()
            assert (np.frombuffer(play.data, "<u4") == words + 1).all()
            cycles.append(play.cycles)
        assert cycles[0] <= 1001 + 64 and min(cycles[1:]) > 1500


@pytest.mark.parametrize(("fault", "message"), [
    ("hang", "hang: .* 50 of 51 words were taken and 50 of 51 words came, seen = 50"),
    ("lose", "hang: .* 51 of 51 words were taken and 50 of 51 words came, seen = 51"),
    ("extra", "more than the 51 words expected"),
    ("unsteady", "changed or went away"),
])  # fmt: skip
def test_faults_are_reported(fault: str, message: str):
    with FastSimulator(build_library(Echo(fault), opt="quick")) as simulator:
        outputs = 50 if fault == "extra" else 51
        simulator.submit(np.zeros(51, "<u4").tobytes(), outputs, limit=1000, linger=9, stall_out=0.5)
        with pytest.raises(SimulationError, match=message.replace("51 words exp", "50 words exp")) as failure:
            simulator.collect()
    assert isinstance(failure.value, Hang) == (fault in ("hang", "lose"))


def test_all_engines_do_the_same_in_the_same_time():
    rng, seen = np.random.default_rng(8), []
    state = random_state(NETWORK, rng)
    samples = [random_sample(NETWORK, rng) for _ in range(6)]
    for engine in ENGINES:
        with SimDevice(NETWORK, MACHINE, opt="quick", engine=engine) as device:
            device.load(state)
            results = [device.run(sample, n % 3, "wtl") for n, sample in enumerate(samples)]
            seen.append((device.read(), device.counters(), [r.counts.tolist() for r in results]))
    (a, counted, counts), *others = seen
    for b, *rest in others:
        assert all(np.array_equal(a[name], b[name]) for name in a) and rest == [counted, counts]
    assert counted["cycles_update"] > 0 and np.sum(counts) > 0


def test_equals_the_golden_model():
    network = Network(net="9-7-4", steps=4, input="events", stochastic=True)
    machine = Machine.holding(network, lanes=4)
    seen = exercise(network, np.random.default_rng(2), machine=machine, samples=24, stall=0.2, engine="fast")
    assert min(seen[name] for name in ("spikes", "weights changed", "thresholds changed", "saturated deltas")) >= 10


def test_bad_arguments():
    with pytest.raises(
        ValueError, match=r"Echo: streams of \(40, 40\) bits and inputs \[\] are not legal; legal is streams of at most 32"
    ):
        build_library(Echo(bits=40), opt="quick")
    with pytest.raises(ValueError, match="engine: 'quick' is not legal; legal is cocotb or stepped or fast"):
        SimDevice(NETWORK, engine="quick")
    with pytest.raises(ValueError, match="waves, log: the engine fast has none"):
        SimDevice(NETWORK, engine="fast", log="x")
    with FastSimulator(build_library(Echo(), opt="quick")) as simulator:
        with pytest.raises(ValueError, match="stall_in: 1.0 is not legal"):
            simulator.submit(b"", 0, limit=1, stall_in=1.0)
        simulator.submit(b"", 0, limit=1)
        with pytest.raises(ValueError, match="restart: 1 plays were submitted and not collected"):
            simulator.restart()
