"""docs/link.md, made from the tables that the gateware is made from.

`python -m hw.host.manual` writes the page, a test checks that it is up to date. A backslash at the end of a line of TEXT joins it
with the next one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from hw import configuration as c
from hw.host import protocol as p
from hw.host import stored as s
from hw.machine import Capacity, Machine
from hw.memory_map import BURST_BITS, LANE_BITS, REGISTERS, ROW_BITS, regions
from hw.network import Network
from hw.numbers import Q

PAGE = Path(__file__).resolve().parents[2] / "docs" / "link.md"

TEXT = """# The link

<!-- Made by `python -m hw.host.manual` from hw/host/protocol.py, hw/host/stored.py, hw/configuration.py and hw/memory_map.py. -->

How a PC and a device talk: over a serial line (8 data bits, no parity, 1 stop bit; no other wire), \
or whatever else carries bytes. The
driver is `sw.driver.device.Device`. All numbers are sent least byte first.

## Frames

A frame is encoded with COBS and ended by a byte 0. What is dropped leaves no trace but the LED `error`: \
a frame that is cut off, whose length
or CRC is wrong, or that finds the buffer full. Before a frame is whole and checked the device does nothing with it.

{frames}

The CRC is that of zlib and IEEE 802.3, polynomial {polynomial:#010x} (reflected), over all bytes before it. \
Of the request's length field the
lower bits count, as many as a place in the buffer has.

## Sessions

A request with bit 15 of its length field set opens a session: the device then expects the next sequence number (modulo 256). \
Its payload is
not executed. Sent again with the number of the last such request, it changes nothing; a host
that does not know that number opens twice, with two numbers.

- The request with the number expected is executed, and its reply is kept.
- One of the {window} before it is a repeat: it is not executed, and its reply is sent again.
- Any other is refused. After a reset there is no session, and every request is refused: so a host learns of it.

At most {window} requests may wait for their replies, and all their decoded bytes must fit into the buffer less one byte. \
A device with a buffer
of 1024 bytes takes requests of up to 511: one is received while another is executed. \
Replies come in the order of the requests. Nothing but a
sample that runs delays them: any access to the core waits until it is idle.

{statuses}

## Operations

The payload of a request is a list of operations: {header} bytes of header, and data. \
The data of a reply are those of all its operations, in
order; a reply of N bytes holds N - {rest} of them.

{operations}

A header is `operation` (1 byte), `count` (2), `width` (1, legal is 1 to 4), `address` (4). \
An element is the lower `width` bytes of a word; a write
fills the others with 0. An address has {row_bits} bits of row, {lane_bits} of lane and the region's number above. \
A count has {count_bits} bits.
Addresses that do not exist must not be used.

## Description

{description}

A format is two bytes: integer bits with the sign, and fraction bits.

## Networks

A machine with one network wired in runs that. Any other holds none after power-up, and is configured by a host: with zero in row 0
of memory `network`; the programs of lanes and neurons (hw/plan.py); 0 in all rows of {cleared}; the registers
{settings}; and at last the record of the network, its first word after the others. A
memory or register that the machine lacks is left out.

{record}

So the word {mark:#010x} in row 0 says that a network is there whole. The gateware does not look at the record; a host reads in it
which network a device holds. A reset leaves memories as they are, but not those registers, which a host that opens a device writes
anew; nor leakage factors, their gradients A and `rng`, which are registers, too. Behind the programs' own rows, which end with
operation 0, a table may hold anything.

## On its own

A device with an SPI flash starts with the network that is stored there; \
a host's bytes wait until it has (on a serial line they are lost, and
a driver sends them again). `sw.driver.device.Device.store` writes the image, through openFPGALoader on a board, \
to the place that boards/__init__.py
names for it. The image:

{image}

Its size follows from the machine, and is that of the largest network: whole sectors of {sector} bytes, \
less {command} for the flash's command. The device wakes the flash up
(command {wake:#04x}, and {wait:g} us) and reads the image twice (command {read:#04x}, two clock cycles a bit). \
The first time it acts on nothing, stops at the first
bit of the identity that is not its own, and compares the CRC; so an erased flash is soon done with, \
and of an image that is damaged, cut off or another
machine's nothing is loaded. The second time the frames are executed as a host's, without replies, \
and then the session is closed. A frame that is
damaged only now is dropped, those behind it are refused, and the LED `error` is on until a host opens a session. \
The LED `configured` is on when all is done.

## Registers

Region 0. `rc`: a write of any value clears it.

{registers}

## Memories

Here those of the smallest machine with {lanes} lanes that holds {title}, input {input}, cadence {cadence}; \
others have other depths, and those with
a network wired in no programs; behind them those that machines for events and lazy learning have besides. \
Writing an array of the learning state in part needs its
word's other bits: `sw.driver.device` reads them first. Values of more than one byte are two's complement where signed.

{memories}
"""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def manual() -> str:
    """The page."""
    network = Network()
    machine = Machine.holding(network)
    here, lazy = regions(machine), regions(Machine.holding(network.replace(input="events", lazy=True, trace=Q(5, 8))))
    others = [region for name, region in lazy.items() if name not in here]
    frames = table(("request", "bytes", "reply", "bytes"), [
        ("length of all that follows, bit 15: opens a session", 2, "sequence number of the request", 1),
        ("sequence number", 1, "data", "n"),
        ("payload", "n", "status", 1),
        ("", "", "length of all before the CRC, this byte included", 1),
        ("CRC-32", p.CRC_BYTES, "CRC-32", p.CRC_BYTES),
    ])  # fmt: skip
    image = table(("bytes", "what"), [
        (s.IDENTITY_BYTES, "identity: hash of the link's version and buffer, the machine and the size"),
        ("n", "frames: one that opens a session, and those that configure the device and write learning rates and state"),
        ("", "delimiters, at least one, up to the size"),
        (p.CRC_BYTES, "CRC-32 of frames and delimiters"),
    ])  # fmt: skip
    record = table(("row", "bits", "what"), c.RECORD_DOCS)
    description = table(("bytes", "what"), p.DESCRIPTION_DOCS)
    settings = c.settings(network, Machine(stochastic=True, lazy=True, capacity=Capacity(batch=2)))
    registers = ((r.row, r.name, r.bits, r.access, r.doc) for r in REGISTERS.values())
    memories = ((r.number, r.name, r.lanes, r.depth, r.bits, "yes" if r.signed else "", r.doc) for r in [*here.values(), *others])
    return TEXT.format(
        frames=frames, polynomial=p.CRC_POLYNOMIAL, window=p.WINDOW, header=p.HEADER_BYTES, rest=p.REPLY_REST,
        statuses=table(("status", "name", "meaning"), ((s.value, s.name, doc) for s, doc in p.STATUS_DOCS.items())),
        operations=table(("operation", "name", "meaning"), ((o.value, o.name, doc) for o, doc in p.OP_DOCS.items())),
        row_bits=ROW_BITS, lane_bits=LANE_BITS, count_bits=BURST_BITS,
        description=f"{p.DESCRIPTION_MOST} bytes, zeros behind the last one that is used.\n\n" + description,
        cleared=", ".join(f"`{name}`" for name in c.CLEARED),
        record=record, mark=c.RECORD, settings=", ".join(f"`{name}`" for name in settings),
        image=image, sector=s.SECTOR, command=s.COMMAND_BYTES, wake=s.WAKE, wait=1e6 * s.WAKE_SECONDS, read=s.READ,
        registers=table(("row", "name", "bits", "access", "meaning"), registers),
        lanes=machine.lanes, title=network.title, input=network.input, cadence=network.cadence,
        memories=table(("region", "name", "lanes", "rows", "bits", "signed", "what"), memories),
    )  # fmt: skip


def main() -> int:
    PAGE.write_text(manual())
    print(PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
