"""Every register and memory a host can reach, written once: gateware, simulation and driver derive from this table.

A host address has 32 bits: the number of a region (REGION_BITS), lane (LANE_BITS), row (ROW_BITS). Values travel as 32-bit
words, the unused upper bits 0 (`Field.decode` extends the sign).
Any access waits until the core is idle, so a read that follows `run` answers when the run is over.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hw.machine import LANES_MAX, ROWS_MAX, Machine
from hw.numbers import GRADED_ENTRIES, HOST_BITS, PHI_ENTRIES, PHI_FRAC, PIXEL_FRAC, ceil_div, ceil_log2
from hw.plan import Plan
from hw.program import lane_fields, neuron_fields, table_rows, words_of

IDENTITY = 0x4F53_0003  # "OS", version 3 of this map
ROW_BITS, LANE_BITS = ceil_log2(ROWS_MAX), ceil_log2(LANES_MAX)
REGION_BITS = 32 - ROW_BITS - LANE_BITS
OP_WRITE, OP_READ, OP_NEXT, OP_SEEK = 1, 2, 3, 4
BURST_BITS = 10
MAX_BURST = (1 << BURST_BITS) - 1  # words of one access
DAMAGED_BITS = 24  # more than there are memories
COUNTER_BITS = 24  # counters count modulo 2**COUNTER_BITS: a host looks often enough
PHASE_DOCS = {
    "forward": "the lanes sum currents (and change gradients, in lazy learning), neurons integrate and fire beside them",
    "neuron": "the lanes wait for membranes, spikes and traces",
    "backward": "the lanes carry errors back, neurons make deltas and their own gradients of them, or the lanes wait for these",
    "update": "the lanes gather or apply weight gradients, or wait for changes of thresholds and leakages",
}
PHASES = tuple(PHASE_DOCS)


@dataclass(frozen=True)
class Register:
    row: int
    name: str
    bits: int
    access: str  # "r", "w" or "rw"; "rc": a write of any value clears it
    doc: str

    @property
    def address(self) -> int:
        return self.row


_REGISTERS = (
    ("identity", 32, "r", "constant 0x4F530003"),
    ("machine", 32, "r", "digest of the machine: what the core was built as"),
    ("run", 1, "w",
     "writing 0 runs to the end of the sample, 1 runs one time step (as a host does that brings events step by step)"),
    ("step", 8, "rw", "next time step t; 0 starts a sample, and it returns to 0 when the sample is over"),
    ("label", 8, "rw", "class of the sample, used while learning"),
    ("learn", 3, "rw", "bit 0 weights, bit 1 thresholds, bit 2 leakages; 0 infers"),
    ("rate_w", 4, "rw", "learning rate of weights is 2**-rate_w"),
    ("rate_theta", 4, "rw", "learning rate of thresholds is 2**-rate_theta"),
    ("rate_alpha", 4, "rw", "learning rate of leakages is 2**-rate_alpha"),
    ("rate_decay", 4, "rw", "weights decay at the rate 2**-rate_decay; in a machine that knows decay"),
    ("rng", 32, "rw", "state R of the random generator, never 0; reads 0 in a core without one"),
    ("frame_length", 16, "r", "non-zero pixels of the frame held"),
    ("class", 8, "r", "class decided after the last step"),
    *((f"cycles_{phase}", COUNTER_BITS, "rc", f"clock cycles spent in phase {phase}: {doc}") for phase, doc in PHASE_DOCS.items()),
    ("sops", COUNTER_BITS, "rc", "synaptic operations done (a weight read, summed or updated for one neuron)"),
    ("last_step", 8, "rw", "T-1, the last time step of a sample; fixed where the network is"),
    ("last_sample", 8, "rw", "B-1, the last sample of a batch; in a machine that knows batches"),
    ("gathered", 8, "rw", "samples of this batch whose gradients are gathered; in a machine that knows batches"),
    ("aged", 4, "rw", "samples with learning of weights since these decayed; in a machine that knows decay"),
    ("remainder", 1, "rw", "1: what an update rounds off stays in G; in a machine that knows it"),
    ("mean_factor", 17, "rw", "1 / pixels of a frame, from which its mean is made; in a machine that centres frames"),
    ("mean_shift", 5, "rw", "by how much the sum of the pixels is shifted before; likewise"),
    ("rounding", 1, "rw", "1: weights are rounded by chance; in a machine with random bits"),
    ("alpha_min", 17, "rw", "least leakage factor; in a machine that learns lazily"),
    ("damaged", DAMAGED_BITS, "rc", "bit n: a word with a wrong parity bit was read from memory n; 0 in a core without parity"),
)
REGISTERS = {name: Register(row, name, bits, access, doc) for row, (name, bits, access, doc) in enumerate(_REGISTERS)}


def registers(machine: Machine) -> dict[str, Register]:
    """Those of REGISTERS that a core built as `machine` has; the rows of others read 0."""
    absent = {"damaged": not machine.parity, "alpha_min": not machine.lazy, "rounding": not machine.stochastic}
    absent |= dict.fromkeys(("last_sample", "gathered"), machine.capacity.batch == 1)
    absent |= dict.fromkeys(("rate_decay", "aged"), not machine.capacity.decay)
    absent |= dict.fromkeys(("mean_factor", "mean_shift"), not machine.capacity.centred)
    absent |= {"remainder": not machine.capacity.remainder}
    return {name: register for name, register in REGISTERS.items() if not absent.get(name, False)}


@dataclass(frozen=True)
class Region:
    """One memory: `depth` rows in each of `lanes` lanes, of `bits` bits."""

    number: int
    name: str
    lanes: int
    depth: int
    bits: int
    signed: bool
    doc: str
    parity: bool = False
    """Every word has a parity bit, which the host does not see."""

    @property
    def width(self) -> int:
        """Bytes of a word on the link."""
        return min(4, ceil_div(self.bits, 8))

    def address(self, row: int, lane: int = 0) -> int:
        return self.number << (LANE_BITS + ROW_BITS) | lane << ROW_BITS | row

    def places(self, n: np.ndarray, row: int = 0) -> np.ndarray:
        """Addresses of the elements `n` of an array that is spread over the lanes from `row` on.

        Element n is in lane n mod lanes, row n div lanes."""
        return self.address(row) + (n % self.lanes << ROW_BITS) + n // self.lanes


NETWORK_WORDS = 3
"""Rows of region `network` before the sizes."""


def regions(machine: Machine) -> dict[str, Region]:
    """The memories of a core built as `machine`, by name; region 0 is the registers."""
    m, c, n, numbers = machine, machine.capacity, machine.neuron_lanes, machine
    loaded = machine.fixed is None
    tables = [words_of(of(m)) for of in (lane_fields, neuron_fields)] if loaded else (0, 0)
    table = [
        # name, lanes, depth, bits, signed, there is one, doc
        ("weight", m.lanes, c.weight_rows, numbers.w.bits, True, True, "W"),
        ("grad", m.lanes, c.grad_rows, numbers.grad.bits, True, c.grad_rows > 0, "G, cadence sample"),
        ("delta", m.lanes, c.delta_rows, m.own_bits, True, True,
         "delta of every neuron, then D of a held frame, then traces (the spike on top) of the inputs of"
         " a layer banked by its inputs"),
        ("membrane", n, c.neuron_rows, numbers.u.bits + 1, False, True, "U in the lower bits, the spike s above"),
        ("theta", n, c.neuron_rows, numbers.u.bits, True, True, "thresholds"),
        ("theta_trace", n, c.neuron_rows, numbers.trace.bits, True, True, "threshold traces"),
        ("alpha_trace", n, c.neuron_rows, numbers.u.bits, True, True, "leakage traces"),
        ("weight_trace", n, c.unit_rows, numbers.trace.bits, True, True, "weight traces, input units last"),
        ("current", n, c.neuron_rows, numbers.u.bits, True, True, "I"),
        ("theta_grad", n, c.neuron_rows, numbers.grad.bits, True, m.gathers, "threshold gradients, cadence sample"),
        ("input_grad", n, m.neuron_words(c.population), numbers.delta.bits, True, m.holds_frames,
         "D of a first layer behind a held frame"),
        ("alpha", 1, c.layers, numbers.alpha_frac + 1, False, True, "leakage factors, layer 1 in row 0"),
        ("alpha_grad", 1, c.layers, m.alpha_grad_bits, True, m.gathers, "A, cadence sample (step: 0 between steps)"),
        ("surrogate", 1, PHI_ENTRIES, PHI_FRAC, False, True, "surrogate derivative by |U - theta|"),
        ("error_table", 1, 4 * (c.classes + 1), numbers.delta.bits, True, True, "output error at row 4k + 2s + y"),
        ("graded_table", 1, 2 * GRADED_ENTRIES, numbers.delta.bits, True, c.graded,
         "graded output error at row 256y + 128 + 32(U - theta)"),
        ("count", 1, c.classes, 8, False, True, "spikes of each class in this sample"),
        ("frame", 1, c.pixels, max(1, ceil_log2(max(c.pixels, 1))) + PIXEL_FRAC, False, m.holds_frames,
         "write: pixel of input `row`, ascending, row 0 starts a frame; read: the k-th non-zero pixel, index above value"),
        ("event", n, m.neuron_words(c.events), PIXEL_FRAC if c.values else 1, False, m.events,
         "1: input (row * lanes + lane) spikes in the next step, which clears it; or its value, which stays"),
        ("delta_sum", n, c.neuron_rows, numbers.grad.bits, True, m.lazy,
         "H, what an event in the next step subtracts from G, lazy learning; the lanes have a copy"),
        ("lane_program", tables[0], table_rows(m), HOST_BITS, False, loaded,
         "rows of the lanes' program, word by word; written by a host only"),
        ("neuron_program", tables[1], table_rows(m), HOST_BITS, False, loaded,
         "rows of the neurons' program, word by word; written by a host only"),
        ("network", 1, NETWORK_WORDS + c.layers + 1, HOST_BITS, False, loaded,
         "which network is loaded, for a host; 0 in row 0: none"),
    ]  # fmt: skip
    unchecked = ("alpha", "alpha_grad", "network")
    return {
        name: Region(number, name, lanes, depth, bits, signed, doc, m.parity and name not in unchecked)
        for number, (name, lanes, depth, bits, signed, there, doc) in enumerate(table, 1)
        if there
    }


@dataclass(frozen=True)
class Field:
    """One array of the learning state: where each of its words stands.

    `addresses` has the array's shape; the value is bits `low .. low + bits - 1` of the word there.
    """

    name: str
    addresses: np.ndarray
    bits: int
    signed: bool
    low: int = 0

    def decode(self, words: np.ndarray) -> np.ndarray:
        """Array values (int64) from the words read at `addresses`."""
        raw = (words.astype(np.int64) >> self.low) & ((1 << self.bits) - 1)
        if self.signed:
            raw -= (raw >> (self.bits - 1)) << self.bits
        return raw


def state_fields(plan: Plan) -> dict[str, Field]:
    """Where a host finds the arrays that it may read between samples, by the golden model's names (`weight.1`, `theta.2`, ...)."""
    n, memory, p, q = plan.network, regions(plan.machine), plan.machine.lanes, plan.machine.neuron_lanes
    out: dict[str, Field] = {}

    def add(name: str, region: Region, rows: np.ndarray, lanes: np.ndarray | int = 0, bits: int | None = None,
            signed: bool | None = None, low: int = 0) -> None:  # fmt: skip
        base = region.address(0)
        addresses = base + (np.asarray(lanes, np.int64) << ROW_BITS) + np.asarray(rows, np.int64)
        out[name] = Field(name, addresses, bits or region.bits, region.signed if signed is None else signed, low)

    for l in n.layers:
        neuron = np.arange(n.sizes[l])
        lane, group = neuron % p, neuron // p
        unit, (_, stride) = np.arange(n.sizes[l - 1]), plan.shape[l]
        turned = l in plan.turned
        rows = plan.row_base[l] + (neuron[:, None] * stride + unit // p if turned else group[:, None] * stride + unit)
        weight_lane = unit % p + 0 * neuron[:, None] if turned else lane[:, None] + 0 * unit
        at, neuron_lane = plan.neuron_row[l] + neuron // q, neuron % q
        add(f"weight.{l}", memory["weight"], rows, weight_lane)
        if n.gathers(l):
            add(f"grad.{l}", memory["grad"], rows, weight_lane)
        add(f"delta.{l}", memory["delta"], plan.delta_base[l] + group, lane, bits=n.delta.bits)
        add(f"membrane.{l}", memory["membrane"], at, neuron_lane, bits=n.u.bits, signed=True)
        add(f"spike.{l}", memory["membrane"], at, neuron_lane, bits=1, signed=False, low=n.u.bits)
        for name in ("theta", "theta_trace", "alpha_trace", "current"):
            add(f"{name}.{l}", memory[name], at, neuron_lane)
        if n.cadence == "sample":
            add(f"theta_grad.{l}", memory["theta_grad"], at, neuron_lane)
        if n.lazy:
            add(f"delta_sum.{l}", memory["delta_sum"], at, neuron_lane)
    if n.static:
        neuron = np.arange(n.sizes[1])
        add("input_grad", memory["input_grad"], neuron // q, neuron % q)
    for l, row in plan.unit_row.items():
        unit = np.arange(n.input_units if l == 0 else n.sizes[l])
        add(f"weight_trace.{l}", memory["weight_trace"], row + unit // q, unit % q)
    add("alpha", memory["alpha"], np.arange(n.n_layers))
    add("count", memory["count"], np.arange(n.classes))
    if n.cadence == "sample":
        add("alpha_grad", memory["alpha_grad"], np.arange(n.n_layers))
    add("surrogate", memory["surrogate"], np.arange(PHI_ENTRIES))
    if n.output_error == "counted":
        add("error_table", memory["error_table"], np.arange(4 * (n.classes + 1)).reshape(n.classes + 1, 2, 2))
    else:
        add("graded_table", memory["graded_table"], np.arange(2 * GRADED_ENTRIES).reshape(2, GRADED_ENTRIES))
    there = {"gathered": n.batch > 1, "aged": n.decay, "rng": n.stochastic or n.decay, "class": True}
    for name in (name for name, is_there in there.items() if is_there):
        out[name] = Field(name, np.asarray(REGISTERS[name].address), REGISTERS[name].bits, False)
    return out
