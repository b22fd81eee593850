"""From an error to a delta: the output table, the surrogate derivative, their product."""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Mux
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.fixed import floor_shift, rounding, saturate
from hw.machine import Machine
from hw.memory import HostBus, bank, fan_out, found_in
from hw.memory_map import DAMAGED_BITS, regions
from hw.numbers import GRADED_ENTRIES, PHI_ENTRIES, PHI_FRAC, PHI_STEP_FRAC, ceil_log2
from hw.pipeline import Pipe, drive
from hw.streams import delta_in, delta_out, mul_port


class Delta(wiring.Component):
    """delta = error * phi(U - theta), or a graded error, one neuron a word.

    It holds the loadable tables, which the host writes and (`host_reads`) reads.

    Numerics: docs/numerics.md, "Learning in that step", the lines of e, v, phi and delta
    Timing:   latency 5 cycles, one word a cycle, holds while `o.ready` is low; uses `mul[0]`
    Golden:   sw/golden/error/output.py and delta.py, equal in every bit
    """

    def __init__(self, machine: Machine, host_reads: bool = True):
        self.machine, self.host_reads = machine, host_reads
        super().__init__(
            {
                "i": In(stream.Signature(delta_in(machine))),
                "o": Out(stream.Signature(delta_out(machine))),
                "mul": Out(mul_port(machine)).array(1),
                "host": In(HostBus()),
                "damaged": Out(DAMAGED_BITS),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        c, i, o = self.machine, self.i.p, self.o.p
        region = regions(c)
        table, graded, surrogate = (bank(region, name, host_reads=self.host_reads, core_writes=False)
                                    for name in ("error_table", "graded_table", "surrogate"))  # fmt: skip
        m.submodules.table, m.submodules.graded, m.submodules.surrogate = table, graded, surrogate
        fan_out(m, self.host, [table, graded, surrogate])
        m.d.comb += self.damaged.eq(found_in([table, graded, surrogate]))
        pipe = Pipe(m, self.i, self.o, latency=5)

        # cycle 1: the table's row is read while U - theta is taken
        v = pipe.reg(saturate(i.u - i.theta, c.u))
        m.d.comb += [
            table.read_enable.eq(pipe.en),
            table.read_address.eq((i.firing << 2) | (i.s << 1) | i.label),
        ]
        error = Mux(pipe.reg(i.output), table.read_data.as_signed(), pipe.reg(i.error))

        # cycle 2: the surrogate derivative, or the graded error
        step, output = floor_shift(v, c.u.f - PHI_STEP_FRAC) + GRADED_ENTRIES // 2, pipe.reg(i.output & i.graded)
        most = C(GRADED_ENTRIES - 1, ceil_log2(GRADED_ENTRIES))
        m.d.comb += [
            graded.read_enable.eq(pipe.en),
            graded.read_address.eq(Cat(Mux(step < 0, 0, Mux(step < GRADED_ENTRIES, step, most))[: len(most)], pipe.reg(i.label))),
        ]
        magnitude = Mux(v < 0, -v, v).as_unsigned() >> (c.u.f - PHI_STEP_FRAC)
        m.d.comb += [
            surrogate.read_enable.eq(pipe.en),
            surrogate.read_address.eq(Mux(magnitude < PHI_ENTRIES, magnitude, PHI_ENTRIES - 1)),
        ]

        # cycles 3 to 5: their product; a graded error is a delta already
        as_it_is = pipe.reg(output)
        error = Mux(as_it_is, graded.read_data.as_signed(), pipe.reg(error)).as_signed()
        phi = Mux(as_it_is, 1 << PHI_FRAC, surrogate.read_data)
        m.d.comb += [
            drive(self.mul[0], error, phi, pipe.en, rounding(PHI_FRAC)),
            o.delta.eq(pipe.reg(saturate(floor_shift(self.mul[0].p, PHI_FRAC), c.delta))),
            o.index.eq(pipe.reg(i.index, 5)),
        ]
        return m
