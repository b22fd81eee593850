"""The leakage factors, one a layer, and how they learn."""

from __future__ import annotations

from amaranth.hdl import Array, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.config import Config
from hw.memory import HostBus, Select
from hw.memory_map import regions
from hw.streams import bits_for


class Leakage(wiring.Component):
    """Registers alpha and A of every layer.

    `add` sums a neuron's gradient `grad` into A of `layer`. `update` starts the change of that layer's alpha from A, which is
    shifted one bit a cycle; `busy` is high until it is done.

    Numerics: docs/numerics.md, "Updates", the line of alpha
    Timing:   `alpha` is that of `layer`, `alpha_next` that of the layer behind it (of layer 1 for layer 0), combinational
    Golden:   sw/golden/error/descent.py, equal in every bit
    """

    def __init__(self, config: Config):
        self.config = config
        super().__init__(
            {
                "layer": In(bits_for(config.n_layers + 1)),
                "alpha": Out(config.alpha_frac + 1),
                "alpha_next": Out(config.alpha_frac + 1),
                "add": In(1),
                "grad": In(signed(config.grad.bits)),
                "update": In(1),
                "rate": In(4),
                "busy": Out(1),
                "host": In(HostBus()),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c, region = self.config, regions(self.config)
        wide = signed(region["alpha_grad"].bits)
        alpha = Array(Signal(c.alpha_frac + 1, name=f"alpha_{l}") for l in c.layers)
        total = Array(Signal(wide, name=f"alpha_grad_{l}") for l in c.layers)
        at, following = Signal(bits_for(c.n_layers)), Signal(bits_for(c.n_layers))
        m.d.comb += [
            at.eq(self.layer - 1),
            following.eq(Mux(self.layer == c.n_layers, 0, self.layer)),
            self.alpha.eq(alpha[at]),
            self.alpha_next.eq(alpha[following]),
        ]
        with m.If(self.add):
            m.d.sync += total[at].eq(total[at] + self.grad)

        # update: shift one bit a cycle, the last shift rounds
        left = Signal(range(c.alpha_shift(c.n_layers, 15) + max(c.sizes).bit_length() + 2))
        layer, change, rounded = Signal.like(at), Signal(wide), Signal(signed(wide.width + 1))
        shifts = Array(Const(c.alpha_shift(l, 0), len(left)) for l in c.layers)
        moved = Signal(signed(max(wide.width, c.alpha_frac + 2) + 1))
        busy = Signal()
        m.d.comb += [rounded.eq(change + (left == 1)), moved.eq(alpha[layer] - change), self.busy.eq(busy)]
        with m.If(self.update):
            m.d.sync += [busy.eq(1), layer.eq(at), change.eq(total[at]), total[at].eq(0), left.eq(shifts[at] + self.rate)]
        with m.Elif(busy & (left != 0)):
            m.d.sync += [change.eq(rounded >> 1), left.eq(left - 1)]
        with m.Elif(busy):
            m.d.sync += [busy.eq(0), alpha[layer].eq(Mux(moved < 0, 0, Mux(moved > c.alpha_one, c.alpha_one, moved)))]

        row, answer = self.host.row[: len(at)], Const(0, 32)
        for name, registers in (("alpha", alpha), ("alpha_grad", total)):
            select, read = Select(m, self.host, region[name]), Signal(region[name].bits, name=f"{name}_r")
            with m.If(self.host.enable):
                m.d.sync += read.eq(registers[row])
            with m.If(self.host.hosting & self.host.write & select.now):
                m.d.sync += registers[row].eq(self.host.data_w)
            answer = answer | select.answer(read)
        m.d.comb += self.host.data_r.eq(answer)
        return m
