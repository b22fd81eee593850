"""Blocks against their golden twins: steered corners, random words, stalls on both sides."""

from collections import Counter

import numpy as np
import pytest
import torch
from amaranth.hdl import Array, Const, Module, Signal
from amaranth.lib import wiring

from hw.error.delta import Delta
from hw.error.gradient import Gradient
from hw.error.threshold import Threshold
from hw.machine import Machine
from hw.memory_map import regions
from hw.network import Network
from hw.numbers import GRADED_ENTRIES, PHI_ENTRIES, PHI_FRAC, PIXEL_FRAC, Q
from hw.pipeline import Multiplier
from hw.spike.membrane import Membrane
from sim.block import Scenario, run_scenarios
from sw.golden.error import delta as golden_delta
from sw.golden.error import descent
from sw.golden.error.output import graded_error, surrogate_table
from sw.golden.spike import membrane as golden_membrane

NETWORK = Network(net="5-4-3", u=Q(5, 9), trace=Q(3, 8), delta=Q(3, 7), grad=Q(2, 12), alpha_frac=10)
MACHINE = Machine.holding(NETWORK)
WORDS = 400
STALLS = [(0.0, 0.0, 1), (0.4, 0.4, 2)]


class Alone(wiring.Component):
    """A block with the multipliers and the table contents that the core would give it."""

    def __init__(self, block, tables=()):
        self.block, self.tables = block, tables
        super().__init__({name: block.signature.members[name] for name in "io"})

    def elaborate(self, platform):
        m = Module()
        m.submodules.block = block = self.block
        for k, port in enumerate(getattr(block, "mul", [])):
            mul = Multiplier(len(port.a), len(port.b))
            m.submodules[f"mul_{k}"] = mul
            wiring.connect(m, port, mul.port)
        ready = Signal(init=not self.tables)
        if self.tables:
            words = [(region.number, row, int(value)) for region, values in self.tables for row, value in enumerate(values)]
            at, settled = Signal(range(len(words) + 1)), Signal()  # a memory knows a cycle later that it is meant
            region, row, value = (Array(Const(v, 32) for v in column)[at] for column in zip(*words, strict=True))
            m.d.comb += ready.eq(at == len(words))
            m.d.sync += [settled.eq(~settled), at.eq(at + (settled & ~ready))]
            m.d.comb += [
                block.host.hosting.eq(~ready),
                block.host.write.eq(settled & ~ready),
                block.host.region.eq(region),
                block.host.row.eq(row),
                block.host.data_w.eq(value),
            ]
        m.d.comb += [
            block.i.payload.eq(self.i.payload),
            block.i.valid.eq(self.i.valid & ready),
            self.i.ready.eq(block.i.ready & ready),
        ]
        wiring.connect(m, block.o, wiring.flipped(self.o))
        return m


def play(block, words, *, tables=()):
    """The block's output payloads for `words` (dicts), the same at every stall rate."""
    i, o = (block.signature.members[name].signature.members["payload"].shape for name in "io")
    packed = [Const.cast(i.const(word)).value for word in words]
    scenarios = [Scenario(packed, len(words), stall_in, stall_out, seed) for stall_in, stall_out, seed in STALLS]
    runs = [[o.from_bits(bits) for bits in run] for run in run_scenarios(Alone(block, tables), scenarios)]
    return {name: [[int(word[name]) for word in run] for run in runs] for name, _ in o}


def assert_equal(got, want, words):
    for name, values in want.items():
        for (stall_in, stall_out, seed), run in zip(STALLS, got[name], strict=True):
            for n, (a, b) in enumerate(zip(run, values.tolist(), strict=True)):
                where = f"word {n} of {len(words)} (seed {seed}, stalls {stall_in}, {stall_out})"
                assert a == b, f"{where}: {name} {a}, golden {b}, input {words[n]}"


