"""What was learned on the chip as a NIR graph. `python -m sw.export` is the program.

The image is that of `sw.nir.deploy`, with what became of it: `Image.learned(core.read())`, or `sim.cosim --image ... --save`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import nir
import numpy as np

from hw.notation import Conv
from hw.numbers import PIXEL_FRAC
from sw.files.image import ONE, Image
from sw.nir import graph as nirgraph
from sw.nir.layer import Full, Kernels, Layer, Wiring, same_thresholds


def layers(image: Image) -> list[Layer]:
    """The network of an image, as its graph had it: thresholds as they were, what was learned of them in weights and biases.

    Units and channels that are always on become biases again, if learning has left them so; else they are neurons like others.
    Raises ValueError for residual blocks, and where what was learned of an input that is always on is no bias.
    """
    own = list(_core_layers(image))
    on = _always_on(image, own)
    for l in range(image.origin.ones, 0, -1):  # from the top, as each hidden unit's weight is a bias of the layer above
        if not on[l - 1]:
            continue
        layer, unit = own[l - 1], ONE[image.network.input] / (1 << PIXEL_FRAC) if l == 1 else 1.0
        without = layer.wiring.without_channel(layer.weight)
        if without is None and l == 1:
            raise ValueError(f"weight.1: what {layer.name} learned of the constant inputs is no bias, as its kernels see fewer of"
                             " them at the border; legal is a convolution without padding, or weights as they were")  # fmt: skip
        if without is None:
            continue
        wiring, weight, bias = without
        if l > 1:
            own[l - 2] = _without_last(own[l - 2])
        own[l - 1] = replace(layer, bias=layer.bias + unit * bias, weight=weight, wiring=wiring)
    own[0] = replace(own[0], weight=own[0].weight / image.origin.input_scale)
    thresholds = [np.array(theta) for theta in image.origin.theta] or [np.ones(layer.rows) for layer in own]
    return [same_thresholds(layer, np.append(theta, np.ones(layer.rows - len(theta))))
            for layer, theta in zip(own, thresholds, strict=True)]  # fmt: skip


def _core_layers(image: Image) -> Iterator[Layer]:
    """The layers as the core has them, in floating point."""
    c, origin = image.network, image.origin
    for l, alpha in zip(c.layers, image.state["alpha"] / c.alpha_one, strict=True):
        population = c.populations[l]
        if len(population.projections) > 1:
            raise ValueError(f"net: {c.net} has a residual block; legal is a chain of layers, without branches")
        kind, below = population.projections[0].kind, c.populations[l - 1].unit_shape
        wiring: Wiring = Kernels(below, kind) if isinstance(kind, Conv) else Full(below)
        weight = image.state[f"weight.{l}"] / c.w.one
        theta = image.state[f"theta.{l}"] / c.u.one
        yield Layer(name=origin.names[l - 1] if origin.names else f"neurons{l}", unit_gain=origin.unit_gain,
                    weight=weight if isinstance(kind, Conv) else weight.reshape(len(weight), -1), bias=np.zeros(len(weight)),
                    wiring=wiring, pool=population.pool,
                    theta=np.broadcast_to(theta.reshape(-1, *[1] * (len(population.shape) - 1)), population.shape),
                    alpha=np.full(population.shape, alpha))  # fmt: skip


def _without_last(layer: Layer) -> Layer:
    """The layer without its last neuron, or channel."""
    return replace(layer, weight=layer.weight[:-1], theta=layer.theta[:-1], alpha=layer.alpha[:-1], bias=layer.bias[:-1])


def _always_on(image: Image, network: list[Layer]) -> list[bool]:
    """For the input and each layer below the last that has one: whether its last neuron or channel fires in every step, by the unit
    below that is always on, whatever the others do."""
    on = [True]
    for l in range(1, image.origin.ones):
        layer = network[l - 1]
        unit = ONE[image.network.input] / (1 << PIXEL_FRAC) if l == 1 else 1.0
        others = np.minimum(layer.wiring.without_last(layer.weight)[1][-1], 0).sum()
        on.append(on[-1] and bool(unit * layer.wiring.held(layer.weight)[-1] + others >= layer.theta[-1].max()))
    return on


def graph(image: Image) -> nir.NIRGraph:
    """The network of an image as a NIR graph."""
    return nirgraph.graph(layers(image), image.origin.dt, image.origin.decay)
