"""Memories with a core side and a host side."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import Any

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.machine import Machine
from hw.memory_map import DAMAGED_BITS, LANE_BITS, REGION_BITS, ROW_BITS, Region
from hw.numbers import HOST_BITS, ceil_div, ceil_log2
from hw.pipeline import NEAR, NEXT, delay, spread

COLLISION_IS_FREE = "setparam -set COLLISION_X_MASK 1'1 t:$memrd_v2"
"""Tells Yosys, before synthesis, that no reader minds what it gets of a word being written (every memory here has one writer)."""


class HostBus(wiring.Signature):
    """How the host reaches a memory, seen from the memory.

    `hosting` is high while the core is idle and the host owns every memory. A write takes effect at once. A read answers in
    `data_r` one move after its address; `enable` moves it, and is high in every pass of the core. Behind `far_buses` all of
    this is some cycles later.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "hosting": Out(1),
                "enable": Out(1, init=1),
                "region": Out(REGION_BITS),
                "lane": Out(LANE_BITS),
                "row": Out(ROW_BITS),
                "write": Out(1),
                "data_w": Out(HOST_BITS),
                "data_r": In(HOST_BITS),
            }
        )


def follow(bus, host) -> list:
    """Statements by which `bus` sees what the host asks."""
    return [getattr(bus, name).eq(getattr(host, name)) for name, member in HostBus().members.items() if member.flow == Out]


def ask(m: Module, host, members: Iterable, moves: int = 0) -> Value:
    """Give every member the host's bus: the OR of their answers, `moves` moves later. A member that is not meant answers 0.

    The moves break the long way from the memories to the host. A member may have taken some of them itself (`answer_moves`).
    """
    answer: Value = Const(0, HOST_BITS)
    for member in members:
        m.d.comb += follow(member.host, host)
        answer = answer | delay(m, member.host.data_r, moves - getattr(member, "answer_moves", 0), host.enable)
    return answer


def fan_out(m: Module, host, members: Iterable, moves: int = 0) -> None:
    """Let the members answer the host (`ask`)."""
    m.d.comb += host.data_r.eq(ask(m, host, members, moves))


def far_moves(machine: Machine) -> int:
    """Registers on the host's way to memories that lie far apart and back: in the bus of the lanes, then those of `LaneBanks`."""
    return machine.wires.ends + lane_moves(machine.wires.tree, machine.lanes)


def lane_moves(registers: int, lanes: int) -> int:
    """Registers on the host's way to the lanes and back.

    At each level NEXT answers become one, at the first level the answers of NEAR lanes."""
    answers, levels = ceil_div(lanes, NEAR), 1
    while answers > 1:
        answers, levels = ceil_div(answers, NEXT), levels + 1
    return registers + levels if registers else 0


def far_buses(m: Module, host, cycles: int, lanes: int, near: int = NEAR) -> list:
    """The host's bus some cycles later, one for every `near` lanes (`spread`). The caller collects the answers.

    It never stops on the way. With no cycles it is the host's bus itself."""
    if not cycles:
        return [host] * ceil_div(lanes, near)
    names = [name for name, member in HostBus().members.items() if member.flow == Out and name != "enable"]
    ends = spread(m, Cat(getattr(host, name) for name in names), cycles, lanes, near=near)[::near]
    buses = [HostBus().create() for _ in ends]
    for far, end in zip(buses, ends, strict=True):
        m.d.comb += [Cat(getattr(far, name) for name in names).eq(end), far.enable.eq(1)]
    return buses


def found_in(members: Iterable) -> Value:
    """A bit for each memory, by its number, of which a member (a bank, or a block with banks) found a wrong word."""
    found: Value = Const(0, DAMAGED_BITS)
    for member in members:
        found = found | (member.damaged << member.region.number if len(member.damaged) == 1 else member.damaged)
    return found[:DAMAGED_BITS]


class Select:
    """Whether the host means one memory: `meant`, from a cycle after the address on, and as long as it answers."""

    def __init__(self, m: Module, host, region: Region, lane: int | None = None, *, far: bool = False):
        self.meant = Signal(reset_less=far)  # a reset has a long way, too
        m.d.sync += self.meant.eq((host.region == region.number) & (True if lane is None else host.lane == lane))

    def answer(self, data: Value) -> Value:
        """`data` where the host means this memory, else 0."""
        return Mux(self.meant, data.as_unsigned(), 0)


