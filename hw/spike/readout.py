"""Which class: the most spikes, then the highest final membrane, then the lowest index."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.machine import Machine
from hw.memory import Bank, HostBus, fan_out, found_in
from hw.memory_map import DAMAGED_BITS, regions
from hw.numbers import bits_for


class Readout(wiring.Component):
    """Counts the spikes of the last layer's neurons, which come in order; `start` before neuron 0 of a step.

    `firing` is the number of spikes in this step so far; `winner` is the class, settled with the last neuron of the last
    step (`final`).

    Numerics: docs/numerics.md, "Readout"
    Timing:   one neuron a cycle
    Golden:   sw/golden/spike/readout.py
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        super().__init__(
            {
                "start": In(1),
                "valid": In(1),
                "first": In(1),
                "final": In(1),
                "s": In(1),
                "u": In(signed(machine.u.bits)),
                "firing": Out(bits_for(machine.capacity.classes + 1)),
                "winner": Out(8),
                "host": In(HostBus()),
                "damaged": Out(DAMAGED_BITS),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c = self.machine
        m.submodules.bank = bank = Bank(regions(c)["count"])
        fan_out(m, self.host, [bank])
        m.d.comb += self.damaged.eq(found_in([bank]))
        index, firing, winner = Signal(bits_for(c.capacity.classes)), Signal.like(self.firing), Signal.like(self.winner)
        following, count = Signal.like(index), Signal(8)
        m.d.comb += [
            self.firing.eq(firing),
            self.winner.eq(winner),
            # the count of the neuron to come is read ahead
            following.eq(Mux(self.start, 0, index + self.valid)),
            bank.read_address.eq(following),
            count.eq(Mux(self.first, 0, bank.read_data) + self.s),
            bank.write.eq(self.valid),
            bank.write_address.eq(index),
            bank.write_data.eq(count),
        ]
        m.d.sync += index.eq(following)
        with m.If(self.start):
            m.d.sync += firing.eq(0)
        with m.Elif(self.valid):
            m.d.sync += firing.eq(firing + self.s)

        best_count, best_u = Signal(8), Signal.like(self.u)
        better = (count > best_count) | ((count == best_count) & (self.u > best_u))
        with m.If(self.valid & self.final & ((index == 0) | better)):
            m.d.sync += [winner.eq(index), best_count.eq(count), best_u.eq(self.u)]
        return m
