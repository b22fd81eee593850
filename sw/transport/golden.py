"""The golden model behind the same protocol: a device that is all software.

It answers every frame as the gateware does, and has no clock.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hw.configuration import RECORD, read_record, settings
from hw.host.protocol import DELIMITER, DESCRIPTION_MOST, HEADER_BYTES, SLOTS, WINDOW, Link, Op, Status, description
from hw.machine import Machine
from hw.memory_map import COUNTER_BITS, IDENTITY, LANE_BITS, MAX_BURST, REGISTERS, ROW_BITS, Field, regions, registers, state_fields
from hw.network import Network
from hw.numbers import PIXEL_FRAC, bits_for
from hw.plan import compile
from sw.common.checks import RATES, SWITCHES
from sw.golden.network import GoldenNetwork
from sw.transport.frames import parse_request, reply
from sw.transport.process import InProcess

_HEADER = struct.Struct("<BHBI")
_WORD = (1 << 32) - 1
_REGISTER = {register.row: name for name, register in REGISTERS.items()}
_INFO = 1 << bits_for(DESCRIPTION_MOST)


class Model:
    """A device that answers bytes with bytes (sw.transport.process.Model).

    Its network is `core.network`. Clock cycles are not modelled: their counters read 0.
    """

    def __init__(self, machine: Machine, link: Link):
        self.core = Core(machine)
        self.link = link
        self.description = description(machine, link).ljust(DESCRIPTION_MOST, b"\0")
        self._partial = b""
        self._replies = [b""] * SLOTS
        self._opened: int | None = None
        self._expected = 0

    def reset(self) -> None:
        """Resets registers, not memories."""
        self._opened, self._expected, self._partial = None, 0, b""
        self.core.reset()

    def run(self, data: bytes = b"", *, limit: int = 0, capacity: int = 0, frame: bool = False) -> tuple[int, bytes]:
        """Takes `data`, up to the first frame's end if `frame`; how many bytes, and the answer.

        The other arguments do not matter.
        """
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
            left = len(payload) - at
            if left < 4 or not (1 <= payload[at] <= len(Op) and 1 <= payload[at + 3] <= 4) or left < HEADER_BYTES:
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
                    from_end = (n % _INFO for n in range(count, 0, -1))
                    data += bytes(self.description[-n] if 0 < n <= DESCRIPTION_MOST else 0 for n in from_end)
                else:
                    data += b"".join(
                        (word & (1 << 8 * width) - 1).to_bytes(width, "little") for word in self.core.read(address, count)
                    )
                if len(data) > self.link.reply_data:
                    data, status = data[: self.link.reply_data], Status.ILLEGAL
        return data, status


class Core:
    """The registers and memories of hw/memory_map.py around a golden network, `network`: None until a host has configured one."""

    def __init__(self, machine: Machine):
        self.machine = machine
        self._regions = {region.number: region for region in regions(machine).values()}
        self._named = {region.name: region for region in self._regions.values()}
        self._words = {number: np.zeros((region.lanes, region.depth), np.int64) for number, region in self._regions.items()}
        # What stands in the words and not yet in the network, and the other way round.
        self._newer_words: set[int] = set()
        self._newer_network: set[int] = set()
        self.network: GoldenNetwork | None = None
        self.config: Network | None = None
        self._pixels = np.zeros(machine.capacity.pixels, np.uint8)
        self.reset()
        if machine.fixed:
            self._take(machine.fixed)

    def reset(self) -> None:
        names = [name for name, register in registers(self.machine).items() if register.access == "rw" and name != "rng"]
        self.registers = dict.fromkeys((*names, "frame_length", "sops"), 0)
        self._rng = 1
        if self.machine.fixed:
            self.registers |= settings(self.machine.fixed, self.machine)
        if self.network:
            self.network.rng, self.network.winner = 1, 0
        self._sample: Iterator[int] | None = None
        self._pixels[:] = 0

    def _take(self, network: Network) -> None:
        """Runs this network from now on, from what the memories hold."""
        plan = compile(network, self.machine)
        fields = state_fields(plan)
        for number in self._regions:
            self._refresh(number)
        self.registers["sops"] += self._done()
        golden = GoldenNetwork(network, visits=plan.visits)
        golden.rng = self.network.rng if self.network else self._rng
        self.config, self.network = network, golden
        self._fields: dict[int, list[tuple[Field, tuple[np.ndarray, np.ndarray]]]] = {number: [] for number in self._regions}
        for field in fields.values():
            number, lane, row = _place(field.addresses)
            if number.flat[0]:
                self._fields[int(number.flat[0])].append((field, (lane, row)))
        self._newer_words, self._sample = set(self._regions), None

    # -- memories -----------------------------------------------------------------------------
    def write(self, address: int, words: list[int]) -> None:
        """Writes words to an address and the rows behind it; what does not exist is not written."""
        number, lane, row = _place(address)
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
                self._words[number][lane, row : row + there] = np.array(words[:there], np.int64) & (1 << region.bits) - 1
                self._newer_words.add(number)
                if region.name == "network" and row == 0 and words[0] == RECORD:
                    self._configured()

    def _configured(self) -> None:
        """A record of a network was written. One that makes no sense is of no consequence here: gateware does not read it."""
        try:
            network = read_record([int(word) for word in self._words[self._named["network"].number][0]], self.machine)
            if network and network != self.config:
                self._take(network)
        except ValueError:
            pass

    def read(self, address: int, count: int) -> list[int]:
        """Words from an address and the rows behind it, 32 bits each; 0 where nothing is."""
        number, lane, row = _place(address)
        if number == 0:
            return [self._get(n) for n in range(row, row + count)]
        region = self._regions.get(number)
        there = max(0, min(count, region.depth - row)) if region and lane < region.lanes else 0
        if not (region and there):
            return [0] * count
        self._refresh(number)
        return [int(word) for word in self._words[number][lane, row : row + there]] + [0] * (count - there)

    def _pixel(self, row: int, value: int) -> None:
        number = self._named["frame"].number
        if row == 0:
            self.registers["frame_length"] = 0
            self._pixels[:] = 0
        value &= (1 << PIXEL_FRAC) - 1
        if value:
            self._words[number][0, self.registers["frame_length"]] = row << PIXEL_FRAC | value
            self.registers["frame_length"] += 1
        self._pixels[row] = value

    def _refresh(self, number: int) -> None:
        """Brings the words of a memory up to date with the network."""
        if self.network and number in self._newer_network:
            self._newer_network.discard(number)
            words = self._words[number]
            for field, places in self._fields[number]:
                mask = ((1 << field.bits) - 1) << field.low
                words[places] = words[places] & ~mask | self.network._array(field.name).numpy() << field.low & mask

    def _load(self, network: GoldenNetwork) -> None:
        """Brings the network up to date with the words."""
        for number in self._newer_words:
            for field, places in self._fields[number]:
                network._array(field.name).copy_(torch.from_numpy(field.decode(self._words[number][places])))
        self._newer_words.clear()

    # -- registers ----------------------------------------------------------------------------
    def _set(self, row: int, value: int) -> None:
        name = _REGISTER.get(row)
        if name == "run":
            self._run(bool(value & 1))
        elif name == "rng":
            if self.machine.stochastic:
                self._rng = value & _WORD
                if self.network:
                    self.network.rng = self._rng
        elif name == "sops":
            self.registers[name] = -self._done()
        elif self.machine.fixed and name in settings(self.machine.fixed, self.machine):
            return
        elif name in self.registers and REGISTERS[name].access == "rw":
            bits = bits_for(self.machine.capacity.classes) if name == "label" else REGISTERS[name].bits
            self.registers[name] = value & (1 << bits) - 1
            if name == "step":
                self._sample = None
            if name in ("gathered", "aged") and self.network:
                setattr(self.network, name, self.registers[name])

    def _get(self, row: int) -> int:
        name = _REGISTER.get(row, "")
        rng = (self.network.rng if self.network else self._rng) if self.machine.stochastic else 0
        winner = self.network.winner if self.network else 0
        special = {"identity": IDENTITY, "machine": self.machine.digest, "class": winner, "rng": rng}
        if name == "sops":
            return (self.registers[name] + self._done()) % (1 << COUNTER_BITS)
        return special.get(name, self.registers.get(name, 0))

    def _done(self) -> int:
        return self.network.sops if self.network else 0

    # -- samples ------------------------------------------------------------------------------
    def _run(self, single: bool) -> None:
        c, network = self.config, self.network
        if c is None or network is None:
            return
        self._load(network)
        for name in RATES:
            setattr(network, name, self.registers.get(name, 0))
        if self._sample is None:
            learn = "".join(letter for letter, bit in SWITCHES.items() if self.registers["learn"] & bit)
            # Events are filled in as their steps come.
            self._shown = self._pixels[: c.sizes[0]].astype(np.int64) if c.static else np.zeros((c.steps, c.sizes[0]), np.int64)
            self._sample, self._t = network._steps(self._shown, self.registers["label"], learn), 0
        for _ in range(1 if single else c.steps - self.registers["step"]):
            if not c.static:
                self._take_inputs(c)
            next(self._sample)
            self._t += 1
            self.registers["step"] = (self.registers["step"] + 1) % c.steps
        if self.registers["step"] == 0:
            self._sample = None
            for name in ("gathered", "aged"):
                if name in self.registers:
                    self.registers[name] = getattr(network, name)
        self._newer_network = set(self._regions)

    def _take_inputs(self, network: Network) -> None:
        """What was written is the input of the next step, which clears events."""
        region = self._named["event"]
        words, units = self._words[region.number], np.arange(network.sizes[0])
        place = units % region.lanes, units // region.lanes
        self._shown[self._t] = words[place]
        if network.input == "events":
            words[place] = 0


def _place(address: Any) -> tuple[Any, Any, Any]:
    """Region, lane and row of an address, or of an array of them."""
    return address >> LANE_BITS + ROW_BITS, address >> ROW_BITS & (1 << LANE_BITS) - 1, address & (1 << ROW_BITS) - 1


def golden(machine: Machine, link: Link, *, flash: str | Path | None = None) -> InProcess:
    """The line to a new device. ValueError if there is to be a `flash`: it has none."""
    if flash is not None:
        raise ValueError(f"flash: {flash} is not legal at port golden; legal is none, as only that of sim is a file")
    return InProcess("golden", Model(machine, link))
