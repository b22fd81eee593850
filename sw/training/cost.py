"""What a training step costs: by any method of `sw.stop`, or by snnTorch's backpropagation through time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from sw.stop import Population, project, set_method, step_loss, unroll
from sw.training.nets import Spec, build

SNNTORCH = "snntorch"
"""The same network and loss by backpropagation through time with snnTorch's neurons."""


class SnnTorch(nn.Module):
    """A network of `nets` without residual blocks, its neurons replaced by snnTorch's (learnable beta and threshold)."""

    def __init__(self, net: nn.Module) -> None:
        import snntorch
        from snntorch import surrogate

        super().__init__()
        self.layers = nn.ModuleList()
        for module in net:
            if isinstance(module, Population):
                n = module.neuron
                leaky = snntorch.Leaky(
                    float(n.alpha.detach()), threshold=n.theta.detach().mean(), learn_beta=True, learn_threshold=True,
                    spike_grad=surrogate.atan(),
                )  # fmt: skip
                self.layers.append(nn.Sequential(*map(_plain, module.projections)))
                self.layers.append(leaky)
            else:
                self.layers.append(module)
        self._leaky = snntorch.Leaky

    def forward(self, x: Tensor) -> Iterable[Tensor]:
        """Spikes of the last layer, step by step."""
        memory: dict[int, Tensor] = {i: m.reset_mem() for i, m in enumerate(self.layers) if isinstance(m, self._leaky)}
        for x_t in x:
            for i, m in enumerate(self.layers):
                if i in memory:
                    x_t, memory[i] = m(x_t, memory[i])
                else:
                    x_t = m(x_t)
            yield x_t


def _plain(module: nn.Module) -> nn.Module:
    """The same module of `torch.nn`, with the same parameters, for a synapse."""
    if isinstance(module, nn.Sequential):
        return nn.Sequential(*map(_plain, module))
    for kind, arguments in (
        (nn.Linear, lambda m: (m.in_features, m.out_features)),
        (nn.Conv2d, lambda m: (m.in_channels, m.out_channels, m.kernel_size, m.stride, m.padding)),
    ):
        if isinstance(module, kind):
            copy = kind(*arguments(module), bias=module.bias is not None)
            copy.load_state_dict(module.state_dict())
            return copy
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return nn.BatchNorm2d(module.num_features)
    return module


def stepper(net: nn.Module, method: str, x: Tensor, label: Tensor) -> Callable[[], float]:
    """One training step, gradients and Adam's update, as a function; it returns the loss."""
    through_time = method.startswith(("bptt", SNNTORCH))
    if method == SNNTORCH:
        net = SnnTorch(net)
    else:
        set_method(net, method)
    optimiser, loss = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 1e-3), step_loss("cross_entropy", 5.0)

    def step() -> float:
        optimiser.zero_grad()
        total = torch.zeros(())
        for spikes in net(x) if method == SNNTORCH else unroll(net, x):
            e = loss(spikes, label)
            if not through_time:
                e.backward()
            total = total + (e if through_time else e.detach())
        if through_time:
            total.backward()
        optimiser.step()
        if method != SNNTORCH:
            project(net)
        return float(total.detach())

    return step


def _memory(field: str) -> float:
    """VmRSS or VmHWM of this process, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise ValueError(f"{field} is not in /proc/self/status; legal is Linux")


def case(spec: Spec, method: str, steps: int, batch: int, events: bool) -> Callable[[], float]:
    """A training step on random frames held for all steps, or on random events."""
    torch.manual_seed(0)
    shown = (torch.rand(steps, batch, *spec.shape) < 0.1).float() if events else torch.rand(batch, *spec.shape)
    x = shown if events else shown.expand(steps, *shown.shape)
    return stepper(build(spec), method, x, torch.arange(batch) % spec.classes)


def peak_of(work: Callable[[], object]) -> float:
    """The peak of resident memory in `work` above that before, MiB; for a fresh process."""
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
    work()
    return round(_memory("VmHWM") - before, 1)


def peak_memory(spec: Spec, method: str, steps: int, batch: int, events: bool) -> float:
    """The peak of one training step, above what there was before the network was made; for a fresh process."""
    return peak_of(lambda: case(spec, method, steps, batch, events)())
