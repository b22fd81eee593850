"""Gateware and golden model side by side: every array of the state is compared after every sample, or after every so many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from hw.machine import Machine
from hw.memory_map import COUNTER_BITS
from hw.network import Network, state_arrays
from sim.device import COUNTERS, Observation, Result, SimDevice
from sw.common.checks import RATES
from sw.golden.fast import FastNetwork
from sw.golden.network import GoldenNetwork


@dataclass(frozen=True)
class Difference:
    """The first word in which gateware and golden model differ. `step` is None if it shows only when the sample runs through."""

    sample: int
    step: int | None
    phase: str
    memory: str
    index: tuple[int, ...]
    got: int
    want: int

    def __str__(self) -> str:
        index = "".join(f"[{i}]" for i in self.index)
        step = "not seen step by step" if self.step is None else f"step {self.step}"
        return f"sample {self.sample}, {step}, phase {self.phase}: {self.memory}{index} is {self.got}, golden {self.want}"


class Sample(NamedTuple):
    """What both were shown, and with which learning rates."""

    sample: ArrayLike
    label: int | None
    learn: str
    rates: dict[str, int]


class Mismatch(Exception):
    """Gateware and golden model differ. `difference` says where first."""

    def __init__(self, difference: Difference):
        super().__init__(str(difference))
        self.difference = difference


def data_flow(network: Network) -> dict[str, str]:
    """Names of the state's arrays in the order in which a time step makes them, each with the phase that does.

    `host` stands for tables that only the host writes.
    """
    c = network
    order = {"weight_trace.0": "neuron"}
    for l in c.layers:
        order[f"current.{l}"] = "forward"
        order |= {f"{name}.{l}": "neuron" for name in ("membrane", "spike", "theta_trace", "alpha_trace", "weight_trace")}
    order |= {"count": "neuron", "class": "neuron"}
    for l in reversed(c.layers):
        order |= {f"{name}.{l}": "backward" for name in ("delta", "theta_grad", "delta_sum")}
    order |= {"input_grad": "backward", "alpha_grad": "backward"}
    if c.lazy:
        order |= {f"grad.{l}": "forward" for l in c.layers}
    for name in ("weight", "theta") if c.lazy else ("grad", "weight", "theta"):
        order |= {f"{name}.{l}": "update" for l in reversed(c.layers)}
    order |= {"alpha": "update", "gathered": "update", "rng": "update", "aged": "update"}
    order |= dict.fromkeys(("error_table", "graded_table", "surrogate"), "host")
    known = state_arrays(c)
    missing = set(known) - set(order)
    if missing:
        raise AssertionError(f"no place in the data flow for {', '.join(sorted(missing))}")
    return {name: phase for name, phase in order.items() if name in known}


class Twin:
    """A simulated core and a golden network that are given the same, and must do the same; a context manager.

    The results and counters of every sample are compared, and every array of the state after every `every` samples; reading it
    takes the core longer than a sample. The engine `fast` is followed by the compiled golden model. Raises Mismatch at the first
    difference. `compared_words` counts the words of state compared so far, `samples` the samples; `counters` are the core's,
    summed, for samples learned (`learn`) and inferred (`infer`). `configure` has both go on with another `network`.
    """

    def __init__(self, network: Network, machine: Machine | None = None, *, opt: str = "fast", waves: Path | None = None,
                 log: Path | None = None, stall: float = 0.0, engine: str = "cocotb", every: int = 1):  # fmt: skip
        if every < 1:
            raise ValueError(f"every: {every} is not legal; legal is at least 1")
        self.device = SimDevice(network, machine, opt=opt, waves=waves, log=log, stall=stall, engine=engine)
        self._model = FastNetwork if engine == "fast" else GoldenNetwork
        self._take(network)
        self.every = every
        self.samples = self.compared_words = 0
        self.runs = {"learn": 0, "infer": 0}
        self.counters = {kind: dict.fromkeys(COUNTERS, 0) for kind in self.runs}
        self._last = dict.fromkeys(COUNTERS, 0)
        self._before: dict[str, np.ndarray] = {}  # the state when it was last compared
        self._since: list[Sample] = []  # and what was shown from then on

    def __enter__(self) -> Twin:
        self.device.__enter__()
        self._last = self.device.counters()
        self.load({})
        return self

    def __exit__(self, *exception: Any) -> None:
        self.device.__exit__(*exception)

    def _take(self, network: Network) -> None:
        self.network = network
        self.golden = self._model(network, visits=self.device.plan.visits)
        for name in RATES:
            setattr(self.golden, name, getattr(self.device, name))
        self.flow = data_flow(network)

    def configure(self, network: Network) -> None:
        """Another network in both, with a fresh state."""
        self.check()
        self.device.configure(network)
        self._take(network)
        self._last = self.device.counters()
        self.load(self.golden.read())

    def load(self, state: Mapping[str, ArrayLike]) -> None:
        """Sets arrays of the state in both, and compares all of them."""
        self.golden.load({**state, "class": self.device.register("class")})  # which only the core writes
        self._before = self.golden.read()
        self._since = []
        self.device.load(self._before)
        self._compare(self.device.read(), self._before, step=None)

    def set_rates(self, **rates: int) -> None:
        """Learning rates 2**-rate in both, by names of RATES."""
        for name, value in rates.items():
            if getattr(self.golden, name) != value:
                setattr(self.device, name, value)
                setattr(self.golden, name, value)

    def run(self, sample: ArrayLike, label: int | None = None, learn: str = "") -> Result:
        """Shows both one sample, at the same time (two threads or processes), and compares."""
        sops = self.golden.sops, self.golden.sops_skipped
        whole = len(self._since) + 1 >= self.every
        self._since.append(Sample(sample, label, learn, {name: getattr(self.golden, name) for name in RATES}))
        self.device.submit(sample, label, learn, state=whole)
        want = self.golden.run(sample, label, learn)
        seen = self.device.collect()
        spent = self._spent(seen)
        try:
            if whole:
                self.check(seen.state)
            self._compare_rest(seen.result, want, spent, (self.golden.sops - sops[0], self.golden.sops_skipped - sops[1]))
        except Mismatch as mismatch:
            raise Mismatch(self._locate() or mismatch.difference) from None
        kind = "learn" if learn else "infer"
        self.runs[kind] += 1
        for name in COUNTERS:
            self.counters[kind][name] += spent[name]
        self.samples += 1
        return seen.result

    def check(self, got: Mapping[str, np.ndarray] | None = None) -> None:
        """Compares every array of the state now, if a sample was shown since it was last; `got` is the core's, if it was read."""
        if not self._since:
            return
        state = self.golden.read()
        self._compare(self.device.read() if got is None else got, state, step=None)
        self._before, self._since = state, []

    def run_steps(self, sample: ArrayLike, label: int | None = None, learn: str = "") -> list[dict[str, np.ndarray]]:
        """The same one time step at a time; everything is compared after every step. The core's state after each."""
        states = []
        for t, _ in zip(self.device.steps(sample, label, learn), self.golden.steps(sample, label, learn), strict=True):
            self._before = self.golden.read()
            states.append(self.device.read())
            self._compare(states[-1], self._before, step=t)
        self._since = []
        self._last = self.device.counters()
        self.samples += 1
        return states

    def _spent(self, seen: Observation) -> dict[str, int]:
        spent = {name: (seen.counters[name] - self._last[name]) % (1 << COUNTER_BITS) for name in COUNTERS}
        self._last = seen.counters
        return spent

    def _compare(self, got: Mapping[str, np.ndarray], want: Mapping[str, np.ndarray], step: int | None) -> None:
        for name, phase in self.flow.items():
            self.compared_words += want[name].size
            if not np.array_equal(got[name], want[name]):
                index = tuple(int(i) for i in np.argwhere(got[name] != want[name])[0])
                raise Mismatch(Difference(self.samples, step, phase, name, index, int(got[name][index]), int(want[name][index])))

    def _compare_rest(self, got: Result, want: Any, spent: Mapping[str, int], sops: tuple[int, int]) -> None:
        """What the host sees of a sample, and the counted synaptic operations."""
        pairs: dict[str, tuple[Any, Any]] = {
            "class": (got.winner, want.winner),
            "counts": (got.counts, want.counts),
            "membranes": (got.membranes, want.membranes),
            "sops": (spent["sops"], sops[0]),
            "sops_skipped": (spent["sops_skipped"], sops[1]),
        }
        for name, (a, b) in pairs.items():
            if not np.array_equal(a, b):
                index = tuple(int(i) for i in np.argwhere(np.asarray(a) != b)[0])
                got_there, want_there = (int(np.asarray(value)[index]) for value in (a, b))
                raise Mismatch(Difference(self.samples, None, "update", name, index, got_there, want_there))

    def _locate(self) -> Difference | None:
        """Replays what was shown since the last comparison, comparing after every sample, and the one that differs step by step.

        The first difference, or None if none shows.
        """
        before, shown, last = self._before, self._since, self.samples
        self.samples -= len(shown) - 1
        try:
            self.load(before)
            for s in shown:
                self.set_rates(**s.rates)
                if len(shown) == 1 or not self._agree(s):
                    self.load(self._before)
                    self.run_steps(s.sample, s.label, s.learn)
                    break
                self.samples += 1
        except Mismatch as mismatch:
            return mismatch.difference
        finally:
            self.samples = last
        return None

    def _agree(self, s: Sample) -> bool:
        """Whether both are in the same state after a sample."""
        self._since.append(s)
        self.device.run(s.sample, s.label, s.learn)
        self.golden.run(s.sample, s.label, s.learn)
        try:
            self.check()
        except Mismatch:
            return False
        return True
