"""Number formats, and every constant of the numerics contract (docs/numerics.md).

Nothing here imports Amaranth or PyTorch, so that every side can afford to import it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

PIXEL_FRAC = 8  # a pixel byte is a fraction of 256; a spike is 256, that is 1.0
PHI_FRAC = 12  # surrogate derivative, unsigned, below 1.0
PHI_ENTRIES = 256  # length of the surrogate table
PHI_STEP_FRAC = 5  # table entry a stands for |v| in [a/32, (a+1)/32)
RECIPROCAL_BITS = 2  # lazy learning: 1/alpha is at most 2**RECIPROCAL_BITS
GROWTH_BITS = 4  # lazy learning: a delta may grow to 2**GROWTH_BITS times itself until the sample ends
GRADED_ENTRIES = 256  # of the graded error, for U - theta from -4 on in steps of 1/32, for either label
DECAY_SAMPLES = 16  # weights decay once in so many samples
RATE_MAX = 15  # a learning rate is 2**-k with k in 0..RATE_MAX
BATCH_MAX = 256  # samples of a batch
STEPS_MAX = 255  # time steps of a sample
LAYERS_MAX = 16
UNITS_MAX = 1 << 16  # inputs, or neurons of a layer
CLASSES_MAX = 256
LEARN_W, LEARN_T, LEARN_L = 1, 2, 4  # bits of register `learn`: weights, thresholds, leakages
NEURON_MULTIPLIERS = 4  # that a neuron lane uses at once
SUM_BITS = 32  # of A, the leakage gradient, in a machine, at most
SUM_BITS_MAX = 48  # of A in any network
HOST_BITS = 32  # of a word that a host reads or writes
FORMATS = ("w", "u", "trace", "delta", "grad")


@dataclass(frozen=True)
class Q:
    """Two's complement fixed point: `i` integer bits (sign included) and `f` fraction bits."""

    i: int
    f: int

    @property
    def bits(self) -> int:
        return self.i + self.f

    @property
    def low(self) -> int:
        """Least raw value."""
        return -(1 << (self.bits - 1))

    @property
    def high(self) -> int:
        """Greatest raw value."""
        return (1 << (self.bits - 1)) - 1

    @property
    def one(self) -> int:
        """Raw value of 1.0."""
        return 1 << self.f

    def __str__(self) -> str:
        return f"Q({self.i},{self.f})"


def ceil_log2(n: int) -> int:
    """Least k with 2**k >= n, for n >= 1."""
    return (n - 1).bit_length()