class Plain:
    """A word in a memory as it is."""

    bits = 0

    def encode(self, word: Value) -> Value:
        return word

    def check(self, m: Module, damaged: Signal, reader, collided: Signal, simulated: bool) -> None:
        """Nothing can be told."""


class Parity:
    """A word with one bit more, which makes the number of its ones even."""

    bits = 1

    def encode(self, word: Value) -> Value:
        return Cat(word, word.xor())

    def check(self, m: Module, damaged: Signal, reader, collided: Signal, simulated: bool) -> None:
        """A word with an odd number of ones makes `damaged` high in the cycle after it came out."""
        fresh, wrong = Signal(), reader.data.xor() | (collided & simulated)  # there, such a word may be anything
        m.d.sync += [fresh.eq(reader.en), damaged.eq(fresh & ~collided & wrong)]


def bank_members(bits: int, address_bits: int) -> dict[str, wiring.Member]:
    """Members of a memory with one read and one write a cycle."""
    return {
        "host": In(HostBus()),
        "read_address": In(address_bits),
        "read_enable": In(1, init=1),
        "read_data": Out(bits),
        "write": In(1),
        "write_address": In(address_bits),
        "write_data": In(bits),
        "damaged": Out(1),
    }


class Bank(wiring.Component):
    """`region.depth` words, one read and one write a cycle; the host's access is shared with the core's.

    A word read in the cycle in which it is written is not defined, which spares the logic that would define it
    (`COLLISION_IS_FREE`). Simulation inverts such a word, so that a block which used it would be found out.
    Logic is spared, too, where the host does not read or write (`host_reads`, `host_writes`) or the core does not write
    (`core_writes`).
    With `region.parity`, `damaged` tells of a word with a wrong bit (`Parity`).

    Timing:   latency 1 cycle, holds while `read_enable` is low
    """

    def __init__(self, region: Region, *, lane: int | None = None, host_reads: bool = True, host_writes: bool = True,
                 core_writes: bool = True, far: bool = False):  # fmt: skip
        self.region, self.lane, self.far = region, lane, far
        self.host_reads, self.host_writes, self.core_writes = host_reads, host_writes, core_writes
        self.address_bits = max(1, ceil_log2(region.depth))
        self.code = Parity() if region.parity else Plain()
        super().__init__(bank_members(region.bits, self.address_bits))

    def elaborate(self, platform) -> Module:
        m = Module()
        bits, simulated = self.region.bits, platform is None
        m.submodules.memory = memory = Memory(shape=bits + self.code.bits, depth=max(2, self.region.depth), init=[])
        reader, writer, collided = memory.read_port(), memory.write_port(), Signal()
        host, select = self.host, Select(m, self.host, self.region, self.lane, far=self.far)
        row, word, data = host.row[: self.address_bits], host.data_w[:bits], reader.data[:bits]
        read, enable = self.read_address, host.enable & self.read_enable
        if self.host_reads:
            read, enable = Mux(host.hosting, row, read), host.enable & (host.hosting | self.read_enable)
            m.d.comb += host.data_r.eq(select.answer(data))
        write = {"addr": self.write_address, "data": self.write_data, "en": self.write}
        if self.host_writes:
            hosts = {"addr": row, "data": word, "en": host.write & select.meant}  # the host writes only while it is hosting
            write = {name: Mux(host.hosting, value, write[name]) if self.core_writes else value for name, value in hosts.items()}
        m.d.comb += [
            reader.addr.eq(read),
            reader.en.eq(enable),
            self.read_data.eq(Mux(collided & simulated, ~data, data)),
            writer.addr.eq(write["addr"]),
            writer.data.eq(self.code.encode(write["data"][:bits])),
            writer.en.eq(write["en"]),
        ]
        with m.If(reader.en):
            m.d.sync += collided.eq(writer.en & (writer.addr == reader.addr))
        self.code.check(m, self.damaged, reader, collided, simulated)
        return m


class Absent(wiring.Component):
    """In place of a memory that a machine does not have: what is read is 0, what is written is lost."""

    def __init__(self) -> None:
        super().__init__(bank_members(bits=1, address_bits=1) | {"damaged": Out(DAMAGED_BITS)})

    def elaborate(self, platform) -> Module:
        return Module()


def bank(known: dict[str, Region], name: str, **options: Any) -> Bank | Absent:
    """The memory of that name, of those `known`."""
    return Bank(known[name], **options) if name in known else Absent()


