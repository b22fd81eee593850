"""What the two sequencers of a core walk: the operations, and the fields of a row, written once.

Nothing here imports Amaranth or PyTorch.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from hw.machine import Machine
from hw.numbers import HOST_BITS, RATE_MAX, bits_for, ceil_div


class LaneOp(IntEnum):
    """What a sweep over weight rows does in every lane."""

    END = 0  # the program is over
    FORWARD = 1  # sum += w * x
    BACKWARD = 2  # sum over the lanes += w * delta
    GATHER = 3  # G += delta * trace
    DESCEND = 4  # w -= delta * trace, or delta * pixel, at the learning rate
    APPLY = 5  # w -= G at the learning rate, G = 0, or what is left of it; lazy learning: G += K * trace before
    DECAY = 6  # w -= w at the rate of decay


class NeuronOp(IntEnum):
    """What a pass does with the neurons of a layer."""

    END = 0
    INPUT = 1  # layer 0: the weight traces of the input units
    NEURON = 2  # one time step
    OUTPUT_ERROR = 3  # the last layer: error from the table, delta, gradients
    HIDDEN_ERROR = 4  # the same with the errors that the lanes send
    FINISH = 5  # after the sample: thresholds (cadence sample), D to the lanes (first layer behind a held frame)
    LEAKAGE = 6  # the layer's leakage factor learns; goes on beside what follows


class When(IntFlag):
    """What must hold for a row to be done; any other row is skipped."""

    ALWAYS = 0
    FIRST = 1  # step 0
    LAST = 2  # step T-1
    LEARN = 4  # anything is learned
    LEARN_W = 8
    LEARN_L = 16
    FULL = 32  # the sample is the last of its batch
    AGED = 64  # weights decay after this sample


WHEN_BITS = len(When)


def table_rows(machine: Machine) -> int:
    """Rows of a program of so many layers, with its END: forward, backward, update, end of sample and decay; an input."""
    return (4 + machine.capacity.decay) * machine.capacity.layers + 5


def position_bits(machine: Machine) -> int:
    """Bits of a position: how far a sequencer is, 2 row + 1 when the row has begun, 2 row + 2 when it is over."""
    return bits_for(2 * table_rows(machine) + 1)


def layer_bits(machine: Machine) -> int:
    """Bits of a layer number, 0 the input."""
    return bits_for(machine.capacity.layers + 1)


def common_fields(machine: Machine) -> dict[str, int]:
    return {
        "op": 3,
        "after": position_bits(machine),  # the row begins when the other sequencer has come that far
        "when": WHEN_BITS,
        "stop": 1,  # if the row is not to be done, nor is any behind it
        "layer": layer_bits(machine),
    }


def lane_fields(machine: Machine) -> dict[str, int]:
    """Fields of a row of the lanes' program, and their bits."""
    m, c = machine, machine.capacity
    return common_fields(m) | {
        "turned": 1,  # the layer is banked by its inputs: its groups are neurons, its fan-in groups of inputs
        "pixels": 1,  # the inputs are those of the held frame
        "centred": 1,  # less their mean
        "values": 1,  # they have values, and are no spikes
        "list": bits_for(max(c.lists, 1)),  # else of this list,
        "list_base": bits_for(max(c.listed, 1)),  # which begins here in the lists' memory;
        "unit_row": bits_for(c.unit_rows),  # first row of their traces
        "odd": 1,  # which list of deltas
        "row": bits_for(c.weight_rows),  # first weight row
        "fan_in": bits_for(c.fan_in + 1),
        "groups": bits_for(max(m.groups, m.listed_deltas) + 1),
        "delta_row": bits_for(c.delta_rows),  # first row of deltas; of inputs, if turned
        "rest": bits_for(m.lanes + 1),  # neurons of the last group; inputs, if turned
        "neuron_row": bits_for(c.neuron_rows),  # where currents go
        "words": bits_for(m.neuron_words(c.population) + 1),  # of currents
        "slower": bits_for(c.slower + 1),  # is added to the learning rate
    }


def neuron_fields(machine: Machine) -> dict[str, int]:
    """Fields of a row of the neurons' program, and their bits."""
    m, c = machine, machine.capacity
    return common_fields(m) | {
        "row": bits_for(max(c.neuron_rows, c.unit_rows)),  # of the first neuron or input unit
        "count": bits_for(max(c.population, c.events, 1) + 1),
        "output": 1,  # the last layer
        "graded": 1,  # its errors are graded
        "held": 1,  # the layer's input is a held frame, or is one
        "values": 1,  # inputs have values, and are no spikes
        "gather": 1,  # cadence sample
        "deals": 1,  # spikes and traces go to the lanes
        "turned": 1,  # deltas are listed one by one
        "listed": 1,  # its spikes and traces are listed
        "list": bits_for(max(c.lists, 1)),
        "list_base": bits_for(max(c.listed, 1)),
        "odd": 1,  # in which list of deltas it puts its own
        "words": bits_for(max(m.words, m.listed_deltas) + 1),  # of deltas; of spikes and traces
        "fan_in": bits_for(c.fan_in + 1),
        "weight_row": bits_for(c.weight_rows),
        "delta_row": bits_for(c.delta_rows),  # of deltas; of spikes and traces
        "shift": bits_for(m.mean_shift(max(c.population, 1)) + RATE_MAX + 1),  # of A, at learning rate 1
    }


def pack(fields: dict[str, int], row: dict[str, int]) -> int:
    """A row as one number, the first field in the lowest bits. ValueError for a value that its field does not hold."""
    word, at = 0, 0
    for name, bits in fields.items():
        value = row.get(name, 0)
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{name}: {value} does not fit into {bits} bits")
        word |= value << at
        at += bits
    return word


def varying(machine: Machine, fields: dict[str, int]) -> tuple[int, int]:
    """Bits of a row that may be 1 in a program of this machine, and bits that may be 0.

    The others are constants to the gateware, and synthesis drops whatever no network within the capacity asks for."""
    m, c = machine, machine.capacity
    every = {name: (1 << bits) - 1 for name, bits in fields.items()}
    ones = {"turned": m.both_ways, "deals": m.both_ways, "pixels": m.holds_frames, "held": m.holds_frames,
            "values": c.values, "gather": c.sample, "graded": c.graded, "centred": c.centred,
            "slower": every.get("slower", 0) * (c.slower > 0), "when": every["when"] & ~(0 if c.decay else When.AGED)}  # fmt: skip
    return pack(fields, every | ones), pack(fields, every | {"gather": c.step})


def unpack(fields: dict[str, int], word: int) -> dict[str, int]:
    """The inverse of `pack`."""
    row, at = {}, 0
    for name, bits in fields.items():
        row[name] = word >> at & (1 << bits) - 1
        at += bits
    return row


def words_of(fields: dict[str, int]) -> int:
    """Words of the host that a row takes."""
    return ceil_div(sum(fields.values()), HOST_BITS)
