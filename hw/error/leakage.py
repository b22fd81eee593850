"""The leakage factors, one a layer, and how they learn."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.fixed import minus_halves
from hw.machine import Machine
from hw.memory import HostBus, Select
from hw.memory_map import regions
from hw.numbers import RECIPROCAL_BITS, bits_for, ceil_log2
from hw.program import layer_bits, neuron_fields


class Leakage(wiring.Component):
    """Registers alpha of every layer, and A: one a layer, or one in all at cadence step, where it holds nothing between passes.

    For lazy learning, `reciprocal` is 1/alpha of `layer`: a serial division after every change of a factor, `busy` meanwhile.

    `add` sums `grad`, the gradients of a neuron in each neuron lane, into A of `layer`. `update` starts the change of that
    layer's alpha: A is shifted one bit a cycle, and `busy` is high until it is done.

    Numerics: docs/numerics.md, "Updates", the line of alpha; "Lazy learning", the line of rho
    Timing:   `alpha` is that of `layer`, `alpha_next` that of the layer behind it (of layer 1 for layer 0), combinational
    Golden:   sw/golden/error/descent.py, equal in every bit
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        super().__init__(
            {
                "layer": In(layer_bits(machine)),
                "alpha": Out(machine.alpha_frac + 1),
                "alpha_next": Out(machine.alpha_frac + 1),
                "add": In(1),
                "grad": In(signed(machine.grad.bits + ceil_log2(machine.neuron_lanes))),
                "update": In(1),
                "shift": In(neuron_fields(machine)["shift"]),  # of A, at learning rate 1
                "rate": In(4),
                "busy": Out(1),
                "host": In(HostBus()),
            }
            | ({"reciprocal": Out(machine.reciprocal_bits), "alpha_min": In(machine.alpha_frac + 1)} if machine.lazy else {})
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c, region = self.machine, regions(self.machine)
        wide, gathers, layers = signed(c.alpha_grad_bits), c.gathers, c.capacity.layers
        alpha = Array(Signal(c.alpha_frac + 1, name=f"alpha_{l}") for l in range(1, layers + 1))
        totals = [Signal(wide, name=f"alpha_grad_{l}") for l in range(1, layers + 1 if gathers else 2)]
        total = Array(totals if gathers else totals * layers)
        host, answer = self.host, Const(0, 32)
        at, following = Signal(bits_for(layers)), Signal(bits_for(layers))
        m.d.comb += [
            at.eq(self.layer - 1),
            following.eq(Mux(self.layer == layers, 0, self.layer)),
            self.alpha.eq(alpha[at]),
            self.alpha_next.eq(alpha[following]),
        ]
        left = Signal(len(self.shift))
        layer, change, rounded, busy = Signal.like(at), Signal(wide), Signal(), Signal()

        # A: one adder for all layers
        summed, moved_to = Signal(wide), Signal(c.alpha_frac + 1)
        write_total, write_alpha = Signal(), Signal()
        m.d.comb += [summed.eq(total[at] + self.grad), write_total.eq(self.add | self.update)]
        with m.If(self.update):
            m.d.comb += summed.eq(0)

        # alpha: shift A one bit a cycle; the bit shifted out last rounds
        shifted = change[: max(1, len(change) - c.mean_shift(1))]  # by that much at least, which leaves the upper bits equal
        moved = minus_halves(alpha[layer], Cat(rounded, shifted).as_signed())
        least, most = self.alpha_min if c.lazy else 0, c.alpha_one
        m.d.comb += [self.busy.eq(busy), moved_to.eq(Mux(moved < least, least, Mux(moved > most, most, moved)))]
        with m.If(self.update):
            m.d.sync += [busy.eq(1), layer.eq(at), change.eq(total[at]), rounded.eq(0), left.eq(self.shift + self.rate)]
        with m.Elif(left != 0):
            m.d.sync += [change.eq(change >> 1), rounded.eq(change[0]), left.eq(left - 1)]
        with m.Elif(busy):
            m.d.comb += write_alpha.eq(1)
            m.d.sync += busy.eq(0)

        for name, registers, own, value, write in (
            ("alpha", alpha, layer, moved_to, write_alpha),
            *([("alpha_grad", total, at, summed, write_total)] if gathers else []),
        ):
            select, read, row = Select(m, host, region[name]), Signal(region[name].bits, name=f"{name}_r"), host.row[: len(at)]
            with m.If(host.enable):
                m.d.sync += read.eq(registers[row])
            with m.If(host.hosting):
                m.d.comb += [value.eq(host.data_w), write.eq(host.write & select.meant)]
            with m.If(write):
                m.d.sync += registers[Mux(host.hosting, row, own)].eq(value)
            answer = answer | select.answer(read)
        if not gathers:
            with m.If(write_total):
                m.d.sync += total[at].eq(summed)
        m.d.comb += self.host.data_r.eq(answer)
        if c.lazy:
            dividing = self._reciprocals(m, alpha, at, write_alpha, Mux(host.hosting, host.row[: len(at)], layer))
            m.d.comb += self.busy.eq(busy | dividing)
        return m

    def _reciprocals(self, m: Module, alpha: Array, at: Value, changed: Value, which: Value) -> Value:
        """1/alpha of every layer, the quotient of 1.0 * 1.0 by alpha, a bit a cycle; whether one is not known yet."""
        c, layers = self.machine, self.machine.capacity.layers
        reciprocal = Array(Signal(c.reciprocal_bits, name=f"reciprocal_{l}") for l in range(1, layers + 1))
        stale, of = Signal(layers, init=-1), Signal.like(at, name="divided")
        rest, bits, left = Signal(c.alpha_frac + 2), Signal(c.reciprocal_bits), Signal(range(c.reciprocal_bits + 1))
        doubled, fits, working = Signal.like(rest), Signal(), Signal()
        m.d.comb += [self.reciprocal.eq(reciprocal[at]), doubled.eq(rest << 1), fits.eq(doubled >= alpha[of])]
        with m.If(left != 0):
            m.d.sync += [rest.eq(Mux(fits, doubled - alpha[of], doubled)), bits.eq(Cat(fits, bits)), left.eq(left - 1)]
        with m.Elif(working):
            m.d.sync += [reciprocal[of].eq(bits), working.eq(0)]
        with m.Elif(stale.any()):  # 2**(alpha_frac + n) = rest * 2**n, where the first bits of the quotient are known to be 0
            m.d.sync += [working.eq(1), rest.eq(1 << (c.alpha_frac - RECIPROCAL_BITS - 1)), left.eq(c.reciprocal_bits)]
            for k in reversed(range(layers)):
                with m.If(stale[k]):
                    m.d.sync += of.eq(k)
            m.d.sync += stale.eq(stale & (stale - 1))
        with m.If(changed):
            m.d.sync += stale.bit_select(which, 1).eq(1)
        return working | stale.any()
