"""Which class: the most spikes, then the highest final membrane, then the lowest index."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.config import Config
from hw.memory import Bank, HostBus, fan_out
from hw.memory_map import regions
from hw.streams import bits_for


class Readout(wiring.Component):
    """Counts the spikes of the last layer's neurons, which come in order; `start` before neuron 0 of a step.

    `firing` is the number of spikes in this step so far; `winner` is the class, settled one cycle after the last neuron of the
    last step (`final`).

    Numerics: docs/numerics.md, "Readout"
    Timing:   one neuron a cycle, latency 2 cycles
    Golden:   sw/golden/spike/readout.py
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "valid": In(1),
                "first": In(1),
                "final": In(1),
                "s": In(1),
                "u": In(signed(config.u.bits)),
                "firing": Out(bits_for(config.classes + 1)),
                "winner": Out(8),
                "host": In(HostBus()),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c = self.config
        m.submodules.bank = bank = Bank(regions(c)["count"])
        fan_out(m, self.host, [bank])
        index, firing, winner = Signal(range(c.classes)), Signal.like(self.firing), Signal.like(self.winner)
        m.d.comb += [self.firing.eq(firing), self.winner.eq(winner), bank.read_address.eq(index)]

        with m.If(self.start):
            m.d.sync += [index.eq(0), firing.eq(0)]
        with m.Elif(self.valid):
            m.d.sync += [index.eq(index + 1), firing.eq(firing + self.s)]

        # one cycle later the old count is there
        there, first, final, s = Signal(), Signal(), Signal(), Signal()
        at, u = Signal.like(index), Signal.like(self.u)
        count = Signal(8)
        m.d.sync += [there.eq(self.valid), first.eq(self.first), final.eq(self.final), s.eq(self.s), at.eq(index), u.eq(self.u)]
        m.d.comb += [
            count.eq(Mux(first, 0, bank.read_data) + s),
            bank.write.eq(there),
            bank.write_address.eq(at),
            bank.write_data.eq(count),
        ]
        best_count, best_u = Signal(8), Signal.like(self.u)
        better = (count > best_count) | ((count == best_count) & (u > best_u))
        with m.If(there & final & ((at == 0) | better)):
            m.d.sync += [winner.eq(at), best_count.eq(count), best_u.eq(u)]
        return m
