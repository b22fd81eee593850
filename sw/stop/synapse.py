"""Synapses whose weight gradient is error times trace: what `Population` takes as projections.

Each keeps the trace x~[t] = alpha x~[t-1] + x[t] of its own input, alpha being that of the neurons it feeds. In the backward pass
of step t the error goes on through the weights as usual, and the gradient of the weights is that of the same operation with x~[t]
in the place of x[t] (Gao et al., arXiv 2411.11082: dW = delta w~). Constants added to the current (a bias) have the trace of
the constant 1.

What lies between a synapse and its neurons (pooling, normalisation) is passed with its Jacobian in the present step: exact for
whatever is linear with coefficients that do not change in time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sw.stop.hold import Hold
from sw.stop.neuron import LIF, Clock


class Synapse(nn.Module):
    """Mixed into a module of `torch.nn`: `traced` chooses between trace gradients and the ordinary ones."""

    traced = False
    trace_constants = True
    clock = Clock()
    trace: Tensor | None = None
    _neurons: tuple[LIF, ...] = ()  # a tuple, so that the module that feeds them does not own them

    def feed(self, neurons: LIF) -> None:
        """Names the neurons that take these currents, and whose leakage the trace has."""
        if self._neurons:
            raise ValueError(f"{type(self).__name__}: already a projection of another population; legal is one")
        self._neurons = (neurons,)

    def reset(self, clock: Clock, traced: bool) -> None:
        """Before a sample."""
        self.clock, self.traced, self.trace = clock, traced, None

    @property
    def tracing(self) -> bool:
        return self.traced and torch.is_grad_enabled()

    def follow(self, x: Tensor) -> Tensor:
        """The trace of this synapse's input, after the step's input `x`."""
        alpha, x = self._neurons[0].alpha.detach(), x.detach()
        if self.trace is None:
            self.trace = x.to(alpha.dtype, copy=True)
        else:
            torch.addcmul(x.to(alpha.dtype), self.trace, alpha, out=self.trace)
        return self.trace

    def constant(self) -> Tensor:
        """The trace of a constant 1, a scalar."""
        c = self._neurons[0].constant_trace
        assert c is not None
        return c if self.trace_constants else torch.ones_like(c)


class Linear(Synapse, nn.Linear):
    """`torch.nn.Linear` for (B, N) with the trace gradient."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.tracing:
            return F.linear(x, self.weight, self.bias)
        y = _Linear.apply(x, self.weight, self.follow(x) if self.weight.requires_grad else None)
        return y if self.bias is None else y + _Constant.apply(self.bias, self.constant())


class Conv2d(Synapse, nn.Conv2d):
    """`torch.nn.Conv2d` (zero padding) with the trace gradient."""

    def __init__(self, *args: Any, standardise: bool = False, **options: Any) -> None:
        """`standardise`: the weights used are those kept, scaled to mean 0 and variance 1/fan-in per output channel, times a
        learned gain (scaled weight standardisation: Brock et al., arXiv 2101.08692; in spiking networks: Xiao et al.,
        arXiv 2210.04195). A function of the weights alone, so that the trace gradient is exact, as it is without.
        """
        super().__init__(*args, **options)
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            raise ValueError(f"padding: {self.padding_mode} {self.padding} is not legal; legal is zeros, given as numbers")
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1)) if standardise else None
        self._hold = Hold()

    def reset(self, clock: Clock, traced: bool) -> None:
        super().reset(clock, traced)
        self._hold.reset()

    def _weight(self) -> Tensor:
        """The weights used: standardised once a sample, their gradient passed on once a sample."""
        if self.gain is None:
            return self.weight
        if self._hold.value is None:
            w = self.weight
            variance, mean = torch.var_mean(w, (1, 2, 3), keepdim=True, correction=0)
            self._hold.value = self.gain * (w - mean) * torch.rsqrt(variance * w[0].numel() + 1e-8)
        return self._hold(self.clock.last) if self.tracing else self._hold.value

    def forward(self, x: Tensor) -> Tensor:
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        if not self.tracing:
            return F.conv2d(x, self._weight(), self.bias, *geometry)
        weight = self._weight()
        y = _Conv2d.apply(x, weight, self.follow(x) if weight.requires_grad else None, geometry)
        return y if self.bias is None else y + _Constant.apply(self.bias, self.constant())[:, None, None]


