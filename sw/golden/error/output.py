"""Output errors from a table, and the two tables a host loads."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hw.network import Network
from hw.numbers import PHI_ENTRIES, PHI_FRAC, PHI_STEP_FRAC
from sw.golden.fixed import raw

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


def surrogate_table() -> np.ndarray:
    """exp(-|v|) by |v| in steps of 1/32, each at the middle of its step, (256,) int64 with 12 fraction bits."""
    middle = (np.arange(PHI_ENTRIES) + 0.5) / (1 << PHI_STEP_FRAC)
    return raw(np.exp(-middle), 1 << PHI_FRAC, 0, (1 << PHI_FRAC) - 1)