def ceil_div(n: int, parts: int) -> int:
    """n / parts, rounded up."""
    return -(-n // parts)


def bits_for(n: int) -> int:
    """Bits of an index below n, at least one."""
    return max(1, ceil_log2(n))


MEAN_BITS = 15


def mean_factor(n: int) -> int:
    """A mean over `n` values is their sum, shifted by ceil(log2 n), times this, shifted by MEAN_BITS, both times to nearest."""
    return ((1 << MEAN_BITS + ceil_log2(n)) + n // 2) // n


def whole(value: object) -> bool:
    """Whether `value` is an integer, and not a truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """The formats that a network's numbers have, and a machine is built for."""

    w: Q = Q(4, 12)
    """Weights."""
    u: Q = Q(4, 12)
    """Membranes, currents, thresholds and the leakage trace."""
    trace: Q = Q(4, 8)
    """Weight and threshold traces."""
    delta: Q = Q(4, 8)
    """Errors: output table, back-propagated error, delta."""
    grad: Q = Q(4, 12)
    """Gradients of weights and thresholds."""
    alpha_frac: int = 12
    """Fraction bits of a leakage factor, which lies in 0 .. 2**alpha_frac (1.0)."""
    theta_min: int = 256
    """Floor of a threshold, raw in format `u`."""

    def __post_init__(self) -> None:
        for name in FORMATS:
            q = getattr(self, name)
            if not (isinstance(q, Q) and q.i >= 1 and q.f >= 0 and 4 <= q.bits <= 18):
                raise self.bad(name, "Q(i, f) with i >= 1 (the sign is one of them), f >= 0 and 4 to 18 bits in all")
        if not (whole(self.alpha_frac) and 4 <= self.alpha_frac <= 16):
            raise self.bad("alpha_frac", "a whole number of 4 to 16")
        if self.u.f < PHI_STEP_FRAC:
            raise self.bad("u", f"at least {PHI_STEP_FRAC} fraction bits (the surrogate table's resolution)")
        if self.w.f + PIXEL_FRAC < self.u.f:
            raise self.bad("w", f"at least {self.u.f - PIXEL_FRAC} fraction bits, so that a current has no fewer than u = {self.u}")
        if self.trace.f < PIXEL_FRAC or self.trace.i < 2:
            raise self.bad("trace", f"at least 2 integer and {PIXEL_FRAC} fraction bits (it holds 1.0 and a pixel exactly)")
        if self.u.i < 2:
            raise self.bad("u", "at least 2 integer bits (it holds 1.0)")
        for name in ("w", "u"):
            if self.grad.f < getattr(self, name).f:
                raise self.bad("grad", f"at least as many fraction bits as {name} = {getattr(self, name)}")
        if self.grad.f < self.alpha_frac:
            raise self.bad("grad", f"at least alpha_frac = {self.alpha_frac} fraction bits")
        if self.delta.f + min(self.trace.f, self.u.f) < self.grad.f:
            raise self.bad("grad", f"at most {self.delta.f + min(self.trace.f, self.u.f)} fraction bits (those of the product)")
        if not (whole(self.theta_min) and 1 <= self.theta_min <= self.u.high):
            raise self.bad("theta_min", f"a whole number of 1 to {self.u.high}")

    def bad(self, field: str, legal: str) -> ValueError:
        """The error that says of a field what is legal."""
        return ValueError(f"{field}: {getattr(self, field)!s} is not legal; legal is {legal}")

    @property
    def formats(self) -> dict[str, Any]:
        """The fields of Numbers, by name."""
        return {field.name: getattr(self, field.name) for field in fields(Numbers)}

    # -- shifts: the only places where fraction bits are dropped --------------------------------
    @property
    def current_shift(self) -> int:
        """sum of w * x to a current."""
        return self.w.f + PIXEL_FRAC - self.u.f

    @property
    def weight_grad_shift(self) -> int:
        """delta * weight trace (or delta * threshold trace) to a gradient."""
        return self.delta.f + self.trace.f - self.grad.f

    @property
    def alpha_grad_shift(self) -> int:
        """delta * leakage trace to a gradient."""
        return self.delta.f + self.u.f - self.grad.f

    @property
    def weight_unit(self) -> int:
        """A weight times 2**weight_unit is what a delta times a trace is to a gradient: the gradient of a weight that decays."""
        return self.delta.f + self.trace.f - self.w.f

    def weight_shift(self, rate: int) -> int:
        """Gradient to weight update at learning rate 2**-rate."""
        return self.grad.f - self.w.f + rate

    def theta_shift(self, rate: int) -> int:
        """Gradient to threshold update at learning rate 2**-rate."""
        return self.grad.f - self.u.f + rate

    def mean_shift(self, neurons: int) -> int:
        """Summed leakage gradient of a layer to leakage update at learning rate 1.

        The mean divides by the layer's size, rounded up to a power of two."""
        return self.grad.f - self.alpha_frac + ceil_log2(neurons)

    @property
    def alpha_one(self) -> int:
        """Raw value of a leakage factor of 1.0."""
        return 1 << self.alpha_frac

    @property
    def reciprocal_bits(self) -> int:
        """Lazy learning: bits of 1/alpha, unsigned, `alpha_frac` of them fraction."""
        return self.alpha_frac + RECIPROCAL_BITS + 1
