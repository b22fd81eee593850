"""Neurons and their traces in one time step. Twin of the gateware in `hw/spike/`.

Every value is a raw integer (int64 tensors). Layers may stand side by side in one tensor: `alpha` is then one factor a neuron.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hw.network import Network
from hw.numbers import PIXEL_FRAC
from sw.golden.fixed import floor_shift, saturate


class Leaked(NamedTuple):
    """N neurons before this step's current arrives, (N,) each."""

    membrane: Tensor
    """Old membrane, reset and leaked, format `u`."""
    theta_trace: Tensor
    """Format `trace`."""
    alpha_trace: Tensor
    """Format `u`."""


def leak(
    membrane: Tensor, spike: Tensor, theta_trace: Tensor, alpha_trace: Tensor, theta: Tensor, alpha: Tensor | int, config: Network
) -> Leaked:
    """Soft reset after the last step's spike, leak, and the traces of threshold and leakage.

    Old state and `theta`, (N,); `alpha` is the leakage factor, `alpha_frac` fraction bits.
    """
    c, frac = config, config.alpha_frac
    rest = saturate(torch.addcmul(membrane, theta, spike, value=-1), c.u)
    return Leaked(
        membrane=floor_shift(rest * alpha, frac),
        theta_trace=floor_shift(saturate(torch.sub(theta_trace, spike, alpha=c.trace.one), c.trace).mul_(alpha), frac),
        alpha_trace=saturate(floor_shift(alpha_trace * alpha, frac).add_(rest), c.u),
    )


def fire(leaked: Tensor, current: Tensor, theta: Tensor, config: Network) -> tuple[Tensor, Tensor]:
    """Integrate and fire: membrane (format `u`) and spike (0 or 1) from the leaked membrane and the current, (N,) each."""
    membrane = saturate(leaked + current, config.u)
    return membrane, torch.ge(membrane, theta).long()


def weight_trace(old: Tensor, value: Tensor, alpha: Tensor | int, config: Network) -> Tensor:
    """Presynaptic traces (N,), format `trace`: leak with `alpha` of the *next* layer, add the `value` in 1/256.

    A spike has the value 256."""
    return saturate(floor_shift(old * alpha, config.alpha_frac).add_(value << (config.trace.f - PIXEL_FRAC)), config.trace)