def draw(rng, q, corners=()):
    """WORDS values of a format: its ends, the corners, small ones and any."""
    any_value, small = rng.integers(q.low, q.high + 1, WORDS), rng.integers(q.low // 16, q.high // 16 + 1, WORDS)
    ends = rng.choice([q.low, q.high, 0, *corners], WORDS)
    return np.where(rng.random(WORDS) < 0.4, any_value, np.where(rng.random(WORDS) < 0.6, small, ends))


def tensors(columns):
    return {name: torch.from_numpy(np.asarray(values, dtype=np.int64)) for name, values in columns.items()}


def rows(columns):
    return [dict(zip(columns, (int(v) for v in values), strict=True)) for values in zip(*columns.values(), strict=True)]


def test_membrane_leaks_integrates_and_fires():
    c, rng = MACHINE, np.random.default_rng(1)
    columns = {
        "index": rng.integers(0, NETWORK.neurons, WORDS), "first": rng.random(WORDS) < 0.1, "unit": rng.random(WORDS) < 0.1,
        "event": rng.random(WORDS) < 0.5, "u": draw(rng, c.u), "s": rng.random(WORDS) < 0.5,
        "theta": rng.integers(c.theta_min, c.u.high + 1, WORDS), "theta_trace": draw(rng, c.trace), "alpha_trace": draw(rng, c.u),
        "weight_trace": draw(rng, c.trace), "current": draw(rng, c.u),
        "alpha": rng.choice([0, 1, c.alpha_one, c.alpha_one - 1, c.alpha_one // 2], WORDS),
        "alpha_next": rng.choice([0, c.alpha_one, 700], WORDS),
    }  # fmt: skip
    old = tensors(columns)
    keep = 1 - old["first"]
    for name in ("u", "s", "theta_trace", "alpha_trace", "weight_trace"):
        old[name] = old[name] * keep
    leaked = golden_membrane.leak(old["u"], old["s"], old["theta_trace"], old["alpha_trace"], old["theta"], old["alpha"], c)
    steer = np.arange(WORDS) % 5 == 0  # make some membranes land on their threshold
    tie = (old["theta"] - leaked.membrane).clamp(c.u.low, c.u.high)
    old["current"] = torch.where(torch.from_numpy(steer), tie, old["current"])
    columns["current"] = old["current"].numpy()
    u, s = golden_membrane.fire(leaked.membrane, old["current"], old["theta"], c)
    s = torch.where(old["unit"].bool(), old["event"], s)
    want = {
        "index": old["index"], "unit": old["unit"], "u": u, "s": s, "theta_trace": leaked.theta_trace,
        "alpha_trace": leaked.alpha_trace,
        "weight_trace": golden_membrane.weight_trace(old["weight_trace"], s << PIXEL_FRAC, old["alpha_next"], c),
    }  # fmt: skip
    words = rows(columns)
    assert_equal(play(Membrane(c), words), want, words)
    seen = Counter(spikes=int(s.sum()), ties=int((u == old["theta"]).sum()), high=int((u == c.u.high).sum()),
                   low=int((u == c.u.low).sum()), traces=int((want["weight_trace"] == c.trace.high).sum()))  # fmt: skip
    assert min(seen.values()) >= 10, f"the scenario proves little: {seen}"


@pytest.mark.parametrize("output_error", ["counted", "graded"])
def test_delta_follows_the_tables(output_error):
    c, rng = Machine.holding(NETWORK.replace(output_error=output_error)), np.random.default_rng(2)
    graded = rng.integers(c.delta.low, c.delta.high + 1, (2, GRADED_ENTRIES))
    table, surrogate = rng.integers(c.delta.low, c.delta.high + 1, 4 * (NETWORK.classes + 1)), surrogate_table()
    surrogate[:4] = (1 << PHI_FRAC) - 1
    columns = {
        "index": rng.integers(0, NETWORK.neurons, WORDS), "output": rng.random(WORDS) < 0.5, "label": rng.random(WORDS) < 0.5,
        "graded": (rng.random(WORDS) < 0.8) & c.capacity.graded,
        "firing": rng.integers(0, NETWORK.classes + 1, WORDS), "error": draw(rng, c.delta), "u": draw(rng, c.u),
        "s": rng.random(WORDS) < 0.5, "theta": rng.integers(c.theta_min, c.u.high + 1, WORDS),
    }  # fmt: skip
    columns["theta"] = np.where(np.arange(WORDS) % 4 == 0, columns["u"].clip(1), columns["theta"])
    x = tensors(columns)
    looked_up = torch.from_numpy(table)[4 * x["firing"] + 2 * x["s"] + x["label"]]
    phi = golden_delta.surrogate(x["u"], x["theta"], torch.from_numpy(surrogate), c)
    delta = golden_delta.delta(torch.where(x["output"].bool(), looked_up, x["error"]), phi, c)
    as_it_is, labels = x["output"].bool() & x["graded"].bool(), x["label"].bool().long()
    delta = torch.where(as_it_is, graded_error(torch.from_numpy(graded), x["u"], x["theta"], labels, c), delta)
    words = rows(columns)
    region = regions(c)
    tables = {"error_table": table, "surrogate": surrogate, "graded_table": graded.ravel()}
    got = play(Delta(c), words, tables=[(region[name], values) for name, values in tables.items() if name in region])
    assert_equal(got, {"index": x["index"], "delta": delta}, words)
    far = int((phi == int(surrogate[PHI_ENTRIES - 1])).sum())
    seen = Counter(not_zero=int((delta != 0).sum()), zero=int((delta == 0).sum()), near=int((phi == surrogate[0]).sum()), far=far)
    seen["graded"] = int(as_it_is.sum()) if c.capacity.graded else WORDS
    assert min(seen.values()) >= 10, f"the scenario proves little: {seen}"


def test_gradient_multiplies_delta_by_its_traces():
    c, rng = MACHINE, np.random.default_rng(3)
    columns = {
        "index": rng.integers(0, NETWORK.neurons, WORDS), "first": rng.random(WORDS) < 0.2, "learn_t": rng.random(WORDS) < 0.8,
        "learn_l": rng.random(WORDS) < 0.8, "delta": draw(rng, c.delta), "theta_trace": draw(rng, c.trace),
        "alpha_trace": draw(rng, c.u),
        "frame_trace": draw(rng, c.trace, [c.trace.one]), "input_grad": draw(rng, c.delta),
    }  # fmt: skip
    x = tensors(columns)
    products = golden_delta.theta_products(x["delta"], x["theta_trace"], c)
    want = {
        "index": x["index"],
        "theta_grad": golden_delta.theta_gradient(products, 0, c) * x["learn_t"],
        "alpha_grad": golden_delta.alpha_gradient(x["delta"], x["alpha_trace"], c) * x["learn_l"],
        "input_grad": golden_delta.input_gradient(x["input_grad"] * (1 - x["first"]), x["delta"], x["frame_trace"], c),
    }
    words = rows(columns)
    assert_equal(play(Gradient(c), words), want, words)
    formats = {"theta_grad": c.grad, "alpha_grad": c.grad, "input_grad": c.delta}
    seen = Counter({f"{name} {end}": int((want[name] == value).sum()) for name, q in formats.items()
                    for end, value in (("low", q.low), ("high", q.high))})  # fmt: skip
    assert min(seen.values()) >= 5, f"the scenario proves little: {seen}"


@pytest.mark.parametrize("machine", [MACHINE, Machine.holding(Network())], ids=["narrow", "default"])
def test_threshold_descends_to_its_floor(machine):
    c, rng = machine, np.random.default_rng(4)
    columns = {
        "index": rng.integers(0, NETWORK.neurons, WORDS), "rate": rng.choice([0, 1, 2, 5, 15], WORDS),
        "theta": rng.choice([c.theta_min, c.u.high, c.u.high // 2], WORDS), "grad": draw(rng, c.grad),
    }  # fmt: skip
    words = rows(columns)
    theta = np.array([int(descent.thresholds(torch.tensor(w["theta"]), torch.tensor(w["grad"]), w["rate"], c)) for w in words])
    assert_equal(play(Threshold(c), words), {"index": columns["index"], "theta": theta}, words)
    moved = int((theta != columns["theta"]).sum())
    seen = Counter(floor=int((theta == c.theta_min).sum()), high=int((theta == c.u.high).sum()), moved=moved)
    assert min(seen.values()) >= 10, f"the scenario proves little: {seen}"
