"""The golden model: the whole network in raw integers, equal to the gateware in every bit (docs/numerics.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from hw.network import Network, Synapses
from hw.numbers import DECAY_SAMPLES, GRADED_ENTRIES, PIXEL_FRAC, RATE_MAX
from sw.common import checks
from sw.golden.error import delta as errors
from sw.golden.error import descent
from sw.golden.error.output import graded_error, output_error, surrogate_table
from sw.golden.fixed import saturate
from sw.golden.spike.membrane import fire, leak, weight_trace
from sw.golden.spike.pool import pool
from sw.golden.spike.readout import winner
from sw.golden.weight import lanes
from sw.golden.weight.dither import Dither, xorshift32
from sw.golden.weight.synapses import EVERY, Visit, in_order, shaped, weights


class Result(NamedTuple):
    """What the host sees of a sample: the class, and of the last layer spike counts and final membranes.

    Both are (C,) int64; membranes have format `u`."""

    winner: int
    counts: np.ndarray
    membranes: np.ndarray


class Input:
    """A projection with weights, and where the traces of its units stand among all traces."""

    def __init__(self, config: Network, synapses: Synapses, first: int, visit: Visit) -> None:
        self.synapses, self.source, self.visit = synapses, synapses.projection.source, visit
        self.traces = slice(first, first + config.traced_units(synapses))
        self.weights = weights(config, synapses)
        self.slower = config.slower_by(synapses.layer)
        self.dither = Dither(synapses) if config.stochastic or config.decay else None

    def visited(self, delta: Tensor | None, x: Tensor | None) -> int:
        """Synapses that are visited, since `delta` and `x` are not zero; None: all."""
        return self.weights.pairs(delta, x, self.visit)


class Layer:
    """One layer: where its neurons and thresholds stand among all, what it sees, and what is seen of it."""

    def __init__(self, config: Network, number: int, inputs: list[Input]) -> None:
        self.number, population = number, config.populations[number]
        first, threshold = config.neuron_base[number], config.threshold_base[number]
        self.shape, self.neurons = population.shape, slice(first, first + population.size)
        self.thresholds = slice(threshold, threshold + population.channels)
        self.threshold_of = threshold + torch.arange(population.size) % population.channels
        self.spiking_input = config.spiking_input(number)
        self.inputs = inputs
        self.identities = [p.source for p in population.projections if not p.kind.weighted]
        self.pool = pool(population)


class GoldenNetwork:
    """A network that infers and learns one sample at a time.

    `load` and `read` know every array of the learning state by its name in `hw.network.state_arrays`. Learning rates are
    2**-rate_w, 2**-rate_theta, 2**-rate_alpha and, where weights decay, 2**-rate_decay. `sops` and `sops_skipped` count synaptic
    operations, done and saved.

    A fresh network has weights 0, thresholds `theta_min`, leakage factors 1.0, R = 1, the surrogate table and errors 0:
    `load(initial_state(...))` gives it something to learn from.

    `visits`: for each layer, what a machine visits (`hw.plan.Plan.visits`). Only `sops` and `sops_skipped` depend on it; by
    default they count only the operations that no machine could skip.
    """

    def __init__(self, config: Network, *, visits: Sequence[tuple[int, bool]] | None = None) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64)

        c = self.config = config
        visits = visits or [EVERY] * c.n_layers
        self.inputs: list[Input] = []  # in the order of their numbers
        for synapses in c.synapses:
            first = self.inputs[-1].traces.stop if self.inputs else 0
            self.inputs.append(Input(c, synapses, first, Visit(*visits[synapses.layer - 1])))
        self.layers = [Layer(c, l, [i for i in self.inputs if i.synapses.layer == l]) for l in c.layers]
        # Neurons of all layers side by side, int64 (neurons,), of each place by place, channels fastest.
        self.membrane, self.spike, self.theta_trace, self.alpha_trace = (zeros(c.neurons) for _ in range(4))
        self.current, self.delta = zeros(c.neurons), zeros(c.neurons)
        self.delta_sum, self.last_sum = zeros(c.neurons), zeros(c.neurons)  # H and K
        self.theta, self.theta_grad = torch.full((c.thresholds,), c.theta_min), zeros(c.thresholds)
        self.weight_trace = zeros(c.units)  # of the units of all projections
        self.input_grad = zeros(c.sizes[1])
        self.count = zeros(c.classes)
        self.alpha = torch.full((c.n_layers,), c.alpha_one)
        self.alpha_grad = zeros(c.n_layers)
        self.error_table, self.graded_table = zeros(c.classes + 1, 2, 2), zeros(2, GRADED_ENTRIES)
        self.surrogate = torch.from_numpy(surrogate_table())
        self.rng = 1
        self.gathered = 0  # samples of this batch so far
        self.aged = 0  # samples since weights decayed
        self.winner = 0
        self.rate_w = self.rate_theta = self.rate_alpha = self.rate_decay = 8
        self.sops = self.sops_skipped = 0
        # Which leakage factor a neuron has, and which a presynaptic unit (that of the layer it feeds); a neuron's threshold.
        self._layer_of_neuron = torch.repeat_interleave(torch.tensor(c.sizes[1:]))
        self._layer_of_unit = torch.cat([torch.full((c.traced_units(i.synapses),), i.synapses.layer - 1) for i in self.inputs])
        self._threshold_of = torch.cat([layer.threshold_of for layer in self.layers])
        self._sharing = torch.cat([torch.full((c.populations[l].channels,), c.sharing_shift(l)) for l in c.layers])

    # -- state --------------------------------------------------------------------------------
    def _array(self, name: str) -> Tensor:
        """The tensor, or the part of one, that holds an array of the state, in the array's shape."""
        kind, _, number = name.partition(".")
        if kind == "input_grad":
            return shaped(self.input_grad, self.layers[0].shape)
        if not number:
            return getattr(self, kind)
        for of in self.inputs:
            if name == of.synapses.array("weight"):
                return of.weights.shaped(of.weights.weight)
            if name == of.synapses.array("grad") and of.weights.grad is not None:
                return of.weights.shaped(of.weights.grad)
            if name == of.synapses.trace_array:
                traces = self.weight_trace[of.traces]
                return traces if self.config.static and of.source == 0 else shaped(traces, of.synapses.below)
        layer = self.layers[int(number) - 1]
        if kind in ("theta", "theta_grad"):
            return getattr(self, kind)[layer.thresholds]
        return shaped(getattr(self, kind)[layer.neurons], layer.shape)

    def load(self, state: Mapping[str, ArrayLike]) -> None:
        """Sets any of the state's arrays; nothing changes if one of them is not legal (ValueError)."""
        checked = {name: checks.check_state(self.config, name, array) for name, array in state.items()}
        for name, array in checked.items():
            if name in ("rng", "gathered", "aged"):
                setattr(self, name, int(array))
            elif name == "class":
                self.winner = int(array)
            else:
                self._array(name).copy_(torch.from_numpy(array))

    def read(self) -> dict[str, np.ndarray]:
        """A copy of the state, int64 arrays by name."""
        scalars = {"rng": self.rng, "gathered": self.gathered, "aged": self.aged, "class": self.winner}
        names = checks.legal_state(self.config)
        return {name: np.array(scalars[name]) if name in scalars else self._array(name).numpy().copy() for name in names}

    # -- a sample -----------------------------------------------------------------------------
    def run(self, sample: ArrayLike, label: int | None = None, learn: str = "") -> Result:
        """Shows one sample and learns from it what `learn` names: any of w (weights), t (thresholds), l (leakages).

        `sample` is uint8 (N0,) for static input, bool (T, N0) for events, uint8 (T, N0) for frames, where N0 may also be the
        input's shape (C, H, W); `label` is needed to learn.
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
        shape = self.config.populations[0].shape
        sample = in_order(sample.reshape(*sample.shape[:-1], *shape), shape)
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
            self._integrate(self.layers[0], {0: sample})

    def _finish(self, sample: Tensor, learn: str) -> None:
        """After the last step: gradients of a held frame, and all updates that wait for the end of a sample."""
        c, first = self.config, self.inputs[0]
        full = self.gathered == c.batch - 1
        if c.static and "w" in learn:
            self._gather(first, self.input_grad, self._frame_factor(sample), every_unit=c.centres_frame)
        if learn and full and c.cadence == "sample":
            for layer in reversed(self.layers):
                if "w" in learn:
                    for of in reversed(layer.inputs):
                        self._apply(of)
                self._update_neurons(layer, learn)
        if c.static and "w" in learn and first.weights.grad is None:
            self._descend(first, self._held)
        if c.decay and "w" in learn:
            self._decay()
        if learn:
            self.gathered = 0 if full else self.gathered + 1
        self.winner = winner(self.count, self.membrane[self.layers[-1].neurons], c)

    def _frame_factor(self, sample: Tensor) -> Tensor:
        """A held frame as its gradients take it."""
        return lanes.frame_factor(sample, self.config, centred=self.config.centres_frame)

    def _apply(self, of: Input) -> None:
        """An update with what has gathered in G."""
        c, weights = self.config, of.weights
        if weights.grad is None:
            return
        traced = self.weight_trace[of.traces] != 0
        visited = traced if c.lazy else slice(None)
        grad = self._gradient(of)
        if c.centres(of.synapses.layer) and not (of.source == 0 and c.centres_frame):
            grad = lanes.centre(grad, c)
        size = weights.weight.numel()
        self._count("update", size // len(traced) * int(traced.count_nonzero()) if c.lazy else size, size)
        self._descend(of, grad)
        weights.grad[:, visited] = lanes.left_over(grad, self._rate_of(of), c) if c.remainder else 0

    def _decay(self) -> None:
        self.aged = (self.aged + 1) % DECAY_SAMPLES
        if self.aged == 0:
            for of in reversed(self.inputs):
                assert of.dither
                of.weights.weight = lanes.decay(of.weights.weight, self.rate_decay, self.config, of.dither(self.rng))
                self.rng = xorshift32(self.rng)
                self._count("update", of.weights.weight.numel(), of.weights.weight.numel())

    # -- a time step --------------------------------------------------------------------------
    def _forward(self, x: Tensor, learn: str) -> None:
        """One step forward from the values `x` of the input units, in 1/256 (a spike is 256); lazy learning takes its share."""
        c, theta = self.config, self.theta[self._threshold_of]
        leaked, self.theta_trace, self.alpha_trace = leak(
            self.membrane, self.spike, self.theta_trace, self.alpha_trace, theta, self.alpha[self._layer_of_neuron], c
        )
        values, spikes = {0: x}, []  # of the units of each layer; of its neurons
        for layer in self.layers:
            at = layer.neurons
            if layer.spiking_input:
                self._integrate(layer, values)
            if c.lazy and "w" in learn:
                of = layer.inputs[0].weights
                of.grad = saturate(of.grad - torch.outer(self.delta_sum[at], values[layer.number - 1] >> PIXEL_FRAC), c.grad)
            self.membrane[at], spike = fire(leaked[at], self.current[at], theta[at], c)
            spikes.append(spike)
            values[layer.number] = layer.pool.values(spike << PIXEL_FRAC)
        self.count += spike
        self.spike = torch.cat(spikes)
        seen = torch.cat([values[of.source] for of in self.inputs])
        self.weight_trace = weight_trace(self.weight_trace, seen, self.alpha[self._layer_of_unit], c)

    def _learn(self, target: Tensor, learn: str) -> None:
        """One step of learning, from the last layer down to the first; a layer's updates follow all that reads its old state."""
        c, theta = self.config, self.theta[self._threshold_of]
        phi = errors.surrogate(self.membrane, theta, self.surrogate, c)
        above = {l: torch.zeros(c.populations[l].units, dtype=torch.int64) for l in c.layers}  # error sums of the units
        for layer in reversed(self.layers):
            at = layer.neurons
            if layer.number < c.n_layers:
                error = lanes.error(layer.pool.errors(above[layer.number]), layer.pool.shift, c)
                delta = errors.delta(error, phi[at], c)
            elif c.output_error == "counted":
                delta = errors.delta(output_error(self.error_table, self.spike[at], target), phi[at], c)
            else:
                delta = graded_error(self.graded_table, self.membrane[at], theta[at], target, c)
            self.delta[at] = delta
            for of in layer.inputs:
                if of.source:
                    above[of.source] += of.weights.backward(delta)
                    self._count("backward", of.visited(delta, None), of.synapses.pairs)
            for source in layer.identities:
                above[source] += delta << c.w.f
            for of in reversed(layer.inputs):
                trace = self.weight_trace[of.traces]
                if not layer.spiking_input:
                    self.input_grad = errors.input_gradient(self.input_grad, delta, trace, c)
                elif "w" in learn and not c.lazy:
                    self._gather(of, delta, trace)
                    if of.weights.grad is None:
                        self._descend(of, self._held)
        if c.lazy:
            reciprocal = (c.alpha_one**2 // self.alpha.clamp(min=1))[self._layer_of_neuron]
            self.last_sum, self.delta_sum = errors.delta_sum(self.delta_sum, self.delta, reciprocal, c)
        if "t" in learn:
            products = errors.theta_products(self.delta, self.theta_trace, c)
            grad = errors.theta_gradient(torch.zeros_like(self.theta).index_add_(0, self._threshold_of, products), self._sharing, c)
            self.theta_grad = saturate(self.theta_grad + grad, c.grad) if c.cadence == "sample" else grad
        if "l" in learn:
            self.alpha_grad.index_add_(0, self._layer_of_neuron, errors.alpha_gradient(self.delta, self.alpha_trace, c))
        if c.cadence == "step":
            for layer in reversed(self.layers):
                self._update_neurons(layer, learn)

    # -- parts --------------------------------------------------------------------------------
    def _integrate(self, layer: Layer, values: Mapping[int, Tensor]) -> None:
        """Currents of a layer from the values of the units that it sees."""
        c, at = self.config, layer.neurons
        total = torch.zeros_like(self.current[at])
        for of in layer.inputs:
            self._count("forward", of.visited(None, values[of.source]), of.synapses.pairs)
            total += of.weights.forward(values[of.source])
        for source in layer.identities:
            total += values[source] << c.w.f
        self.current[at] = lanes.current(total, c)

    def _gather(self, of: Input, delta: Tensor, factor: Tensor, *, every_unit: bool = False) -> None:
        """The gradients of this step, or of a held frame: they join G, or are `_held` for an update at once.

        A centred frame has no pixel that need not be visited."""
        self._count("update", of.visited(delta, None if every_unit else factor), of.synapses.pairs)
        grad = lanes.gradient(of.weights.products(delta, factor), self.config)
        if of.weights.grad is None:
            self._held = grad
        else:
            of.weights.grad = saturate(of.weights.grad + grad, self.config.grad)

    def _gradient(self, of: Input) -> Tensor:
        """Weight gradients (N, M) of a sample; if learning is lazy, of the inputs that have a trace."""
        c, grad = self.config, of.weights.grad
        assert grad is not None
        if not c.lazy:
            return grad
        trace, total = self.weight_trace[of.traces], self.last_sum[self.layers[of.synapses.layer - 1].neurons]
        return torch.where(trace != 0, lanes.lazy_gradient(grad, total, trace, c), 0)

    def _rate_of(self, of: Input) -> int:
        """The rate at which these weights learn."""
        return min(self.rate_w + of.slower, RATE_MAX)

    def _descend(self, of: Input, grad: Tensor) -> None:
        """One pass over the weights of a projection."""
        random = of.dither(self.rng) if self.config.stochastic and of.dither else None
        of.weights.weight = lanes.descend(of.weights.weight, grad, self._rate_of(of), self.config, random)
        if self.config.stochastic:
            self.rng = xorshift32(self.rng)

    def _update_neurons(self, layer: Layer, learn: str) -> None:
        l, at, c = layer.number, layer.thresholds, self.config
        if "t" in learn:
            self.theta[at] = descent.thresholds(self.theta[at], self.theta_grad[at], self.rate_theta, c)
        if "l" in learn:
            self.alpha[l - 1] = descent.leakage(int(self.alpha[l - 1]), int(self.alpha_grad[l - 1]), c.sizes[l], self.rate_alpha, c)
            self.alpha_grad[l - 1] = 0

    def _count(self, phase: str, done: int, dense: int) -> None:
        """Counts a pass over so many of `dense` synapses, in a phase of `hw.memory_map.PHASES`."""
        self.sops += done
        self.sops_skipped += dense - done
