"""The literature's notation of a network, such as `28x28-6C5-P2-16C5-P2-120-84-10`, and what it stands for.

    network  =  input, then layers, joined by hyphens; the last layer is N
    input    =  N inputs | HxW, an image | HxWxC, one of C channels
    layer    =  N         N neurons, each of which sees every unit below
             |  NCk       convolution: N channels, kernels of k x k units (1 to 7); sS: stride S, pP: a border of P zeros
             |  Pk        mean pooling of the layer before: k x k of its spikes are one unit; k is 2, 4, 8 or 16, a rest is left out
             |  R(...)    residual block: convolutions joined by hyphens; the last one also sees what the first one sees, through an
                          identity if the shapes are equal, else through kernels of 1 x 1

Nothing here imports Amaranth or PyTorch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from hw.numbers import CLASSES_MAX, LAYERS_MAX, UNITS_MAX

KERNEL_MAX, STRIDE_MAX = 7, 4
POOLS = (2, 4, 8, 16)
Shape = tuple[int, ...]
"""(N,), or (C, H, W) of channels, height and width."""


@dataclass(frozen=True)
class Dense:
    """Every unit below reaches every neuron."""

    weighted = True


@dataclass(frozen=True)
class Conv:
    """A convolution: square kernels, which every position shares."""

    kernel: int
    stride: int = 1
    padding: int = 0
    weighted = True

    def size(self, units: int) -> int:
        """Positions along an axis of so many units."""
        return (units + 2 * self.padding - self.kernel) // self.stride + 1


@dataclass(frozen=True)
class Identity:
    """Each unit reaches the neuron of its own place, with the weight 1."""

    weighted = False


@dataclass(frozen=True)
class Projection:
    """What the neurons of a layer see of the units of another one (0: the input)."""

    source: int
    kind: Dense | Conv | Identity


@dataclass(frozen=True)
class Population:
    """Neurons of a layer, or the inputs; `pool` x `pool` of them are one unit for the layers that see them."""

    shape: Shape
    projections: tuple[Projection, ...] = ()
    pool: int = 1

    @property
    def unit_shape(self) -> Shape:
        """Shape of the presynaptic units."""
        return self.shape[:1] + tuple(n // self.pool for n in self.shape[1:])

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def units(self) -> int:
        return math.prod(self.unit_shape)

    @property
    def channels(self) -> int:
        """Neurons with thresholds of their own: all, or one for each channel."""
        return self.shape[0]

    @property
    def positions(self) -> int:
        """Neurons that share a threshold."""
        return math.prod(self.shape[1:])


class NotationError(ValueError):
    """A network that cannot be read, or made: the message points at a character."""


@dataclass
class _Reader:
    """Reads a network from left to right; `at` is the character it has come to, from 0, and `begin` where the last word began."""

    text: str
    at: int = 0
    begin: int = 0
    populations: list[Population] = field(default_factory=list)

    def fail(self, at: int, what: str, legal: str) -> NotationError:
        return NotationError(f"{what!r} at character {at + 1} of {self.text!r} is not legal; legal is {legal}")

    def word(self, pattern: str, legal: str) -> re.Match[str]:
        """The next word, up to a hyphen or a parenthesis."""
        end = re.compile(r"[-()]|$").search(self.text, self.at)
        assert end
        word = self.text[self.at : end.start()]
        found = re.fullmatch(pattern, word)
        if not found:
            raise self.fail(self.at, word + self.text[end.start() : end.start() + (not word)], legal)
        self.begin, self.at = self.at, end.start()
        return found

    def number(self, text: str | None, least: int, most: int, legal: str, default: int = 0) -> int:
        value = default if text is None else int(text) if len(text) < 10 else most + 1
        if not least <= value <= most:
            raise self.fail(self.begin, self.text[self.begin : self.at], f"{legal} of {least} to {most}")
        return value

    def read(self) -> tuple[Population, ...]:
        self.input()
        while self.take("-"):
            self.layer()
        if self.at < len(self.text):
            raise self.fail(self.at, self.text[self.at], "a hyphen")
        last = self.populations[-1]
        if not 1 <= len(self.populations) - 1 <= LAYERS_MAX:
            raise NotationError(f"{self.text!r} is not legal; legal is an input, then 1 to {LAYERS_MAX} layers")
        if len(last.shape) > 1 or last.size > CLASSES_MAX:
            raise NotationError(f"{self.text!r} is not legal; legal is a last layer N of at most {CLASSES_MAX} classes")
        return tuple(self.populations)

    def take(self, what: str) -> bool:
        if not self.text.startswith(what, self.at):
            return False
        self.at += len(what)
        return True

    def add(self, shape: Shape, *projections: Projection) -> None:
        if math.prod(shape) > UNITS_MAX:
            legal = f"at most {UNITS_MAX} units of a layer, and not {math.prod(shape)}"
            raise self.fail(self.begin, self.text[self.begin : self.at], legal)
        self.populations.append(Population(shape, projections))

    def input(self) -> None:
        found = self.word(r"(\d+)(?:x(\d+)(?:x(\d+))?)?", "an input: N, HxW or HxWxC")
        sizes = [self.number(n, 1, UNITS_MAX, "sizes") for n in found.groups() if n is not None]
        self.add(tuple(sizes) if len(sizes) == 1 else (sizes[2] if len(sizes) == 3 else 1, sizes[0], sizes[1]))

    def layer(self) -> None:
        if self.text.startswith("P", self.at):
            self.pool()
        elif self.take("R("):
            self.block()
        elif found := re.compile(r"\d+C").match(self.text, self.at):
            self.convolution(len(self.populations) - 1)
        else:
            found = self.word(r"(\d+)", "a layer: a number N, NCk with sS and pP, Pk or R(...), such as 32-10 or 6C5-P2-10")
            self.add((self.number(found[1], 1, UNITS_MAX, "neurons"),), Projection(len(self.populations) - 1, Dense()))

    def convolution(self, source: int) -> None:
        found = self.word(r"(\d+)C(\d+)(?:s(\d+))?(?:p(\d+))?", "a convolution NCk, NCksS, NCkpP or NCksSpP, such as 16C3s2p1")
        channels = self.number(found[1], 1, UNITS_MAX, "channels")
        kernel = self.number(found[2], 1, KERNEL_MAX, "a kernel")
        stride = self.number(found[3], 1, STRIDE_MAX, "a stride", default=1)
        conv, below = Conv(kernel, stride, self.number(found[4], 0, kernel - 1, "a border")), self.populations[source].unit_shape
        if len(below) == 1:
            raise self.fail(self.begin, found[0], "a convolution of an image, HxW or HxWxC, or behind another convolution")
        sizes = tuple(map(conv.size, below[1:]))
        if min(below[1:]) + 2 * conv.padding < kernel:
            raise self.fail(self.begin, found[0], f"a kernel of at most {min(below[1:]) + 2 * conv.padding}, the units it sees")
        self.add((channels, *sizes), Projection(source, conv))

    def pool(self) -> None:
        found, last = self.word(r"P(\d+)", "Pk, such as P2"), self.populations[-1]
        if found[1] not in map(str, POOLS):
            raise self.fail(self.begin, found[0], " or ".join(f"P{k}" for k in POOLS))
        if len(self.populations) == 1 or len(last.shape) == 1 or last.pool > 1:
            raise self.fail(self.begin, found[0], "pooling right behind a convolution or a residual block")
        if min(last.shape[1:]) < int(found[1]):
            raise self.fail(self.begin, found[0], f"pooling of at most {min(last.shape[1:])} units, those there are")
        self.populations[-1] = Population(last.shape, last.projections, int(found[1]))

    def block(self) -> None:
        start, source, stride = self.at - 2, len(self.populations) - 1, 1
        if source == 0:
            raise self.fail(start, "R(", "a residual block behind another layer")
        while True:
            self.convolution(len(self.populations) - 1)
            stride *= self.populations[-1].projections[0].kind.stride  # type: ignore[union-attr]
            if self.take(")"):
                break
            if not self.take("-"):
                raise self.fail(self.at, self.text[self.at : self.at + 1], "a hyphen, or the closing parenthesis of R(")
        below, last = self.populations[source].unit_shape, self.populations[-1]
        if below == last.shape:
            shortcut: Conv | Identity = Identity()
        else:
            shortcut = Conv(1, stride)
            if tuple(map(shortcut.size, below[1:])) != last.shape[1:]:
                legal = f"a block that ends in {' x '.join(str(shortcut.size(n)) for n in below[1:])} units a channel"
                raise self.fail(start, self.text[start : self.at], legal)
        self.populations[-1] = Population(last.shape, (*last.projections, Projection(source, shortcut)))


@lru_cache(maxsize=256)
def read(net: str) -> tuple[Population, ...]:
    """The input and the layers of a network. NotationError points at what is not legal."""
    return _Reader(net).read()


def dense(sizes: Iterable[int]) -> str:
    """The notation of a network of dense layers, by the units of its input and of each layer."""
    return "-".join(map(str, sizes))


def canonical(populations: Sequence[Population]) -> str:
    """The shortest notation of these populations: equal networks have equal names.

    Where all layers are dense the input is no image, but so many units."""
    first = populations[0].shape
    if all(len(population.shape) == 1 for population in populations[1:]):
        return dense(population.size for population in populations)
    words = [str(first[0]) if len(first) == 1 else "x".join(map(str, (*first[1:], *([first[0]] if first[0] > 1 else []))))]
    blocks: dict[int, int] = {}  # layer that begins a block, and the one that ends it
    for l, population in enumerate(populations):
        if len(population.projections) > 1:
            blocks[population.projections[1].source + 1] = l
    for l, population in enumerate(populations[1:], 1):
        kind = population.projections[0].kind
        word = str(population.channels)
        if isinstance(kind, Conv):
            word += f"C{kind.kernel}" + f"s{kind.stride}" * (kind.stride > 1) + f"p{kind.padding}" * (kind.padding > 0)
        word = "R(" * (l in blocks) + word + ")" * (l in blocks.values())
        words += [word] + [f"P{population.pool}"] * (population.pool > 1)
    return "-".join(words)
