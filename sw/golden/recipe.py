"""How a network is started, shown its samples and annealed: the one place of the hyper-parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hw.network import Network
from hw.numbers import RATE_MAX, Q
from sw.golden.state import PerLayer, initial_state


class Gains(NamedTuple):
    """Gains of the first weights by where a layer stands."""

    first: float
    hidden: float
    last: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Initial state and learning rates.

    The defaults were chosen by cross-validation on the digits, 64-32-10, T = 8, for the mean of learning W and of learning W,
    theta and alpha. They lie on a broad plateau: their neighbours differ by less than the spread over seeds.
    """

    gain: PerLayer | Gains | None = None
    """Standard deviation of a layer's first weights, times the square root of its fan-in. None: 1/4 for two layers, as small
    weights generalise best, but twice as much for each layer more, up to 1, as spikes must reach the last layer."""
    theta: PerLayer = 0.75
    """First thresholds."""
    alpha: PerLayer = 15 / 16
    """First leakage factors."""
    beta: float = 4.0
    """Inverse temperature of the cross entropy."""
    scale: float = 0.5
    """All output errors are multiplied by this, which keeps their sums over the steps within the formats."""
    rate_w: int = 8
    """First rate of the weights: they learn with 2**-rate_w."""
    theta_offset: int = 3
    """By how much the rate of the thresholds is above that of the weights."""
    alpha_offset: int = 2
    """By how much the rate of the leakages is above that of the weights."""
    decay_offset: int = 7
    """By how much the rate at which weights decay is above that of the weights."""
    surrogate: str = "exponential"
    """Surrogate derivative, of sw.golden.error.output.SURROGATES."""
    band: float = 0.03
    """Graded errors below this are 0, and cost no learning."""
    halve_at: tuple[float, ...] = (0.8, 0.9)
    """Shares of the training after which all learning rates are halved."""

    def state(self, config: Network, seed: int) -> dict[str, np.ndarray]:
        """A random initial state, to be loaded."""
        gain = min(1.0, 2.0 ** (config.n_layers - 4)) if self.gain is None else self.gain
        if isinstance(gain, Gains):
            gain = ([gain.first] + [gain.hidden] * (config.n_layers - 2))[: config.n_layers - 1] + [gain.last]
        return initial_state(config, seed, theta=self.theta, alpha=self.alpha, gain=gain, beta=self.beta, scale=self.scale,
                             surrogate=self.surrogate, band=self.band)  # fmt: skip

    def rates(self, done: float) -> dict[str, int]:
        """Rates `rate_w`, `rate_theta`, `rate_alpha`, `rate_decay` after a share `done` (0 to 1) of the training."""
        if not 0 <= done <= 1:
            raise ValueError(f"done: {done} is not legal; legal is 0 to 1")
        w = self.rate_w + sum(done >= share for share in self.halve_at)
        offsets = {"rate_w": 0, "rate_theta": self.theta_offset, "rate_alpha": self.alpha_offset, "rate_decay": self.decay_offset}
        return {name: min(w + offset, RATE_MAX) for name, offset in offsets.items()}

    def order(self, seed: int, epoch: int, samples: int) -> np.ndarray:
        """The samples 0 .. samples - 1 in the order of an epoch, shuffled."""
        return np.random.default_rng((seed, epoch)).permutation(samples)


# Twelve times as many inputs as the digits: smaller steps. First rates 9 to 12 and three ways to halve them were compared on
# training images of Fashion-MNIST that were held out: `python -m sw.learn --dataset fashion-mnist --net 784-200-10 --stochastic
# --epochs 1` with `--validate 2000 --samples 8000 --seeds 3`: this one 79.2 % (deviation over seeds 1.2), the others 76.2 to 79.3
# %; with `--validate 10000 --seeds 1`, six of them: this one 84.8 %, the others 83.9 to 85.1 %. None is better by more than chance.
# MNIST, whose images have the same size, was not tried. For ten epochs docs/figures.md has another one, chosen likewise
# (`--validate 10000 --seeds 1`: 88.8 %, this one 87.5 %). What helped: a sharper cross entropy (beta 6); errors scaled down until
# G, which sums eight steps, hardly saturates; finer weights, as every update adds the noise of its rounding; to learn weights
# alone.
_LARGE = Recipe(rate_w=10, halve_at=(0.3, 0.6, 0.8, 0.9))
RECIPES = {"digits": Recipe(), "fashion-mnist": _LARGE, "mnist": _LARGE}
"""By data set, for networks whose output error is counted."""

GRADED = Recipe(gain=Gains(1.5, 2.0, 1.0), theta=0.5, alpha=0.6, rate_w=5, halve_at=(0.3, 0.6, 0.8, 0.9), surrogate="triangular")
"""For networks whose output error is graded, convolutional ones above all: any data set."""


def recipe_for(dataset: str, network: Network) -> Recipe:
    """The recipe by which a network learns a data set."""
    return GRADED if network.output_error == "graded" else RECIPES[dataset]


def strong(net: str) -> Network:
    """The network of this notation, with what makes it learn well (docs/training.md): graded errors, centred gradients, decay,
    fine numbers, and dense layers that learn half as fast as convolutions."""
    plain = Network(net=net)
    slower = tuple(0 if plain.shares_weights(l) else 1 for l in plain.layers)
    return plain.replace(steps=4, output_error="graded", centred=True, decay=True, slower=slower,
                         w=Q(3, 13), delta=Q(3, 12), grad=Q(4, 14))  # fmt: skip
