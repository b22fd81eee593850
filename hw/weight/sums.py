"""Sums of the lanes: one in every lane (`Sums`), or one over all lanes (`Fold`)."""

from __future__ import annotations

from amaranth.hdl import Array, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.fixed import floor_shift, round_shift, rounding, saturate
from hw.machine import Machine
from hw.numbers import Q
from hw.pipeline import adder_tree, delay, spread
from hw.streams import own_operand_bits
from hw.weight.rows import DOING, flight


def words(c: Machine, q: Q) -> stream.Signature:
    """A stream of words of the neuron lanes."""
    return stream.Signature(data.ArrayLayout(signed(q.bits), c.neuron_lanes), always_ready=True)


class Sums(wiring.Component):
    """A sum in every lane, which leave by words of the neuron lanes: currents forward, errors if the layer is banked by its inputs.

    `ends`: the row that waits would end a sum; `taken`: it goes. It must wait until the sums before have left (`free`).

    Timing:   every lane adds in cycle 3; in cycle 4 the sums move to a shift register, and leave it a word a cycle. After a row
              that ends a sum comes a free cycle
    """

    def __init__(self, machine: Machine, product_bits: int):
        self.machine, self.words = machine, machine.lanes // machine.neuron_lanes
        super().__init__(
            {
                "flight": In(flight(machine)),
                "doing": In(DOING),
                "product": In(signed(product_bits)).array(machine.lanes),
                "ends": In(1),
                "taken": In(1),
                "free": Out(1),
                "busy": Out(1),
                "current": Out(words(machine, machine.u)),
                "error_words": Out(words(machine, machine.delta)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c, flight, lanes, summed = self.machine, self.flight, self.machine.lanes, self.doing.summing & ~self.doing.folding
        m.d.comb += self.free.eq(~(self.ends & self._leaving(m, self.words - 1)))
        leaving = [Signal(signed(c.lane_sum_bits), name=f"leaving_{lane}", reset_less=True) for lane in range(lanes)]
        way = max(c.wires.tree, 1)  # at least a cycle from the decision on, which a register near the lane then holds
        loads = spread(m, flight.valid[4 - way] & flight.last[4 - way] & summed, way, lanes, init=1)  # a reset clears the sums
        adds = spread(m, flight.valid[3 - way] & summed, way, lanes)
        for lane, product in enumerate(self.product):
            total = Signal(signed(c.lane_sum_bits), name=f"sum_{lane}", reset_less=True)
            with m.If(loads[lane]):
                m.d.sync += total.eq(0)
            with m.Elif(adds[lane]):
                m.d.sync += total.eq(total + product)
            following = leaving[lane + c.neuron_lanes] if lane + c.neuron_lanes < lanes else leaving[lane]
            m.d.sync += leaving[lane].eq(Mux(loads[lane], total, following))
        load, count = delay(m, flight.valid[3] & flight.last[3] & summed, 1), Signal(range(self.words + 1))
        with m.If(load):
            m.d.sync += count.eq(self.words)
        with m.Elif(count != 0):
            m.d.sync += count.eq(count - 1)
        m.d.comb += self.busy.eq(count != 0)
        doing = self.doing
        for out, now, shift, q in ((self.current, doing.forward, c.current_shift, c.u),
                                   (self.error_words, doing.backward & doing.turned, c.w.f, c.delta)):  # fmt: skip
            m.d.comb += out.valid.eq(delay(m, self.busy & now, c.wires.ends))
            for total, word in zip(leaving, out.payload, strict=False):
                m.d.comb += word.eq(delay(m, saturate(round_shift(total, shift), q), c.wires.ends))
        return m

    def _leaving(self, m: Module, cycles: int) -> Signal:
        """Whether sums are on their way out: so many cycles from a row on that ends them."""
        left = Signal(range(max(cycles + 1, 2)))
        with m.If(self.taken & self.ends):
            m.d.sync += left.eq(cycles)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        return left != 0


class SumsInPlace(Sums):
    """The same without a shift register, for currents: the sums leave as they stand, so that none may begin meanwhile.

    Timing:   every lane adds in cycle 3; from cycle 5 the sums leave, and then clear
    """

    def elaborate(self, platform) -> Module:
        m = Module()
        c, flight, half = self.machine, self.flight, rounding(self.machine.current_shift)
        m.d.comb += self.free.eq(~self._leaving(m, self.words + 1))
        totals = [Signal(signed(c.current_sum_bits), name=f"sum_{lane}", init=half) for lane in range(c.lanes)]
        load, add, leaving, place = Signal(), Signal(), Signal(), Signal(range(max(self.words, 2)))
        m.d.sync += [
            load.eq(flight.valid[3] & flight.last[3] & self.doing.forward),
            add.eq(flight.valid[2] & self.doing.forward),
        ]
        with m.If(load):
            m.d.sync += [leaving.eq(1), place.eq(0)]
        with m.Elif(leaving):
            m.d.sync += [leaving.eq(place != self.words - 1), place.eq(place + 1)]
        for total, product in zip(totals, self.product, strict=True):
            with m.If(leaving & (place == self.words - 1)):
                m.d.sync += total.eq(half)
            with m.Elif(add):
                m.d.sync += total.eq(total + product)
        m.d.comb += [self.busy.eq(leaving), self.current.valid.eq(leaving)]
        for q, current in enumerate(self.current.payload):
            total = Signal(signed(c.current_sum_bits), name=f"leaving_{q}")
            m.d.comb += total.eq(Array(totals[q :: c.neuron_lanes])[place])
            m.d.comb += current.eq(saturate(floor_shift(total, c.current_shift), c.u))
        return m


class Fold(wiring.Component):
    """A sum over the lanes and over rows: an error backward, a current if the layer is banked by its inputs.

    Timing:   from cycle 3 on a registered adder tree over the lanes, then the sum over the rows
    """

    def __init__(self, machine: Machine, product_bits: int):
        self.machine = machine
        super().__init__(
            {
                "flight": In(flight(machine)),
                "doing": In(DOING),
                "product": In(signed(product_bits)).array(machine.lanes),
                "error": Out(stream.Signature(signed(machine.delta.bits), always_ready=True)),
                "current": Out(stream.Signature(signed(machine.u.bits), always_ready=True)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c, flight, doing = self.machine, self.flight, self.doing
        # a weight times what a lane has of its own
        of_lanes, levels = adder_tree(m, [product[: c.w.bits + own_operand_bits(c)].as_signed() for product in self.product])
        total, sent, at = Signal(signed(c.fold_sum_bits), reset_less=True), Signal(), 3 + levels
        with m.If(flight.valid[at]):
            m.d.sync += total.eq(Mux(flight.first[at], 0, total).as_signed() + of_lanes)
        m.d.sync += sent.eq(flight.valid[at + 1] & flight.last[at + 1] & doing.folding)
        for out, now, shift, q in ((self.error, doing.backward, c.w.f, c.delta),
                                   (self.current, doing.forward & doing.turned, c.current_shift, c.u)):  # fmt: skip
            rounded = Signal.like(out.payload)
            m.d.sync += rounded.eq(saturate(round_shift(total, shift), q))
            m.d.comb += [out.valid.eq(sent & now), out.payload.eq(rounded)]
        return m
