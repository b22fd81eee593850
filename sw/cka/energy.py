"""What a sample costs: spikes and synaptic operations, counted as the chip does.

What is zero costs nothing, and a held frame is seen once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sw.cka.lab import View
from sw.golden.fast import FastNetwork
from sw.stop import Conv2d, Linear


@dataclass
class Cost:
    """Of one sample, on average.

    An operation is an addition of a weight where the input is a spike, a multiplication where it is graded.
    """

    spikes: float
    additions: float
    multiplications: float


def operations(module: nn.Module, x: Tensor) -> int:
    """Weights that one call meets with an input that is not zero."""
    there = (x != 0).to(torch.float64)
    if isinstance(module, Linear):
        return int(there.sum()) * module.out_features
    assert isinstance(module, Conv2d)
    taps = torch.ones(module.groups, module.in_channels // module.groups, *module.kernel_size, dtype=torch.float64)
    met = F.conv2d(there, taps, None, module.stride, module.padding, module.dilation, module.groups)
    return int(met.sum()) * module.out_channels // module.groups


def cost(view: View, parts: list[slice]) -> Cost:
    """Averages over the view's samples.

    Spikes are those of all populations; in an artificial network they are outputs that are not zero.
    """
    count = {"spikes": 0, "additions": 0, "multiplications": 0}
    samples = sum(p.stop - p.start for p in parts)

    def meet(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        binary = bool(((x == 0) | (x == 1)).all())
        count["additions" if binary else "multiplications"] += operations(module, x)

    golden = view.network if isinstance(view.network, FastNetwork) else None
    modules = [] if isinstance(view.network, FastNetwork) else list(view.network.modules())
    handles = [m.register_forward_pre_hook(meet) for m in modules if isinstance(m, Linear | Conv2d)]
    before = golden.sops if golden else 0
    for part in parts:
        recorded = view.record(part)
        count["spikes"] += sum(int((f != 0).sum()) for f in recorded.features.values())
        if golden:
            count["multiplications"] += int((view.images[part] != 0).sum()) * golden.config.sizes[1]
    for handle in handles:
        handle.remove()
    if golden:
        count["additions"] = golden.sops - before - count["multiplications"]
    return Cost(**{name: value / samples for name, value in count.items()})
