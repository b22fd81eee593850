"""The bench itself: it must notice a hang, a lost word, a word too many, an unsteady output and a changed design."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest
from amaranth import Value, signed, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import In
from faulty import Faulty

from sim import build as sim_build
from sim.block import Scenario, run_scenarios, run_streams
from sim.simulator import SimulationError

PAIR = data.StructLayout({"a": signed(8), "b": unsigned(5)})


class Sum(Faulty):
    """a + b + gain of each word."""

    def __init__(self, fault: str = "none", fault_at: int = 50):
        super().__init__(PAIR, signed(10), fault, fault_at, gain=In(3))

    def result(self) -> Value:
        return self.i.payload.a + self.i.payload.b + self.gain


def words(n: int) -> list[int]:
    return [(7 * k) % (1 << 13) for k in range(n)]


def expected(inputs: list[int], gain: int) -> list[int]:
    out = []
    for word in inputs:
        pair = PAIR.from_bits(word)
        out.append((pair.a + pair.b + gain) % (1 << 10))
    return out


def test_scenarios_in_one_start_are_independent_of_stalls():
    inputs = words(400)
    scenarios = [
        Scenario(inputs, 400, a, b, seed, {"gain": seed}) for seed, (a, b) in enumerate([(0, 0), (0.5, 0), (0, 0.5), (0.7, 0.7)])
    ]
    for s, got in zip(scenarios, run_scenarios(Sum(), scenarios), strict=True):
        assert got == expected(inputs, s.ports["gain"])


def test_more_words_than_the_bench_holds_and_full_throughput():
    inputs = words(70_000)
    assert run_streams(Sum(), inputs, 70_000, cycles_per_word=1) == expected(inputs, 0)


@pytest.mark.parametrize(("fault", "message"), [
    ("hang", "hang: .* 50 of 100 words were taken and 50 of 100 words came"),
    ("lose", "hang: .* 100 of 100 words were taken and 99 of 100 words came"),
    ("extra", "more than the 100 words expected"),
    ("unsteady", "changed or went away"),
])  # fmt: skip
def test_faults_are_reported(fault: str, message: str):
    with pytest.raises(SimulationError, match=message):
        run_streams(Sum(fault, 100 if fault == "extra" else 50), words(100), 100, stall_out=0.5)


def test_an_edited_design_is_rebuilt_and_an_unchanged_one_is_not(monkeypatch):
    first, again, edited = (sim_build.build(Sum("hang", n)).path for n in (3, 3, 4))
    assert first == again != edited
    monkeypatch.setattr(sim_build, "MEMORY_BITS", 2 * sim_build.MEMORY_BITS)
    assert sim_build.build(Sum("hang", 3)).path != first


def test_concurrent_builds_make_one_program(monkeypatch):
    made = []
    yosys = sim_build._yosys
    monkeypatch.setattr(sim_build, "_yosys", lambda text: (made.append(1), yosys(text))[1])
    fault_at = secrets.randbits(15)  # a design that the cache has not seen
    with ThreadPoolExecutor(3) as pool:
        paths = list(pool.map(lambda _: sim_build.build(Sum("hang", fault_at)).path, range(3)))
    assert len(set(paths)) == 1 and len(made) <= 1 and paths[0].is_file()


@pytest.mark.parametrize(("arguments", "message"), [
    (dict(inputs=[1 << 13], outputs=1), r"word 0 is 8192; legal is 0 to 8191"),
    (dict(inputs=[1], outputs=1, stall_in=1.0), r"stall_in: 1.0 is not legal; legal is 0 <= stall_in < 1"),
    (dict(inputs=[1], outputs=1, ports={"gian": 1}), r"ports: 'gian' is not an input of the design; legal is one of gain"),
    (dict(inputs=[1], outputs=1, ports={"gain": 8}), r"ports: gain = 8 is not legal; legal is 0 to 7"),
    (dict(inputs=[1], outputs=1, opt="O9"), r"opt: 'O9' is not legal; legal is quick or fast"),
    (dict(inputs=[1], outputs=1, o="p"), r"o: .* is not legal; legal is streams 'i' and 'p', and signals"),
])  # fmt: skip
def test_bad_arguments(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        run_streams(Sum(), **arguments)
