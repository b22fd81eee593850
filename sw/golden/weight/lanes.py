"""What synapses do: sum forward, carry errors backward, collect gradients, and learn.

A weight matrix is (N, M): N neurons, M inputs. Sums over synapses are exact (int64), so their order is free.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hw.network import Network
from hw.numbers import PIXEL_FRAC
from sw.golden.fixed import dither_shift, round_shift, saturate


def current(weight: Tensor, x: Tensor, config: Network) -> Tensor:
    """Currents (N,), format `u`, from inputs `x` (M,): a pixel byte, or 256 for a spike."""
    return saturate(round_shift(torch.mv(weight, x), config.current_shift), config.u)


def backward(weight: Tensor, delta: Tensor, config: Network) -> Tensor:
    """Errors (M,) of the layer below, format `delta`, from `delta` (N,) of this layer."""
    return saturate(round_shift(torch.mv(weight.T, delta), config.w.f), config.delta)


def gradient(delta: Tensor, trace: Tensor, config: Network) -> Tensor:
    """Weight gradients (N, M), format `grad`, from `delta` (N,) and the weight traces (M,) of the inputs."""
    return saturate(round_shift(torch.outer(delta, trace), config.weight_grad_shift), config.grad)


def static_gradient(input_grad: Tensor, pixels: Tensor, config: Network) -> Tensor:
    """Weight gradients (N, M), format `grad`, of a static first layer from D (N,) and the frame (M,)."""
    return gradient(input_grad, pixels << (config.trace.f - PIXEL_FRAC), config)


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
