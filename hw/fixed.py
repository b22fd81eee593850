"""The only ways to lose bits (docs/numerics.md), as Amaranth expressions; twin: sw/golden/fixed.py."""

from __future__ import annotations

from amaranth.hdl import C, Cat, Mux, Value

from hw.numbers import Q


def saturate(v: Value, q: Q) -> Value:
    """`v` (signed) clipped to the range of `q`."""
    if not v.shape().signed:
        raise TypeError("saturate: an unsigned value is not legal; legal is a signed one")
    if len(v) <= q.bits:
        return v
    fits = (v[q.bits - 1 :] == 0) | v[q.bits - 1 :].all()
    sign = v[-1]
    limit = Cat((~sign).replicate(q.bits - 1), sign)
    return Mux(fits, v[: q.bits], limit).as_signed()


def floor_shift(v: Value, n: int) -> Value:
    """`v` / 2**n, rounded down."""
    return v >> n


def round_shift(v: Value, n: int) -> Value:
    """`v` / 2**n, rounded to nearest, halves up."""
    return floor_shift(v + rounding(n), n) if n else v


def rounding(n: int) -> int:
    """What turns `floor_shift` by `n` into `round_shift` if it is added before: a multiplier adds it for nothing."""
    return 1 << (n - 1) if n else 0


def dither_shift(v: Value, base: int, rate: Value, dither: Value) -> Value:
    """(`v` + `dither`) / 2**(base + rate), rounded down, for a run-time `rate`.

    `dither` is unsigned and below 2**(base + rate): random bits (`dither_mask`).
    """
    return ((v + dither) >> base) >> rate


def halves(v: Value, base: int, rate: Value) -> Value:
    """`v` / 2**(base + rate) in halves, rounded down: the bit below the point is the one that rounds.

    x - round_shift(v, n) is (2 x - halves(v, n)) >> 1 (`minus_halves`), so rounding at a run-time rate needs no adder of its own.
    """
    return ((v << 1) >> base) >> rate


def minus_halves(x: Value, change: Value) -> Value:
    """`x` less a `change` given in halves, the half rounded up."""
    return ((x << 1) - change) >> 1


def dither_mask(base: int, rate: Value) -> Value:
    """2**(base + rate) - 1, which makes of random bits the `dither` of `dither_shift`."""
    return (((C(1, 1) << base) << rate) - 1)[: base + (1 << len(rate)) - 1]
