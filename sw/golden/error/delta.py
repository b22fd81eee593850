"""From an error to delta, and from delta to the gradients of thresholds, leakages and a static input. Raw integers, (N,) each."""

from __future__ import annotations

import torch
from torch import Tensor

from hw.network import Network
from hw.numbers import PHI_ENTRIES, PHI_FRAC, PHI_STEP_FRAC
from sw.golden.fixed import floor_shift, round_shift, saturate


def surrogate(membrane: Tensor, theta: Tensor, table: Tensor, config: Network) -> Tensor:
    """Surrogate derivative by the distance |U - theta| (format `u`), 12 fraction bits."""
    distance = saturate(membrane - theta, config.u).abs_()
    return table.take(floor_shift(distance, config.u.f - PHI_STEP_FRAC).clamp_(max=PHI_ENTRIES - 1))


def delta(error: Tensor, phi: Tensor, config: Network) -> Tensor:
    """delta = error * phi, format `delta`."""
    return saturate(round_shift(error * phi, PHI_FRAC), config.delta)


def theta_products(delta: Tensor, theta_trace: Tensor, config: Network) -> Tensor:
    """delta * (theta trace - 1), of which a threshold's gradient sums those of its neurons."""
    return saturate(theta_trace - config.trace.one, config.trace).mul_(delta)


def theta_gradient(total: Tensor, shift: Tensor | int, config: Network) -> Tensor:
    """Gradients of thresholds, format `grad`, from the sums of `theta_products`; `shift`: bits more, of shared thresholds."""
    return saturate(round_shift(total, shift + config.weight_grad_shift), config.grad)


def alpha_gradient(delta: Tensor, alpha_trace: Tensor, config: Network) -> Tensor:
    """delta * leakage trace, format `grad`; the layer's leakage gradient is the exact sum over its neurons."""
    return saturate(round_shift(delta * alpha_trace, config.alpha_grad_shift), config.grad)


def input_gradient(old: Tensor, delta: Tensor, trace: Tensor, config: Network) -> Tensor:
    """D of a static first layer, format `delta`: the sum over steps of delta times the scalar `trace` of the frame."""
    return saturate(torch.add(old, round_shift(delta * trace, config.trace.f)), config.delta)


def delta_sum(old: Tensor, delta: Tensor, reciprocal: Tensor, config: Network) -> tuple[Tensor, Tensor]:
    """The sums K of deltas and H = K / alpha of lazy learning, format `grad`, after a step.

    `reciprocal` is 1/alpha of each neuron's layer."""
    total = saturate(old + (delta << (config.grad.f - config.delta.f)), config.grad)
    return total, saturate(round_shift(total * reciprocal, config.alpha_frac), config.grad)
