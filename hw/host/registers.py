"""The registers of hw/memory_map.py: settings, state and counters."""

from __future__ import annotations

from amaranth.hdl import Array, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.configuration import wired_in
from hw.machine import Machine
from hw.memory import HostBus
from hw.memory_map import DAMAGED_BITS, IDENTITY, PHASES, REGISTERS, registers
from hw.numbers import LEARN_W, bits_for

SETTINGS = ("step", "label", "learn", "rate_w", "rate_theta", "rate_alpha", "rate_decay", "last_step", "last_sample", "gathered",
            "aged", "remainder", "mean_factor", "mean_shift", "rounding", "alpha_min")  # fmt: skip
CLEARED_BY_WRITING = tuple(name for name, register in REGISTERS.items() if register.access == "rc")
_INPUTS = {"rng": 32, "frame_length": 16, "class": 8}


def constants(machine: Machine) -> dict[str, int]:
    """Registers of hw/memory_map.py that never change in this machine: its identity, what is wired in, and 0 for those it lacks."""
    lacking = dict.fromkeys(REGISTERS.keys() - registers(machine).keys(), 0)
    return {"identity": IDENTITY, "machine": machine.digest, "run": 0} | lacking | wired_in(machine)


class Registers(wiring.Component):
    """Settings leave on members of their name (`label`, `learn`, `rate_w`, ...); `rng`, `frame_length` and `class` come from
    the blocks that hold them.

    What comes on `damaged` stays until it is cleared. While `busy`, the counter of `phase` counts cycles, and another adds up
    `counted`, the synaptic operations done.

    Timing:   a read answers one move after its row
    """

    def __init__(self, machine: Machine):
        self.machine = machine
        super().__init__(
            {
                **{name: Out(REGISTERS[name].bits) for name in SETTINGS},
                **{f"{name}_value": In(bits) for name, bits in _INPUTS.items()},
                "run": Out(1),
                "single": Out(1),
                "step_done": In(1),
                "next_step": In(8),
                "rng_write": Out(1),
                "busy": In(1),
                "phase": In(range(len(PHASES))),
                "counted": In(bits_for(machine.lanes + 1)),
                "damaged": In(DAMAGED_BITS),
                "host": In(HostBus()),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        host, meant, then, row = self.host, Signal(), Signal(), Signal(bits_for(len(REGISTERS)))
        widths = {name: register.bits for name, register in REGISTERS.items()} | {"label": bits_for(self.machine.capacity.classes)}
        held = {name: Signal(bits, name=f"{name}_r") for name, bits in widths.items()}
        values = held | {name: Const(value, widths[name]) for name, value in constants(self.machine).items()}
        values |= {name: getattr(self, f"{name}_value") for name in _INPUTS}  # a register that is none has no reader
        written = {name: meant & (host.row == register.row) for name, register in REGISTERS.items()}
        for name in SETTINGS:
            with m.If(written[name]):
                m.d.sync += held[name].eq(host.data_w)
        m.d.comb += [
            *(getattr(self, name).eq(values[name]) for name in SETTINGS),
            self.run.eq(written["run"]),
            self.single.eq(host.data_w[0]),
            self.rng_write.eq(written["rng"]),
        ]
        with m.If(self.step_done):
            m.d.sync += held["step"].eq(self.next_step)
            with m.If((self.next_step == 0) & (self.learn != 0)):
                m.d.sync += held["gathered"].eq(Mux(held["gathered"] == self.last_sample, 0, held["gathered"] + 1))
            with m.If((self.next_step == 0) & ((self.learn & LEARN_W) != 0)):
                m.d.sync += held["aged"].eq(held["aged"] + 1)  # of DECAY_SAMPLES, a power of two
        with m.If(self.busy):
            with m.Switch(self.phase):
                for number, phase in enumerate(PHASES):
                    counter = held[f"cycles_{phase}"]
                    with m.Case(number):
                        m.d.sync += counter.eq(counter + 1)
            m.d.sync += held["sops"].eq(held["sops"] + self.counted)
        m.d.sync += held["damaged"].eq(held["damaged"] | self.damaged)
        for name in CLEARED_BY_WRITING:
            with m.If(written[name]):
                m.d.sync += held[name].eq(0)
        with m.If(host.enable):
            m.d.sync += row.eq(host.row)
        m.d.sync += then.eq(host.region == 0)
        m.d.comb += [meant.eq(then & host.write), host.data_r.eq(Mux(then, Array(values[name] for name in REGISTERS)[row], 0))]
        return m
