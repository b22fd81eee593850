"""Output errors from a table, and the two tables a host loads."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hw.network import Network
from hw.numbers import GRADED_ENTRIES, PHI_ENTRIES, PHI_FRAC, PHI_STEP_FRAC
from sw.golden.fixed import floor_shift, raw, saturate

LOSSES = ("cross_entropy", "mse")


def output_error(table: Tensor, spike: Tensor, target: Tensor) -> Tensor:
    """Errors (C,), format `delta`: table[k][s][y] with k spikes in all; `target` (C,) is 1 for the label, else 0."""
    return table[int(spike.sum())].flatten().take(torch.add(target, spike, alpha=2))


def error_table(config: Network, loss: str = "cross_entropy", *, beta: float = 1.0, scale: float = 1.0) -> np.ndarray:
    """The output errors dE/ds for every case, (C+1, 2, 2) int64 in format `delta`, indexed by k, s and y.

    `cross_entropy`: E = -log softmax(beta s)[label], so that dE/ds = beta (p - y). `mse`: E = |s - y|^2 / 2, dE/ds = s - y
    (`beta` has no effect). `scale` multiplies the errors. What exceeds the format is clipped.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss: {loss} is not legal; legal is {' or '.join(LOSSES)}")
    k, s, y = np.ogrid[0 : config.classes + 1, 0:2, 0:2]
    p = np.exp(beta * (s - 1)) / (k + (config.classes - k) * np.exp(-beta))  # softmax, both parts divided by exp(beta)
    error = s - y + 0 * p if loss == "mse" else beta * (p - y)
    return raw(error * scale, config.delta.one, config.delta.low, config.delta.high)


def graded_error(table: Tensor, membrane: Tensor, theta: Tensor, target: Tensor, config: Network) -> Tensor:
    """Deltas (C,) of the last layer: table[y][a], a the distance U - theta in steps of 1/32; `target` (C,) is 1 for the label."""
    distance = floor_shift(saturate(membrane - theta, config.u), config.u.f - PHI_STEP_FRAC)
    return table[target, (distance + GRADED_ENTRIES // 2).clamp_(0, GRADED_ENTRIES - 1)]


def graded_table(config: Network, *, scale: float = 0.5, band: float = 0.03) -> np.ndarray:
    """The graded error scale (sigmoid(2 v) - y) by y and v = U - theta, (2, 256) int64 in format `delta`.

    Each entry stands for a step of 1/32 from v = -4 on, at its middle. What is below `band` is 0, and teaches nothing."""
    v = (np.arange(GRADED_ENTRIES) + 0.5 - GRADED_ENTRIES // 2) / (1 << PHI_STEP_FRAC)
    error = scale * (1 / (1 + np.exp(-2 * v)) - np.arange(2)[:, None])
    return raw(np.where(abs(error) < band, 0, error), config.delta.one, config.delta.low, config.delta.high)


SURROGATES = {"exponential": lambda v: np.exp(-v), "triangular": lambda v: np.maximum(0, 1 - v / 2)}
"""Surrogate derivatives by |v|."""


def surrogate_table(kind: str = "exponential") -> np.ndarray:
    """A surrogate derivative by |v| in steps of 1/32, each at the middle of its step, (256,) int64 with 12 fraction bits."""
    if kind not in SURROGATES:
        raise ValueError(f"surrogate: {kind} is not legal; legal is {' or '.join(SURROGATES)}")
    middle = (np.arange(PHI_ENTRIES) + 0.5) / (1 << PHI_STEP_FRAC)
    return raw(SURROGATES[kind](middle), 1 << PHI_FRAC, 0, (1 << PHI_FRAC) - 1)
