"""The core in the simulator, with the same names as the golden model: load, read, run, steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from amaranth.lib import wiring
from numpy.typing import ArrayLike

from hw.configuration import configuration
from hw.machine import Machine
from hw.memory_map import (
    COUNTER_BITS,
    IDENTITY,
    LANE_BITS,
    MAX_BURST,
    OP_READ,
    OP_WRITE,
    PHASES,
    REGISTERS,
    ROW_BITS,
    regions,
)
from hw.network import Network
from hw.numbers import DECAY_SAMPLES, LEARN_W
from hw.plan import compile
from sim.build import build, build_library
from sim.fast import FastSimulator
from sim.simulator import Hang, SimulationError, Simulator
from sw.common import checks
from sw.common.checks import RATES
from sw.driver.layout import bursts, layout

ENGINES = {
    "cocotb": "cocotb and VPI, a callback for each run of words, what the checks run on",
    "stepped": "the same with a callback in every clock cycle, as testbenches have, to compare with",
    "fast": "C++ in this process, for long runs",
}
CYCLES = tuple(f"cycles_{phase}" for phase in PHASES)
COUNTERS = (*CYCLES, "sops", "sops_skipped")


class Result(NamedTuple):
    """What the host sees of a sample: the class, and of the last layer spike counts and final membranes.

    Both are (C,) int64; membranes have format `u`."""

    winner: int
    counts: np.ndarray
    membranes: np.ndarray


class Observation(NamedTuple):
    """What there is to see after a sample: the result, the whole state by name (empty if not asked for), and the counters."""

    result: Result
    state: dict[str, np.ndarray]
    counters: dict[str, int]


class Script:
    """Host words for the core, and how many words it will answer."""

    def __init__(self) -> None:
        self.words: list[np.ndarray] = []
        self.replies = 0
        self.runs = 0

    def write(self, address: int, data: ArrayLike) -> None:
        data = np.atleast_1d(np.asarray(data, np.int64))
        for at in range(0, len(data), MAX_BURST):
            part = data[at : at + MAX_BURST]
            self.words += [np.array([OP_WRITE | len(part) << 8, address + at], np.int64), part]

    def set(self, register: str, value: int) -> None:
        self.write(REGISTERS[register].address, value)
        self.runs += register == "run"

    def read(self, address: int, count: int) -> slice:
        """Asks for `count` words; the slice of the answer in which they will stand."""
        for at in range(0, count, MAX_BURST):
            self.words.append(np.array([OP_READ | min(MAX_BURST, count - at) << 8, address + at], np.int64))
        self.replies += count
        return slice(self.replies - count, self.replies)

    def read_all(self, of: list[tuple[int, int]]) -> slice:
        start = self.replies
        for address, count in of:
            self.read(address, count)
        return slice(start, self.replies)

    @property
    def data(self) -> bytes:
        return (np.concatenate(self.words) & 0xFFFF_FFFF).astype("<u4").tobytes() if self.words else b""


class SimDevice:
    """A core, simulated, configured for a network; a context manager, interchangeable with `sw.golden.network.GoldenNetwork`.

    `machine`: what is built; None is the smallest machine that holds `network`. `configure` loads another network.
    `opt`: `quick` to build or `fast` to run (sim/build.py). `waves`: file to record all signals in (VCD; slow). `log`: file for
    the simulator's messages. `stall`: chance in each clock cycle that the host does not offer a word, or does not take one.
    `core`: another component with the core's host port, instead of `hw.core.Core(machine)`. `engine`: who drives the clock, one of
    ENGINES; `fast` has neither waves nor messages.

    Bad input is a ValueError, before anything is written. A core that does not answer is a SimulationError.
    """

    def __init__(self, network: Network, machine: Machine | None = None, *, opt: str = "fast", waves: Path | None = None,
                 log: Path | None = None, stall: float = 0.0, core: wiring.Component | None = None,
                 engine: str = "cocotb"):  # fmt: skip
        if engine not in ENGINES:
            raise ValueError(f"engine: {engine!r} is not legal; legal is {' or '.join(ENGINES)}")
        if engine == "fast" and (waves or log):
            raise ValueError("waves, log: the engine fast has none; legal is engine cocotb")
        self.machine = machine or Machine.holding(network)
        self._take(network)
        if core is None:
            from hw.core import Core

            core = Core(self.machine)
        self.regions = regions(self.machine)
        self._stall = stall
        self._rates = dict.fromkeys(RATES, 8)
        self._dense = 0  # synaptic operations of all samples, had nothing been skipped
        self._pending: deque[Callable[[np.ndarray], Any]] = deque()
        self._simulator: Simulator | FastSimulator
        if engine == "fast":
            self._simulator = FastSimulator(build_library(core, i="request", o="reply", opt=opt))
        else:
            program = build(core, i="request", o="reply", opt=opt, waves=waves is not None)
            self._simulator = Simulator(program, log=log, waves=waves, stepped=engine == "stepped")

    def __enter__(self) -> SimDevice:
        try:
            self._simulator.restart()
            identity, digest = (int(w) for w in self.read_words(REGISTERS["identity"].address, 2))
            if (identity, digest) != (IDENTITY, self.machine.digest):
                raise SimulationError(f"identity {identity:#010x}, machine {digest:#010x}: not a core built as {self.machine}")
            self.configure(self.network)
            script = Script()
            for name, value in self._rates.items():
                script.set(name, value)
            self._call(script, lambda _: None)
        except BaseException as e:
            self._simulator.__exit__(type(e))
            raise
        return self

    def __exit__(self, *exception: Any) -> None:
        self._simulator.__exit__(*exception)

    def _take(self, network: Network) -> None:
        self.plan = compile(network, self.machine)
        self.network, self._layout, self._counted = network, layout(self.plan), {"gathered": 0, "aged": 0}

    def configure(self, network: Network) -> None:
        """Loads another network's programs; its state is to be loaded next.

        DoesNotFit, before anything is written, if the machine does not hold it."""
        compile(network, self.machine)
        if self._pending:
            raise ValueError(f"configure: {len(self._pending)} samples were submitted and not collected")
        self._take(network)
        script = Script()
        script.set("step", 0)
        for address, words in configuration(self.plan):
            script.write(address, words)
        self._call(script, lambda _: None)

    # -- words --------------------------------------------------------------------------------
    def write(self, address: int, words: ArrayLike) -> None:
        """Writes 32-bit words (negative ones in two's complement) from `address` on."""
        script = Script()
        script.write(self._check_address(address, np.size(words)), words)
        self._call(script, lambda _: None)

    def read_words(self, address: int, count: int) -> np.ndarray:
        """`count` words from `address` on, uint32."""
        script = Script()
        script.read(self._check_address(address, count), count)
        return self._call(script, lambda words: words)

    def register(self, name: str) -> int:
        """A register's value, by a name of `hw.memory_map.REGISTERS`."""
        if name not in REGISTERS:
            raise ValueError(f"register: {name!r} is not legal; legal is one of {', '.join(REGISTERS)}")
        return int(self.read_words(REGISTERS[name].address, 1)[0])

    def _check_address(self, address: int, count: int) -> int:
        number, lane = address >> LANE_BITS + ROW_BITS, address >> ROW_BITS & (1 << LANE_BITS) - 1
        row = address & (1 << ROW_BITS) - 1
        known = {r.number: (r.name, r.lanes, r.depth) for r in self.regions.values()} | {0: ("registers", 1, len(REGISTERS))}
        name, lanes, depth = known.get(number, ("", 0, 0))
        if lane >= lanes or row + count > depth or count < 1:
            legal = f"a lane below {lanes} and rows below {depth}" if name else f"a region of 0 to {max(known)}"
            place = f"{address:#010x} and {count} words ({name or 'no such region'})"
            raise ValueError(f"address: {place} are not legal; legal is {legal}")
        return address

    # -- state --------------------------------------------------------------------------------
    def load(self, state: Mapping[str, ArrayLike]) -> None:
        """Sets any of the state's arrays, by the names of `hw.memory_map.state_fields`; nothing changes if one is not legal.

        `class` is the core's own and stays as it is.
        """
        values, covered, partial = self._layout.encode(state)
        self._counted |= {name: int(np.asarray(state[name])) for name in self._counted if name in state}
        if partial.any():
            script = Script()
            at = script.read_all(bursts(self._layout.addresses[partial]))
            old = self._call(script, lambda words: words[at].astype(np.int64))
            values[partial] |= old & ~covered[partial]
        if covered.any():
            script, position = Script(), np.flatnonzero(covered)
            start = 0
            for address, count in bursts(self._layout.addresses[position]):
                script.write(address, values[position[start : start + count]])
                start += count
            self._call(script, lambda _: None)

    def read(self) -> dict[str, np.ndarray]:
        """The whole state, int64 arrays by name."""
        script = Script()
        at = script.read_all(self._layout.bursts)
        return self._call(script, lambda words: self._layout.decode(words[at]))

    def counters(self) -> dict[str, int]:
        """Clock cycles by phase, synaptic operations done and skipped; of all samples since the start, modulo 2**COUNTER_BITS."""
        script = Script()
        return self._call(script, self._read_counters(script))

    @property
    def sops(self) -> int:
        return self.counters()["sops"]

    @property
    def sops_skipped(self) -> int:
        return self.counters()["sops_skipped"]

    # -- samples ------------------------------------------------------------------------------
    def run(self, sample: ArrayLike, label: int | None = None, learn: str = "") -> Result:
        """Shows one sample and learns from it what `learn` names, any of w (weights), t (thresholds), l (leakages).

        `sample` is uint8 (N0,) for static input, (T, N0) for frames, bool (T, N0) for events; `label` is needed to learn.
        """
        script = self._sample(sample, label, learn)
        result = self._read_result(script)
        return self._call(script, result)

    def steps(self, sample: ArrayLike, label: int | None = None, learn: str = "") -> Iterator[int]:
        """The same step by step: yields t after each time step, the last one after the end-of-sample updates."""
        return self._steps(*self._parts(sample, label, learn))

    def _steps(self, start: Script, parts: list[Callable[[Script], None]]) -> Iterator[int]:
        script = start
        for t, part in enumerate(parts):
            part(script)
            script.set("run", 1)
            script.read(REGISTERS["step"].address, 1)  # answers when the step is over
            self._call(script, lambda _: None)
            yield t
            script = Script()

    def submit(self, sample: ArrayLike, label: int | None = None, learn: str = "", *, state: bool = True) -> None:
        """Like `run`, without waiting; `collect` returns what it did. Several samples may be on their way.

        `state`: whether the state is read too, which takes a clock cycle for every word of it.
        """
        script = self._sample(sample, label, learn)
        result = self._read_result(script)
        at = script.read_all(self._layout.bursts if state else [])
        counters = self._read_counters(script)
        decode = self._layout.decode if state else lambda _: {}
        self._send(script, lambda words: Observation(result(words), decode(words[at]), counters(words)))

    def collect(self) -> Observation:
        """What the oldest sample submitted did."""
        if not self._pending:
            raise ValueError("collect: no sample was submitted")
        try:
            return self._receive()
        except BaseException:
            self._pending.clear()
            raise

    def _parts(self, sample: ArrayLike, label: int | None, learn: str) -> tuple[Script, list[Callable[[Script], None]]]:
        """The words before a sample, and what writes those before each of its steps."""
        c = self.network
        checked = checks.check_sample(c, sample)
        mask = checks.learn_mask(learn)
        script = Script()
        if mask:
            script.set("label", checks.check_label(c, label))
        script.set("learn", mask)
        script.set("step", 0)
        self._dense += c.dense_operations(mask, **self._counted)
        counted = self._counted
        counted["gathered"] = (counted["gathered"] + (mask > 0)) % c.batch
        counted["aged"] = (counted["aged"] + (mask & LEARN_W > 0)) % DECAY_SAMPLES
        if c.static:
            script.write(self.regions["frame"].address(0), checked)
            return script, [lambda _: None] * c.steps
        write = self._write_values if c.input == "frames" else self._write_events
        return script, [partial(write, step) for step in checked]

    def _write_values(self, values: np.ndarray, script: Script) -> None:
        event = self.regions["event"]
        for lane in range(min(event.lanes, len(values))):
            script.write(event.address(0, lane), values[lane :: event.lanes])

    def _write_events(self, spikes: np.ndarray, script: Script) -> None:
        if spikes.any():
            for address, count in bursts(np.sort(self.regions["event"].places(np.flatnonzero(spikes)))):
                script.write(address, np.ones(count, np.int64))

    def _sample(self, sample: ArrayLike, label: int | None, learn: str) -> Script:
        script, parts = self._parts(sample, label, learn)
        if self.network.static:
            script.set("run", 0)
            script.runs += self.network.steps - 1
        else:
            for part in parts:
                part(script)
                script.set("run", 1)
        return script

    def _read_result(self, script: Script) -> Callable[[np.ndarray], Result]:
        c, fields = self.network, self._layout.fields
        winner = script.read(REGISTERS["class"].address, 1)
        counts = script.read(self.regions["count"].address(0), c.classes)
        last = fields[f"membrane.{c.n_layers}"]
        ascending = np.sort(last.addresses)
        membranes, places = script.read_all(bursts(ascending)), np.searchsorted(ascending, last.addresses)

        def decode(words: np.ndarray) -> Result:
            seen = fields["count"].decode(words[counts]), last.decode(words[membranes][places])
            return Result(int(words[winner][0]), *seen)

        return decode

    def _read_counters(self, script: Script) -> Callable[[np.ndarray], dict[str, int]]:
        at, dense = [script.read(REGISTERS[name].address, 1) for name in (*CYCLES, "sops")], self._dense

        def decode(words: np.ndarray) -> dict[str, int]:
            *cycles, done = (int(words[a][0]) for a in at)
            return dict(zip(COUNTERS, (*cycles, done, (dense - done) % (1 << COUNTER_BITS)), strict=True))

        return decode

    # -- traffic ------------------------------------------------------------------------------
    def _limit(self, script: Script) -> int:
        """Clock cycles that are surely enough: a few for every word, and four full passes and a neuron pass for every step."""
        c = self.network
        words = sum(map(len, script.words)) + script.replies
        run = 16 * self.machine.capacity.weight_rows + 256 * c.neurons + 1000
        return 10_000 + 32 * words + (script.runs + 2) * run

    def _send(self, script: Script, decode: Callable[[np.ndarray], Any]) -> None:
        self._simulator.submit(script.data, script.replies, limit=self._limit(script), stall_in=self._stall, stall_out=self._stall)
        self._pending.append(decode)

    def _receive(self) -> Any:
        try:
            play = self._simulator.collect()
        except Hang as e:
            phase = e.probes.get("phase")
            where = "" if phase is None else f" in phase {PHASES[phase] if phase < len(PHASES) else phase}"
            raise SimulationError(f"the core does not answer{where}: {e}") from None
        return self._pending.popleft()(np.frombuffer(play.data, "<u4"))

    def _call(self, script: Script, decode: Callable[[np.ndarray], Any]) -> Any:
        if self._pending:
            raise ValueError(f"{len(self._pending)} samples were submitted and not collected")
        self._send(script, decode)
        return self._receive()


def _rate(name: str) -> property:
    def get(self: SimDevice) -> int:
        return self._rates[name]

    def set_(self: SimDevice, value: int) -> None:
        self.write(REGISTERS[name].address, checks.check_rate(name, value))
        self._rates[name] = value

    return property(get, set_, doc=f"Learning rate 2**-{name}, 0 to 15.")


for _name in RATES:
    setattr(SimDevice, _name, _rate(_name))
