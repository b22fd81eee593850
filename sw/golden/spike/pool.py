"""What the layers above see of a layer: each neuron, or the mean over k x k of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hw.notation import Population
from hw.numbers import ceil_log2


class Single:
    """Each neuron is a unit."""

    shift = 0
    """Bits that a unit's error has more than its neurons'."""

    def __init__(self, population: Population) -> None:
        self.unit_of = torch.arange(population.size)

    def values(self, x: Tensor) -> Tensor:
        """Values of the units from those of the neurons."""
        return x

    def errors(self, error: Tensor) -> Tensor:
        """Error sums of the neurons from those of the units."""
        return error


class MeanPool:
    """k x k neurons of a channel are a unit; those left over at the border reach nothing."""

    def __init__(self, population: Population) -> None:
        (channels, height, width), k = population.shape, population.pool
        self.shift, self._units = 2 * ceil_log2(k), population.units
        rows, columns = np.arange(height) // k, np.arange(width) // k
        inside = (rows < height // k)[:, None, None] & (columns < width // k)[None, :, None]
        unit = (rows[:, None, None] * (width // k) + columns[None, :, None]) * channels + np.arange(channels)
        self.unit_of = torch.from_numpy(np.where(inside, unit, self._units).reshape(-1).astype(np.int64))

    def values(self, x: Tensor) -> Tensor:
        total = x.new_zeros(self._units + 1).index_add_(0, self.unit_of, x)[:-1]
        return total >> self.shift

    def errors(self, error: Tensor) -> Tensor:
        return torch.cat([error, error.new_zeros(1)])[self.unit_of]


def pool(population: Population) -> Single | MeanPool:
    return MeanPool(population) if population.pool > 1 else Single(population)
