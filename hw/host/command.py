"""Host words to memory accesses: the minimal command set."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.memory import HOST_BITS, HostBus
from hw.memory_map import OP_READ, OP_WRITE


class Command(wiring.Component):
    """Bursts of words in and out.

    Write: header ``OP_WRITE | count << 8``, address, `count` words. Read: header ``OP_READ | count << 8``, address; `count` words come back
    on `reply`. The address counts up in its lower 16 bits. A header with another operation is dropped. Nothing moves while the core is `busy`.

    Timing:   one word a cycle; a read answers after `moves` + 2 cycles, where the memories take `moves`
    """

    def __init__(self, moves: int) -> None:
        self.moves = moves
        super().__init__(
            {
                "request": In(stream.Signature(HOST_BITS)),
                "reply": Out(stream.Signature(HOST_BITS)),
                "busy": In(1),
                "host": Out(HostBus()),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        request, reply, host = self.request, self.reply, self.host
        left, reading, row = Signal(16), Signal(), Signal.like(host.row)
        lane, region = Signal.like(host.lane), Signal.like(host.region)
        answer, answered = Signal(HOST_BITS), Signal()
        m.d.comb += [
            host.hosting.eq(~self.busy),
            host.region.eq(region),
            host.lane.eq(lane),
            host.row.eq(row),
            host.data_w.eq(request.payload),
            host.enable.eq(~answered | reply.ready),
            reply.valid.eq(answered),
            reply.payload.eq(answer),
        ]
        fetch, under_way = Signal(), Signal(self.moves)  # the word is asked for, on its way, at last at `data_r`
        with m.If(host.enable):
            m.d.sync += [under_way.eq(Cat(fetch, under_way)), answered.eq(under_way[-1]), answer.eq(host.data_r)]
        with m.FSM():
            with m.State("HEADER"):
                m.d.comb += request.ready.eq(~self.busy)
                m.d.sync += [left.eq(request.payload[8:24]), reading.eq(request.payload[:8] == OP_READ)]
                with m.If(request.valid & request.ready & ((request.payload[:8] == OP_READ) | (request.payload[:8] == OP_WRITE))):
                    m.next = "ADDRESS"
            with m.State("ADDRESS"):
                m.d.comb += request.ready.eq(1)
                m.d.sync += [row.eq(request.payload[:16]), lane.eq(request.payload[16:24]), region.eq(request.payload[24:])]
                with m.If(request.valid):
                    m.next = "HEADER"
                    with m.If(left != 0):
                        m.next = "WRITE"
                        with m.If(reading):
                            m.next = "READ"
            with m.State("WRITE"):
                m.d.comb += [request.ready.eq(~self.busy), host.write.eq(request.valid & ~self.busy)]
                with m.If(host.write):
                    m.d.sync += [row.eq(row + 1), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.next = "HEADER"
            with m.State("READ"):
                m.d.comb += fetch.eq(1)
                with m.If(host.enable):
                    m.d.sync += [row.eq(row + 1), left.eq(left - 1)]
                    with m.If(left == 1):
                        m.next = "HEADER"
        return m
