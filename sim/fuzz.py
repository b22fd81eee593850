"""Random, damaged, truncated, reordered and repeated frames among good ones, against the Verilated device.

`python -m sim.fuzz --help` tells the options.

The golden device (sw/transport/golden.py) gets the same bytes. Every byte that the gateware answers must be the golden device's, so
every good frame is answered; and all registers and memories are compared in the end, so nothing has changed that no good frame
asked for.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
from collections import Counter
from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from hw.configuration import configuration
from hw.design import Design
from hw.host.protocol import HEADER_BYTES, Link, Op, Status
from hw.memory_map import REGISTERS, regions, state_fields
from hw.network import Network
from hw.plan import Plan
from sim.endpoint import Model as Gateware
from sw.common.checks import legal_state
from sw.driver.layout import layout
from sw.transport.frames import parse_reply, request
from sw.transport.golden import Model as Golden

DESIGN = Design.of(Network(net="6-4-3", steps=3, stochastic=True), lanes=2)
LINK = Link(clock=24_000_000, baud=3_000_000, buffer=512)
_HEADER = struct.Struct("<BHBI")
_RUN = struct.pack("<I", REGISTERS["run"].address)
LIMIT = 2_000_000  # clock cycles after which the device hangs
COMPARE = 2_000  # frames between two comparisons of the whole state
PART = 40  # words of a configuration in a frame


class Difference(Exception):
    """Gateware and golden model differ, or the gateware hangs."""


class Host:
    """Makes frames, good and bad: each method in `KINDS` returns the bytes of one."""

    def __init__(self, plan: Plan, link: Link):
        self.network, self.link = plan.network, link
        self.next = self.first = 0
        self.sent: list[bytes] = []
        legal = legal_state(self.network)
        self.fields = [(field, legal[name]) for name, field in state_fields(plan).items() if name not in ("class", "rng")]
        self.addresses = set(map(int, layout(plan).addresses))
        self.frame = regions(plan.machine).get("frame")
        self.configuration = [(address + at, words[at : at + PART]) for address, words in configuration(plan)
                              for at in range(0, len(words), PART)]  # fmt: skip

    # -- operations ---------------------------------------------------------------------------
    def operation(self, r: random.Random) -> bytes:
        kind = r.random()
        if kind < 0.35:
            field, _ = r.choice(self.fields)
            address = int(field.addresses.flat[r.randrange(field.addresses.size)])
            rows = next(rows for rows in (3, 2, 1) if self.addresses.issuperset(range(address, address + rows)))
            return _HEADER.pack(Op.READ, r.randint(1, rows), r.randint(1, 4), address)
        if kind < 0.75:
            field, legal = r.choice(self.fields)
            low, high = (-9, 9) if field.name == "alpha_grad" else (legal.low, legal.high)
            value = r.choice((low, high, r.randint(low, high), r.randint(low, high)))
            address = int(field.addresses.flat[r.randrange(field.addresses.size)])
            return _HEADER.pack(Op.WRITE, 1, 4, address) + struct.pack("<i", value)
        if kind < 0.85:
            name = r.choice(("step", "label", "learn", "rate_w", "rate_theta", "rate_alpha"))
            value = {"step": 0, "label": r.randrange(self.network.classes), "learn": r.randrange(8)}.get(name, r.randrange(16))
            return _HEADER.pack(Op.WRITE, 1, 1, REGISTERS[name].address) + bytes([value])
        if kind < 0.92:
            steps = b"\1" * self.network.steps  # settings must not change within a sample
            return b"".join(
                _HEADER.pack(Op.WRITE, 1, 1, REGISTERS["run"].address) + bytes([single]) for single in r.choice((b"\0", steps))
            )
        if kind < 0.97 and self.frame:
            pixels = bytes(r.choice((0, r.randrange(256))) for _ in range(self.frame.depth))
            return _HEADER.pack(Op.WRITE, len(pixels), 1, self.frame.address(0)) + pixels
        if kind < 0.98 and self.configuration:
            return self.configure(*r.choice(self.configuration))
        return _HEADER.pack(Op.INFO, r.randint(1, 20), 1, r.randrange(64))

    @staticmethod
    def configure(address: int, words: list[int]) -> bytes:
        """A part of the network's configuration."""
        return _HEADER.pack(Op.WRITE, len(words), 4, address) + struct.pack(f"<{len(words)}I", *words)

    def payload(self, r: random.Random) -> bytes:
        return b"".join(self.operation(r) for _ in range(r.choice((0, 1, 1, 1, 2, 3))))

    # -- frames -------------------------------------------------------------------------------
    def good(self, r: random.Random) -> bytes:
        """The frame the device waits for."""
        wire = request(self.next, self.payload(r))
        self.next = (self.next + 1) % 256
        self.sent = [*self.sent[-7:], wire]
        return wire

    def repeated(self, r: random.Random) -> bytes:
        """One of the last frames, again; older ones are refused."""
        return r.choice(self.sent) if self.sent else b""

    def early(self, r: random.Random) -> bytes:
        """A frame that comes before one that should be first."""
        return request((self.next + r.randint(1, 200)) % 256, self.payload(r))

    def reordered(self, r: random.Random) -> bytes:
        """Two frames in the wrong order, then in the right one."""
        first, second = self.good(r), self.good(r)
        return second + first + second

    def damaged(self, r: random.Random) -> bytes:
        """A frame with some bits turned, delimiters too."""
        wire = bytearray(request(self.next, self.payload(r)))
        for _ in range(r.randint(1, 3)):
            wire[r.randrange(len(wire))] ^= 1 << r.randrange(8)
        return bytes(wire) + b"\0"

    def truncated(self, r: random.Random) -> bytes:
        """A frame that is cut off, and ended by a delimiter."""
        wire = request(self.next, self.payload(r))
        return wire[: r.randrange(len(wire))] + b"\0"

    def joined(self, r: random.Random) -> bytes:
        """A frame whose delimiter is lost, and the next one, which goes with it."""
        return request(self.next, self.payload(r))[:-1] + request((self.next + 1) % 256, self.payload(r))

    def noise(self, r: random.Random) -> bytes:
        return r.randbytes(r.randint(1, 40)) + b"\0"

    def overlong(self, r: random.Random) -> bytes:
        """A frame that is whole, and longer than the device's buffer."""
        return request(self.next, r.randbytes(self.link.buffer + r.randint(-6, 300)))

    def malformed(self, r: random.Random) -> bytes:
        """A whole frame whose operations are cut off, unknown, or ask for more than a reply holds."""
        kind = r.randrange(4)
        if kind == 0:
            payload = self.operation(r)
            while payload[0] == Op.WRITE and payload[4:8] == _RUN:  # a sample that is not run to its end
                payload = self.operation(r)
            payload = payload[: r.randrange(1, len(payload))]
        elif kind == 1:
            payload = self.payload(r) + bytes([r.choice((0, 4, 9, 255))]) + r.randbytes(HEADER_BYTES)
        elif kind == 2:
            payload = self.payload(r) + _HEADER.pack(Op.READ, 1, r.choice((0, 5, 255)), REGISTERS["step"].address)
        else:
            payload = self.payload(r) + _HEADER.pack(Op.INFO, r.randint(100, 300), 1, 0)
        wire = request(self.next, payload)
        self.next = (self.next + 1) % 256
        self.sent = [*self.sent[-7:], wire]
        return wire

    def opened(self, r: random.Random) -> bytes:
        """A new session; its number is another one than the last session's, which would make it a repeat."""
        first = (self.first + r.randrange(1, 256)) % 256
        self.first = first
        self.next = (first + 1) % 256
        self.sent = [request(first, b"", opening=True)]
        return self.sent[0]


