"""What a host writes into a machine so that it runs a network: programs, settings, and the record that says which network it holds.

Nothing here imports Amaranth or PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hw.machine import Machine
from hw.memory_map import NETWORK_WORDS, REGISTERS, Region, regions, registers
from hw.network import CADENCES, INPUTS, OUTPUT_ERRORS, Network
from hw.notation import dense
from hw.numbers import ceil_log2, mean_factor
from hw.plan import Plan

RECORD = 0x4F4E_0002
"""First word of the record of a network: "ON", version 2. Any other value there: no network is held."""
RECORD_DOCS = (
    (0, "0 to 31", f"{RECORD:#010x}; 0 or anything else: no network"),
    (1, "0 to 7", "time steps of a sample"),
    (1, "8 to 11", "input: " + ", ".join(f"{k} {name}" for k, name in enumerate(INPUTS))),
    (1, "12 to 15", "cadence: " + ", ".join(f"{k} {name}" for k, name in enumerate(CADENCES))),
    (1, "16 to 21", "stochastic rounding, lazy learning, graded errors, centred gradients, decay, remainders"),
    (1, "24 to 31", "layers"),
    (2, "0 to 31", "samples of a batch"),
    (f"{NETWORK_WORDS} on", "0 to 23", "units of the input and of every layer"),
    (f"{NETWORK_WORDS} on", "24 to 31", "what is added to the rate of the layer"),
)
CLEARED = ("delta", "alpha_grad", "event")
"""Memories that a configuration fills with 0, as far as the machine has them.

A lane without a neuron in a layer's last group keeps delta 0, and adds nothing to an error. A network of cadence `step` has no
A in its state, which is 0 between steps. An event is a value other than 0, and the last frame of a network for frames stays."""
Writes = Iterator[tuple[int, list[int]]]


def record(network: Network) -> list[int]:
    """The record, 32-bit words: RECORD; steps, kind of input, cadence, switches and number of layers; the batch; the sizes.

    Of the second word, steps, kinds, switches and layers have a byte each."""
    n = network
    flags = n.stochastic, n.lazy, n.output_error == "graded", n.centred, n.decay, n.remainder
    switches = sum(flag << k for k, flag in enumerate(flags))
    kinds = INPUTS.index(n.input) | CADENCES.index(n.cadence) << 4
    return [RECORD, n.steps | kinds << 8 | switches << 16 | n.n_layers << 24, n.batch,
            *(size | slower << 24 for size, slower in zip(n.sizes, (0, *map(n.slower_by, n.layers)), strict=True))]  # fmt: skip


def read_record(words: Sequence[int], machine: Machine) -> Network | None:
    """The inverse of `record`, for a network in the machine's formats; None if there is none. ValueError if it makes no sense."""
    if machine.fixed:
        return machine.fixed
    if words[0] == 0:
        return None
    if words[0] != RECORD:
        raise ValueError(f"network: a record {words[0]:#010x} is not legal; legal is {RECORD:#010x}, or 0 for no network")
    steps, kinds, switches, layers = (words[1] >> 8 * k & 0xFF for k in range(4))
    fields: dict[str, Any] = machine.formats
    try:
        of_layers = words[NETWORK_WORDS : NETWORK_WORDS + layers + 1]
        slower = [word >> 24 for word in of_layers[1:]]
        return Network(net=dense(word & 0xFF_FFFF for word in of_layers), slower=tuple(slower), centred=bool(switches & 8),
                       output_error=OUTPUT_ERRORS[switches >> 2 & 1], decay=bool(switches & 16), remainder=bool(switches & 32),
                       steps=steps, batch=words[2], input=INPUTS[kinds & 0xF], cadence=CADENCES[kinds >> 4],
                       stochastic=bool(switches & 1), lazy=bool(switches & 2), **fields)  # fmt: skip
    except (ValueError, IndexError) as error:
        raise ValueError(f"network: the record makes no sense ({error})") from None


def settings(network: Network, machine: Machine) -> dict[str, int]:
    """Registers that belong to a network, as far as the machine has them, by name."""
    values = {"last_step": network.steps - 1, "last_sample": network.batch - 1,
              "rounding": int(network.stochastic), "alpha_min": network.alpha_min, "remainder": int(network.remainder),
              "mean_factor": mean_factor(network.sizes[0]), "mean_shift": ceil_log2(network.sizes[0])}  # fmt: skip
    return {name: value for name, value in values.items() if name in registers(machine)}


def wired_in(machine: Machine) -> dict[str, int]:
    """Settings of the only network of a machine, which no host can change."""
    return settings(machine.fixed, machine) if machine.fixed else {}


def cleared(machine: Machine) -> list[Region]:
    """The memories of CLEARED that the machine has; none where the network is wired in, as it never changes."""
    return [] if machine.fixed else [region for name, region in regions(machine).items() if name in CLEARED]


def configuration(plan: Plan) -> Writes:
    """What a host writes, in this order: address and 32-bit words. The record is cleared first and written last, so that a
    configuration which was cut off is noticed."""
    machine, memory = plan.machine, regions(plan.machine)
    if machine.fixed:
        return
    place, words = memory["network"].address(0), record(plan.network)
    yield place, [0]
    for name, rows in zip(("lane_program", "neuron_program"), plan.tables, strict=True):
        for lane in range(memory[name].lanes):
            yield memory[name].address(0, lane), [row >> 32 * lane & 0xFFFF_FFFF for row in rows]
    for region in cleared(machine):
        for lane in range(region.lanes):
            yield region.address(0, lane), [0] * region.depth
    counters = {name: 0 for name in ("gathered", "aged") if name in registers(machine)}
    for name, value in (settings(plan.network, machine) | counters).items():
        yield REGISTERS[name].address, [value]
    yield place + 1, words[1:]
    yield place, words[:1]
