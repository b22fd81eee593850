"""Host words to memory accesses: the minimal command set."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.machine import Machine
from hw.memory import HostBus, far_moves
from hw.memory_map import BURST_BITS, LANE_BITS, OP_NEXT, OP_READ, OP_SEEK, OP_WRITE, ROW_BITS, regions
from hw.numbers import HOST_BITS, bits_for


class Command(wiring.Component):
    """Bursts of words in and out.

    Write: header ``OP_WRITE | count << 8``, address, `count` words. Read: header ``OP_READ | count << 8``, address; `count` words
    come back on `reply`. The address counts up in its row; a `count` has BURST_BITS, and 0 stands for MAX_BURST + 1. Header
    ``OP_SEEK``, address: only that. Header ``OP_NEXT | count << 8``: `count` words go to the address reached. A header with another
    operation is dropped. Nothing moves while the core is `busy`.

    Timing:   one word a cycle; a read answers after 3 cycles
    """

    def __init__(self, machine: Machine):
        self.moves = 2 + far_moves(machine)  # that the core's memories take
        known = regions(machine).values()
        self.row_bits = bits_for(max(region.depth for region in known))
        self.lane_bits = bits_for(max(region.lanes for region in known))
        self.region_bits = bits_for(1 + max(region.number for region in known))
        super().__init__(
            {
                "request": In(stream.Signature(HOST_BITS)),
                "reply": Out(stream.Signature(HOST_BITS)),
                "busy": In(1),
                "idle": In(1),
                "waiting": Out(1),  # a word is taken and not done
                "host": Out(HostBus()),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        self.words, host = self._words(m), self.host
        # As many bits of an address as this core has: the others are 0, which makes every memory's comparison of them smaller.
        left, row = Signal(BURST_BITS), Signal(self.row_bits)
        lane, region = Signal(self.lane_bits), Signal(self.region_bits)
        self.fetch, self.under_way = Signal(), Signal(self.moves)  # the word is asked for, on its way, at last at `data_r`
        self.answered = Signal()  # no answer is to come: only then may the core begin
        self.fetched = Signal()  # the next word may be asked for
        self.known, self.settled = Signal(), Signal()  # the memories know which is meant; nothing that was written is at work
        request, addressed = self.words, {OP_WRITE: "WRITE", OP_READ: "READ", OP_SEEK: "HEADER"}
        m.d.comb += [
            host.hosting.eq(self.idle),
            host.region.eq(region),
            host.lane.eq(lane),
            host.row.eq(row),
            host.data_w.eq(request.payload),
        ]
        m.d.sync += self.known.eq(1)
        with m.If(host.enable):
            m.d.sync += self.under_way.eq(Cat(self.fetch, self.under_way))
        self._settle(m)
        self._answer(m)
        with m.FSM():
            with m.State("HEADER"):
                m.d.comb += request.ready.eq(self.settled & self.answered)
                m.d.sync += left.eq(request.payload[8:])
                with m.If(request.valid & request.ready), m.Switch(request.payload[:8]):
                    for op, state in addressed.items():
                        with m.Case(op):
                            m.next = f"{state}-ADDRESS"
                    with m.Case(OP_NEXT):
                        m.next = "WRITE"
            for state in addressed.values():
                with m.State(f"{state}-ADDRESS"):
                    m.d.comb += request.ready.eq(1)
                    address = request.payload
                    m.d.sync += [row.eq(address), lane.eq(address[ROW_BITS:]), region.eq(address[ROW_BITS + LANE_BITS :])]
                    m.d.sync += self.known.eq(0)
                    with m.If(request.valid):
                        m.next = state
            with m.State("WRITE"):
                self._write(m)
                self._count(m, host.write, left, row)
            with m.State("READ"):
                self._read(m)
                self._count(m, self.fetched, left, row)
        return m

    def _count(self, m: Module, moved: Value, left: Signal, row: Signal) -> None:
        """A word of the burst was moved."""
        with m.If(moved):
            m.d.sync += [row.eq(row + 1), left.eq(left - 1)]
            with m.If(left == 1):
                m.next = "HEADER"

    def _words(self, m: Module) -> stream.Interface:
        """The words to come."""
        return self.request

    def _settle(self, m: Module) -> None:
        m.d.comb += self.settled.eq(~self.busy)

    def _write(self, m: Module) -> None:
        """In state WRITE."""
        request, host, known, settled = self.words, self.host, self.known, self.settled
        m.d.comb += [request.ready.eq(settled & known), host.write.eq(request.valid & settled & known)]

    def _read(self, m: Module) -> None:
        """In state READ."""
        m.d.comb += [self.fetch.eq(1), self.fetched.eq(self.host.enable)]

    def _answer(self, m: Module) -> None:
        """What is read is sent. If it is not taken, all that is under way stops."""
        reply, host, there = self.reply, self.host, self.under_way[-1]
        m.d.comb += [self.answered.eq(~self.under_way.any()), host.enable.eq(~there | reply.ready)]
        m.d.comb += [reply.valid.eq(there), reply.payload.eq(host.data_r)]


class FarCommand(Command):
    """The same where memories lie far apart.

    Timing:   a word written takes 3 cycles, in which a run that it starts shows in `busy`. Words are read one after the other, each
              in `moves` + 1 cycles (10 for 100 lanes), because a word that comes from far away cannot be stopped
    """

    def _words(self, m: Module) -> stream.Interface:
        """The words to come, from a register."""
        words = stream.Signature(HOST_BITS).create()
        m.d.comb += [self.request.ready.eq(~words.valid | words.ready), self.waiting.eq(words.valid)]
        with m.If(self.request.ready):
            m.d.sync += [words.valid.eq(self.request.valid), words.payload.eq(self.request.payload)]
        return words

    def _settle(self, m: Module) -> None:
        """A word is written from a register, and `busy` tells a cycle later what it began."""
        self.writing, wrote = Signal(), Signal()
        m.d.comb += self.settled.eq(~self.busy & ~self.writing & ~wrote)
        m.d.sync += [self.writing.eq(0), wrote.eq(self.writing)]

    def _write(self, m: Module) -> None:
        m.d.sync += self.writing.eq(self.words.valid & self.settled & self.known)
        m.d.comb += [self.words.ready.eq(self.writing), self.host.write.eq(self.writing)]

    def _read(self, m: Module) -> None:
        m.d.comb += [self.fetch.eq(self.answered), self.fetched.eq(self.answered)]

    def _answer(self, m: Module) -> None:
        """What is read is sent, and kept if it is not taken at once."""
        reply, host, under_way = self.reply, self.host, self.under_way
        kept, keep, answered = Signal(HOST_BITS, reset_less=True), Signal(), Signal(init=1)
        m.d.comb += [
            host.enable.eq(1),
            reply.valid.eq(keep | under_way[-1]),
            reply.payload.eq(Mux(keep, kept, host.data_r)),
            self.answered.eq(answered),
        ]
        m.d.sync += [
            keep.eq(reply.valid & ~reply.ready),
            kept.eq(reply.payload),
            answered.eq(~(self.fetch | under_way[:-1].any() | (reply.valid & ~reply.ready))),
        ]


def command(machine: Machine) -> Command:
    """The commands of a machine's core."""
    return FarCommand(machine) if machine.wires.ends else Command(machine)
