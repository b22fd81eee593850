"""The registers of hw/memory_map.py: settings, state and counters."""

from __future__ import annotations

from amaranth.hdl import Array, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.configuration import settings
from hw.machine import Machine
from hw.memory import HostBus
from hw.memory_map import DAMAGED_BITS, IDENTITY, PHASES, REGISTERS, registers
from hw.numbers import bits_for

SETTINGS = ("step", "label", "learn", "rate_w", "rate_theta", "rate_alpha",
            "last_step", "last_sample", "gathered", "rounding", "alpha_min")  # fmt: skip
_INPUTS = {"rng": 32, "frame_length": 16, "class": 8}


class Registers(wiring.Component):
    """Settings leave on members of their name (`label`, `learn`, `rate_w`, ...); `rng`, `frame_length` and `class` come from
    the blocks that hold them.

    What comes on `damaged` (a core with parity) stays until it is cleared. While `busy`, the counter of `phase` counts cycles,
    and another adds up `counted`, the synaptic operations done.

    Timing:   a read answers one move after its row
    """

    def __init__(self, machine: Machine):
        self.machine, self.registers = machine, registers(machine)
        self.settings = [name for name in SETTINGS if name in self.registers]
        super().__init__(
            {
                **{name: Out(REGISTERS[name].bits) for name in self.settings},
                **{f"{name}_value": In(bits) for name, bits in _INPUTS.items()},
                "run": Out(1),
                "single": Out(1),
                "step_done": In(1),
                "next_step": In(8),
                "rng_write": Out(1),
                "busy": In(1),
                "phase": In(range(len(PHASES))),
                "counted": In(bits_for(machine.lanes + 1)),
                "host": In(HostBus()),
            }
            | ({"damaged": In(DAMAGED_BITS)} if machine.parity else {})
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        host, meant, then = self.host, Signal(), Signal()
        m.d.comb += meant.eq(then & host.write)
        values = {}
        wired_in = settings(self.machine.fixed, self.machine) if self.machine.fixed else {}
        for name, register in self.registers.items():
            if register.access == "rw" and name not in _INPUTS:
                if name in wired_in:
                    values[name] = Const(wired_in[name], register.bits)
                    continue
                bits = bits_for(self.machine.capacity.classes) if name == "label" else register.bits
                values[name] = Signal(bits, name=f"{name}_r")
                with m.If(meant & (host.row == register.row)):
                    m.d.sync += values[name].eq(host.data_w)
            elif register.access == "rc":
                values[name] = Signal(register.bits, name=f"{name}_r")
        for name in self.settings:
            m.d.comb += getattr(self, name).eq(values[name])
        m.d.comb += [
            self.run.eq(meant & (host.row == REGISTERS["run"].row)),
            self.single.eq(host.data_w[0]),
            self.rng_write.eq(meant & (host.row == REGISTERS["rng"].row)),
        ]
        with m.If(self.step_done):
            m.d.sync += values["step"].eq(self.next_step)
            if "gathered" in values:
                with m.If((self.next_step == 0) & (self.learn != 0)):
                    m.d.sync += values["gathered"].eq(Mux(values["gathered"] == values["last_sample"], 0, values["gathered"] + 1))
        with m.If(self.busy):
            with m.Switch(self.phase):
                for number, phase in enumerate(PHASES):
                    counter = values[f"cycles_{phase}"]
                    with m.Case(number):
                        m.d.sync += counter.eq(counter + 1)
            m.d.sync += values["sops"].eq(values["sops"] + self.counted)
        if self.machine.parity:
            m.d.sync += values["damaged"].eq(values["damaged"] | self.damaged)
        for name, register in self.registers.items():
            if register.access == "rc":
                with m.If(meant & (host.row == register.row)):
                    m.d.sync += values[name].eq(0)

        values |= {"identity": Const(IDENTITY, 32), "machine": Const(self.machine.digest, 32), "run": Const(0, 1)}
        values |= {name: getattr(self, f"{name}_value") for name in _INPUTS}
        row = Signal(bits_for(len(REGISTERS)))
        with m.If(host.enable):
            m.d.sync += row.eq(host.row)
        m.d.sync += then.eq(host.region == 0)
        m.d.comb += host.data_r.eq(Mux(then, Array(values.get(name, Const(0, 1)) for name in REGISTERS)[row], 0))
        return m
