"""Every register and memory a host can reach, written once: gateware, simulation and driver derive from this table.

A host address has 32 bits: region number (8), lane (8), row (16). Values travel as 32-bit words, the unused
upper bits 0 (`Field.decode` extends the sign).
Any access waits until the core is idle, so a read that follows `run` answers when the run is over.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hw.config import LANE_BITS, PHI_ENTRIES, PHI_FRAC, PIXEL_FRAC, ROW_BITS, Config, ceil_log2

IDENTITY = 0x4F53_0001  # "OS", version 1 of this map
OP_WRITE, OP_READ, OP_NEXT, OP_SEEK = 1, 2, 3, 4
BURST_BITS = 10
MAX_BURST = (1 << BURST_BITS) - 1  # words of one access
DAMAGED_BITS = 20  # more than there are memories
COUNTER_BITS = 24  # counters count modulo 2**COUNTER_BITS: a host looks often enough
LEARN_W, LEARN_T, LEARN_L = 1, 2, 4
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
    ("identity", 32, "r", "constant 0x4F530001"),
    ("config", 32, "r", "digest of the configuration the core was built for"),
    ("run", 1, "w", "writing 0 runs to the end of the sample, 1 runs one time step; with event input one step either way"),
    ("step", 8, "rw", "next time step t; 0 starts a sample, and it returns to 0 when the sample is over"),
    ("label", 8, "rw", "class of the sample, used while learning"),
    ("learn", 3, "rw", "bit 0 weights, bit 1 thresholds, bit 2 leakages; 0 infers"),
    ("rate_w", 4, "rw", "learning rate of weights is 2**-rate_w"),
    ("rate_theta", 4, "rw", "learning rate of thresholds is 2**-rate_theta"),
    ("rate_alpha", 4, "rw", "learning rate of leakages is 2**-rate_alpha"),
    ("rng", 32, "rw", "state R of the random generator, never 0; reads 0 in a core without one"),
    ("frame_length", 16, "r", "non-zero pixels of the frame held"),
    ("class", 8, "r", "class decided after the last step"),
    *((f"cycles_{phase}", COUNTER_BITS, "rc", f"clock cycles spent in phase {phase}: {doc}") for phase, doc in PHASE_DOCS.items()),
    ("sops", COUNTER_BITS, "rc", "synaptic operations done (a weight read, summed or updated for one neuron)"),
    ("sops_dense", COUNTER_BITS, "rc", "synaptic operations there were; those beyond `sops` were skipped, an input, a trace or the errors visited together being 0"),
    ("damaged", DAMAGED_BITS, "rc", "bit n: a word with a wrong parity bit was read from memory n; 0 in a core without parity"),
)
REGISTERS = {name: Register(row, name, bits, access, doc) for row, (name, bits, access, doc) in enumerate(_REGISTERS)}


def registers(config: Config) -> dict[str, Register]:
    """Those of REGISTERS that a core built for `config` has."""
    return {name: register for name, register in REGISTERS.items() if config.parity or name != "damaged"}


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
        return min(4, -(-self.bits // 8))

    def address(self, row: int, lane: int = 0) -> int:
        return self.number << (LANE_BITS + ROW_BITS) | lane << ROW_BITS | row

    def places(self, n: np.ndarray, row: int = 0) -> np.ndarray:
        """Addresses of the elements `n` of an array that is spread over the lanes from `row` on: lane n mod lanes, row n div lanes."""
        return self.address(row) + (n % self.lanes << ROW_BITS) + n // self.lanes


def regions(config: Config) -> dict[str, Region]:
    """The memories of a core built for `config`, by name; region 0 is the registers."""
    c, m = config, config.neuron_lanes
    index_bits = max(1, ceil_log2(c.sizes[0]))
    table = [
        # name, lanes, depth, bits, signed, there is one, doc
        ("weight", c.lanes, c.rows, c.w.bits, True, True, "W"),
        ("grad", c.lanes, c.grad_rows, c.grad.bits, True, c.grad_rows > 0, "G, cadence sample"),
        ("delta", c.lanes, c.delta_rows, c.delta.bits, True, True, "delta of every neuron, then D of a static frame"),
        ("membrane", m, c.neuron_rows, c.u.bits + 1, False, True, "U in the lower bits, the spike s above"),
        ("theta", m, c.neuron_rows, c.u.bits, True, True, "thresholds"),
        ("theta_trace", m, c.neuron_rows, c.trace.bits, True, True, "threshold traces"),
        ("alpha_trace", m, c.neuron_rows, c.u.bits, True, True, "leakage traces"),
        ("weight_trace", m, c.unit_rows, c.trace.bits, True, True, "weight traces, input units last"),
        ("current", m, c.neuron_rows, c.u.bits, True, True, "I"),
        ("theta_grad", m, c.neuron_rows, c.grad.bits, True, c.cadence == "sample", "threshold gradients, cadence sample"),
        ("input_grad", m, c.neuron_words(c.sizes[1]), c.delta.bits, True, c.static, "D of a static first layer"),
        ("alpha", 1, c.n_layers, c.alpha_frac + 1, False, True, "leakage factors, layer 1 in row 0"),
        ("alpha_grad", 1, c.n_layers, c.alpha_grad_bits, True, c.cadence == "sample", "A, cadence sample (step: 0 between steps)"),
        ("surrogate", 1, PHI_ENTRIES, PHI_FRAC, False, True, "surrogate derivative by |U - theta|"),
        ("error_table", 1, 4 * (c.classes + 1), c.delta.bits, True, True, "output error at row 4k + 2s + y"),
        ("count", 1, c.classes, 8, False, True, "spikes of each class in this sample"),
        ("frame", 1, c.sizes[0], index_bits + PIXEL_FRAC, False, c.static,
         "write: pixel of input `row`, ascending, row 0 starts a frame; read: the k-th non-zero pixel, index above value"),
        ("event", m, c.neuron_words(c.sizes[0]), 1, False, not c.static, "1: input (row * lanes + lane) spikes in the next step; the step clears it"),
        ("delta_sum", m, c.neuron_rows, c.grad.bits, True, c.lazy, "H, what an event in the next step subtracts from G, lazy learning; the lanes have a copy"),
    ]  # fmt: skip
    return {
        name: Region(number, name, lanes, depth, bits, signed, doc, c.parity and name not in ("alpha", "alpha_grad"))
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


def state_fields(config: Config) -> dict[str, Field]:
    """The arrays a host may read between samples, by the names the golden model uses (`weight.1`, `theta.2`, `alpha`, ...)."""
    c, m = config, regions(config)
    out: dict[str, Field] = {}

    def add(name: str, region: Region, rows: np.ndarray, lanes: np.ndarray | int = 0, bits: int | None = None,
            signed: bool | None = None, low: int = 0) -> None:  # fmt: skip
        base = region.address(0)
        addresses = base + (np.asarray(lanes, np.int64) << ROW_BITS) + np.asarray(rows, np.int64)
        out[name] = Field(name, addresses, bits or region.bits, region.signed if signed is None else signed, low)

    for l in c.layers:
        neuron = np.arange(c.sizes[l])
        lane, group = neuron % c.lanes, neuron // c.lanes
        rows = c.row_base[l] + group[:, None] * c.sizes[l - 1] + np.arange(c.sizes[l - 1])[None, :]
        at, neuron_lane = c.neuron_row[l] + neuron // c.neuron_lanes, neuron % c.neuron_lanes
        add(f"weight.{l}", m["weight"], rows, lane[:, None])
        if c.cadence == "sample" and c.spiking_input(l):
            add(f"grad.{l}", m["grad"], rows - c.grad_row_offset, lane[:, None])
        add(f"delta.{l}", m["delta"], c.delta_base[l] + group, lane)
        add(f"membrane.{l}", m["membrane"], at, neuron_lane, bits=c.u.bits, signed=True)
        add(f"spike.{l}", m["membrane"], at, neuron_lane, bits=1, signed=False, low=c.u.bits)
        for name in ("theta", "theta_trace", "alpha_trace", "current"):
            add(f"{name}.{l}", m[name], at, neuron_lane)
        for name in ("theta_grad", "delta_sum"):
            if name in m:
                add(f"{name}.{l}", m[name], at, neuron_lane)
    if c.static:
        neuron = np.arange(c.sizes[1])
        add("input_grad", m["input_grad"], neuron // c.neuron_lanes, neuron % c.neuron_lanes)
    for l, row in c.unit_row.items():
        unit = np.arange(c.input_units if l == 0 else c.sizes[l])
        add(f"weight_trace.{l}", m["weight_trace"], row + unit // c.neuron_lanes, unit % c.neuron_lanes)
    for name in ("alpha", "count", *(["alpha_grad"] if "alpha_grad" in m else [])):
        add(name, m[name], np.arange(m[name].depth))
    add("surrogate", m["surrogate"], np.arange(PHI_ENTRIES))
    add("error_table", m["error_table"], np.arange(4 * (c.classes + 1)).reshape(c.classes + 1, 2, 2))
    for name in ("rng", "class") if c.stochastic else ("class",):
        out[name] = Field(name, np.asarray(REGISTERS[name].address), REGISTERS[name].bits, False)
    return out
