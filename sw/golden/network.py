"""The golden model: the whole network in raw integers, equal to the gateware in every bit (docs/numerics.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from hw.network import Network
from hw.numbers import PIXEL_FRAC
from sw.common import checks
from sw.golden.error import delta as errors
from sw.golden.error import descent
from sw.golden.error.output import output_error, surrogate_table
from sw.golden.fixed import saturate
from sw.golden.spike.membrane import fire, leak, weight_trace
from sw.golden.spike.readout import winner
from sw.golden.weight import lanes
from sw.golden.weight.dither import Dither, xorshift32


class Result(NamedTuple):
    """What the host sees of a sample: the class, and of the last layer spike counts and final membranes.

    Both are (C,) int64; membranes have format `u`."""

    winner: int
    counts: np.ndarray
    membranes: np.ndarray


class Visit(NamedTuple):
    """What a machine visits in a layer: so many neurons together, if one of them has a delta, and also inputs that are silent."""

    neurons: int
    all_inputs: bool


class Layer:
    """One layer's synapses, and where its neurons stand among all neurons and its inputs' traces among all traces."""

    def __init__(self, config: Network, number: int, visit: Visit) -> None:
        c, self.number = config, number
        n, m = c.sizes[number], c.sizes[number - 1]
        self.neurons = slice(c.neuron_base[number], c.neuron_base[number] + n)
        below = c.input_units + c.neuron_base[number - 1] if number > 1 else 0
        self.inputs = slice(below, below + (m if number > 1 else c.input_units))
        self.spiking_input = c.spiking_input(number)
        self.weight = torch.zeros(n, m, dtype=torch.int64)
        self.grad = torch.zeros_like(self.weight) if c.gathers(number) else None
        self.dither = Dither(c, number) if c.stochastic else None
        self.visit, self.group_start = visit, np.arange(0, n, visit.neurons)
        self.group_size = np.diff(self.group_start, append=n)

    def inputs_visited(self, x: Tensor) -> int:
        """Inputs (M,) that are visited: those that are not zero, or all."""
        return len(x) if self.visit.all_inputs else int(x.count_nonzero())

    def busy(self, delta: Tensor) -> int:
        """Neurons that are visited since some `delta` (N,) of those visited together is not zero: the others cost no cycle."""
        return int(np.logical_or.reduceat(delta.numpy(), self.group_start) @ self.group_size)


class GoldenNetwork:
    """A network that infers and learns one sample at a time.

    `load` and `read` know every array of the learning state by its name in `hw.network.state_arrays`. Learning rates are
    2**-rate_w, 2**-rate_theta and 2**-rate_alpha. `sops` and `sops_skipped` count synaptic operations, done and saved.

    A fresh network has weights 0, thresholds `theta_min`, leakage factors 1.0, R = 1, the surrogate table and errors 0:
    `load(initial_state(...))` gives it something to learn from.

    `visits`: for each layer, what a machine visits (`hw.plan.Plan.visits`). Only `sops` and `sops_skipped` depend on it; by
    default they count only the operations that no machine could skip.
    """

    def __init__(self, config: Network, *, visits: Sequence[tuple[int, bool]] | None = None) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64)

        c = self.config = config
        self.layers = [Layer(c, l, Visit(*visit)) for l, visit in zip(c.layers, visits or [(1, False)] * c.n_layers, strict=True)]
        # Neurons of all layers side by side, int64 (neurons,); weight traces of the input units, then of the hidden layers.
        self.theta = torch.full((c.neurons,), c.theta_min)
        self.membrane, self.spike, self.theta_trace, self.alpha_trace = (zeros(c.neurons) for _ in range(4))
        self.current, self.delta, self.theta_grad = (zeros(c.neurons) for _ in range(3))
        self.delta_sum, self.last_sum = zeros(c.neurons), zeros(c.neurons)  # H and K
        self.weight_trace = zeros(c.units)
        self.input_grad = zeros(c.sizes[1])
        self.count = zeros(c.classes)
        self.alpha = torch.full((c.n_layers,), c.alpha_one)
        self.alpha_grad = zeros(c.n_layers)
        self.error_table = zeros(c.classes + 1, 2, 2)
        self.surrogate = torch.from_numpy(surrogate_table())
        self.rng = 1
        self.gathered = 0  # samples of this batch so far
        self.winner = 0
        self.rate_w = self.rate_theta = self.rate_alpha = 8
        self.sops = self.sops_skipped = 0
        # Which leakage factor a neuron has, and which a presynaptic unit (that of the layer it feeds).
        self._layer_of_neuron = torch.repeat_interleave(torch.tensor(c.sizes[1:]))
        self._layer_of_unit = torch.repeat_interleave(torch.tensor([c.input_units, *c.sizes[1:-1]]))

    # -- state --------------------------------------------------------------------------------
    def _array(self, name: str) -> Tensor:
        """The tensor, or the part of one, that holds an array of the state."""
        kind, _, number = name.partition(".")
        if not number:
            return getattr(self, kind)
        if kind == "weight_trace":
            return self.weight_trace[self.layers[int(number)].inputs]
        layer = self.layers[int(number) - 1]
        return getattr(layer, kind) if kind in ("weight", "grad") else getattr(self, kind)[layer.neurons]

    def load(self, state: Mapping[str, ArrayLike]) -> None:
        """Sets any of the state's arrays; nothing changes if one of them is not legal (ValueError)."""
        checked = {name: checks.check_state(self.config, name, array) for name, array in state.items()}
        for name, array in checked.items():
            if name in ("rng", "gathered"):
                setattr(self, name, int(array))
            elif name == "class":
                self.winner = int(array)
            else:
                self._array(name).copy_(torch.from_numpy(array))

    def read(self) -> dict[str, np.ndarray]:
        """A copy of the state, int64 arrays by name."""
        scalars = {"rng": self.rng, "gathered": self.gathered, "class": self.winner}
        names = checks.legal_state(self.config)
        return {name: np.array(scalars[name]) if name in scalars else self._array(name).numpy().copy() for name in names}

    # -- a sample -----------------------------------------------------------------------------
    def run(self, sample: ArrayLike, label: int | None = None, learn: str = "") -> Result:
        """Shows one sample and learns from it what `learn` names: any of w (weights), t (thresholds), l (leakages).

        `sample` is uint8 (N0,) for static input, bool (T, N0) for events, uint8 (T, N0) for frames; `label` is needed to learn.
        Raises ValueError before anything changes.
        """
        self._run(*self._checked(sample, label, learn))
        return Result(self.winner, self.count.numpy().copy(), self.membrane[self.layers[-1].neurons].numpy().copy())

    def steps(self, sample: ArrayLike, label: int | None = None, learn: str = "") -> Iterator[int]:
        """The same step by step: yields t after each time step, the last one after the end-of-sample updates."""
        return self._steps(*self._checked(sample, label, learn))

    def _checked(self, sample: ArrayLike, label: int | None, learn: str) -> tuple[np.ndarray, int, str]:
        sample = checks.check_sample(self.config, sample)
        learn = checks.check_learn(learn)
        for name in checks.RATES:
            checks.check_rate(name, getattr(self, name))
        return sample, checks.check_label(self.config, label) if learn else 0, learn

    def _run(self, sample: np.ndarray, label: int, learn: str) -> None:
        for _ in self._steps(sample, label, learn):
            pass

    def _steps(self, sample: np.ndarray, label: int, learn: str) -> Iterator[int]:
        c = self.config
        shown = torch.from_numpy(sample.astype(np.int64, copy=False))
        target = torch.zeros_like(self.count)
        target[label] = 1
        self._begin(shown, learn)
        for t in range(c.steps):
            self._forward(self._input(shown, t), learn)
            if learn:
                self._learn(target, learn)
            if t == c.steps - 1:
                self._finish(shown, learn)
            yield t

    def _input(self, sample: Tensor, t: int) -> Tensor:
        """Values of the input units in step t, in 1/256. A sample may be filled in as its steps come."""
        if self.config.static:
            return torch.full((1,), 1 << PIXEL_FRAC)
        return sample[t] << PIXEL_FRAC if self.config.input == "events" else sample[t]

    def _begin(self, sample: Tensor, learn: str) -> None:
        for state in (self.membrane, self.spike, self.theta_trace, self.alpha_trace, self.weight_trace, self.count):
            state.zero_()
        if learn:
            for state in (self.input_grad, self.delta_sum, *([self.theta_grad] if self.gathered == 0 else [])):
                state.zero_()
        if self.config.static:
            self._integrate(self.layers[0], sample)

    def _finish(self, sample: Tensor, learn: str) -> None:
        c, first = self.config, self.layers[0]
        full = self.gathered == c.batch - 1
        if c.static and "w" in learn:
            self._count("update", first, first.busy(self.input_grad) * first.inputs_visited(sample))
            grad = lanes.static_gradient(self.input_grad, sample, c)
            if first.grad is not None:
                first.grad = saturate(first.grad.add_(grad), c.grad)
        if learn and full and c.cadence == "sample":
            for layer in reversed(self.layers):
                if "w" in learn and layer.grad is not None:
                    visited = self.weight_trace[layer.inputs] != 0 if c.lazy else slice(None)
                    self._count("update", layer, layer.weight[:, visited].numel())
                    self._descend(layer, self._gradient(layer))
                    layer.grad[:, visited] = 0
                self._update_neurons(layer, learn)
        if c.static and "w" in learn and first.grad is None:
            self._descend(first, grad)
        if learn:
            self.gathered = 0 if full else self.gathered + 1
        self.winner = winner(self.count, self.membrane[self.layers[-1].neurons], c)

    # -- a time step --------------------------------------------------------------------------
    def _forward(self, x: Tensor, learn: str) -> None:
        """One step forward from the values `x` of the input units, in 1/256 (a spike is 256); lazy learning takes its share."""
        c = self.config
        leaked, self.theta_trace, self.alpha_trace = leak(
            self.membrane, self.spike, self.theta_trace, self.alpha_trace, self.theta, self.alpha[self._layer_of_neuron], c
        )
        values = [x]
        for layer in self.layers:
            at = layer.neurons
            if layer.spiking_input:
                self._integrate(layer, values[-1])
            if c.lazy and "w" in learn:
                layer.grad = saturate(layer.grad - torch.outer(self.delta_sum[at], values[-1] >> PIXEL_FRAC), c.grad)
            self.membrane[at], spike = fire(leaked[at], self.current[at], self.theta[at], c)
            values.append(spike << PIXEL_FRAC)
        self.count += spike
        self.spike = torch.cat(values[1:]) >> PIXEL_FRAC
        self.weight_trace = weight_trace(self.weight_trace, torch.cat(values[:-1]), self.alpha[self._layer_of_unit], c)

    def _learn(self, target: Tensor, learn: str) -> None:
        """One step of learning, from the last layer down to the first; a layer's updates follow all that reads its old state."""
        c = self.config
        phi = errors.surrogate(self.membrane, self.theta, self.surrogate, c)
        error = output_error(self.error_table, self.spike[self.layers[-1].neurons], target)
        for layer in reversed(self.layers):
            delta = self.delta[layer.neurons] = errors.delta(error, phi[layer.neurons], c)
            trace = self.weight_trace[layer.inputs]
            if layer.number > 1:
                error = lanes.backward(layer.weight, delta, c)
                self._count("backward", layer, layer.busy(delta) * c.sizes[layer.number - 1])
            if not layer.spiking_input:
                self.input_grad = errors.input_gradient(self.input_grad, delta, trace, c)
            elif "w" in learn and not c.lazy:
                self._count("update", layer, layer.busy(delta) * layer.inputs_visited(trace))
                grad = lanes.gradient(delta, trace, c)
                if layer.grad is None:
                    self._descend(layer, grad)
                else:
                    layer.grad = saturate(layer.grad.add_(grad), c.grad)
        if c.lazy:
            reciprocal = (c.alpha_one**2 // self.alpha.clamp(min=1))[self._layer_of_neuron]
            self.last_sum, self.delta_sum = errors.delta_sum(self.delta_sum, self.delta, reciprocal, c)
        if "t" in learn:
            grad = errors.theta_gradient(self.delta, self.theta_trace, c)
            self.theta_grad = saturate(self.theta_grad + grad, c.grad) if c.cadence == "sample" else grad
        if "l" in learn:
            self.alpha_grad.index_add_(0, self._layer_of_neuron, errors.alpha_gradient(self.delta, self.alpha_trace, c))
        if c.cadence == "step":
            for layer in reversed(self.layers):
                self._update_neurons(layer, learn)

    # -- parts --------------------------------------------------------------------------------
    def _integrate(self, layer: Layer, x: Tensor) -> None:
        self._count("forward", layer, self.config.sizes[layer.number] * layer.inputs_visited(x))
        self.current[layer.neurons] = lanes.current(layer.weight, x, self.config)

    def _gradient(self, layer: Layer) -> Tensor:
        """Weight gradients (N, M) of a sample; if learning is lazy, of the inputs that have a trace."""
        if not self.config.lazy:
            return layer.grad
        trace = self.weight_trace[layer.inputs]
        return torch.where(trace != 0, lanes.lazy_gradient(layer.grad, self.last_sum[layer.neurons], trace, self.config), 0)

    def _descend(self, layer: Layer, grad: Tensor) -> None:
        """One pass over a layer's weights."""
        random = layer.dither(self.rng) if layer.dither else None
        layer.weight = lanes.descend(layer.weight, grad, self.rate_w, self.config, random)
        if layer.dither:
            self.rng = xorshift32(self.rng)

    def _update_neurons(self, layer: Layer, learn: str) -> None:
        l, at, c = layer.number, layer.neurons, self.config
        if "t" in learn:
            self.theta[at] = descent.thresholds(self.theta[at], self.theta_grad[at], self.rate_theta, c)
        if "l" in learn:
            self.alpha[l - 1] = descent.leakage(int(self.alpha[l - 1]), int(self.alpha_grad[l - 1]), c.sizes[l], self.rate_alpha, c)
            self.alpha_grad[l - 1] = 0

    def _count(self, phase: str, layer: Layer, done: int) -> None:
        """Counts a pass over a layer's synapses, in a phase of `hw.memory_map.PHASES`."""
        self.sops += done
        self.sops_skipped += layer.weight.numel() - done
