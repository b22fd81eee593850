"""What weights learn: gradients from the multipliers, applied at once or gathered in a memory G beside the weights."""

from __future__ import annotations

from dataclasses import replace

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.fixed import dither_mask, saturate
from hw.machine import Machine
from hw.memory import CoreBanks, HostBus, LaneBanks, follow, found_in, lane_moves
from hw.memory_map import DAMAGED_BITS, regions
from hw.numbers import bits_for
from hw.pipeline import NEAR, delay, spread
from hw.streams import lane_multiplier, operand_bits, own_operand_bits
from hw.weight.rows import DOING, flight


class DirectGradients(wiring.Component):
    """Gradients are applied at once.

    `learned` goes to the multipliers, and comes back as `gradient`. `applied` is what changes the weights, and `later` the same
    a cycle later.

    Timing:   `gradient` in cycle 3, `applied` in cycle APPLIED
    """

    APPLIED = 4

    def __init__(self, machine: Machine):
        c = self.machine = machine
        self.answer_moves = lane_moves(c.wires.tree, c.lanes)
        self.learned_bits, self.shift = self._learned(c)
        product = sum(lane_multiplier(c, self.learned_bits))
        super().__init__(
            {
                "flight": In(flight(c)),
                "doing": In(DOING),
                "own": In(signed(own_operand_bits(c))).array(c.lanes),
                "learned": Out(signed(self.learned_bits)).array(c.lanes),
                "gradient": In(signed(product)).array(c.lanes),
                "applied": Out(signed(c.grad.bits)).array(c.lanes),
                "later": Out(signed(c.grad.bits)).array(c.lanes),
                "rows": In(bits_for(c.capacity.weight_rows)).array(len(self.row_cycles)),  # those of `row_cycles`
                "rate": In(4),
                "remainder": In(1),  # what APPLY rounds off stays in G
                # lazy learning
                "operand": In(signed(operand_bits(c))),
                "delta_row": In(bits_for(c.capacity.delta_rows)),  # of the row that is taken
                "gathers": In(1),
                "sum_write": In(c.lanes),
                "sum_row": In(bits_for(c.capacity.delta_rows)),
                "sum_data": In(signed(c.grad.bits)).array(c.lanes),
                "host": In(HostBus()),
                "damaged": Out(DAMAGED_BITS),
            }
        )

    @property
    def row_cycles(self) -> tuple[int, ...]:
        """Cycles whose rows must be known: those in which G is read and written."""
        return ()

    @staticmethod
    def _learned(c: Machine) -> tuple[int, int]:
        """Bits of what is multiplied, and of the product's fraction that a gradient has not."""
        return own_operand_bits(c), c.weight_grad_shift

    def elaborate(self, platform) -> Module:
        m = Module()
        self._multiply(m)
        for lane, gradient in enumerate(self.gradient):
            applied = self._applied(m, lane, self._kept(m, lane, self._change(lane, gradient)))
            m.d.comb += [self.applied[lane].eq(applied), self.later[lane].eq(self._later(m, applied))]
        return m

    def _multiply(self, m: Module) -> None:
        """What is multiplied: deltas, or the traces of a layer banked by its inputs."""
        m.d.comb += (learned.eq(own) for learned, own in zip(self.learned, self.own, strict=True))

    def _change(self, lane: int, gradient: Value) -> Value:
        """What a product adds, in cycle 3."""
        return saturate(gradient, self.machine.grad)

    def _kept(self, m: Module, lane: int, gradient: Value) -> Signal:
        """The same in cycle 4."""
        register = Signal(signed(max(len(gradient), self.machine.grad.bits)), name=f"grad_{lane}", reset_less=True)
        m.d.sync += register.eq(gradient)
        return register

    def _applied(self, m: Module, lane: int, gradient: Signal) -> Value:
        return gradient

    def _later(self, m: Module, applied: Value) -> Value:
        return delay(m, applied, 1)


class HeldGradients(DirectGradients):
    """The same where a row is taken every second cycle at most: a gradient stays until the next one comes."""

    def _kept(self, m: Module, lane: int, gradient: Value) -> Signal:
        register = Signal(signed(self.machine.grad.bits), name=f"grad_{lane}", reset_less=True)
        with m.If(self.flight.valid[3]):
            m.d.sync += register.eq(gradient)
        return register

    def _later(self, m: Module, applied: Value) -> Value:
        return applied


