"""Updates of thresholds and leakages."""

from __future__ import annotations

from torch import Tensor

from hw.network import Network
from sw.golden.fixed import round_shift, saturate


def thresholds(theta: Tensor, grad: Tensor, rate: int, config: Network) -> Tensor:
    """Thresholds (N,), format `u`, after a step at learning rate 2**-rate; never below `theta_min`."""
    return saturate(theta - round_shift(grad, config.theta_shift(rate)), config.u).clamp_(min=config.theta_min)


def leakage(alpha: int, grad: int, neurons: int, rate: int, config: Network) -> int:
    """A layer's leakage factor, alpha_min .. 2**alpha_frac, after a step along the mean of its neurons' gradients.

    `grad` is the sum of these gradients."""
    return min(max(alpha - round_shift(grad, config.mean_shift(neurons) + rate), config.alpha_min), config.alpha_one)
