"""The multipliers of the neurons: their own, or some that the lanes lend."""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.machine import Machine
from hw.numbers import NEURON_MULTIPLIERS
from hw.pipeline import Multiplier
from hw.streams import mul_port


class OwnMultipliers(wiring.Component):
    """Multipliers for the `neurons`, which need none of the `lanes`."""

    def __init__(self, machine: Machine):
        port, count = mul_port(machine), NEURON_MULTIPLIERS * machine.neuron_lanes
        super().__init__(
            {
                "neurons": In(port).array(count),
                "reserve": In(1),  # the neurons use them in the next cycle
                "lanes": Out(port).array(count),
                "lanes_reserve": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        for k, port in enumerate(self.neurons):
            m.submodules[f"mul_{k}"] = mul = Multiplier(len(port.a), len(port.b))
            connect(m, flipped(port), mul.port)
        return m


class LentMultipliers(OwnMultipliers):
    """Those of the first lanes."""

    def elaborate(self, platform) -> Module:
        m = Module()
        m.d.comb += self.lanes_reserve.eq(self.reserve)
        for of_neurons, of_lanes in zip(self.neurons, self.lanes, strict=True):
            connect(m, flipped(of_neurons), flipped(of_lanes))
        return m


def multipliers(machine: Machine) -> OwnMultipliers:
    """As the machine has them."""
    return (LentMultipliers if machine.shared else OwnMultipliers)(machine)
