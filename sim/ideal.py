"""The synaptic work that the equations of docs/numerics.md need, whatever the gateware does: counted by the golden model."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hw.memory_map import PHASES
from hw.numbers import ceil_div
from hw.plan import Plan
from sw.golden.network import GoldenNetwork, Layer
from sw.golden.weight.synapses import EVERY

FORMULA = """ideal cycles = sum over phases of ceil(non-zero synaptic operations / lanes), with
  forward   sum over layers and steps of spikes in * neurons; static frames: non-zero pixels * neurons, once a sample
  backward  sum over layers above the first and steps of (delta not 0) * inputs
  update    sum over layers and steps of (delta not 0) * (trace not 0); at cadence sample also gradients G not 0, once a sample;
            first layer of static frames: (D not 0) * (pixel not 0), once a sample;
            lazy learning: gradients not 0, once a sample (what a spike takes from G is part of summing it forward)
  neuron    none: neurons have no synapses, and their work can hide behind that of the lanes"""


class Counting(GoldenNetwork):
    """A golden network that counts synaptic operations by phase.

    `needed`: those whose factors are not zero; `done`: those that the machine of a plan does."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan.network, visits=plan.visits)
        self.lanes = plan.machine.lanes
        self.needed, self.done = dict.fromkeys(PHASES, 0), dict.fromkeys(PHASES, 0)

    def ideal(self) -> dict[str, int]:
        """Least cycles by phase for what was needed since the last call."""
        cycles = {phase: ceil_div(count, self.lanes) for phase, count in self.needed.items()}
        self.needed = dict.fromkeys(PHASES, 0)
        return cycles

    def _count(self, phase: str, done: int, dense: int) -> None:
        self.done[phase] += done
        super()._count(phase, done, dense)

    def _integrate(self, layer: Layer, values: Mapping[int, Tensor]) -> None:
        self.needed["forward"] += sum(of.weights.pairs(None, values[of.source], EVERY) for of in layer.inputs)
        super()._integrate(layer, values)

    def _learn(self, target: Tensor, learn: str) -> None:
        super()._learn(target, learn)
        for of in self.inputs:
            delta = self.delta[self.layers[of.synapses.layer - 1].neurons]
            if of.source:
                self.needed["backward"] += of.weights.pairs(delta, None, EVERY)
            if "w" in learn and (of.source or not self.config.static) and not self.config.lazy:
                self.needed["update"] += of.weights.pairs(delta, self.weight_trace[of.traces], EVERY)

    def _finish(self, sample: Tensor, learn: str) -> None:
        if "w" in learn:
            gathered = (self._gradient(of) for of in self.inputs if of.weights.grad is not None)
            self.needed["update"] += sum(int(gradient.count_nonzero()) for gradient in gathered)
            if self.config.static:
                self.needed["update"] += self.inputs[0].weights.pairs(self.input_grad, self._frame_factor(sample), EVERY)
        super()._finish(sample, learn)
