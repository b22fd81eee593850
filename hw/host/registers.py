"""The registers of hw/memory_map.py: settings, state and counters."""

from __future__ import annotations

from amaranth.hdl import Array, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.config import Config
from hw.memory import HostBus
from hw.memory_map import DAMAGED_BITS, IDENTITY, PHASES, REGISTERS, registers
from hw.streams import bits_for

_INPUTS = {"rng": 32, "frame_length": 16, "class": 8}


class Registers(wiring.Component):
    """Settings leave on members of their name (`label`, `learn`, `rate_w`, ...); `rng`, `frame_length` and `class` come from where they live.

    What comes on `damaged` (a core with parity) stays until it is cleared. While `busy`, the counter of `phase` counts cycles; `dense` synapses are expected at the start of a sweep, `counted` of them are done.

    Timing:   a read answers one move after its row
    """

    def __init__(self, config: Config):
        self.config, self.registers = config, registers(config)
        settings = ("step", "label", "learn", "rate_w", "rate_theta", "rate_alpha")
        super().__init__(
            {
                **{name: Out(REGISTERS[name].bits) for name in settings},
                **{f"{name}_value": In(bits) for name, bits in _INPUTS.items()},
                "run": Out(1),
                "single": Out(1),
                "step_done": In(1),
                "next_step": In(8),
                "rng_write": Out(1),
                "busy": In(1),
                "phase": In(range(len(PHASES))),
                "counted": In(bits_for(config.lanes + 1)),
                "dense": In(32),
                "host": In(HostBus()),
            }
            | ({"damaged": In(DAMAGED_BITS)} if config.parity else {})
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        host, meant, then = self.host, Signal(), Signal()
        m.d.comb += meant.eq(then & host.write)
        values = {}
        for name, register in self.registers.items():
            if register.access == "rw" and name not in _INPUTS:
                bits = bits_for(self.config.classes) if name == "label" else register.bits
                values[name] = Signal(bits, name=f"{name}_r")
                with m.If(meant & (host.row == register.row)):
                    m.d.sync += values[name].eq(host.data_w)
            elif register.access == "rc":
                values[name] = Signal(register.bits, name=f"{name}_r")
        for name in ("step", "label", "learn", "rate_w", "rate_theta", "rate_alpha"):
            m.d.comb += getattr(self, name).eq(values[name])
        m.d.comb += [
            self.run.eq(meant & (host.row == REGISTERS["run"].row)),
            self.single.eq(host.data_w[0]),
            self.rng_write.eq(meant & (host.row == REGISTERS["rng"].row)),
        ]
        with m.If(self.step_done):
            m.d.sync += values["step"].eq(self.next_step)
        with m.If(self.busy):
            with m.Switch(self.phase):
                for number, phase in enumerate(PHASES):
                    counter = values[f"cycles_{phase}"]
                    with m.Case(number):
                        m.d.sync += counter.eq(counter + 1)
            m.d.sync += values["sops"].eq(values["sops"] + self.counted)
            m.d.sync += values["sops_dense"].eq(values["sops_dense"] + self.dense)
        if self.config.parity:
            m.d.sync += values["damaged"].eq(values["damaged"] | self.damaged)
        for name, register in self.registers.items():
            if register.access == "rc":
                with m.If(meant & (host.row == register.row)):
                    m.d.sync += values[name].eq(0)

        values |= {"identity": Const(IDENTITY, 32), "config": Const(self.config.digest, 32), "run": Const(0, 1)}
        values |= {name: getattr(self, f"{name}_value") for name in _INPUTS}
        row = Signal(bits_for(len(self.registers)))
        with m.If(host.enable):
            m.d.sync += row.eq(host.row)
        m.d.sync += then.eq(host.region == 0)
        m.d.comb += host.data_r.eq(Mux(then, Array(values[name] for name in self.registers)[row], 0))
        return m