class GatheredGradients(DirectGradients):
    """Gradients are added to G (GATHER), which is applied and cleared (APPLY), or are applied at once (DESCEND).

    Timing:   G comes in cycle 4, and is written in cycle 5
    """

    def __init__(self, machine: Machine):
        super().__init__(machine)
        self.grads = LaneBanks(regions(machine)["grad"], machine.wires.tree, together=True)

    @property
    def row_cycles(self) -> tuple[int, ...]:
        return 3 - self.machine.wires.tree, 5

    def elaborate(self, platform) -> Module:
        m = super().elaborate(platform)
        m.submodules.grads = grads = self.grads
        m.d.comb += [
            *follow(grads.host, self.host),
            self.host.data_r.eq(grads.host.data_r),
            self.damaged.eq(found_in([grads])),
            grads.read_address.eq(self.rows[0]),
            grads.write_address.eq(self.rows[1]),
            grads.write.eq((self.flight.valid[5] & (self._gathers(m) | self.doing.apply)).replicate(self.machine.lanes)),
        ]
        return m

    def _multiply(self, m: Module) -> None:
        """What is multiplied; and whether G is applied, near every lane."""
        super()._multiply(m)
        self.applies = spread(m, self.doing.apply, self.machine.wires.tree, self.machine.lanes)

    def _gathers(self, m: Module) -> Value:
        """Whether the row in cycle 5 changes G by a gradient."""
        return self.doing.gather

    def _applied(self, m: Module, lane: int, gradient: Signal) -> Value:
        gathered, total = self.grads.read_data[lane].as_signed(), self._total(lane)
        left = self._left(m, lane, gathered)
        m.d.sync += total.eq(Mux(self.applies[lane], left, saturate(gradient + gathered, self.machine.grad)).as_signed())
        m.d.comb += self.grads.write_data[lane].eq(total)
        return Mux(self.applies[lane], gathered, gradient)

    def _left(self, m: Module, lane: int, gathered: Value) -> Value:
        """What an update leaves in G."""
        return Const(0, signed(1))

    def _total(self, lane: int) -> Signal:
        return Signal(signed(self.machine.grad.bits), name=f"gathered_{lane}", reset_less=True)


class KeptGradients(GatheredGradients):
    """The same, and what an update rounds off stays in G, if it is to."""

    def _multiply(self, m: Module) -> None:
        """What is multiplied; and the bits that an update shifts away, near every lane."""
        super()._multiply(m)
        c, rate, keeps, self.keeping = self.machine, self.rate, self.remainder, []
        for lane in range(c.lanes):
            if lane % NEAR == 0:  # handed on through a large chip, long before they are used
                rate, keeps = delay(m, rate, c.wires.ends), delay(m, keeps, c.wires.ends)
                mask = Signal(c.grad.bits, name=f"mask_{lane}")
                m.d.comb += mask.eq(delay(m, dither_mask(c.weight_shift(0), rate), c.wires.ends))
            self.keeping.append((mask, keeps))

    def _left(self, m: Module, lane: int, gathered: Value) -> Value:
        """The bits that are shifted away, as a number of their own: rounding to nearest makes its highest bit the sign."""
        c, (mask, keeps) = self.machine, self.keeping[lane]
        negative = (gathered & mask & ~(mask >> 1)).any()
        return Mux(keeps, Mux(negative, gathered | ~mask, gathered & mask)[: c.grad.bits], 0).as_signed()


class LazyGradients(GatheredGradients):
    """Lazy learning: a FORWARD sweep takes H from G in the rows it sums, if it `gathers`; APPLY adds K * trace to G first.

    H and K come as `sum_data`. The lanes keep a copy, which no host could repair, so that it has no parity.
    """

    APPLIED = 5

    def __init__(self, machine: Machine):
        super().__init__(machine)
        region = replace(regions(machine)["delta_sum"], lanes=machine.lanes, depth=machine.capacity.delta_rows, parity=False)
        self.sums = CoreBanks(region, machine.wires.tree)

    @staticmethod
    def _learned(c: Machine) -> tuple[int, int]:
        return c.grad.bits, c.trace.f

    def _multiply(self, m: Module) -> None:
        """What is multiplied: K."""
        c = self.machine
        m.submodules.sums = sums = self.sums
        self.applies, self.forward = (spread(m, flag, c.wires.tree, c.lanes) for flag in (self.doing.apply, self.doing.forward))
        m.d.comb += [
            # FORWARD takes them two cycles later, when the products come
            sums.read_address.eq(Mux(self.doing.forward, delay(m, self.delta_row, 2), self.delta_row)),
            sums.write.eq(self.sum_write),
            sums.write_address.eq(self.sum_row),
            *(data.eq(of_lane) for data, of_lane in zip(sums.write_data, self.sum_data, strict=True)),
            *(learned.eq(delay(m, word, c.wires.ends)) for learned, word in zip(self.learned, sums.read_data, strict=True)),
        ]

    def _gathers(self, m: Module) -> Value:
        """The operand must be a spike, and not the 0 of an empty sum."""
        return self.doing.forward & self.gathers & delay(m, self.operand != 0, self.machine.wires.tree + 4)

    def _change(self, lane: int, gradient: Value) -> Value:
        return Mux(self.forward[lane], -self.learned[lane], gradient).as_signed()

    def _applied(self, m: Module, lane: int, gradient: Signal) -> Value:
        gathered, total = self.grads.read_data[lane].as_signed(), self._total(lane)
        m.d.sync += total.eq(saturate(gradient + gathered, self.machine.grad))
        m.d.comb += self.grads.write_data[lane].eq(Mux(self.applies[lane], 0, total))
        return total


def gradients(machine: Machine) -> DirectGradients:
    """As the machine learns."""
    if machine.lazy:
        return LazyGradients(machine)
    if machine.capacity.grad_rows:
        return (KeptGradients if machine.capacity.remainder else GatheredGradients)(machine)
    return HeldGradients(machine) if machine.shared else DirectGradients(machine)
