"""Layers of neurons in floating point, and how they see the units below: between a graph and the integers of the core.

A batch of B samples is (B, N) for layers of N units, or (B, C, H, W) for channels of height and width. Units of channels that are
flattened count channel by channel, row by row, as frameworks do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from hw.notation import Conv, Shape


@dataclass(frozen=True)
class Full:
    """Every unit below reaches every neuron: weights (N, M), M units of any shape, flattened."""

    below: Shape
    """Of the units: (M,), or (C, H, W)."""

    def shape(self, rows: int) -> Shape:
        """Of so many neurons."""
        return (rows,)

    def currents(self, weight: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Currents (B, N) from units (B, *below)."""
        return x.reshape(len(x), -1) @ weight.T

    def seen(self, power: np.ndarray) -> np.ndarray:
        """What each weight of a neuron sees, (M,), of a quantity of the units (*below)."""
        return power.reshape(-1)

    constant: ClassVar[tuple[int, ...] | None] = ()
    """Where the weight stands, in those of a constant channel, which adds its value to each current; None if nowhere."""

    def with_channel(self, weight: np.ndarray, values: np.ndarray) -> tuple[Full, np.ndarray]:
        """The same with one more channel below, of units that are always 1: `values` (N,) is what it adds to each neuron."""
        places = math.prod(self.below[1:])
        more = np.column_stack([values, np.zeros((len(weight), places - 1))])
        return replace(self, below=(self.below[0] + 1, *self.below[1:])), np.column_stack([weight, more])

    def without_channel(self, weight: np.ndarray) -> tuple[Full, np.ndarray, np.ndarray]:
        """The inverse: the same without the last channel below, and what it adds (N,)."""
        places = math.prod(self.below[1:])
        below = (self.below[0] - 1, *self.below[1:])
        return replace(self, below=below), weight[:, :-places], weight[:, -places:].sum(1)

    def without_last(self, weight: np.ndarray) -> tuple[Full, np.ndarray]:
        """The same without the last channel below."""
        return self.without_channel(weight)[:2]

    def held(self, weight: np.ndarray) -> np.ndarray:
        """The least that the last channel below adds to a neuron if its units are always 1, (N,)."""
        return self.without_channel(weight)[2]


