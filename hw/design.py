"""A network and the machine that is to run it, as boards, builds and simulations take them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from hw.machine import WIRES, Machine
from hw.network import Network
from hw.numbers import Numbers
from hw.plan import Plan, compile

_NUMBERS = {f.name for f in fields(Numbers)}
NETWORK_FIELDS = tuple(f.name for f in fields(Network))
MACHINE_FIELDS = ("lanes", "neuron_lanes", "weight_memory", "wires", "parity", "both_ways", "shared")
"""Fields of a machine that do not follow from the networks it holds."""


@dataclass(frozen=True)
class Design:
    """`network` on `machine`, which holds the networks `others`, too. Made by `of`."""

    network: Network
    machine: Machine
    others: tuple[Network, ...] = ()

    @classmethod
    def of(cls, network: Network, *others: Network, fixed: bool = False, **machine: Any) -> Design:
        """A machine just large enough; `fixed`: with the network wired in. `machine`: its MACHINE_FIELDS, `wires` also by name.

        Raises ValueError for what is not legal.
        """
        if isinstance(machine.get("wires"), str):
            if machine["wires"] not in WIRES:
                raise ValueError(f"wires: {machine['wires']} is not legal; legal is {' or '.join(WIRES)}")
            machine["wires"] = WIRES[machine["wires"]]
        return cls(network, Machine.holding(network, *others, fixed=network if fixed else None, **machine), others)

    @property
    def plan(self) -> Plan:
        return compile(self.network, self.machine)

    def replace(self, **changes: Any) -> Design:
        """Another design by some fields of NETWORK_FIELDS and MACHINE_FIELDS.

        The machine holds what it held, in the new formats, and the network."""
        known = (*NETWORK_FIELDS, *MACHINE_FIELDS)
        for name in changes:
            if name not in known:
                raise ValueError(f"{name}: no such field; legal is one of {', '.join(known)}")
        network = self.network.replace(**{name: value for name, value in changes.items() if name in NETWORK_FIELDS})
        formats = {name: value for name, value in changes.items() if name in _NUMBERS}
        others = tuple(replace(other, **formats) for other in self.others) if network.lazy == self.network.lazy else ()
        machine = {name: changes.get(name, getattr(self.machine, name)) for name in MACHINE_FIELDS}
        return Design.of(network, *others, fixed=self.machine.fixed is not None, **machine)
