"""The weights of a projection, and the exact sums over them: forward, backward, and of products for a gradient.

Twin of what lanes and sweeper do in the gateware. Neurons and units of a shape (C, H, W) count place by place, channels fastest:
number (y W + x) C + c. Weights are (N, M), a row a neuron; those of a convolution (channels, k k channels below), a row a filter,
whose column (ky k + kx) C + c belongs to the tap (ky, kx) and the channel c below.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hw.network import Network, Synapses
from hw.notation import Conv, Shape


def in_order(array: np.ndarray, shape: Shape) -> np.ndarray:
    """The last axes of an array, (C, H, W) or (N,), flattened as neurons and units count."""
    lead = array.shape[: array.ndim - len(shape)]
    return np.moveaxis(array, -3, -1).reshape(*lead, -1) if len(shape) == 3 else array


def shaped(flat: Tensor, shape: Shape) -> Tensor:
    """A view of what counts so, in the last axis of `flat`, as (C, H, W) or (N,)."""
    if len(shape) == 1:
        return flat
    channels, height, width = shape
    return flat.unflatten(-1, (height, width, channels)).movedim(-1, -3)


class Visit(NamedTuple):
    """What a machine visits in a layer: so many neurons together, if one of them has a delta, and also inputs that are silent."""

    neurons: int
    all_inputs: bool


EVERY = Visit(1, False)
"""Each neuron and input that is not zero, and no other: what no machine could skip."""


class Weights:
    """Weights (N, M) and, where gradients gather, as many gradients, of one projection."""

    def __init__(self, config: Network, synapses: Synapses) -> None:
        self.synapses = synapses
        rows = synapses.weight_shape[0]
        self.weight = torch.zeros(rows, synapses.fan_in, dtype=torch.int64)
        self.grad = torch.zeros_like(self.weight) if config.gathers(synapses.layer) else None

    taps: Tensor | None = None
    """Of shared weights: the first unit behind each tap of each place (places, k k), or -1 beyond the border."""

    def shaped(self, matrix: Tensor) -> Tensor:
        """A view of an (N, M) array in the shape that a host sees."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Sums of weight times `x` (units,), one a neuron."""
        raise NotImplementedError

    def backward(self, delta: Tensor) -> Tensor:
        """Sums of weight times `delta` (neurons,), one a unit."""
        raise NotImplementedError

    def products(self, delta: Tensor, x: Tensor) -> Tensor:
        """Sums of `delta` (neurons,) times `x` (units,), one a weight."""
        raise NotImplementedError

    def pairs(self, delta: Tensor | None, x: Tensor | None, visit: Visit) -> int:
        """Pairs of a neuron and a unit that it sees which are visited, since `delta` and `x` are not zero; None: all."""
        raise NotImplementedError


class DenseWeights(Weights):
    """Every unit reaches every neuron."""

    def shaped(self, matrix: Tensor) -> Tensor:
        return shaped(matrix, self.synapses.below)

    def forward(self, x: Tensor) -> Tensor:
        return torch.mv(self.weight, x)

    def backward(self, delta: Tensor) -> Tensor:
        return torch.mv(self.weight.T, delta)

    def products(self, delta: Tensor, x: Tensor) -> Tensor:
        return torch.outer(delta, x)

    def pairs(self, delta: Tensor | None, x: Tensor | None, visit: Visit) -> int:
        neurons, start = self.synapses.above[0], np.arange(0, self.synapses.above[0], visit.neurons)
        if delta is not None:
            neurons = int(np.logical_or.reduceat(delta.numpy(), start) @ np.diff(start, append=neurons))
        return neurons * (self.synapses.units if x is None or visit.all_inputs else int(x.count_nonzero()))


class ConvWeights(Weights):
    """A convolution as a matrix over the patch that each place sees."""

    def __init__(self, config: Network, synapses: Synapses) -> None:
        super().__init__(config, synapses)
        self.taps, below = torch.from_numpy(taps(synapses)), synapses.below[0]
        behind = self.taps[..., None] + torch.arange(below)
        self._taps = torch.where(self.taps[..., None] < 0, synapses.units, behind).flatten(1)  # (places, M)
        self._sees = self._taps < synapses.units
        self._channels = synapses.above[0]

    def shaped(self, matrix: Tensor) -> Tensor:
        kernel = self.synapses.weight_shape[-1]
        return shaped(matrix, (self.synapses.below[0], kernel, kernel))

    def _patches(self, x: Tensor) -> Tensor:
        """(places, M); a tap beyond the border is 0."""
        return torch.cat([x, x.new_zeros(1)])[self._taps]

    def forward(self, x: Tensor) -> Tensor:
        return _exact(self._patches(x), self.weight.T).flatten()

    def backward(self, delta: Tensor) -> Tensor:
        errors = _exact(delta.view(-1, self._channels), self.weight)
        return errors.new_zeros(self.synapses.units + 1).index_add_(0, self._taps.flatten(), errors.flatten())[:-1]

    def products(self, delta: Tensor, x: Tensor) -> Tensor:
        return _exact(delta.view(-1, self._channels).T, self._patches(x))

    def pairs(self, delta: Tensor | None, x: Tensor | None, visit: Visit) -> int:
        neurons = self._channels if delta is None else delta.view(-1, self._channels).count_nonzero(1)[:, None]
        return int((neurons * (self._sees if x is None else self._patches(x) != 0)).sum())


def taps(synapses: Synapses) -> np.ndarray:
    """The first unit behind each tap of each place, (places, k k); a tap beyond the border is -1."""
    kind, (channels, height, width), above = synapses.projection.kind, synapses.below, synapses.above
    assert isinstance(kind, Conv)
    rows, columns = (np.arange(n)[:, None] * kind.stride + np.arange(kind.kernel) - kind.padding for n in above[1:])
    y, x = rows[:, None, :, None], columns[None, :, None, :]  # place y, place x, tap y, tap x
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return np.where(inside, (y * width + x) * channels, -1).astype(np.int64).reshape(math.prod(above[1:]), -1)


def weights(config: Network, synapses: Synapses) -> Weights:
    """The weights of a projection, by its kind."""
    return (ConvWeights if isinstance(synapses.projection.kind, Conv) else DenseWeights)(config, synapses)


def _exact(a: Tensor, b: Tensor) -> Tensor:
    """A product of matrices of integers. All partial sums are below 2**53 (docs/numerics.md), so that float64 carries them."""
    return (a.double() @ b.double()).long()
