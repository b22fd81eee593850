"""The link between a PC and a board, written once: gateware, driver, golden model and manual page (docs/link.md) derive from here.

Nothing here imports Amaranth or PyTorch.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from hw.machine import CAPACITY_DOCS, WEIGHT_MEMORIES, WIRES, Capacity, Machine, demand
from hw.network import CADENCES, INPUTS, Network
from hw.notation import dense
from hw.numbers import FORMATS, LAYERS_MAX, Q

VERSION = 3
DELIMITER = 0
CRC_BYTES = 4
CRC_POLYNOMIAL = 0xEDB8_8320  # CRC-32 of IEEE 802.3, least bit first, as in zlib
CRC_RESIDUE = 0xDEBB_20E3  # register after a message and its CRC, before the final inversion
OPEN = 1 << 15  # in a request's length field: this frame opens a session
LENGTH_LEAST = 1 + CRC_BYTES
HEADER_BYTES = 8  # of an operation
FRAME_BYTES = 3 + CRC_BYTES  # of a request besides its payload: length, sequence number, CRC
SLOTS = 4  # replies that are kept, one of them the next
WINDOW = SLOTS - 1
"""Requests that may wait for their replies, as far as all their bytes fit into the buffer (which holds one less than it has)."""
REPLY_TRAILER = 2 + CRC_BYTES  # status, length, CRC
REPLY_REST = 10  # bytes of a reply's slot that are not data: COBS code, sequence number, trailer, delimiter, and one to spare


class Op(IntEnum):
    """Operations of a request's payload."""

    WRITE = 1
    READ = 2
    INFO = 3


class Status(IntEnum):
    """How a request ended."""

    OK = 0
    CLOSED = 1
    SEQUENCE = 2
    ILLEGAL = 3


OP_DOCS = {
    Op.WRITE: "`count` (its lower 10 bits; 0 stands for 1024) elements of `width` bytes follow;"
    " they go to `address` and the rows behind it",
    Op.READ: "the reply gets `count` elements of `width` bytes from `address` and the rows behind it",
    Op.INFO: "the reply gets the last `count` bytes of the description below; `width` and `address` do not matter",
}
STATUS_DOCS = {
    Status.OK: "everything was done",
    Status.CLOSED: "nothing was done: no session is open, for instance because the board was reset",
    Status.SEQUENCE: "nothing was done: another sequence number is expected, for a request before this one was lost",
    Status.ILLEGAL: "an operation is unknown or cut off, or its data do not fit into the reply; those before it were done",
}


@dataclass(frozen=True, kw_only=True)
class Link:
    """What a board's link is built with."""

    clock: int
    """Of the core, Hz."""
    baud: int
    """Bit rate, Hz."""
    buffer: int = 1024
    """Bytes of requests that may wait; a power of two up to 4096."""
    reply: int = 128
    """Bytes of a reply's slot, 128 or 256: a description fits into one."""

    def __post_init__(self) -> None:
        for name, value, least, most in (("buffer", self.buffer, 256, 4096), ("reply", self.reply, 128, 256)):
            if value & (value - 1) or not least <= value <= most:
                raise ValueError(f"{name}: {value} is not legal; legal is a power of two of {least} to {most}")

    @property
    def length_bits(self) -> int:
        """Bits of a request's length field that count; the OPEN bit is above them."""
        return self.buffer.bit_length() - 1

    @property
    def reply_data(self) -> int:
        """Most data bytes of a reply."""
        return self.reply - REPLY_REST

    @property
    def request_bytes(self) -> int:
        """Most bytes of a request, decoded: one can be received while another is executed."""
        return (self.buffer - 1) // 2


_MEMORIES, _WIRES = tuple(WEIGHT_MEMORIES), tuple(WIRES)
_SWITCHES = {"stochastic": "random bits", "parity": "parity", "shared": "shared multipliers", "lazy": "lazy learning",
             "both_ways": "layers banked by their inputs"}  # fmt: skip
_CAPACITIES = {"sample": "cadence sample", "step": "cadence step",
               "values": "inputs with a value in every step", "graded": "graded output errors", "centred": "centred frames",
               "decay": "weights that decay", "remainder": "remainders in G"}  # the others are numbers  # fmt: skip
