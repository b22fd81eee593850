"""The golden model behind the same protocol: a device that is all software, answers every frame as the gateware does, and has no clock."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import torch

from hw.config import LANE_BITS, PIXEL_FRAC, ROW_BITS, Config
from hw.host.protocol import DELIMITER, DESCRIPTION_MOST, HEADER_BYTES, SLOTS, WINDOW, Link, Op, Status, description
from hw.memory_map import COUNTER_BITS, IDENTITY, MAX_BURST, REGISTERS, regions, state_fields
from sw.checks import SWITCHES
from sw.golden.network import Network
from sw.transport.frames import parse_request, reply

_HEADER = struct.Struct("<BHBI")
_WORD = (1 << 32) - 1
RATES = ("rate_w", "rate_theta", "rate_alpha")
SOPS = ("sops", "sops_dense")


class Model:
    """A device that answers bytes with bytes (sw.transport.simulated.Model).

    Its network is `core.network`. Clock cycles are not modelled: their counters read 0.
    """

    def __init__(self, config: Config, link: Link):
        self.core = Core(config)
        self.link = link
        self.description = description(config, link).ljust(DESCRIPTION_MOST, b"\0")
        self._partial = b""
        self._replies = [b""] * SLOTS
        self._opened: int | None = None
        self._expected = 0

    def reset(self) -> None:
        """Resets registers, not memories."""
        self._opened, self._expected, self._partial = None, 0, b""
        self.core.reset()

    def run(self, data: bytes = b"", *, limit: int = 0, capacity: int = 0, frame: bool = False) -> tuple[int, bytes]:
        """Takes `data`, up to the first frame's end if `frame`; how many bytes, and the answer. The other arguments do not matter."""
        out: list[bytes] = []
        taken = 0
        while taken < len(data) and not (frame and out):
            end = data.find(DELIMITER, taken)
            if end < 0:
                self._partial += data[taken:]
                taken = len(data)
            else:
                whole = self._partial + data[taken:end]
                self._partial, taken = b"", end + 1
                request = parse_request(whole, self.link.buffer) if whole else None
                if request:
                    out.append(self._answer(*request))
        return taken, b"".join(out)

    def _answer(self, sequence: int, payload: bytes, opening: bool) -> bytes:
        status = Status.OK
        age = (self._expected - sequence) % 256
        if opening:
            if sequence != self._opened:
                self._opened, self._expected = sequence, (sequence + 1) % 256
        elif self._opened is None:
            status = Status.CLOSED
        elif age == 0:
            done = reply(sequence, *self._execute(payload))
            self._replies[sequence % SLOTS] = done
            self._expected = (sequence + 1) % 256
            return done
        elif age <= WINDOW:
            return self._replies[sequence % SLOTS]
        else:
            status = Status.SEQUENCE
        return reply(sequence, b"", status)

    def _execute(self, payload: bytes) -> tuple[bytes, Status]:
        """The data of the reply, and how the payload's operations ended."""
        data, at, status = b"", 0, Status.OK
        while at < len(payload):
            if len(payload) - at < 4 or not (1 <= payload[at] <= len(Op) and 1 <= payload[at + 3] <= 4) or len(payload) - at < HEADER_BYTES:
                return data, Status.ILLEGAL
            op, count, width, address = _HEADER.unpack_from(payload, at)
            at, count = at + HEADER_BYTES, count % (MAX_BURST + 1) or MAX_BURST + 1
            if op == Op.WRITE:
                there = min(count, (len(payload) - at) // width)
                elements = [int.from_bytes(payload[at + k * width : at + (k + 1) * width], "little") for k in range(there)]
                self.core.write(address, elements)
                at += there * width
                if there < count:
                    return data, Status.ILLEGAL
            else:
                if op == Op.INFO:
                    data += bytes(self.description[-(n % 64)] if 0 < n % 64 <= DESCRIPTION_MOST else 0 for n in range(count, 0, -1))
                else:
                    data += b"".join((word & (1 << 8 * width) - 1).to_bytes(width, "little") for word in self.core.read(address, count))
                if len(data) > self.link.reply_data:
                    data, status = data[: self.link.reply_data], Status.ILLEGAL
        return data, status


class Core:
    """The registers and memories of hw/memory_map.py around a golden network."""

    def __init__(self, config: Config):
        self.config = config
        self.network = Network(config)
        self._regions = {region.number: region for region in regions(config).values()}
        self._words = {n: np.zeros(r.lanes << ROW_BITS if r.lanes > 1 else r.depth, np.int64) for n, r in self._regions.items()}
        self._fields: dict[int, list] = {n: [] for n in self._regions}
        for field in state_fields(config).values():
            number = int(field.addresses.flat[0]) >> LANE_BITS + ROW_BITS
            if number:
                self._fields[number].append((field, field.addresses & (1 << LANE_BITS + ROW_BITS) - 1))
        # What stands in the words and not yet in the network, and the other way round.
        self._newer_words: set[int] = set(self._regions)
        self._newer_network: set[int] = set()
        self.reset()

    def reset(self) -> None:
        self.registers = {name: 0 for name in (*RATES, "step", "label", "learn", "frame_length", *SOPS)}
        self.network.rng, self.network.winner = 1, 0
        self._sample: Iterator[int] | None = None
        self._pixels = np.zeros(self.config.sizes[0], np.uint8)

    # -- memories -----------------------------------------------------------------------------
    def write(self, address: int, words: list[int]) -> None:
        """Writes words to an address and the rows behind it; what does not exist is not written."""
        number, lane, row = address >> LANE_BITS + ROW_BITS, address >> ROW_BITS & (1 << LANE_BITS) - 1, address & (1 << ROW_BITS) - 1
        if number == 0:
            for n, word in enumerate(words, row):
                self._set(n, word)
        elif number in self._regions:
            region = self._regions[number]
            there = max(0, min(len(words), region.depth - row)) if lane < region.lanes else 0
            if region.name == "frame":
                for n, word in enumerate(words[:there], row):
                    self._pixel(n, word)
            elif there:
                self._refresh(number)
                at = lane << ROW_BITS | row
                self._words[number][at : at + there] = np.array(words[:there], np.int64) & (1 << region.bits) - 1
                self._newer_words.add(number)

    def read(self, address: int, count: int) -> list[int]:
        """Words from an address and the rows behind it, 32 bits each; 0 where nothing is."""
        number, lane, row = address >> LANE_BITS + ROW_BITS, address >> ROW_BITS & (1 << LANE_BITS) - 1, address & (1 << ROW_BITS) - 1
        if number == 0:
            return [self._get(n) for n in range(row, row + count)]
        region = self._regions.get(number)
        there = max(0, min(count, region.depth - row)) if region and lane < region.lanes else 0
        if not (region and there):
            return [0] * count
        self._refresh(number)
        at = lane << ROW_BITS | row
        return [int(word) for word in self._words[number][at : at + there]] + [0] * (count - there)

    def _pixel(self, row: int, value: int) -> None:
        region = regions(self.config)["frame"]
        if row == 0:
            self.registers["frame_length"] = 0
            self._pixels[:] = 0
        value &= (1 << PIXEL_FRAC) - 1
        if value:
            self._words[region.number][self.registers["frame_length"]] = row << PIXEL_FRAC | value
            self.registers["frame_length"] += 1
        self._pixels[row] = value

    def _refresh(self, number: int) -> None:
        """Brings the words of a memory up to date with the network."""
        if number in self._newer_network:
            self._newer_network.discard(number)
            words = self._words[number]
            for field, places in self._fields[number]:
                mask = ((1 << field.bits) - 1) << field.low
                words[places] = words[places] & ~mask | self.network._array(field.name).numpy() << field.low & mask

    def _load(self) -> None:
        """Brings the network up to date with the words."""
        for number in self._newer_words:
            for field, places in self._fields[number]:
                self.network._array(field.name).copy_(torch.from_numpy(field.decode(self._words[number][places])))
        self._newer_words.clear()

    # -- registers ----------------------------------------------------------------------------
    def _set(self, row: int, value: int) -> None:
        name = next((name for name, register in REGISTERS.items() if register.row == row), None)
        if name == "run":
            self._run(bool(value & 1))
        elif name == "rng":
            if self.config.stochastic:
                self.network.rng = value & _WORD
        elif name in SOPS:
            self.registers[name] = -self._done(name)
        elif name in self.registers and REGISTERS[name].access == "rw":
            bits = max(1, (self.config.classes - 1).bit_length()) if name == "label" else REGISTERS[name].bits
            self.registers[name] = value & (1 << bits) - 1
            if name == "step":
                self._sample = None

    def _get(self, row: int) -> int:
        name = next((name for name, register in REGISTERS.items() if register.row == row), "")
        special = {"identity": IDENTITY, "config": self.config.digest, "class": self.network.winner,
                   "rng": self.network.rng if self.config.stochastic else 0}  # fmt: skip
        if name in SOPS:
            return (self.registers[name] + self._done(name)) % (1 << COUNTER_BITS)
        return special.get(name, self.registers.get(name, 0))

    def _done(self, name: str) -> int:
        return self.network.sops + (self.network.sops_skipped if name == "sops_dense" else 0)

    # -- samples ------------------------------------------------------------------------------
    def _run(self, single: bool) -> None:
        c = self.config
        self._load()
        for name in RATES:
            setattr(self.network, name, self.registers[name])
        if self._sample is None:
            learn = "".join(letter for letter, bit in SWITCHES.items() if self.registers["learn"] & bit)
            # Events are filled in as their steps come.
            self._shown = self._pixels.astype(np.int64) if c.static else np.zeros((c.steps, c.sizes[0]), np.int64)
            self._sample, self._t = self.network._steps(self._shown, self.registers["label"], learn), 0
        for _ in range(1 if single or not c.static else c.steps - self.registers["step"]):
            if not c.static:
                self._take_events()
            next(self._sample)
            self._t += 1
            self.registers["step"] = (self.registers["step"] + 1) % c.steps
        if self.registers["step"] == 0:
            self._sample = None
        self._newer_network = set(self._regions)

    def _take_events(self) -> None:
        """The events written are the input of the next step, which clears them."""
        region = regions(self.config)["event"]
        words = self._words[region.number]
        self._shown[self._t] = words[region.places(np.arange(self.config.sizes[0])) - region.address(0)]
        words[:] = 0
