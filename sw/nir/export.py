"""What was learned on the chip as a NIR graph. `python -m sw.export` is the program.

The image is that of `sw.nir.deploy`, with what became of it: `Image.learned(core.read())`, or `sim.cosim --image ... --save`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import nir
import numpy as np

from hw.numbers import PIXEL_FRAC
from sw.files.image import ONE, Image
from sw.nir import graph as nirgraph
from sw.nir.graph import Layer


def layers(image: Image) -> list[Layer]:
    """The network of an image, as its graph had it: thresholds as they were, what was learned of them in weights and biases.

    Units that are always on become biases again, if learning has left them so; else they are neurons like others.
    """
    own = list(_core_layers(image))
    for l in range(image.origin.ones, 0, -1):  # from the top, as each hidden unit's weight is a bias of the layer above
        if l > 1 and not _always_on(image, own[l - 2]):
            continue
        layer, unit = own[l - 1], 1.0
        if l == 1:
            unit = ONE[image.network.input] / (1 << PIXEL_FRAC)
        else:
            below = own[l - 2]
            own[l - 2] = replace(
                below, weight=below.weight[:-1], theta=below.theta[:-1], alpha=below.alpha[:-1], bias=below.bias[:-1]
            )
        own[l - 1] = replace(layer, bias=layer.bias + unit * layer.weight[:, -1], weight=layer.weight[:, :-1])
    own[0] = replace(own[0], weight=own[0].weight / image.origin.input_scale)
    thresholds = [np.array(theta) for theta in image.origin.theta] or [np.ones_like(layer.theta) for layer in own]
    return [nirgraph.same_thresholds(layer, np.append(theta, np.ones(len(layer.theta) - len(theta))))
            for layer, theta in zip(own, thresholds, strict=True)]  # fmt: skip


def _core_layers(image: Image) -> Iterator[Layer]:
    """The layers as the core has them, in floating point."""
    c, origin = image.network, image.origin
    for l, alpha in zip(c.layers, image.state["alpha"] / c.alpha_one, strict=True):
        n = c.sizes[l]
        yield Layer(name=origin.names[l - 1] if origin.names else f"neurons{l}", weight=image.state[f"weight.{l}"] / c.w.one,
                    bias=np.zeros(n), theta=image.state[f"theta.{l}"] / c.u.one, alpha=np.full(n, alpha),
                    unit_gain=origin.unit_gain)  # fmt: skip


def _always_on(image: Image, layer: Layer) -> bool:
    """Whether the last neuron of a layer, whose last input is always on, fires in every step whatever the others do."""
    kind = ONE[image.network.input] / (1 << PIXEL_FRAC) if layer.weight.shape[1] == image.network.sizes[0] else 1.0
    others = np.minimum(layer.weight[-1, :-1], 0).sum()
    return bool(kind * layer.weight[-1, -1] + others >= layer.theta[-1])


def graph(image: Image) -> nir.NIRGraph:
    """The network of an image as a NIR graph."""
    return nirgraph.graph(layers(image), image.origin.dt, image.origin.decay)