KINDS: dict[str, int] = {
    "good": 40, "repeated": 15, "early": 5, "reordered": 5, "damaged": 12, "truncated": 8, "joined": 3, "noise": 6, "overlong": 1,
    "malformed": 5,
}  # fmt: skip
"""Kinds of frames and how often they are drawn, of 100."""


class Fuzz:
    """Gateware and golden model, and a host that sends both the same. Raises Difference."""

    def __init__(self, design: Design = DESIGN, link: Link = LINK):
        self.plan, self.link = design.plan, link
        self.gateware = Gateware(design.machine, link)
        self.frames: Counter[str] = Counter()
        self.answers: Counter[Status] = Counter()
        self._layout = layout(self.plan)
        self._begin()

    def close(self) -> None:
        self.gateware.close()

    def restart(self) -> None:
        """Both anew, as after power-up, and a host that has sent nothing but the network's configuration."""
        self.gateware.power_up()
        self._begin()

    def _begin(self) -> None:
        self.golden, self.host = Golden(self.plan.machine, self.link), Host(self.plan, self.link)
        self._pending: list[tuple[str, bytes]] = []
        self.send("opened", 0)
        for part in self.host.configuration:
            self._ask("a configuration", self.host.configure(*part))

    def send(self, kind: str, seed: int) -> None:
        """Sends a frame of this kind. What is sent is answered at the latest before the device's buffer would be full."""
        wire: bytes = getattr(self.host, kind)(random.Random(seed))
        if sum(len(data) for _, data in self._pending) + len(wire) >= self.link.buffer:
            self.flush()
        self._pending.append((kind, wire))
        self.frames[kind] += 1
        if kind == "overlong":
            self.flush()

    def flush(self) -> None:
        """Has both answer, and compares."""
        data = b"".join(wire for _, wire in self._pending)
        sent, got = self.gateware.run(data, limit=LIMIT)
        _, want = self.golden.run(data)
        kinds = ", ".join(kind for kind, _ in self._pending)
        self._pending = []
        if sent != len(data) or self.gateware.run(limit=100) != (0, b""):
            raise Difference(f"the device hangs after {kinds}")
        if got != want:
            raise Difference(f"after {kinds}: the gateware answers {got.hex()}, the golden model {want.hex()}")
        for reply in map(parse_reply, filter(None, got.split(b"\0"))):
            if reply is None:
                raise Difference(f"after {kinds}: a reply is damaged: {got.hex()}")
            self.answers[reply.status] += 1

    def compare(self) -> None:
        """Compares all registers and memories; Difference names the address."""
        registers = [register.address for name, register in REGISTERS.items() if not name.startswith("cycles_")]
        addresses = np.unique(np.concatenate([registers, self._layout.addresses]))
        most = min((self.link.request_bytes - 8) // HEADER_BYTES, self.link.reply_data // 4)
        for at in range(0, len(addresses), most):
            part = addresses[at : at + most]
            payload = b"".join(_HEADER.pack(Op.READ, 1, 4, int(address)) for address in part)
            self._ask(f"a look at {', '.join(f'{address:#x}' for address in part)}", payload)

    def _ask(self, what: str, payload: bytes) -> None:
        """Has a good frame answered, which must end well."""
        self.flush()
        before, wire = self.answers[Status.OK], request(self.host.next, payload)
        self.host.next = (self.host.next + 1) % 256
        self._pending.append((what, wire))
        self.flush()
        if self.answers[Status.OK] != before + 1:
            raise Difference(f"{what}: a good frame is not answered")

    def run(self, frames: int, seed: int, progress: Callable[[int], object] = lambda n: None) -> None:
        """Sends as many frames of random kinds; a look at the whole state now and then."""
        r = random.Random(seed)
        kinds, weights = list(KINDS), list(KINDS.values())
        self.send("opened", seed)
        for n in range(frames):
            self.send(r.choices(kinds, weights)[0], r.getrandbits(32))
            if n % COMPARE == COMPARE - 1:
                self.compare()
                progress(COMPARE)
                self.send("opened", r.getrandbits(32))
        self.compare()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m sim.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=1_000_000, metavar="N", help="frames to send (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of everything random (default: %(default)s)")
    given = parser.parse_args(arguments)
    if given.frames < 1:
        parser.error(f"--frames: {given.frames} is not legal; legal is at least 1")
    fuzz = Fuzz()
    try:
        with tqdm(total=given.frames, unit=" frames") as bar:
            fuzz.run(given.frames, given.seed, bar.update)
    except Difference as difference:
        print(f"error: {difference} (seed {given.seed}, {fuzz.frames.total()} frames)", file=sys.stderr)
        return 1
    print(f"{fuzz.frames.total():,} frames: " + ", ".join(f"{count:,} {kind}" for kind, count in fuzz.frames.most_common()))
    print("answers: " + ", ".join(f"{count:,} {status.name}" for status, count in fuzz.answers.most_common())
          + f"; {fuzz.gateware.cycles:,} clock cycles")  # fmt: skip
    print("unanswered good frames 0, unasked state changes 0, hangs 0 (gateware and golden device gave the same bytes throughout)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
