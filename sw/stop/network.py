"""Populations of neurons and the projections that drive them, and how a network of them runs through time.

    net = nn.Sequential(Population(LIF(200), Linear(784, 200, bias=False)), Population(LIF(10), Linear(200, 10, bias=False)))
    set_method(net, "stop-wtl")
    for spikes in unroll(net, x):                                   # x (T, B, 784)
        cross_entropy(beta * spikes, label).backward()              # gradients add up in .grad
    optimizer.step()
    project(net)

`set_method(net, "bptt-wtl")` trains the same network by backpropagation through time: sum the losses, one backward at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sw.stop.hold import Hold
from sw.stop.neuron import LIF, Clock
from sw.stop.synapse import Synapse

LEARN = ("w", "wt", "wl", "wtl")
"""What learns: weights alone or with thresholds, leakages (the paper's STOP-W, -WT, -WL, -WTL)."""
METHODS = (*(f"stop-{s}" for s in LEARN), *(f"bptt-{s}" for s in LEARN), "ottt")


class Method(NamedTuple):
    """How a network learns: `rule` is stop, bptt or ottt, `learn` any of w, t, l."""

    rule: str
    learn: str

    @classmethod
    def parse(cls, name: str) -> Method:
        if name not in METHODS:
            raise ValueError(f"method: {name} is not legal; legal is {' or '.join(METHODS)}")
        rule, _, learn = name.partition("-")
        return cls(rule, learn or "w")

    @property
    def through_time(self) -> bool:
        return self.rule == "bptt"


class Population(nn.Module):
    """Neurons and the projections whose currents they add up: `Population(neuron, conv)`, or a residual sum
    `Population(neuron, nn.Sequential(conv, norm), shortcut)`.

    Called with one input (B, ...) per projection, it returns the spikes of one step. A projection is any module whose parameters
    belong to the synapses of `sw.stop.synapse`.

    An input that is the same frame in every step (`Clock.held`) is projected once a sample: its trace is c[t] x with a scalar
    c, so that its gradient is that of the sum of c[t] delta[t], taken once.
    """

    def __init__(self, neuron: LIF, *projections: nn.Module) -> None:
        super().__init__()
        if not projections:
            raise ValueError("projections: none is not legal; legal is at least one")
        self.neuron = neuron
        self.projections = nn.ModuleList(projections)
        self._synapses = [[m for m in p.modules() if isinstance(m, Synapse)] for p in projections]
        for projection, synapses in zip(projections, self._synapses, strict=True):
            owned = {id(p) for s in synapses for p in s.parameters(recurse=False)}
            for name, parameter in projection.named_parameters():
                if id(parameter) not in owned:
                    raise ValueError(f"projections: the parameter {name} has no trace; legal are the synapses of sw.stop.synapse")
            for s in synapses:
                s.feed(neuron)
        self._constants = any(s.bias is not None for synapses in self._synapses for s in synapses)
        self._hold = [Hold() for _ in projections]
        self.clock = Clock()

    def reset(self, clock: Clock) -> None:
        """Before a sample: all state is 0."""
        self.clock = clock
        self.neuron.reset()
        for synapses, hold in zip(self._synapses, self._hold, strict=True):
            hold.reset()
            for s in synapses:
                s.reset(clock, not self.neuron.through_time)

    def forward(self, *inputs: Tensor) -> Tensor:
        if len(inputs) != len(self.projections):
            raise ValueError(f"inputs: {len(inputs)} are not legal; legal is {len(self.projections)}, one for each projection")
        if self.neuron.membrane is not None and len(self.neuron.membrane) != len(inputs[0]):
            raise ValueError(
                f"inputs: a batch of {len(inputs[0])} is not legal in the middle of a sample; legal is {len(self.neuron.membrane)}"
                " (or unroll or reset first)"
            )
        if self._constants or self.clock.held is not None:
            self.neuron.tick()
        current = self._current(0, inputs[0])
        for i, x in enumerate(inputs[1:], 1):
            current = current + self._current(i, x)
        return self.neuron(current)

    def _current(self, i: int, x: Tensor) -> Tensor:
        if x is not self.clock.held:
            return self.projections[i](x)
        hold = self._hold[i]
        if hold.value is None:
            for s in self._synapses[i]:
                s.traced = False
            hold.value = self.projections[i](x)
        if self.neuron.through_time:
            return hold.value
        return hold(self.clock.last, self.neuron.constant_trace)


def populations(net: nn.Module) -> list[Population]:
    """The populations of a network, in the order of its definition."""
    return [m for m in net.modules() if isinstance(m, Population)]


def set_method(net: nn.Module, name: str) -> Method:
    """Says how the network learns: one of METHODS. ValueError otherwise.

    ottt is online training through time (Xiao et al., arXiv 2210.04195): the same weight traces, thresholds and leakages fixed, and
    constants (biases, the scale and shift of a normalisation) learned from the present step alone.
    """
    method = Method.parse(name)
    for population in populations(net):
        neuron = population.neuron
        neuron.through_time = method.through_time
        neuron.theta.requires_grad_("t" in method.learn)
        neuron.alpha.requires_grad_("l" in method.learn)
        for s in population.projections.modules():
            if isinstance(s, Synapse):
                s.trace_constants = method.rule != "ottt"
    reset(net)
    return method


def reset(net: nn.Module, clock: Clock | None = None) -> None:
    """Before a sample: all state is 0. `unroll` does this."""
    clock = clock or Clock()
    for population in populations(net):
        population.reset(clock)


def unroll(net: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """Shows a batch of samples (T, B, ...) and yields the output spikes of each step.

    To learn with STOP, run the backward pass of a step's loss before asking for the next step, and do so in every step: some
    gradients are passed on in the last one. In a DistributedDataParallel network processes exchange gradients in the last step
    only. A frame held for T steps, `frame.expand(T, ...)`, is seen as such and projected once.
    """
    if x.ndim < 3 or len(x) < 1:
        raise ValueError(f"x: shape {tuple(x.shape)} is not legal; legal is (T, B, ...) with T at least 1")
    frame = x[0] if x.stride(0) == 0 or len(x) == 1 else None
    clock = Clock(held=frame)
    reset(net, clock)
    for t in range(len(x)):
        clock.step, clock.last = t, t == len(x) - 1
        alone = hasattr(net, "no_sync") and not clock.last
        with net.no_sync() if alone else nullcontext():
            yield net(x[t] if frame is None else frame)


@torch.no_grad()
def project(net: nn.Module) -> None:
    """After an update: thresholds and leakage factors back into their legal ranges."""
    for population in populations(net):
        population.neuron.project()


def parameter_groups(net: nn.Module, *, lr: float, theta_lr: float, alpha_lr: float, weight_decay: float = 0.0) -> Iterable[dict]:
    """Groups for a `torch.optim` optimiser: weights (decayed), what else synapses have, thresholds, leakage factors."""
    groups: dict[str, list] = {"weight": [], "other": [], "theta": [], "alpha": []}
    for name, p in net.named_parameters():
        kind = name.rpartition(".")[2]
        groups[kind if kind in ("theta", "alpha") else "weight" if p.ndim > 1 and kind == "weight" else "other"].append(p)
    rates = {"weight": lr, "other": lr, "theta": theta_lr, "alpha": alpha_lr}
    return [
        {"name": kind, "params": ps, "lr": rates[kind], "weight_decay": weight_decay if kind == "weight" else 0.0}
        for kind, ps in groups.items()
        if ps
    ]
