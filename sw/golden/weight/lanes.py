"""From the exact sums over synapses to currents, errors and gradients, and from these to new weights.

A weight matrix is (N, M): N neurons or filters, M inputs. Sums over synapses are exact (int64), so their order is free.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hw.network import Network
from hw.numbers import MEAN_BITS, PIXEL_FRAC, ceil_log2, mean_factor
from sw.golden.fixed import dither_shift, round_shift, saturate


def current(total: Tensor, config: Network) -> Tensor:
    """Currents (N,), format `u`, from the sums of weights times inputs; an input is a pixel byte, or 256 for a spike."""
    return saturate(round_shift(total, config.current_shift), config.u)


def error(total: Tensor, shift: int, config: Network) -> Tensor:
    """Errors (M,), format `delta`, from the sums of weights times deltas above; `shift`: bits more than `w.f`, of pooled units."""
    return saturate(round_shift(total, config.w.f + shift), config.delta)


def gradient(total: Tensor, config: Network) -> Tensor:
    """Weight gradients (N, M), format `grad`, from the sums over places of deltas times weight traces."""
    return saturate(round_shift(total, config.weight_grad_shift), config.grad)


def frame_factor(pixels: Tensor, config: Network, *, centred: bool = False) -> Tensor:
    """What a frame (M,) is in the gradient of dense or shared weights behind it, format `trace`; `centred`: less its mean."""
    return (pixels - mean(pixels, -1) if centred else pixels) << (config.trace.f - PIXEL_FRAC)


def mean(values: Tensor, axis: int) -> Tensor:
    """Means along an axis, rounded to nearest, by a factor instead of a division (docs/numerics.md)."""
    n = values.shape[axis]
    return round_shift(round_shift(values.sum(axis), ceil_log2(n)) * mean_factor(n), MEAN_BITS)


def centre(grad: Tensor, config: Network) -> Tensor:
    """Gradients (N, M) less the mean of their neuron or filter, format `grad`."""
    return saturate(grad - mean(grad, 1)[:, None], config.grad)


def lazy_gradient(grad: Tensor, delta_sum: Tensor, trace: Tensor, config: Network) -> Tensor:
    """Weight gradients (N, M) of a sample learned lazily: `grad` (N, M) of its events, and K (N,) times the last traces (M,)."""
    return saturate(grad + round_shift(torch.outer(delta_sum, trace), config.trace.f), config.grad)


def descend(weight: Tensor, grad: Tensor, rate: int, config: Network, random: Tensor | None = None) -> Tensor:
    """Weights after an update at learning rate 2**-rate.

    `random` (N, M) holds 32 random bits for each weight where rounding is stochastic; without it, it is to nearest.
    """
    n = config.weight_shift(rate)
    step = round_shift(grad, n) if random is None else dither_shift(grad, n, random)
    return saturate(weight - step, config.w)


def left_over(grad: Tensor, rate: int, config: Network) -> Tensor:
    """What an update with gradients `grad` (N, M), rounded to nearest, leaves of them."""
    n = config.weight_shift(rate)
    return grad - (round_shift(grad, n) << n)


def decay(weight: Tensor, rate: int, config: Network, random: Tensor) -> Tensor:
    """Weights (N, M) less 2**-rate of themselves, rounded by the bits `random` (N, M)."""
    return descend(weight, weight << config.weight_shift(0), rate, config, random)
