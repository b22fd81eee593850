"""The synaptic work that the equations of docs/numerics.md need, whatever the gateware does: counted by the golden model."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from hw.config import Config
from hw.memory_map import PHASES
from sw.golden.network import Layer, Network

FORMULA = """ideal cycles = sum over phases of ceil(non-zero synaptic operations / lanes), with
  forward   sum over layers and steps of spikes in * neurons; static frames: non-zero pixels * neurons, once a sample
  backward  sum over layers above the first and steps of (delta not 0) * inputs
  update    sum over layers and steps of (delta not 0) * (trace not 0); at cadence sample also gradients G not 0, once a sample;
            first layer of static frames: (D not 0) * (pixel not 0), once a sample;
            lazy learning: gradients not 0, once a sample (what a spike takes from G is part of summing it forward)
  neuron    none: neurons have no synapses, and their work can hide behind that of the lanes"""


class Counting(Network):
    """A golden network that counts, by phase, the synaptic operations whose factors are not zero, `needed`, and those that the lanes do, `done`."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.needed, self.done = dict.fromkeys(PHASES, 0), dict.fromkeys(PHASES, 0)

    def ideal(self) -> dict[str, int]:
        """Least cycles by phase for what was needed since the last call."""
        cycles = {phase: -(-count // self.config.lanes) for phase, count in self.needed.items()}
        self.needed = dict.fromkeys(PHASES, 0)
        return cycles

    def _count(self, phase: str, layer: Layer, done: int) -> None:
        self.done[phase] += done
        super()._count(phase, layer, done)

    def _integrate(self, layer: Layer, x: Tensor) -> None:
        self.needed["forward"] += int(x.count_nonzero()) * self.config.sizes[layer.number]
        super()._integrate(layer, x)

    def _learn(self, target: Tensor, learn: str) -> None:
        super()._learn(target, learn)
        for layer in self.layers:
            errors = int(self.delta[layer.neurons].count_nonzero())
            if layer.number > 1:
                self.needed["backward"] += errors * self.config.sizes[layer.number - 1]
            if "w" in learn and layer.spiking_input and not self.config.lazy:
                self.needed["update"] += errors * int(self.weight_trace[layer.inputs].count_nonzero())

    def _finish(self, sample: Tensor, learn: str) -> None:
        if "w" in learn:
            self.needed["update"] += sum(int(self._gradient(layer).count_nonzero()) for layer in self.layers if layer.grad is not None)
            if self.config.static:
                self.needed["update"] += int(self.input_grad.count_nonzero()) * int(np.count_nonzero(sample))
        super()._finish(sample, learn)
