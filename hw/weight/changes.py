"""How weights change: less a gradient, shifted by the learning rate."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.fixed import dither_mask, floor_shift, minus_halves, saturate
from hw.machine import Machine
from hw.pipeline import NEAR, delay, spread
from hw.weight.dither import WORD
from hw.weight.rounding import ToNearest
from hw.weight.rows import DOING, flight


class Changes(wiring.Component):
    """A new weight in every lane.

    Timing:   `applied` is shifted in its cycle, the old `weight` comes in the next one, and the new one leaves two cycles later
    """

    def __init__(self, machine: Machine, rounding: ToNearest):
        c = self.machine = machine
        self.shift = rounding.shift
        super().__init__(
            {
                "flight": In(flight(c)),
                "doing": In(DOING),
                "rate": In(4),  # the learning rate is 2**-rate
                "applied": In(signed(c.grad.bits)).array(c.lanes),
                "later": In(signed(c.grad.bits)).array(c.lanes),
                "word": In(WORD).array(c.lanes),
                "chance": In(1).array(c.lanes),
                "weight": In(signed(c.w.bits)).array(c.lanes),
                "changed": Out(signed(c.w.bits)).array(c.lanes),
                "reads": Out(1, init=1),  # the memory reads weights
                "draws": Out(1, init=1),  # the next random words come
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        self._decide(m)
        c, base, rate = self.machine, self.machine.weight_shift(0), self.rate
        for lane in range(c.lanes):
            if lane % NEAR == 0:  # handed on through a large chip, long before they are used
                rate = delay(m, rate, c.wires.ends)
                keep = delay(m, dither_mask(base, rate), c.wires.ends)
            shifted = self.shift(self.applied[lane], base, rate, keep, self.word[lane], self.chance[lane])
            m.d.comb += self.changed[lane].eq(self._change(m, lane, shifted, self._old(lane))[1])
        return m

    def _decide(self, m: Module) -> None:
        """What every lane must know, from a register near it: nothing."""

    def _old(self, lane: int) -> Value:
        """The weight that changes."""
        return self.weight[lane]

    def _change(self, m: Module, lane: int, shifted: Value, weight: Value) -> tuple[Value, Signal]:
        """The new weight, and the same a cycle later."""
        c = self.machine
        change = Signal(signed(c.grad.bits + 2), name=f"change_{lane}", reset_less=True)
        moved = Signal(signed(max(c.w.bits, c.grad.bits + 1) + 1), name=f"moved_{lane}", reset_less=True)
        w, later = saturate(moved, c.w), Signal(signed(c.w.bits), name=f"w_{lane}", reset_less=True)
        m.d.sync += [change.eq(shifted), moved.eq(minus_halves(weight, change)), later.eq(w)]
        return w, later


class DecayingChanges(Changes):
    """The same where weights may decay: they are read once, and are what makes their gradient."""

    def _decide(self, m: Module) -> None:
        """Whether weights decay."""
        self.decays = spread(m, self.doing.decaying, self.machine.wires.tree, self.machine.lanes)

    def _old(self, lane: int) -> Value:
        decaying = floor_shift(self.later[lane], self.machine.weight_shift(0))  # its gradient is the weight, and no bit is lost
        return Mux(self.decays[lane], decaying, self.weight[lane]).as_signed()


class ChangesInTurns(Changes):
    """The same where a row is changed every second cycle at most: two lanes share the logic.

    Timing:   the first of them in cycles 4 to 6, the other in 5 to 7; both are written in cycle 7
    """

    def elaborate(self, platform) -> Module:
        m = Module()
        c, pairs, flight = self.machine, self.machine.lanes // 2, self.flight
        base, keep, second = c.weight_shift(0), dither_mask(c.weight_shift(0), self.rate), flight.valid[5]
        m.d.comb += [
            self.reads.eq(~self.doing.changing | flight.valid[4]),  # so that the weights stay for two cycles
            self.draws.eq(flight.valid[3]),
        ]
        for lane in range(pairs):
            other = lane + pairs
            gradient = Mux(second, self.later[other], self.applied[lane]).as_signed()
            word = Mux(second, self.word[other], self.word[lane])
            weight = Mux(flight.valid[6], self.weight[other], self.weight[lane]).as_signed()
            shifted = self.shift(gradient, base, self.rate, keep, word, self.chance[lane])
            at_once, a_cycle_later = self._change(m, lane, shifted, weight)
            m.d.comb += [self.changed[lane].eq(a_cycle_later), self.changed[other].eq(at_once)]
        return m