@dataclass(frozen=True)
class Kernels:
    """A convolution: weights (C, C below, k, k), which every position shares."""

    below: Shape
    """Of the units, (C, H, W)."""
    conv: Conv

    def shape(self, rows: int) -> Shape:
        """Of so many channels of neurons."""
        return (rows, *map(self.conv.size, self.below[1:]))

    def _patches(self, x: np.ndarray) -> np.ndarray:
        """What each position sees of x (..., C, H, W): (..., C, rows, columns, k, k)."""
        conv, lead = self.conv, [(0, 0)] * (x.ndim - 2)
        padded = np.pad(x, [*lead, *[(conv.padding, conv.padding)] * 2])
        windows = np.lib.stride_tricks.sliding_window_view(padded, (conv.kernel, conv.kernel), axis=(-2, -1))
        return windows[..., :: conv.stride, :: conv.stride, :, :]

    def currents(self, weight: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Currents (B, C, rows, columns) from units (B, *below)."""
        return np.moveaxis(np.tensordot(self._patches(x), weight, ([1, 4, 5], [1, 2, 3])), -1, 1)

    def seen(self, power: np.ndarray) -> np.ndarray:
        """What each weight of a channel sees, (C k k,), of a quantity of the units (*below): the mean over all positions."""
        return self._patches(power).mean((1, 2)).reshape(-1)

    @property
    def _inside(self) -> np.ndarray:
        """Whether a tap (k, k) lies within the image, and not in its border, wherever the kernel stands."""
        seen = self._patches(np.ones((1, *self.below[1:]))).min((0, 1, 2))
        return seen > 0

    @property
    def constant(self) -> tuple[int, int] | None:
        """The tap that lies within the image wherever the kernel stands; None if there is none."""
        taps = np.argwhere(self._inside)
        return (int(taps[0][0]), int(taps[0][1])) if len(taps) else None

    def with_channel(self, weight: np.ndarray, values: np.ndarray) -> tuple[Kernels, np.ndarray]:
        """The same with one more channel below, of units that are always 1: `values` (C,) is what it adds to each channel."""
        assert self.constant is not None
        more, (row, column) = np.zeros_like(weight[:, :1]), self.constant
        more[:, 0, row, column] = values
        return replace(self, below=(self.below[0] + 1, *self.below[1:])), np.concatenate([weight, more], 1)

    def without_channel(self, weight: np.ndarray) -> tuple[Kernels, np.ndarray, np.ndarray] | None:
        """The inverse: the same without the last channel below, and what it adds (C,). None if that is not the same everywhere,
        as taps have weights that are in the border at some positions."""
        if weight[:, -1, ~self._inside].any():
            return None
        return *self.without_last(weight), weight[:, -1].sum((1, 2))

    def without_last(self, weight: np.ndarray) -> tuple[Kernels, np.ndarray]:
        """The same without the last channel below."""
        return replace(self, below=(self.below[0] - 1, *self.below[1:])), weight[:, :-1]

    def held(self, weight: np.ndarray) -> np.ndarray:
        """The least that the last channel below adds to a position if its units are always 1, (C,)."""
        last, inside = weight[:, -1], self._inside
        return last[:, inside].sum(1) + np.minimum(last[:, ~inside], 0).sum(1)


Wiring = Full | Kernels


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of neurons in floating point: U[t] = leak and reset of U[t-1], plus weight x[t] + bias;  s = U >= theta.

    By `reset`, leak and reset are: `subtract`, alpha (U - theta s), what the core does; `delayed`, alpha U - theta s; `zero`,
    alpha (v_reset where s, else U). Arrays of neurons have the shape of the layer: (N,), or (C, H, W) behind a convolution.
    """

    name: str
    """Of the neurons' node."""
    weight: np.ndarray
    """(N, M), or of a convolution (C, C below, k, k)."""
    bias: np.ndarray
    """(N,) or (C,), added in every step."""
    theta: np.ndarray
    """Of each neuron, above 0; the core has one a channel."""
    alpha: np.ndarray
    """Of each neuron, 0 to 1; one value is what the core does."""
    reset: str = "subtract"
    v_reset: np.ndarray | float = 0.0
    """Of each neuron."""
    unit_gain: bool = True
    """Whether the node's resistance lets weights add to the membrane as they are."""
    wiring: Wiring = field(default=None)  # type: ignore[assignment]
    """What the neurons see; if not given, every one of M units."""
    pool: int = 1
    """The mean of pool x pool neurons of a channel is one unit for the layer above."""

    def __post_init__(self) -> None:
        if self.wiring is None:
            object.__setattr__(self, "wiring", Full((self.weight.shape[1],)))

    @property
    def rows(self) -> int:
        """Neurons with weights of their own: all, or one for each channel."""
        return len(self.weight)

    @property
    def shape(self) -> Shape:
        """Of the neurons."""
        return self.wiring.shape(self.rows)

    @property
    def unit_shape(self) -> Shape:
        """Of the units that the layer above sees."""
        return self.shape[:1] + tuple(n // self.pool for n in self.shape[1:])

    @property
    def thresholds(self) -> np.ndarray:
        """One a row, (N,) or (C,): the mean of a channel's."""
        return self.theta.reshape(self.rows, -1).mean(1)

    @property
    def inputs(self) -> int:
        """Units below."""
        return math.prod(self.wiring.below)

    def each(self, of_rows: np.ndarray) -> np.ndarray:
        """Values of the rows, (N,) or (C,), for each neuron."""
        return np.broadcast_to(of_rows.reshape(-1, *[1] * (len(self.shape) - 1)), self.shape)

    def step(self, membrane: np.ndarray, spike: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Membranes (B, neurons) after a step with inputs x (B, units), from membranes and spikes (0 or 1) of the step before."""
        if self.reset == "subtract":
            rest = self.alpha * (membrane - self.theta * spike)
        elif self.reset == "delayed":
            rest = self.alpha * membrane - self.theta * spike
        else:
            rest = self.alpha * np.where(spike, self.v_reset, membrane)
        return rest + self.wiring.currents(self.weight, x) + self.each(self.bias)

    def units(self, spike: np.ndarray) -> np.ndarray:
        """What the layer above sees of spikes (B, neurons)."""
        values, k = spike.astype(np.float64), self.pool
        if k == 1:
            return values
        channels, rows, columns = self.unit_shape
        return values[..., : rows * k, : columns * k].reshape(-1, channels, rows, k, columns, k).mean((3, 5))

    @property
    def core(self) -> Layer:
        """The nearest layer that the core can do: soft reset before the leak, one leakage factor, one threshold a channel."""
        theta = np.array(self.each(self.thresholds))
        return replace(self, theta=theta, alpha=np.full_like(self.alpha, self.alpha.mean()), reset="subtract", v_reset=0.0)


def same_thresholds(layer: Layer, theta: np.ndarray) -> Layer:
    """The same neurons with other thresholds (one a row): membranes, weights and biases scale with them, and every spike stays."""
    factor = theta / layer.thresholds
    weight = factor.reshape(-1, *[1] * (layer.weight.ndim - 1)) * layer.weight
    return replace(layer, weight=weight, bias=factor * layer.bias, theta=np.array(layer.each(np.asarray(theta, np.float64))))


def notation(network: list[Layer]) -> str:
    """Input and layers in the notation of `hw.notation`; inputs that no convolution sees are flat."""
    first = network[0]
    below = first.wiring.below
    words = ["x".join(map(str, (*below[1:], below[0])))] if isinstance(first.wiring, Kernels) else [str(first.inputs)]
    for layer in network:
        word, wiring = str(layer.rows), layer.wiring
        if isinstance(wiring, Kernels):
            word += f"C{wiring.conv.kernel}s{wiring.conv.stride}p{wiring.conv.padding}"
        words += [word] + [f"P{layer.pool}"] * (layer.pool > 1)
    return "-".join(words)
