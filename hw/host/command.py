"""Host words to memory accesses: the minimal command set."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
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

    Timing:   one word a cycle; a read answers after 3 cycles. Where memories lie far apart (`machine.wires.ends`) a word written
              takes 3 cycles, in which a run that it starts shows in `busy`. There, words are read one after the other, each in
              `moves` + 1 cycles (10 for 100 lanes), because a word that comes from far away cannot be stopped
    """

    def __init__(self, machine: Machine):
        self.moves, self.far = 2 + far_moves(machine), machine.wires.ends > 0  # moves that the core's memories take
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
        request, host = self._request(m), self.host
        # As many bits of an address as this core has: the others are 0, which makes every memory's comparison of them smaller.
        left, row = Signal(BURST_BITS), Signal(self.row_bits)
        lane, region = Signal(self.lane_bits), Signal(self.region_bits)
        fetch, under_way = Signal(), Signal(self.moves)  # the word is asked for, on its way, at last at `data_r`
        answered = self._answers(m, fetch, under_way)
        m.d.comb += [
            host.hosting.eq(self.idle),
            host.region.eq(region),
            host.lane.eq(lane),
            host.row.eq(row),
            host.data_w.eq(request.payload),
        ]
        # `known`: the memories know which of them is meant
        known, writing, wrote, settled = Signal(), Signal(), Signal(), ~self.busy
        addressed = {OP_WRITE: "WRITE", OP_READ: "READ", OP_SEEK: "HEADER"}
        m.d.sync += known.eq(1)
        if self.far:  # a word is written from a register, and `busy` tells a cycle later what it began
            settled &= ~writing & ~wrote
            m.d.sync += [writing.eq(0), wrote.eq(writing)]
        with m.If(host.enable):
            m.d.sync += under_way.eq(Cat(fetch, under_way))
        with m.FSM():
            with m.State("HEADER"):
                m.d.comb += request.ready.eq(settled & answered)
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
                    m.d.sync += known.eq(0)
                    with m.If(request.valid):
                        m.next = state
            with m.State("WRITE"):
                if self.far:
                    m.d.sync += writing.eq(request.valid & settled & known)
                    m.d.comb += [request.ready.eq(writing), host.write.eq(writing)]
                else:
                    m.d.comb += [request.ready.eq(settled & known), host.write.eq(request.valid & settled & known)]
                with m.If(host.write):
                    m.d.sync += [row.eq(row + 1), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.next = "HEADER"
            with m.State("READ"):
                m.d.comb += fetch.eq(answered if self.far else 1)
                with m.If(fetch if self.far else host.enable):
                    m.d.sync += [row.eq(row + 1), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.next = "HEADER"
        return m

    def _answers(self, m: Module, fetch: Signal, under_way: Signal) -> Signal:
        """Sends what is read. The result is high while no answer is to come: only then may the core begin."""
        reply, host = self.reply, self.host
        there, answered = under_way[-1], Signal(init=int(self.far))
        if self.far:
            kept, keep = Signal(HOST_BITS, reset_less=True), Signal()  # a word that is not taken at once
            m.d.comb += [host.enable.eq(1), reply.valid.eq(keep | there), reply.payload.eq(Mux(keep, kept, host.data_r))]
            m.d.sync += [keep.eq(reply.valid & ~reply.ready), kept.eq(reply.payload)]
            m.d.sync += answered.eq(~(fetch | under_way[:-1].any() | (reply.valid & ~reply.ready)))
        else:
            m.d.comb += [answered.eq(~under_way.any()), host.enable.eq(~there | reply.ready)]
            m.d.comb += [reply.valid.eq(there), reply.payload.eq(host.data_r)]
        return answered

    def _request(self, m: Module) -> stream.Interface:
        """The words to come, from a register where it is far to the memories."""
        if not self.far:
            return self.request
        words = stream.Signature(HOST_BITS).create()
        m.d.comb += [self.request.ready.eq(~words.valid | words.ready), self.waiting.eq(words.valid)]
        with m.If(self.request.ready):
            m.d.sync += [words.valid.eq(self.request.valid), words.payload.eq(self.request.payload)]
        return words
