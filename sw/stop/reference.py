"""STOP in floating point: Gao et al., arXiv 2411.11082, fully connected layers, explicit traces, no autograd.

The gradients equal those that autograd finds in the same forward pass if the reset spike is detached and a spike of layer l at
step t influences layer l+1 only at step t (`tests/sw/golden/test_stop.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from sw.golden.error.output import LOSSES


@dataclass
class Parameters:
    """Per layer l: weights (N_l, N_(l-1)), thresholds (N_l,), and one leakage factor, a scalar; floating-point tensors.

    Gradients have the same form.
    """

    weight: list[Tensor]
    theta: list[Tensor]
    alpha: list[Tensor]

    def __post_init__(self) -> None:
        if not len(self.weight) == len(self.theta) == len(self.alpha) > 0:
            raise ValueError(
                f"weight, theta, alpha: {len(self.weight)}, {len(self.theta)}, {len(self.alpha)} layers; legal is the same number"
            )

    def zeros(self) -> Parameters:
        return Parameters(*([torch.zeros_like(p) for p in part] for part in (self.weight, self.theta, self.alpha)))

    def __iter__(self):
        yield from (*self.weight, *self.theta, *self.alpha)


@dataclass
class Record:
    """What happened in a pass, per step and layer, each (B, N_l): membranes, spikes and (if there was a label) delta."""

    membrane: list[list[Tensor]]
    spike: list[list[Tensor]]
    delta: list[list[Tensor]]


def surrogate(v: Tensor) -> Tensor:
    """Derivative exp(-|v|) of the spike by v = U - theta."""
    return torch.exp(-v.abs())


def output_error(spike: Tensor, label: Tensor, loss: str, beta: float) -> Tensor:
    """dE/ds (B, C): cross entropy of softmax(beta s), or half the squared error of s."""
    target = one_hot(label, spike.shape[-1]).to(spike)
    return spike - target if loss == "mse" else beta * (torch.softmax(beta * spike, -1) - target)


def stop(
    p: Parameters,
    x: Tensor,
    label: Tensor | Sequence[int] | None = None,
    *,
    loss: str = "cross_entropy",
    beta: float = 1.0,
    phi: Callable[[Tensor], Tensor] = surrogate,
) -> tuple[Parameters, Record]:
    """Gradients of sum_t E[t], summed over the batch, and the record of the pass.

    `x` is (T, B, N0), spikes or the same frame T times; `label` (B,), without it the gradients are 0. The leakage gradient is
    the sum over the layer's neurons; the paper's update divides it by their number.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss: {loss} is not legal; legal is {' or '.join(LOSSES)}")
    if x.ndim != 3 or x.shape[-1] != p.weight[0].shape[1]:
        raise ValueError(f"x: shape {tuple(x.shape)} is not legal; legal is (steps, batch, {p.weight[0].shape[1]})")
    grad, record = p.zeros(), Record([], [], [])
    label = None if label is None else torch.as_tensor(label)
    layers = range(len(p.weight))
    u, s, theta_trace, alpha_trace = ([x.new_zeros(x.shape[1], len(theta)) for theta in p.theta] for _ in range(4))
    weight_trace = [x.new_zeros(x.shape[1], w.shape[1]) for w in p.weight]
    for x_t in x:
        u, s, theta_trace, alpha_trace, weight_trace = map(list, (u, s, theta_trace, alpha_trace, weight_trace))
        for l in layers:
            below = s[l - 1] if l else x_t
            alpha, rest = p.alpha[l], u[l] - p.theta[l] * s[l]
            u[l] = alpha * rest + below @ p.weight[l].T
            theta_trace[l] = alpha * (theta_trace[l] - s[l])
            alpha_trace[l] = alpha * alpha_trace[l] + rest
            weight_trace[l] = alpha * weight_trace[l] + below
            s[l] = (u[l] >= p.theta[l]).to(x)
        record.membrane.append(u)
        record.spike.append(s)
        if label is None:
            continue
        error = output_error(s[-1], label, loss, beta)
        deltas: list[Tensor] = []
        for l in reversed(layers):
            delta = error * phi(u[l] - p.theta[l])
            grad.weight[l] += delta.T @ weight_trace[l]
            grad.theta[l] += (delta * (theta_trace[l] - 1)).sum(0)
            grad.alpha[l] += (delta * alpha_trace[l]).sum()
            error = delta @ p.weight[l]
            deltas.insert(0, delta)
        record.delta.append(deltas)
    return grad, record
