"""What lies between the neurons of one layer and those of the next: one matrix or one convolution, behind pooling.

Linear nodes one after the other are one: matrices, scales, and the mean or sum over a convolution's positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from hw.notation import KERNEL_MAX, POOLS, STRIDE_MAX, Conv, Shape
from sw.nir.layer import Full, Kernels, Layer, Wiring
from sw.nir.node import Node, units

NEURONS_BETWEEN = "LIF or IF between them"


class Between:
    """Takes nodes in the order of the graph. `below`: the last layer of neurons, none behind the input of shape `shape`.

    A pooling behind neurons changes `below`. Raises ValueError, by `Node.cannot`.
    """

    def __init__(self, below: Layer | None, shape: Shape | None) -> None:
        self.below, self._shape = below, shape
        self._factor: np.ndarray | float = 1.0  # of the units below, still to be multiplied into weights
        self._flat = False
        self.wiring: Wiring | None = None
        self.weight: np.ndarray = np.zeros(0)
        self.bias: np.ndarray = np.zeros(0)
        self.takes: dict[str, Callable[[Node], None]] = {
            "Linear": self._linear, "Affine": self._linear, "Scale": self._scale, "Conv2d": self._conv, "AvgPool2d": self._pool,
            "SumPool2d": self._pool, "Flatten": self._flatten,
        }  # fmt: skip

    @property
    def empty(self) -> bool:
        """Whether nothing came yet that is more than a shape."""
        return self.wiring is None and bool(np.size(self._factor) == 1 and self._factor == 1)

    @property
    def _below(self) -> Shape | None:
        """Of the units that come, if known."""
        return self.below.unit_shape if self.below else self._shape

    def _image(self, node: Node) -> Shape:
        """Channels, height and width of the units that come to a node that needs them."""
        shape = self._below
        if shape is None:
            node.cannot("input_shape: the graph does not say how large the image is", "input_shape, or an Input node with a shape")
        if self._flat or len(shape) not in (2, 3):
            node.cannot(f"{units(shape)} units without channels come", "an image (C, H, W): the input, or a convolution's neurons")
        return shape if len(shape) == 3 else (1, *shape)

    # -- matrices ---------------------------------------------------------------------------------
    def _linear(self, node: Node) -> None:
        w = node.array("weight")
        if w.ndim != 2:
            node.cannot(f"weight: {w.ndim} dimensions", "a matrix")
        if not w.size:
            node.cannot(f"weight: shape {w.shape}", "at least one input and one neuron")
        b = node.array("bias", w.shape[:1]) if node.kind == "Affine" else np.zeros(len(w))
        if isinstance(self.wiring, Kernels):
            node.cannot("a matrix right behind a convolution", NEURONS_BETWEEN)
        if self.wiring is not None:
            if w.shape[1] != len(self.weight):
                node.cannot(f"weight: {w.shape[1]} inputs, but {len(self.weight)} come", f"{len(self.weight)} columns")
            self.weight, self.bias = w @ self.weight, w @ self.bias + b
            return
        below = self.below.unit_shape if self.below else w.shape[1:]  # of flat inputs the matrix knows best
        if math.prod(below) != w.shape[1]:
            node.cannot(f"weight: {w.shape[1]} inputs, but {units(below)} come", f"{math.prod(below)} columns, behind a Flatten")
        self.wiring = Full(below)
        self.weight, self.bias = w * self._for_units(node, below).reshape(-1), b

    def _for_units(self, node: Node, below: Shape) -> np.ndarray:
        """The pending factor of each unit."""
        factor = np.asarray(self._factor)
        if factor.size not in (1, math.prod(below)):
            node.cannot(f"{factor.size} values come from a Scale, but {units(below)} units", "a Scale of that shape")
        return np.broadcast_to(factor.reshape(below) if factor.size > 1 else factor, below)

    def _scale(self, node: Node) -> None:
        scale = node.array("scale")
        if isinstance(self.wiring, Kernels):
            rows = a_channel(node, "scale", node.array("scale", self.wiring.shape(len(self.weight))))
            self.weight, self.bias = rows[:, None, None, None] * self.weight, rows * self.bias
        elif self.wiring is not None:
            rows = node.array("scale", self.weight.shape[:1]) if scale.size == 1 else scale.reshape(-1)
            if len(rows) != len(self.weight):
                node.cannot(f"scale: {len(rows)} values, but {len(self.weight)} units come", f"{len(self.weight)} values")
            self.weight, self.bias = rows[:, None] * self.weight, rows * self.bias
        else:
            shape = self._below
            image = shape is not None and len(shape) == 3 and not self._flat
            scale = node.array("scale", shape) if image else scale.reshape(-1)
            if scale.size > 1 and np.size(self._factor) > 1 and scale.shape != np.shape(self._factor):
                node.cannot(f"scale: shape {scale.shape} behind another of {np.shape(self._factor)}", "the same shape")
            self._factor = self._factor * scale

    # -- convolutions -----------------------------------------------------------------------------
    def _conv(self, node: Node) -> None:
        if self.wiring is not None:
            node.cannot("a convolution right behind other weights", NEURONS_BETWEEN)
        w = node.array("weight")
        if w.ndim != 4:
            node.cannot(f"weight: {w.ndim} dimensions", "4: channels, channels below, rows, columns")
        if not w.size:
            node.cannot(f"weight: shape {w.shape}", "sizes of at least 1")
        if node.square("groups", 1, int(w.shape[0])) != 1:
            node.cannot(f"groups: {node.node.groups}", "groups = 1, with weights of 0 between the groups")
        shape = self._conv_input(node, w)
        if w.shape[2] != w.shape[3]:
            node.cannot(f"weight: kernels of {w.shape[2]} x {w.shape[3]}", "square kernels, filled up with 0")
        if w.shape[2] > KERNEL_MAX:
            node.cannot(f"weight: kernels of {w.shape[2]} x {w.shape[3]}", f"kernels of 1 to {KERNEL_MAX}")
        dilation = node.pair("dilation", 0)
        if dilation != (1, 1):
            node.cannot(f"dilation: {' x '.join(map(str, dilation))}", "dilation = 1, with weights of 0 between the taps")
        conv = Conv(w.shape[2], node.square("stride", 1, STRIDE_MAX), self._padding(node, w.shape[2]))
        if min(shape[1:]) + 2 * conv.padding < conv.kernel:
            node.cannot(f"weight: kernels of {conv.kernel} x {conv.kernel}, but the image has {shape[1]} x {shape[2]} units",
                        f"kernels of at most {min(shape[1:]) + 2 * conv.padding}")  # fmt: skip
        factor = a_channel(node, "scale before it", self._for_units(node, shape))
        self.wiring, self.weight, self.bias = Kernels(shape, conv), w * factor[:, None, None], node.array("bias", w.shape[:1])

    def _conv_input(self, node: Node, w: np.ndarray) -> Shape:
        """Channels, height and width of what a convolution sees, as graph and node say."""
        said, channels = node.shape("input_shape"), w.shape[1]
        if said and len(said) != 2:
            node.cannot(f"input_shape: {said}", "rows and columns")
        shape = (channels, *said) if said and self._below is None else self._image(node)
        if said and shape[1:] != said:
            node.cannot(f"input_shape: {said[0]} x {said[1]}, but {shape[1]} x {shape[2]} units a channel come",
                        f"input_shape = ({shape[1]}, {shape[2]})")  # fmt: skip
        if shape[0] != channels:
            node.cannot(f"weight: {channels} channels, but {shape[0]} come", f"{shape[0]} channels")
        return shape

    def _padding(self, node: Node, kernel: int) -> int:
        """Rows and columns of zeros around the image."""
        padding = node.node.padding
        padding = padding.decode() if isinstance(padding, bytes) else padding
        if isinstance(padding, str):
            if padding == "same" and (kernel % 2 == 0 or node.square("stride", 1, STRIDE_MAX) > 1):
                node.cannot("padding: same, which is not the same on both sides here", "a number, with stride 1 and odd kernels")
            if padding not in ("same", "valid"):
                node.cannot(f"padding: {padding}", f"0 to {kernel - 1}, same or valid")
            return kernel // 2 if padding == "same" else 0
        return node.square("padding", 0, kernel - 1)

    # -- pooling ----------------------------------------------------------------------------------
    def _pool(self, node: Node) -> None:
        k, stride = node.square("kernel_size", 1, max(POOLS)), node.square("stride", 1, max(POOLS))
        if node.square("padding", 0, 0) or stride != k:
            node.cannot(f"stride: {stride}, but kernel_size {k}", "the same for both")
        if self.wiring is None:
            self._pool_spikes(node, k)
        else:
            self._pool_currents(node, k)

    def _pool_spikes(self, node: Node, k: int) -> None:
        """Pooling behind neurons: units of the layer below."""
        if self.below is None:
            node.cannot("kernel_size: pooling of the input", "pooled samples, or pooling behind a convolution's neurons")
        self._image(node)
        pool = self.below.pool * k
        if pool not in POOLS:
            node.cannot(f"kernel_size: {k}" + f", {pool} with the pooling before it" * (pool > k),
                        ", ".join(map(str, POOLS[:-1])) + f" or {POOLS[-1]}")  # fmt: skip
        if min(self.below.unit_shape[1:]) < k:
            node.cannot(f"kernel_size: {k}, but {' x '.join(map(str, self.below.unit_shape[1:]))} units a channel come",
                        f"at most {min(self.below.unit_shape[1:])}")  # fmt: skip
        if np.size(self._factor) > 1:
            node.cannot("pooling behind a Scale", "the Scale behind it")
        self.below = replace(self.below, pool=pool)
        if node.kind == "SumPool2d":
            self._factor = self._factor * k**2

    def _pool_currents(self, node: Node, k: int) -> None:
        """Pooling between a convolution and its neurons: a convolution with a larger kernel and stride."""
        if not isinstance(self.wiring, Kernels):
            node.cannot("pooling behind a matrix", "pooling behind a convolution's neurons")
        below, conv = self.wiring.below, self.wiring.conv
        kernel, stride = conv.kernel + (k - 1) * conv.stride, conv.stride * k
        if kernel > KERNEL_MAX or stride > STRIDE_MAX or min(self.wiring.shape(1)[1:]) < k:
            what = f"kernel_size: {k}, before the neurons: with the convolution a kernel of {kernel} at stride {stride}"
            most = f"a kernel of at most {KERNEL_MAX} at a stride of at most {STRIDE_MAX}"
            node.cannot(what, f"pooling behind the neurons, or {most}")
        share = 1.0 if node.kind == "SumPool2d" else k**-2
        weight = np.zeros((*self.weight.shape[:2], kernel, kernel))
        for y in range(k):
            for x in range(k):
                at = (slice(y * conv.stride, y * conv.stride + conv.kernel), slice(x * conv.stride, x * conv.stride + conv.kernel))
                weight[:, :, *at] += share * self.weight
        self.wiring, self.weight, self.bias = Kernels(below, Conv(kernel, stride, conv.padding)), weight, share * k**2 * self.bias

    def _flatten(self, node: Node) -> None:
        if isinstance(self.wiring, Kernels):
            node.cannot("between a convolution and its neurons", "the neurons (LIF or IF), then Flatten")
        said, shape = node.shape(), self._below
        if self.wiring is None:
            if said and self.below and shape and math.prod(said) != math.prod(shape):
                node.cannot(f"input_type: {units(said)} units, but {units(shape)} come", f"the shape {shape}")
            self._flat = True

    # -- neurons ----------------------------------------------------------------------------------
    def close(self, node: Node) -> None:
        """What lies before the neurons of a node is complete: if there are no weights, each unit reaches its own neuron."""
        if self.wiring is not None:
            return
        shape = self._below
        if shape and len(shape) == 3 and not self._flat:
            factor = a_channel(node, "scale before it", self._for_units(node, shape))
            self.wiring, self.weight = Kernels(shape, Conv(1)), np.diag(factor)[:, :, None, None]
        else:
            size = math.prod(shape) if self.below and shape else max(node.array("v_threshold").size, np.size(self._factor))
            below = shape if self.below and shape else (size,)
            self.wiring, self.weight = Full(below), np.diag(self._for_units(node, (size,)))
        self.bias = np.zeros(len(self.weight))


def a_channel(node: Node, parameter: str, values: np.ndarray) -> np.ndarray:
    """Values (C,) of values (C, H, W), which must be the same within a channel."""
    rows = values.reshape(len(values), -1)
    spread = np.ptp(rows, axis=1)
    if (spread > 1e-6 * np.abs(rows).max(1)).any():
        worst = spread.argmax()
        node.cannot(f"{parameter}: {rows[worst].min():g} to {rows[worst].max():g} in channel {worst}", "one value a channel")
    return rows[:, 0]
