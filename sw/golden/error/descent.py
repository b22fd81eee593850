"""Updates of thresholds and leakages."""

from __future__ import annotations

from torch import Tensor

from hw.config import Config
from sw.golden.fixed import round_shift, saturate


def thresholds(theta: Tensor, grad: Tensor, rate: int, config: Config) -> Tensor:
    """Thresholds (N,), format `u`, after a step at learning rate 2**-rate; never below `theta_min`."""
    return saturate(theta - round_shift(grad, config.theta_shift(rate)), config.u).clamp_(min=config.theta_min)


def leakage(alpha: int, grad: int, layer: int, rate: int, config: Config) -> int:
    """The layer's leakage factor, alpha_min .. 2**alpha_frac, after a step along the mean of its neurons' gradients (`grad` is their sum)."""
    return min(max(alpha - round_shift(grad, config.alpha_shift(layer, rate)), config.alpha_min), config.alpha_one)