def a_word_each(region: Region) -> dict[str, wiring.Member]:
    """Members of a memory that is read in all lanes at one address, and written in those lanes that have a bit in `write`."""
    address = In(max(1, ceil_log2(region.depth)))
    return {
        "host": In(HostBus()),
        "damaged": Out(1),
        "read_address": address,
        "read_enable": In(1, init=1),
        "read_data": Out(region.bits).array(region.lanes),
        "write": In(region.lanes),
        "write_address": address,
        "write_data": In(region.bits).array(region.lanes),
    }


class LaneBanks(wiring.Component):
    """A `Bank` in every lane, read at one address; `write` has a bit a lane.

    Where memories lie far apart there are `registers` before them (but for `read_enable`), and some more in the way of the host's
    answers. With `together` all lanes are written or none.

    Timing:   latency 1 cycle and one for each of the `registers`
    """

    single_port = False

    def __init__(self, region: Region, registers: int = 0, *, together: bool = False):
        self.region, self.registers, self.together = region, registers, together
        self.answer_moves = lane_moves(registers, region.lanes)
        super().__init__(a_word_each(region))

    def elaborate(self, platform) -> Module:
        m = Module()
        numbers = [lane if self.region.lanes > 1 else None for lane in range(self.region.lanes)]
        banks = [self._bank(lane) for lane in numbers]
        read, write = (spread(m, address, self.registers, len(banks)) for address in (self.read_address, self.write_address))
        own = lambda value: spread(m, value, self.registers, 1)[0]  # noqa: E731
        writes = spread(m, self.write[0], self.registers, len(banks)) if self.together else [own(bit) for bit in self.write]
        for lane, bank in enumerate(banks):
            m.submodules[f"lane_{lane}"] = bank
            m.d.comb += [
                bank.read_address.eq(read[lane]),
                bank.read_enable.eq(self.read_enable),
                self.read_data[lane].eq(bank.read_data),
                bank.write.eq(writes[lane]),
                bank.write_address.eq(write[lane]),
                bank.write_data.eq(own(self.write_data[lane])),
            ]
        self._reach(m, banks)
        m.d.comb += self.damaged.eq(Cat(bank.damaged for bank in banks).any())
        return m

    def _bank(self, lane: int | None) -> Bank:
        return Bank(self.region, lane=lane, far=self.registers > 0)

    def _reach(self, m: Module, banks: list) -> None:
        """The host reaches the banks. Neighbours far away share a bus and answer together (`lane_moves`)."""
        later = min(self.registers, 1)
        hosts = far_buses(m, self.host, self.registers, self.region.lanes)
        answers = [delay(m, ask(m, host, banks[n * NEAR : (n + 1) * NEAR]), later) for n, host in enumerate(hosts)]
        while len(answers) > 1:
            answers = [delay(m, reduce(or_, answers[n : n + NEXT]), later) for n in range(0, len(answers), NEXT)]
        m.d.comb += self.host.data_r.eq(answers[0])


class CoreBanks(LaneBanks):
    """The same for the core alone: the host does not reach it."""

    def _bank(self, lane: int | None) -> Bank:
        return Bank(self.region, lane=lane, far=self.registers > 0, host_reads=False, host_writes=False)

    def _reach(self, m: Module, banks: list) -> None:
        """No memory answers."""


