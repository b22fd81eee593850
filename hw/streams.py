"""What travels on the streams between blocks: every payload and every field, written once."""

from __future__ import annotations

from amaranth.hdl import signed
from amaranth.lib import data

from hw.machine import Machine
from hw.numbers import PIXEL_FRAC, bits_for
from hw.pipeline import MulPort


def index_shape(c: Machine) -> int:
    """The row of a neuron or presynaptic unit in the memories of the neuron lanes."""
    return bits_for(max(c.capacity.neuron_rows, c.capacity.unit_rows))


def mul_port(c: Machine) -> MulPort:
    """The multipliers that neurons share.

    A leakage factor or a delta is multiplied by a membrane, a trace or a surrogate derivative; 1 / alpha by a sum."""
    lazy = (c.reciprocal_bits + 1, c.grad.bits) if c.lazy else (0, 0)
    return MulPort(max(c.alpha_frac + 2, c.delta.bits, lazy[0]), max(c.u.bits, c.trace.bits, 14, lazy[1]))


def membrane_in(c: Machine) -> data.StructLayout:
    """One neuron (or input unit) before a time step."""
    return data.StructLayout(
        {
            "index": index_shape(c),
            "first": 1,  # step 0: every old value counts as 0
            "unit": 1,  # an input unit: only its weight trace matters, and `event` is its spike
            "event": 1,
            "valued": 1,  # the event of an input unit has a value,
            "value": PIXEL_FRAC,  # a fraction of 256, and is no spike
            "u": signed(c.u.bits),
            "s": 1,
            "theta": signed(c.u.bits),
            "theta_trace": signed(c.trace.bits),
            "alpha_trace": signed(c.u.bits),
            "weight_trace": signed(c.trace.bits),
            "current": signed(c.u.bits),
            "alpha": c.alpha_frac + 1,  # of the neuron's layer
            "alpha_next": c.alpha_frac + 1,  # of the layer it feeds
        }
    )


def membrane_out(c: Machine) -> data.StructLayout:
    """The same neuron after the step."""
    return data.StructLayout(
        {
            "index": index_shape(c),
            "unit": 1,
            "u": signed(c.u.bits),
            "s": 1,
            "theta_trace": signed(c.trace.bits),
            "alpha_trace": signed(c.u.bits),
            "weight_trace": signed(c.trace.bits),
        }
    )


def delta_in(c: Machine) -> data.StructLayout:
    """One neuron's error. In the last layer (`output`) it comes from the table, at row 4 firing + 2 s + label."""
    return data.StructLayout(
        {
            "index": index_shape(c),
            "output": 1,
            "graded": 1,  # or from another table, at row 256 label + 128 + 32 (U - theta)
            "label": 1,  # the neuron stands for the sample's class
            "firing": bits_for(c.capacity.classes + 1),  # spikes of the last layer in this step
            "error": signed(c.delta.bits),
            "u": signed(c.u.bits),
            "s": 1,
            "theta": signed(c.u.bits),
        }
    )


def delta_out(c: Machine) -> data.StructLayout:
    return data.StructLayout({"index": index_shape(c), "delta": signed(c.delta.bits)})


def gradient_in(c: Machine) -> data.StructLayout:
    """One neuron's delta beside its traces."""
    return data.StructLayout(
        {
            "index": index_shape(c),
            "first": 1,
            "learn_t": 1,
            "learn_l": 1,
            "delta": signed(c.delta.bits),
            "theta_trace": signed(c.trace.bits),
            "alpha_trace": signed(c.u.bits),
            "frame_trace": signed(c.trace.bits),  # c of a held frame
            "input_grad": signed(c.delta.bits),  # D so far
            "final": 1,  # step T-1
            "delta_sum": signed(c.grad.bits),  # lazy learning: H so far
            "reciprocal": c.reciprocal_bits,  # lazy learning: 1 / alpha
        }
    )


def gradient_out(c: Machine) -> data.StructLayout:
    return data.StructLayout(
        {
            "index": index_shape(c),
            "theta_grad": signed(c.grad.bits),
            "alpha_grad": signed(c.grad.bits),
            "input_grad": signed(c.delta.bits),
            "delta_sum": signed(c.grad.bits),  # lazy learning: H
            "lane_sum": signed(c.grad.bits),  # the same for the lanes, or K after step T-1
        }
    )


def threshold_in(c: Machine) -> data.StructLayout:
    """A threshold and its gradient, with the learning rate 2**-rate."""
    return data.StructLayout({"index": index_shape(c), "rate": 4, "theta": signed(c.u.bits), "grad": signed(c.grad.bits)})


def threshold_out(c: Machine) -> data.StructLayout:
    return data.StructLayout({"index": index_shape(c), "theta": signed(c.u.bits)})


def row_op(c: Machine) -> data.StructLayout:
    """A row of weights, read in all lanes at once."""
    return data.StructLayout(
        {
            "row": bits_for(c.capacity.weight_rows),
            "delta_row": bits_for(c.capacity.delta_rows),
            "first": 1,  # of a sum
            "last": 1,  # of a sum: it leaves the lanes
            "group": bits_for(c.lane_groups),  # whose weights they are,
            "unit": bits_for(max(c.capacity.fan_in, c.listed_deltas)),  # and of which input
        }
    )


def operand_bits(c: Machine) -> int:
    """Bits of the operand that multiplies a row in all lanes: a pixel, a spike (256) or a weight trace, signed.

    If layers are banked by their inputs it may be a delta, too."""
    return max(PIXEL_FRAC + 2, c.trace.bits, c.turned(c.delta.bits))


def own_operand_bits(c: Machine) -> int:
    """Bits of what a lane multiplies of its own, signed: a delta; of a layer banked by its inputs a trace, or a spike (256)."""
    return max(c.delta.bits, c.turned(c.trace.bits), c.turned(PIXEL_FRAC + 2))


def lane_multiplier(c: Machine, learned_bits: int) -> tuple[int, int]:
    """Bits of the two operands of a lane's multiplier."""
    return max(c.w.bits, learned_bits), max(operand_bits(c), own_operand_bits(c))


def own_word(c: Machine) -> data.StructLayout:
    """What neurons send to their lanes: a delta, or a trace and a spike, from each neuron lane; those in `mask` are of a neuron."""
    value = signed(max(c.delta.bits, c.turned(c.trace.bits)))
    return data.StructLayout({"mask": c.neuron_lanes, "lane": data.ArrayLayout(value, c.neuron_lanes), "spike": c.neuron_lanes})


def row_layout(fields: dict[str, int]) -> data.StructLayout:
    """A row of a sequencer's program (hw/program.py)."""
    return data.StructLayout(fields)
