"""The paper's network families, sized by a configuration: MLP, LeNet-5, VGG-11, ResNet-18, all of LIF neurons; and the residual
networks for small images, with and without their shortcuts. With `neuron="relu"` each is an artificial network (ANN) of the same
definition.

    net = build(Spec("resnet18", shape=(3, 32, 32), classes=10))

One definition learns by any method of `sw.stop.set_method`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from sw.stop import LIF, BatchNorm, Conv2d, Linear, Population, Rectifier, populations

NORMS = ("none", "batch", "weight")
POOLS = ("max", "avg")
NEURONS = ("lif", "relu")


@dataclass(frozen=True)
class Spec:
    """What a network is built from; `build` checks the combination.

    `model`: one of MODELS. `shape`: (features,) or (channels, rows, columns) of an input. `hidden`: hidden layers of an MLP.
    `blocks`: in each of the three stages of `resnet` and `plain`, which then have 6 blocks + 2 layers. `width`: channels are
    multiplied by it. `norm`: of convolutions, by the batch of each step (`batch`), by standardised weights (`weight`) or not at
    all. `pool`: max or mean of spikes. `theta`, `alpha`, `surrogate`: of all neurons. `gain`: the standard deviation of first
    weights is gain / sqrt(fan-in). `neuron`: lif, or relu without spikes (thresholds are biases then).
    """

    model: str
    shape: tuple[int, ...]
    classes: int = 10
    hidden: tuple[int, ...] = (200,)
    width: float = 1.0
    norm: str = "none"
    pool: str = "max"
    theta: float = 1.0
    alpha: float = 0.5
    surrogate: str = "exponential"
    gain: float = 1.0
    neuron: str = "lif"
    blocks: int = 3

    def __post_init__(self) -> None:
        for name in ("shape", "hidden"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, good, legal in (
            ("model", self.model in MODELS, " or ".join(MODELS)),
            (
                "shape",
                len(self.shape) in (1, 3) and min(self.shape) >= 1,
                "(features,) or (channels, rows, columns), at least 1 each",
            ),
            ("classes", self.classes >= 2, "at least 2"),
            ("hidden", all(n >= 1 for n in self.hidden), "whole numbers of at least 1"),
            ("width", self.width > 0, "above 0"),
            ("norm", self.norm in NORMS, " or ".join(NORMS)),
            ("pool", self.pool in POOLS, " or ".join(POOLS)),
            ("gain", self.gain > 0, "above 0"),
            ("neuron", self.neuron in NEURONS, " or ".join(NEURONS)),
            ("blocks", self.blocks >= 1, "at least 1"),
        ):
            if not good:
                raise ValueError(f"{name}: {getattr(self, name)} is not legal; legal is {legal}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Spec:
        known = [f.name for f in fields(cls)]
        for name in values:
            if name not in known:
                raise ValueError(f"{name}: no such field; legal is one of {', '.join(known)}")
        return cls(**values)


@dataclass
class Builder:
    """Makes the pieces of a network and keeps count of the shape that reaches the next one."""

    spec: Spec
    shape: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.shape = self.spec.shape

    def neurons(self, n: int) -> LIF:
        s = self.spec
        if s.neuron == "relu":
            return Rectifier(n)
        return LIF(n, theta=s.theta, alpha=s.alpha, surrogate=s.surrogate)

    def channels(self, n: int) -> int:
        return max(1, round(n * self.spec.width))

    def conv(self, out: int, kernel: int, *, stride: int = 1, padding: int = 0, source: int | None = None) -> nn.Module:
        """A convolution and its normalisation, from the shape at hand (or `source` channels)."""
        norm = self.spec.norm
        conv = Conv2d(
            source or self.shape[0], out, kernel, stride=stride, padding=padding, bias=False, standardise=norm == "weight"
        )  # fmt: skip
        return nn.Sequential(conv, BatchNorm(out)) if norm == "batch" else conv

    def conv_layer(self, out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> Population:
        layer = Population(self.neurons(out), self.conv(out, kernel, stride=stride, padding=padding))
        self.shape = (out, *((n + 2 * padding - kernel) // stride + 1 for n in self.shape[1:]))
        if min(self.shape) < 1:
            raise ValueError(f"shape: {self.spec.shape} is not legal; {self.spec.model} needs larger images")
        return layer

    def linear_layer(self, out: int) -> Population:
        linear = Linear(math.prod(self.shape), out, bias=False)
        layer = Population(self.neurons(out), nn.Sequential(nn.Flatten(), linear) if len(self.shape) > 1 else linear)
        self.shape = (out,)
        return layer

    def pool(self, n: int = 2) -> nn.Module:
        """Pooling n x n, or nothing where images are already smaller."""
        if min(self.shape[1:]) < n:
            return nn.Identity()
        self.shape = (self.shape[0], *(m // n for m in self.shape[1:]))
        return nn.MaxPool2d(n) if self.spec.pool == "max" else nn.AvgPool2d(n)


def _mlp(b: Builder) -> list[nn.Module]:
    return [b.linear_layer(n) for n in (*b.spec.hidden, b.spec.classes)]


def _lenet5(b: Builder) -> list[nn.Module]:
    """LeCun et al. 1998: 6C5-P2-16C5-P2-120-84-C, the first convolution padded so that 28 x 28 stays."""
    layers: list[nn.Module] = [b.conv_layer(b.channels(6), 5, padding=2), b.pool(), b.conv_layer(b.channels(16), 5), b.pool()]
    return [*layers, *(b.linear_layer(n) for n in (b.channels(120), b.channels(84), b.spec.classes))]


def _vgg11(b: Builder) -> list[nn.Module]:
    """64-P-128-P-256-256-P-512-512-P-512-512, then the mean over the image and one layer of classes."""
    layers: list[nn.Module] = []
    for group in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        if layers:
            layers.append(b.pool())
        layers += [b.conv_layer(b.channels(n), 3, padding=1) for n in group]
    return [*layers, *_head(b)]


class Residual(nn.Module):
    """Two layers of neurons; the second adds the block's input to its current, projected if the shape changes.

    `plain`: the second adds nothing.
    """

    def __init__(self, b: Builder, out: int, stride: int, *, plain: bool = False) -> None:
        super().__init__()
        source = b.shape[0]
        self.first = b.conv_layer(out, 3, stride=stride, padding=1)
        same = stride == 1 and source == out
        shortcuts = [] if plain else [nn.Identity() if same else b.conv(out, 1, stride=stride, source=source)]
        self.second = Population(b.neurons(out), b.conv(out, 3, padding=1), *shortcuts)
        self.plain = plain

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) if self.plain else self.second(self.first(x), x)


def _resnet18(b: Builder) -> list[nn.Module]:
    """He et al., arXiv 1512.03385, with the stem for small images: 3 x 3, stride 1."""
    stem = b.conv_layer(b.channels(64), 3, padding=1)
    layers: list[nn.Module] = [stem]
    for n, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Residual(b, b.channels(n), stride), Residual(b, b.channels(n), 1)]
    return [*layers, *_head(b)]


def _resnet(b: Builder, *, plain: bool = False) -> list[nn.Module]:
    """The networks for small images of He et al., section 4.2: three stages of `blocks` blocks with 16, 32 and 64 channels.

    They have 6 blocks + 2 layers.
    """
    layers: list[nn.Module] = [b.conv_layer(b.channels(16), 3, padding=1)]
    for n, stride in ((16, 1), (32, 2), (64, 2)):
        layers += [Residual(b, b.channels(n), 1 if i else stride, plain=plain) for i in range(b.spec.blocks)]
    return [*layers, *_head(b)]


def _plain(b: Builder) -> list[nn.Module]:
    """The same layers without shortcuts."""
    return _resnet(b, plain=True)


def _head(b: Builder) -> list[nn.Module]:
    b.shape = (b.shape[0], 1, 1)
    return [nn.AdaptiveAvgPool2d(1), b.linear_layer(b.spec.classes)]


MODELS = {"mlp": _mlp, "lenet5": _lenet5, "vgg11": _vgg11, "resnet18": _resnet18, "resnet": _resnet, "plain": _plain}


def build(spec: Spec) -> nn.Module:
    """The network of `spec`, weights drawn with torch's generator. ValueError if model and shape do not go together."""
    if spec.model != "mlp" and len(spec.shape) != 3:
        raise ValueError(f"shape: {spec.shape} is not legal for {spec.model}; legal is (channels, rows, columns)")
    net = nn.Sequential(*MODELS[spec.model](Builder(spec)))
    last = populations(net)[-1].neuron
    if isinstance(last, Rectifier):
        last.linear = True
    for m in net.modules():
        if isinstance(m, (Linear, Conv2d)):
            with torch.no_grad():
                m.weight.normal_(0, spec.gain / math.sqrt(m.weight[0].numel()))
                if isinstance(m, Conv2d) and m.gain is not None:
                    m.gain.fill_(spec.gain)
    return net