class SpramBanks(wiring.Component):
    """The same on the single-port 16K x 16 memories of the iCE40UP5K, `lanes` words side by side: one read or one write a cycle.

    On any other platform (simulation too) it is a memory of the same behaviour; writing takes precedence, and reading in that cycle
    holds the old word, as does a cycle without `read_enable`. Word p of the row belongs to lane p.
    """

    WORD = 16
    single_port = True

    def __init__(self, region: Region):
        self.region = region
        self.address_bits = max(1, ceil_log2(region.depth))
        super().__init__(a_word_each(region))

    def elaborate(self, platform) -> Module:
        m = Module()
        lanes, bits, host = self.region.lanes, self.region.bits, self.host
        selects = [Select(m, host, self.region, lane) for lane in range(lanes)]
        address, read = Signal(self.address_bits), Signal()
        writes = [Signal(name=f"write_{lane}") for lane in range(lanes)]
        data = [Signal(bits, name=f"data_{lane}") for lane in range(lanes)]
        out = [Signal(bits, name=f"out_{lane}") for lane in range(lanes)]
        m.d.comb += [
            address.eq(Mux(self.write.any(), self.write_address, self.read_address)),
            read.eq(~self.write.any() & self.read_enable),
        ]
        for lane in range(lanes):
            m.d.comb += [
                writes[lane].eq(self.write[lane]),
                data[lane].eq(self.write_data[lane]),
                self.read_data[lane].eq(out[lane]),
            ]
        with m.If(host.hosting):
            m.d.comb += [address.eq(host.row), read.eq(host.enable & ~host.write)]
            for lane in range(lanes):
                m.d.comb += [writes[lane].eq(host.write & selects[lane].meant), data[lane].eq(host.data_w)]
        answer: Value = Const(0, bits)
        for lane in range(lanes):
            answer = answer | selects[lane].answer(out[lane])
        m.d.comb += host.data_r.eq(answer)
        if getattr(platform, "family", None) == "iCE40":
            self._primitives(m, address, read, writes, data, out)
        else:
            self._model(m, address, read, writes, data, out)
        return m

    def _primitives(self, m: Module, address, read, writes, data, out) -> None:
        a_word = self.WORD // self.region.bits  # lanes in one memory's word
        for first in range(0, self.region.lanes, a_word):
            part = slice(first, first + a_word)
            nibbles = Cat(w.replicate(self.region.bits // 4) for w in writes[part])
            m.submodules[f"spram_{first // a_word}"] = Instance(
                "SB_SPRAM256KA",
                i_CLOCK=ClockSignal(),
                i_ADDRESS=Cat(address, Const(0, 14 - len(address))),
                i_DATAIN=Cat(data[part]),
                i_MASKWREN=nibbles,
                i_WREN=nibbles.any(),
                i_CHIPSELECT=nibbles.any() | read,
                i_STANDBY=Const(0),
                i_SLEEP=Const(0),
                i_POWEROFF=Const(1),
                o_DATAOUT=Cat(out[part]),
            )

    def _model(self, m: Module, address, read, writes, data, out) -> None:
        m.submodules.memory = memory = Memory(shape=self.region.bits * self.region.lanes, depth=self.region.depth, init=[])
        reader, writer = memory.read_port(), memory.write_port(granularity=self.region.bits)
        m.d.comb += [
            reader.addr.eq(address),
            reader.en.eq(read),
            Cat(out).eq(reader.data),
            writer.addr.eq(address),
            writer.data.eq(Cat(data)),
            writer.en.eq(Cat(writes)),
        ]


class WideBanks(wiring.Component):
    """As LaneBanks, but one memory with the lanes' words side by side: fewer block RAMs where words are short and rows are few.

    Timing:   latency 1 cycle
    """

    single_port = False

    def __init__(self, region: Region):
        self.region = region
        super().__init__(a_word_each(region))

    def elaborate(self, platform) -> Module:
        m = Module()
        lanes, bits, host = range(self.region.lanes), self.region.bits, self.host
        m.submodules.memory = memory = Memory(shape=self.region.lanes * bits, depth=max(2, self.region.depth), init=[])
        reader, writer = memory.read_port(), memory.write_port(granularity=bits)
        selects, collided = [Select(m, host, self.region, lane) for lane in lanes], Signal(self.region.lanes)
        words, answer = [reader.data[lane * bits : (lane + 1) * bits] for lane in lanes], Const(0, bits)
        for select, word in zip(selects, words, strict=True):
            answer = answer | select.answer(word)
        m.d.comb += [
            reader.addr.eq(Mux(host.hosting, host.row, self.read_address)),
            reader.en.eq(host.enable & (host.hosting | self.read_enable)),
            host.data_r.eq(answer),
            writer.addr.eq(Mux(host.hosting, host.row, self.write_address)),
            writer.en.eq(Mux(host.hosting, Cat(host.write & select.meant for select in selects), self.write)),
            *(writer.data[lane * bits : (lane + 1) * bits].eq(Mux(host.hosting, host.data_w, self.write_data[lane]))
              for lane in lanes),
            *(self.read_data[lane].eq(words[lane] ^ collided[lane].replicate(bits)) for lane in lanes),
        ]
        if platform is None:  # what is read of a word being written may be anything
            with m.If(reader.en):
                m.d.sync += collided.eq(Mux(writer.addr == reader.addr, writer.en, 0))
        return m
