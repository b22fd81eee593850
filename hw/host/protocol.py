"""The link between a PC and a board, written once: gateware, driver, golden model and manual page (docs/link.md) derive from here.

Nothing here imports Amaranth or PyTorch.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from hw.config import CADENCES, INPUTS, WEIGHT_MEMORIES, Config, Q

VERSION = 1
DELIMITER = 0
CRC_BYTES = 4
CRC_POLYNOMIAL = 0xEDB8_8320  # CRC-32 of IEEE 802.3, least bit first, as in zlib
CRC_RESIDUE = 0xDEBB_20E3  # register after a message and its CRC, before the final inversion
OPEN = 1 << 15  # in a request's length field: this frame opens a session
LENGTH_LEAST = 1 + CRC_BYTES
HEADER_BYTES = 8  # of an operation
FRAME_BYTES = 3 + CRC_BYTES  # of a request besides its payload: length, sequence number, CRC
SLOTS = 4  # replies that are kept, one of them the next
WINDOW = SLOTS - 1  # requests that may wait for their replies, and with all their bytes in the buffer (which holds one less than it has)
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
    Op.WRITE: "`count` (its lower 10 bits; 0 stands for 1024) elements of `width` bytes follow; they go to `address` and the rows behind it",
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
    """Bytes of a reply's slot, a power of two up to 256."""

    def __post_init__(self) -> None:
        for name, value, least, most in (("buffer", self.buffer, 256, 4096), ("reply", self.reply, 64, 256)):
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


_FORMATS = ("w", "u", "trace", "delta", "grad")
_CHOICES = {"input": INPUTS, "cadence": CADENCES, "weight_memory": WEIGHT_MEMORIES}
_SWITCHES = {"stochastic": "stochastic rounding", "parity": "parity", "shared": "shared multipliers", "lazy": "lazy learning",
             "lane_lists": "lists of the lanes' own"}  # fmt: skip
_LINK = struct.Struct("<BHHII")
_CONFIG = struct.Struct("<BHHBBBBB10BBI")
DESCRIPTION_DOCS = (
    (1, f"version of the link, {VERSION}"),
    (2, "bytes of the request buffer"),
    (2, "bytes of a reply, encoded"),
    (4, "clock of the core, Hz"),
    (4, "bit rate, Hz"),
    (1, "time steps of a sample"),
    (2, "lanes"),
    (2, "neuron lanes"),
    (1, "weight latency"),
    *((1, f"{name}: " + ", ".join(f"{k} {choice}" for k, choice in enumerate(names))) for name, names in _CHOICES.items()),
    (1, ", ".join(f"bit {k} {doc}" for k, doc in enumerate(_SWITCHES.values()))),
    *((2, f"format of `{name}`") for name in _FORMATS),
    (1, "fraction bits of a leakage factor"),
    (4, "least threshold"),
    (1, "sizes: how many"),
    ("2 each", "sizes: units of the input and of every layer"),
)


def description(config: Config, link: Link) -> bytes:
    """What operation INFO reads: how the link and the core were built."""
    c = config
    choices = (names.index(getattr(c, name)) for name, names in _CHOICES.items())
    switches = sum(getattr(c, name) << k for k, name in enumerate(_SWITCHES))
    formats = (part for name in _FORMATS for part in (getattr(c, name).i, getattr(c, name).f))
    return (_LINK.pack(VERSION, link.buffer, link.reply, link.clock, link.baud)
            + _CONFIG.pack(c.steps, c.lanes, c.neuron_lanes, c.weight_latency, *choices, switches, *formats, c.alpha_frac, c.theta_min)
            + bytes([len(c.sizes)]) + struct.pack(f"<{len(c.sizes)}H", *c.sizes))  # fmt: skip


DESCRIPTION_MOST = _LINK.size + _CONFIG.size + 1 + 2 * 6
"""Bytes of a description with the most layers; a shorter one is followed by zeros."""


def read_description(data: bytes) -> tuple[Config, Link]:
    """The inverse of `description`; ValueError if the version is not this one's, or the data make no sense."""
    version, buffer, reply, clock, baud = _LINK.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"version: the device speaks version {version} of the link, this driver {VERSION}; rebuild the bitstream")
    steps, lanes, neuron_lanes, weight_latency, *rest = _CONFIG.unpack_from(data, _LINK.size)
    choices, switches, formats, alpha_frac, theta_min = rest[:3], rest[3], rest[4:14], rest[14], rest[15]
    at = _LINK.size + _CONFIG.size
    sizes = struct.unpack_from(f"<{data[at]}H", data, at + 1)
    fields: dict[str, Any] = {name: names[k] for (name, names), k in zip(_CHOICES.items(), choices, strict=True)}
    fields |= {name: Q(*formats[2 * k : 2 * k + 2]) for k, name in enumerate(_FORMATS)}
    fields |= {name: bool(switches >> k & 1) for k, name in enumerate(_SWITCHES)}
    config = Config(sizes=sizes, steps=steps, lanes=lanes, neuron_lanes=neuron_lanes, weight_latency=weight_latency, alpha_frac=alpha_frac,
                    theta_min=theta_min, **fields)  # fmt: skip
    return config, Link(clock=clock, baud=baud, buffer=buffer, reply=reply)