class BatchNorm(Synapse, nn.modules.batchnorm._BatchNorm):
    """Batch normalisation of currents (B, C) or (B, C, H, W), each step over its own batch.

    In training the statistics are those of the present step, and the error passes through them as in `torch.nn.BatchNorm2d`; for
    synapses before it, what past inputs would do to the current is judged with the Jacobian of the present step
    (the module's note above), because a trace cannot know the statistics of past steps. The gradients of scale and shift are exact:
    the scale has the trace of the normalised current, the shift that of 1. In evaluation the statistics are constants and all is
    exact.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim not in (2, 4):
            raise ValueError(f"x: {x.ndim} dimensions are not legal; legal is (B, C) or (B, C, H, W)")

    def forward(self, x: Tensor) -> Tensor:
        if not self.tracing:
            return super().forward(x)
        self._check_input_dim(x)
        if self.training:
            self.num_batches_tracked.add_(1)
        z = F.batch_norm(x, self.running_mean, self.running_var, None, None, self.training, self.momentum, self.eps)
        trace = self.follow(z) if self.weight.requires_grad else None
        return _Affine.apply(z, self.weight, self.bias, trace, self.constant())


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, trace: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, trace)
        return F.linear(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        weight, trace = ctx.saved_tensors
        by_x = delta @ weight.to(delta.dtype) if ctx.needs_input_grad[0] else None
        by_weight = delta.T @ trace.to(delta.dtype) if ctx.needs_input_grad[1] else None
        return by_x, by_weight, None


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, trace: Tensor | None, geometry: tuple) -> Tensor:
        ctx.save_for_backward(weight, trace)
        ctx.shape, ctx.geometry = x.shape, geometry
        return F.conv2d(x, weight, None, *geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        weight, trace = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        # The gradient by x needs of x its shape only, so that one call takes the trace for both.
        x = delta.new_empty(()).expand(ctx.shape) if trace is None else trace.to(delta.dtype)
        by_x, by_weight, _ = torch.ops.aten.convolution_backward(
            delta,
            x,
            weight.to(delta.dtype),
            None,
            stride,
            padding,
            dilation,
            False,
            (0, 0),
            groups,
            (*ctx.needs_input_grad[:2], False),
        )
        return by_x, by_weight, None, None


class _Constant(torch.autograd.Function):
    """A bias and the trace of its constant input."""

    @staticmethod
    def forward(ctx: Any, bias: Tensor, trace: Tensor) -> Tensor:
        ctx.save_for_backward(trace)
        return bias.view_as(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        return delta * ctx.saved_tensors[0], None


class _Affine(torch.autograd.Function):
    """scale z + shift, by channel, with the traces of z and of 1."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, scale: Tensor, shift: Tensor, trace: Tensor | None, constant: Tensor) -> Tensor:
        scale, shift = (p.view(-1, *[1] * (z.ndim - 2)) for p in (scale, shift))
        ctx.save_for_backward(scale, trace, constant)
        return torch.addcmul(shift, z, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, delta: Tensor) -> tuple[Tensor | None, ...]:
        scale, trace, constant = ctx.saved_tensors
        all_but_channel = (0, *range(2, delta.ndim))
        by_z = delta * scale
        by_scale = None if trace is None else (delta * trace).sum(all_but_channel)
        by_shift = constant * delta.sum(all_but_channel) if ctx.needs_input_grad[2] else None
        return by_z, by_scale, by_shift, None, None
