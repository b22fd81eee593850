"""What travels on the streams between blocks: every payload and every field, written once."""

from __future__ import annotations

from amaranth.hdl import ShapeLike, Value, signed
from amaranth.lib import data

from hw.config import PIXEL_FRAC, Config, ceil_log2
from hw.pipeline import MulPort


def bits_for(n: int) -> int:
    """Bits of an index below n, at least one."""
    return max(1, ceil_log2(n))


def index_shape(c: Config) -> int:
    """The row of a neuron or presynaptic unit in the memories of the neuron lanes."""
    return bits_for(max(c.neuron_rows, c.unit_rows))


def neuron_word(c: Config, bits: int) -> data.StructLayout:
    """A signed number from each neuron lane; those in `mask` are of a neuron."""
    return data.StructLayout({"mask": c.neuron_lanes, "lane": data.ArrayLayout(signed(bits), c.neuron_lanes)})


def mul_port(c: Config) -> MulPort:
    """The multipliers that neurons share: a leakage factor or a delta, times a membrane, a trace or a surrogate derivative; 1 / alpha times a sum."""
    lazy = (c.reciprocal_bits + 1, c.grad.bits) if c.lazy else (0, 0)
    return MulPort(max(c.alpha_frac + 2, c.delta.bits, lazy[0]), max(c.u.bits, c.trace.bits, 14, lazy[1]))


def membrane_in(c: Config) -> data.StructLayout:
    """One neuron (or input unit) before a time step."""
    return data.StructLayout(
        {
            "index": index_shape(c),
            "first": 1,  # step 0: every old value counts as 0
            "unit": 1,  # an input unit: only its weight trace matters, and `event` is its spike
            "event": 1,
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


def membrane_out(c: Config) -> data.StructLayout:
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


def delta_in(c: Config) -> data.StructLayout:
    """One neuron's error. In the last layer (`output`) it comes from the table, at row 4 firing + 2 s + label."""
    return data.StructLayout(
        {
            "index": index_shape(c),
            "output": 1,
            "label": 1,  # the neuron stands for the sample's class
            "firing": bits_for(c.classes + 1),  # spikes of the last layer in this step
            "error": signed(c.delta.bits),
            "u": signed(c.u.bits),
            "s": 1,
            "theta": signed(c.u.bits),
        }
    )


def delta_out(c: Config) -> data.StructLayout:
    return data.StructLayout({"index": index_shape(c), "delta": signed(c.delta.bits)})


def gradient_in(c: Config) -> data.StructLayout:
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
        }
        | ({"final": 1, "delta_sum": signed(c.grad.bits), "reciprocal": c.reciprocal_bits} if c.lazy else {})  # step T-1; H so far; 1 / alpha
    )


def gradient_out(c: Config) -> data.StructLayout:
    return data.StructLayout(
        {
            "index": index_shape(c),
            "theta_grad": signed(c.grad.bits),
            "alpha_grad": signed(c.grad.bits),
            "input_grad": signed(c.delta.bits),
        }
        | ({"delta_sum": signed(c.grad.bits), "lane_sum": signed(c.grad.bits)} if c.lazy else {})  # H; for the lanes H, or K after step T-1
    )


def threshold_in(c: Config) -> data.StructLayout:
    """A threshold and its gradient, with the learning rate 2**-rate."""
    return data.StructLayout({"index": index_shape(c), "rate": 4, "theta": signed(c.u.bits), "grad": signed(c.grad.bits)})


def threshold_out(c: Config) -> data.StructLayout:
    return data.StructLayout({"index": index_shape(c), "theta": signed(c.u.bits)})


def by_address(c: Config, shape: ShapeLike) -> ShapeLike:
    """`shape` once, or for each of the weight rows that are read at once (`Config.addresses`)."""
    return shape if c.addresses == 1 else data.ArrayLayout(shape, c.addresses)


def each_address(c: Config, value: Value) -> list[Value]:
    """The parts of what has such a shape."""
    bits = len(value) // c.addresses
    return [value] if c.addresses == 1 else [value[n * bits : (n + 1) * bits] for n in range(c.addresses)]


def operand_bits(c: Config) -> int:
    """Bits of what multiplies a row: a pixel, a spike (256) or a weight trace, signed."""
    return max(PIXEL_FRAC + 2, c.trace.bits)


def current_sum_bits(c: Config) -> int:
    """Bits of an exact sum of w * x over the widest fan-in, with room for the rounding half."""
    return ceil_log2((max(c.sizes[:-1]) << (c.w.bits - 1 + PIXEL_FRAC)) + (1 << c.current_shift)) + 1


def error_sum_bits(c: Config) -> int:
    """Bits of an exact sum of w * delta over the largest layer behind another, with room for the rounding half."""
    return ceil_log2((max(c.sizes[2:]) << (c.w.bits + c.delta.bits - 2)) + (1 << c.w.f)) + 1
