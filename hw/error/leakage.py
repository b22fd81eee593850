"""The leakage factors, one a layer, and how they learn."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.fixed import minus_halves
from hw.machine import Machine
from hw.memory import HostBus, Select, fan_out
from hw.memory_map import Region, regions
from hw.numbers import RECIPROCAL_BITS, bits_for, ceil_log2
from hw.program import layer_bits, neuron_fields


class LayerRegisters(wiring.Component):
    """A register for each layer, region `region` of the host; the core writes `data` into that of `layer`, from 0 on.

    `changed`: one is written, by the core or by the host."""

    def __init__(self, region: Region, layers: int):
        self.region = region
        super().__init__(
            {
                "values": Out(region.bits).array(layers),
                "layer": In(bits_for(layers)),
                "write": In(1),
                "data": In(region.bits),
                "changed": Out(1),
                "host": In(HostBus()),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        host, select, row = self.host, Select(m, self.host, self.region), self.host.row[: len(self.layer)]
        registers = Array(Signal(self.region.bits, name=f"{self.region.name}_{l}") for l in range(1, len(self.values) + 1))
        read = Signal(self.region.bits)
        m.d.comb += [
            *(value.eq(register) for value, register in zip(self.values, registers, strict=True)),
            self.changed.eq(Mux(host.hosting, host.write & select.meant, self.write)),
            host.data_r.eq(select.answer(read)),
        ]
        with m.If(host.enable):
            m.d.sync += read.eq(registers[row])
        with m.If(self.changed):
            m.d.sync += registers[Mux(host.hosting, row, self.layer)].eq(Mux(host.hosting, host.data_w, self.data))
        return m


class OneRegister(wiring.Component):
    """In place of LayerRegisters where nothing is held between passes: one for all layers, which no host sees."""

    def __init__(self, bits: int, layers: int):
        super().__init__(
            {
                "values": Out(bits).array(layers),
                "layer": In(bits_for(layers)),
                "write": In(1),
                "data": In(bits),
                "host": In(HostBus()),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        register = Signal.like(self.data)
        with m.If(self.write):
            m.d.sync += register.eq(self.data)
        m.d.comb += (value.eq(register) for value in self.values)
        return m


class Reciprocals(wiring.Component):
    """1/alpha of every layer, for lazy learning: a serial division after every change of a factor, `busy` meanwhile.

    `changed`: the factor of layer `which` + 1 is new. `value` is that of layer `at` + 1.

    Numerics: docs/numerics.md, "Lazy learning", the line of rho
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        layers = machine.capacity.layers
        super().__init__(
            {
                "alpha": In(machine.alpha_frac + 1).array(layers),
                "changed": In(1),
                "which": In(bits_for(layers)),
                "at": In(bits_for(layers)),
                "value": Out(machine.reciprocal_bits),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        """The quotient of 1.0 * 1.0 by alpha, a bit a cycle."""
        m = Module()
        c, layers = self.machine, self.machine.capacity.layers
        reciprocal = Array(Signal(c.reciprocal_bits, name=f"reciprocal_{l}") for l in range(1, layers + 1))
        stale, of = Signal(layers, init=-1), Signal.like(self.at, name="divided")
        rest, bits, left = Signal(c.alpha_frac + 2), Signal(c.reciprocal_bits), Signal(range(c.reciprocal_bits + 1))
        doubled, fits, working, divisor = Signal.like(rest), Signal(), Signal(), Array(self.alpha)[of]
        m.d.comb += [
            self.value.eq(reciprocal[self.at]),
            self.busy.eq(working | stale.any()),
            doubled.eq(rest << 1),
            fits.eq(doubled >= divisor),
        ]
        with m.If(left != 0):
            m.d.sync += [rest.eq(Mux(fits, doubled - divisor, doubled)), bits.eq(Cat(fits, bits)), left.eq(left - 1)]
        with m.Elif(working):
            m.d.sync += [reciprocal[of].eq(bits), working.eq(0)]
        with m.Elif(stale.any()):  # 2**(alpha_frac + n) = rest * 2**n, where the first bits of the quotient are known to be 0
            m.d.sync += [working.eq(1), rest.eq(1 << (c.alpha_frac - RECIPROCAL_BITS - 1)), left.eq(c.reciprocal_bits)]
            for k in reversed(range(layers)):
                with m.If(stale[k]):
                    m.d.sync += of.eq(k)
            m.d.sync += stale.eq(stale & (stale - 1))
        with m.If(self.changed):
            m.d.sync += stale.bit_select(self.which, 1).eq(1)
        return m


class NoReciprocals(Reciprocals):
    """In their place where learning is not lazy."""

    def elaborate(self, platform) -> Module:
        return Module()


class Leakage(wiring.Component):
    """Registers alpha of every layer, and A: one a layer, or one in all at cadence step, where it holds nothing between passes.

    `add` sums `grad`, the gradients of a neuron in each neuron lane, into A of `layer`. `update` starts the change of that
    layer's alpha, to no less than `alpha_min`: A is shifted one bit a cycle, and `busy` is high until it is done. For lazy
    learning, `reciprocal` is 1/alpha of `layer`.

    Numerics: docs/numerics.md, "Updates", the line of alpha
    Timing:   `alpha` is that of `layer`, `alpha_next` that of the layer behind it (of layer 1 for layer 0), combinational
    Golden:   sw/golden/error/descent.py, equal in every bit
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        layers, region = machine.capacity.layers, regions(machine)
        self.alphas, bits = LayerRegisters(region["alpha"], layers), machine.alpha_grad_bits
        self.totals = LayerRegisters(region["alpha_grad"], layers) if machine.gathers else OneRegister(bits, layers)
        self.reciprocals = (Reciprocals if machine.lazy else NoReciprocals)(machine)
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
                "alpha_min": In(machine.alpha_frac + 1),
                "reciprocal": Out(machine.reciprocal_bits),
                "busy": Out(1),
                "host": In(HostBus()),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c, layers, host = self.machine, self.machine.capacity.layers, self.host
        m.submodules.alphas, m.submodules.totals, m.submodules.reciprocals = alphas, totals, _ = (
            self.alphas, self.totals, self.reciprocals)  # fmt: skip
        fan_out(m, host, [alphas, totals])
        alpha, total = Array(alphas.values), Array(value.as_signed() for value in totals.values)
        at, following = Signal(bits_for(layers)), Signal(bits_for(layers))
        layer, change, rounded, busy = Signal.like(at), Signal(signed(c.alpha_grad_bits)), Signal(), Signal()
        left = Signal(len(self.shift))
        m.d.comb += [
            at.eq(self.layer - 1),
            following.eq(Mux(self.layer == layers, 0, self.layer)),
            self.alpha.eq(alpha[at]),
            self.alpha_next.eq(alpha[following]),
            # A: one adder for all layers
            totals.layer.eq(at),
            totals.write.eq(self.add | self.update),
            totals.data.eq(total[at] + self.grad),
        ]
        with m.If(self.update):
            m.d.comb += totals.data.eq(0)

        # alpha: shift A one bit a cycle; the bit shifted out last rounds
        shifted = change[: max(1, len(change) - c.mean_shift(1))]  # by that much at least, which leaves the upper bits equal
        moved = minus_halves(alpha[layer], Cat(rounded, shifted).as_signed())
        least, most = self.alpha_min, c.alpha_one
        m.d.comb += [alphas.layer.eq(layer), alphas.data.eq(Mux(moved < least, least, Mux(moved > most, most, moved)))]
        with m.If(self.update):
            m.d.sync += [busy.eq(1), layer.eq(at), change.eq(total[at]), rounded.eq(0), left.eq(self.shift + self.rate)]
        with m.Elif(left != 0):
            m.d.sync += [change.eq(change >> 1), rounded.eq(change[0]), left.eq(left - 1)]
        with m.Elif(busy):
            m.d.comb += alphas.write.eq(1)
            m.d.sync += busy.eq(0)
        self._divide(m, at, layer, busy)
        return m

    def _divide(self, m: Module, at: Signal, layer: Signal, busy: Signal) -> None:
        """The reciprocals follow every change, the host's too."""
        reciprocals, alphas, host = self.reciprocals, self.alphas, self.host
        m.d.comb += [
            *(of_layer.eq(value) for of_layer, value in zip(reciprocals.alpha, alphas.values, strict=True)),
            reciprocals.changed.eq(alphas.changed),
            reciprocals.which.eq(Mux(host.hosting, host.row[: len(at)], layer)),
            reciprocals.at.eq(at),
            self.reciprocal.eq(reciprocals.value),
            self.busy.eq(busy | reciprocals.busy),
        ]
