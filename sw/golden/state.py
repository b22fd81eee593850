"""Random initial states, in raw integers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hw.network import Network
from sw.golden.error.output import error_table, graded_table, surrogate_table
from sw.golden.fixed import raw

PerLayer = float | Sequence[float]
"""One value for all layers, or one for each."""


def initial_state(
    config: Network,
    seed: int,
    *,
    theta: PerLayer = 1.0,
    alpha: PerLayer = 0.9,
    gain: PerLayer = 1.0,
    beta: float = 3.0,
    scale: float = 1.0,
    loss: str = "cross_entropy",
    surrogate: str = "exponential",
    band: float = 0.03,
) -> dict[str, np.ndarray]:
    """What a host loads before learning: weights, thresholds, leakage factors, error and surrogate table, and R if there is one.

    A layer's weights are normal with standard deviation gain / sqrt(fan-in), rounded and clipped to format `w`; its neurons
    have the same threshold `theta`. Where gradients are centred, the weights of a neuron, or filter, begin without a mean, too.
    Output errors are those of `loss` at inverse temperature `beta`, times `scale`: small errors keep their sums over steps within
    the formats. Graded ones have no temperature, and those below `band` are 0. The same seed gives the same state on every
    machine. Raises ValueError for values that the network's formats do not hold.
    """
    if not (isinstance(seed, int | np.integer) and seed >= 0):
        raise ValueError(f"seed: {seed} is not legal; legal is a whole number of at least 0")
    c = config
    thetas = _per_layer("theta", theta, c, c.theta_min / c.u.one, c.u.high / c.u.one)
    alphas = _per_layer("alpha", alpha, c, c.alpha_min / c.alpha_one, 1)
    gains = _per_layer("gain", gain, c, 0, math.inf)
    for name, value in (("beta", beta), ("scale", scale)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name}: {value} is not legal; legal is above 0")
    random = np.random.default_rng(seed)
    state = {}
    for synapses in c.synapses:
        weight = random.normal(0, gains[synapses.layer - 1] / math.sqrt(synapses.fan_in), synapses.weight_shape)
        if c.centres(synapses.layer):
            weight -= weight.reshape(len(weight), -1).mean(1).reshape(-1, *[1] * (weight.ndim - 1))
        state[synapses.array("weight")] = raw(weight, c.w.one, c.w.low, c.w.high)
    for l, layer_theta in zip(c.layers, thetas, strict=True):
        state[f"theta.{l}"] = raw(np.full(c.populations[l].channels, layer_theta), c.u.one, c.theta_min, c.u.high)
    state["alpha"] = raw(alphas, c.alpha_one, c.alpha_min, c.alpha_one)
    if c.output_error == "counted":
        state["error_table"] = error_table(c, loss, beta=beta, scale=scale)
    else:
        state["graded_table"] = graded_table(c, scale=scale, band=band)
    state["surrogate"] = surrogate_table(surrogate)
    if c.stochastic or c.decay:
        state["rng"] = np.asarray(random.integers(1, 1 << 32))
    return state


def _per_layer(name: str, value: PerLayer, config: Network, low: float, high: float) -> list[float]:
    values = list(value) if isinstance(value, Sequence) else [value] * config.n_layers
    if len(values) != config.n_layers:
        raise ValueError(f"{name}: {len(values)} values are not legal; legal is one, or one for each of {config.n_layers} layers")
    for v in values:
        if not low <= v <= high:
            raise ValueError(f"{name}: {v} is not legal; legal is {low:g} to {high:g}")
    return values