_NUMBERS = tuple(name for name in CAPACITY_DOCS if name not in _CAPACITIES)
_FIXED = len(_SWITCHES) + len(_CAPACITIES)  # bit of the switches: the network is wired in
_NUMBER_BYTES = 3
_LINK = struct.Struct("<BHHII")
_MACHINE = struct.Struct("<BBBBH10BBI")
_NETWORK = struct.Struct("<BBBBB")
DESCRIPTION_DOCS = (
    (1, f"version of the link, {VERSION}"),
    (2, "bytes of the request buffer"),
    (2, "bytes of a reply, encoded"),
    (4, "clock of the core, Hz"),
    (4, "bit rate, Hz"),
    (1, "lanes"),
    (1, "neuron lanes"),
    (1, "weight memory: " + ", ".join(f"{k} {name}" for k, name in enumerate(_MEMORIES))),
    (1, "wires: " + ", ".join(f"{k} {name}" for k, name in enumerate(_WIRES))),
    (2, ", ".join(f"bit {k} {doc}" for k, doc in enumerate((*_SWITCHES.values(), *_CAPACITIES.values(), "one network, wired in")))),
    *((2, f"format of `{name}`") for name in FORMATS),
    (1, "fraction bits of a leakage factor"),
    (4, "least threshold"),
    ("", "then, where networks are loaded, the most of each that a network may need:"),
    *((_NUMBER_BYTES, CAPACITY_DOCS[name]) for name in _NUMBERS),
    ("", "else the network:"),
    (1, "time steps of a sample"),
    (1, "input: " + ", ".join(f"{k} {name}" for k, name in enumerate(INPUTS))),
    (1, "cadence: " + ", ".join(f"{k} {name}" for k, name in enumerate(CADENCES))),
    (1, "bit 0 stochastic rounding"),
    (1, "layers"),
    ("2 each", "units of the input and of every layer, less 1"),
)


def description(machine: Machine, link: Link) -> bytes:
    """What operation INFO reads: how the link and the core were built."""
    m, c, n = machine, machine.capacity, machine.fixed
    flags = [*(getattr(m, name) for name in _SWITCHES), *(getattr(c, name) for name in _CAPACITIES), n is not None]
    formats = (part for name in FORMATS for part in (getattr(m, name).i, getattr(m, name).f))
    head = _LINK.pack(VERSION, link.buffer, link.reply, link.clock, link.baud) + _MACHINE.pack(
        m.lanes, m.neuron_lanes, _MEMORIES.index(m.weight_memory), _WIRES.index(m.wires.name),
        sum(flag << k for k, flag in enumerate(flags)), *formats, m.alpha_frac, m.theta_min)  # fmt: skip
    if n is None:
        return head + b"".join(getattr(c, name).to_bytes(_NUMBER_BYTES, "little") for name in _NUMBERS)
    sizes = struct.pack(f"<{len(n.sizes)}H", *(size - 1 for size in n.sizes))
    return head + _NETWORK.pack(n.steps, INPUTS.index(n.input), CADENCES.index(n.cadence), n.stochastic, n.n_layers) + sizes


DESCRIPTION_MOST = _LINK.size + _MACHINE.size + max(_NUMBER_BYTES * len(_NUMBERS), _NETWORK.size + 2 * (LAYERS_MAX + 1))
"""Bytes of the longest description; a shorter one is followed by zeros."""


def read_description(data: bytes) -> tuple[Machine, Link]:
    """The inverse of `description`; ValueError if the version is not this one's, or the data make no sense."""
    version, buffer, reply, clock, baud = _LINK.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"version: the device speaks version {version} of the link, this driver {VERSION}; rebuild the bitstream")
    lanes, neuron_lanes, memory, wires, flags, *rest = _MACHINE.unpack_from(data, _LINK.size)
    formats, alpha_frac, theta_min = rest[:10], rest[10], rest[11]
    numbers: dict[str, Any] = {name: Q(*formats[2 * k : 2 * k + 2]) for k, name in enumerate(FORMATS)}
    numbers |= {"alpha_frac": alpha_frac, "theta_min": theta_min}
    switches = {name: bool(flags >> k & 1) for k, name in enumerate(_SWITCHES)}
    at, fixed = _LINK.size + _MACHINE.size, None
    if flags >> _FIXED & 1:
        steps, kind, cadence, rounding, layers = _NETWORK.unpack_from(data, at)
        sizes = struct.unpack_from(f"<{layers + 1}H", data, at + _NETWORK.size)
        fixed = Network(net=dense(size + 1 for size in sizes), steps=steps, input=INPUTS[kind], cadence=CADENCES[cadence],
                        stochastic=bool(rounding & 1), lazy=switches["lazy"], **numbers)  # fmt: skip
        capacity = Capacity()  # what `fixed` needs, below
    else:
        parts = [data[at + k * _NUMBER_BYTES : at + (k + 1) * _NUMBER_BYTES] for k in range(len(_NUMBERS))]
        most: dict[str, Any] = {name: int.from_bytes(part, "little") for name, part in zip(_NUMBERS, parts, strict=True)}
        capacity = Capacity(**most, **{name: bool(flags >> len(_SWITCHES) + k & 1) for k, name in enumerate(_CAPACITIES)})
    machine = Machine(lanes=lanes, neuron_lanes=neuron_lanes, weight_memory=_MEMORIES[memory], wires=WIRES[_WIRES[wires]],
                      capacity=capacity, fixed=fixed, **switches, **numbers)  # fmt: skip
    if fixed:
        machine = machine.replace(capacity=demand(fixed, machine))
    return machine, Link(clock=clock, baud=baud, buffer=buffer, reply=reply)
