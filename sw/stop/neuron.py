"""Leaky integrate-and-fire neurons with learnable thresholds and leakage, and the gradients of STOP or of BPTT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sw.stop.surrogate import SURROGATES

THETA_MIN = 1 / 16
"""Floor of a threshold: that of the chip (`hw.numbers.Numbers.theta_min`)."""


@dataclass
class Clock:
    """Where a network stands in its sample: one for all its layers, set by `sw.stop.network.unroll`."""

    step: int = 0
    last: bool | None = None
    """Whether this is the last step; None if nobody says, because the network is not run by `unroll`."""
    held: Tensor | None = None
    """The frame, if the very same one is shown in every step."""


class LIF(nn.Module):
    """`n` neurons, or `n` channels of neurons, with soft reset (Gao et al., arXiv 2411.11082):

        U[t] = alpha (U[t-1] - theta s[t-1]) + I[t],  s[t] = 1 if U[t] >= theta else 0

    `theta` (n,) is a threshold per neuron of a current (B, n), per channel of a current (B, n, H, W); `alpha`, a scalar, is
    the leakage factor. Both are parameters; `project` brings them back to theta >= theta_min and 0 <= alpha <= 1.

    The gradient comes from traces kept forward in time, nothing older than one step: with delta = dE/ds phi(U - theta),

        dE/dtheta = delta (theta~ - 1),  theta~[t] = alpha (theta~[t-1] - s[t-1])
        dE/dalpha = sum delta alpha~,    alpha~[t] = alpha alpha~[t-1] + U[t-1] - theta s[t-1]

    With `through_time` it is that of backpropagation through time instead, the reset spike detached as above.
    """

    def __init__(
        self, n: int, *, theta: float = 1.0, alpha: float = 0.5, theta_min: float = THETA_MIN, surrogate: str = "exponential"
    ) -> None:
        super().__init__()
        for name, value, good, legal in (
            ("n", n, n >= 1, "at least 1"),
            ("theta_min", theta_min, theta_min > 0, "above 0"),
            ("theta", theta, theta >= theta_min, f"at least theta_min = {theta_min:g}"),
            ("alpha", alpha, 0 <= alpha <= 1, "0 to 1"),
            ("surrogate", surrogate, surrogate in SURROGATES, " or ".join(SURROGATES)),
        ):
            if not good:
                raise ValueError(f"{name}: {value} is not legal; legal is {legal}")
        self.theta = nn.Parameter(torch.full((n,), float(theta)))
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))
        self.theta_min, self.surrogate = theta_min, surrogate
        self.through_time = False
        self.reset()

    def extra_repr(self) -> str:
        return f"{len(self.theta)}, surrogate={self.surrogate}"

    def reset(self) -> None:
        """Before a sample: membranes, spikes and traces are 0 (None stands for 0)."""
        self.membrane: Tensor | None = None
        self.spike: Tensor | None = None
        self.theta_trace: Tensor | None = None
        self.alpha_trace: Tensor | None = None
        self.constant_trace: Tensor | None = None

    def tick(self) -> None:
        """A step begins: the trace of a constant input 1, the scalar c[t] = alpha c[t-1] + 1."""
        alpha = self.alpha.detach()
        self.constant_trace = torch.ones_like(alpha) if self.constant_trace is None else alpha * self.constant_trace + 1

    @torch.no_grad()
    def project(self) -> None:
        """After an update: theta = max(theta, theta_min), alpha = clip(alpha, 0, 1)."""
        self.theta.clamp_(min=self.theta_min)
        self.alpha.clamp_(0, 1)

    def forward(self, current: Tensor) -> Tensor:
        """One step: currents (B, n, ...) to spikes 0.0 or 1.0 of the same shape; float32 state under autocast."""
        current = current.to(self.theta.dtype)
        theta = self.theta if current.ndim == 2 else self.theta.view(-1, *[1] * (current.ndim - 2))
        if self.through_time:
            if self.membrane is not None and self.spike is not None:
                current = self.alpha * (self.membrane - theta * self.spike.detach()) + current
            self.membrane = current
            self.spike = _Spike.apply(self.membrane - theta, self.surrogate)
            return self.spike
        tracing = torch.is_grad_enabled()
        return _Fire.apply(
            current, theta, self.alpha, self, tracing and self.theta.requires_grad, tracing and self.alpha.requires_grad
        )


class Rectifier(LIF):
    """The neuron of an artificial network (ANN) of the same definition: max(0, I - theta).

    It has no spikes and no memory of earlier steps. `theta`, learned if it is switched on, is a bias; it starts at 0 and may take
    any value. `linear`: the neuron gives I - theta as it is, for a last layer.
    """

    linear = False

    def __init__(self, n: int) -> None:
        super().__init__(n)
        with torch.no_grad():
            self.theta.zero_()

    def extra_repr(self) -> str:
        return f"{len(self.theta)}, linear={self.linear}"

    def project(self) -> None:
        """Nothing to do: all values are legal."""

    def forward(self, current: Tensor) -> Tensor:
        theta = self.theta if current.ndim == 2 else self.theta.view(-1, *[1] * (current.ndim - 2))
        self.membrane = current.to(theta.dtype) - theta
        return self.membrane if self.linear else torch.relu(self.membrane)


class _Spike(torch.autograd.Function):
    """The step function and its surrogate derivative."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, surrogate: str) -> Tensor:
        ctx.save_for_backward(v)
        ctx.phi = SURROGATES[surrogate]
        return torch.ge(v, 0, out=torch.empty_like(v))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (v,) = ctx.saved_tensors
        return ctx.phi(v).mul_(grad), None


class _Fire(torch.autograd.Function):
    """One step of a LIF layer, its state updated in place, and STOP's gradients by current, theta and alpha.

    In place: the backward pass of a step must come before the next step; autograd's version counters refuse a later one.
    """

    @staticmethod
    def forward(ctx: Any, current: Tensor, theta: Tensor, alpha: Tensor, n: LIF, learn_theta: bool, learn_alpha: bool) -> Tensor:
        if n.membrane is None:
            n.membrane = current.clone()
            n.theta_trace = torch.zeros_like(current) if learn_theta else None
            n.alpha_trace = torch.zeros_like(current) if learn_alpha else None
        else:
            rest = n.membrane.addcmul_(theta, n.spike, value=-1)
            if n.alpha_trace is not None:
                torch.addcmul(rest, n.alpha_trace, alpha, out=n.alpha_trace)
            if n.theta_trace is not None:
                n.theta_trace.sub_(n.spike).mul_(alpha)
            torch.addcmul(current, rest, alpha, out=n.membrane)
        spike = torch.ge(n.membrane, theta, out=torch.empty_like(current))  # a cast from bool costs ten times as much
        n.spike = spike.detach()
        ctx.save_for_backward(n.membrane, theta, n.theta_trace, n.alpha_trace)
        ctx.phi = SURROGATES[n.surrogate]
        return spike

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        membrane, theta, theta_trace, alpha_trace = ctx.saved_tensors
        delta = ctx.phi(membrane - theta).mul_(grad)
        by_theta = by_alpha = None
        if theta_trace is not None:
            by_theta = (delta * theta_trace).sub_(delta).sum_to_size(theta.shape)
        if alpha_trace is not None:
            by_alpha = torch.dot(delta.flatten(), alpha_trace.flatten())
        return delta, by_theta, by_alpha, None, None, None
