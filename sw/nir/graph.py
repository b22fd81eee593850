"""NIR graphs (Pedersen et al., Nature Communications 15, 8122, 2024) to layers that the core can compute, and back.

docs/nir.md has the equations, and what each framework writes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nir
import numpy as np

from hw.notation import Shape
from sw.nir.between import Between, a_channel
from sw.nir.layer import Kernels, Layer
from sw.nir.node import Node

DECAYS = ("euler", "exact")
RESETS = ("subtract", "delayed", "zero")
APPROXIMATIONS = ("reset", "tau", "theta")
ALPHA_SPREAD = 2.0**-13
"""Leakage factors of one layer that differ by less are the same: half of what the core resolves at 12 fraction bits."""
LEAST = 2.0**-24
"""Leakage factors are written this far from 0 and 1, where time constants end."""
RESET = "reset"
"""Key of a neuron node's metadata under which this project writes what the graph itself cannot say."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a graph leaves open, and which approximations are allowed."""

    dt: float = 1e-4
    """Seconds of a time step; snnTorch always writes for 1e-4."""
    decay: str = "euler"
    """How a time constant becomes a leakage factor: `euler` is 1 - dt/tau (snnTorch, Norse, SpikingJelly), `exact` exp(-dt/tau)."""
    reset: str | None = None
    """What a neuron does when it has fired: `subtract` the threshold before the next leak, `delayed` after it, or go to `zero`.

    None: what the graph says, which without metadata of this project is `zero`.
    """
    approximate: frozenset[str] = frozenset()
    """`reset`: take another reset for subtraction. `tau`: take the mean of a layer's leakage factors. `theta`: that of the
    thresholds of a channel of a convolution."""

    def __post_init__(self) -> None:
        if not 0 < self.dt < math.inf:
            raise ValueError(f"dt: {self.dt} is not legal; legal is above 0 (seconds)")
        for name, legal in (("decay", DECAYS), ("reset", (*RESETS, None))):
            if getattr(self, name) not in legal:
                raise ValueError(f"{name}: {getattr(self, name)} is not legal; legal is {' or '.join(map(str, legal))}")
        if self.approximate - set(APPROXIMATIONS):
            raise ValueError(
                f"approximate: {', '.join(sorted(self.approximate))} is not legal; legal is any of {', '.join(APPROXIMATIONS)}"
            )


# -- in ----------------------------------------------------------------------------------------------------------------------------


def read(path: Path) -> nir.NIRGraph:
    """The graph in a file. Raises ValueError, naming the file, if there is none."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        graph = nir.read(path)
    except Exception as e:  # h5py and nir raise whatever they meet
        raise ValueError(f"{path}: not a NIR graph ({str(e) or type(e).__name__})") from None
    if not isinstance(graph, nir.NIRGraph):
        raise ValueError(f"{path}: not a NIR graph, but one node of type {type(graph).__name__}")
    return graph


def layers(graph: nir.NIRGraph, reading: Reading | None = None) -> tuple[list[Layer], list[str]]:
    """The graph's layers from input to output, and what the core can only approximate, a sentence each.

    Raises ValueError for what the core cannot do: it names the node, the parameter and the nearest that can be done.
    """
    reading = reading or Reading()
    found: list[Layer] = []
    said: list[str] = []
    chain = _chain(graph)
    between = Between(None, None)
    for node in chain:
        if node.kind in ("LIF", "CubaLIF", "IF"):
            between.close(node)
            if between.below:
                found[-1] = between.below
            found.append(_neurons(node, between, reading, said))
            between = Between(found[-1], None)
        elif node.kind in between.takes:
            between.takes[node.kind](node)
        elif node.kind == "Input":
            between = Between(None, node.shape())
        elif node.kind != "Output":
            node.cannot("no such node in the core", _NEAREST.get(node.kind, "Linear or Affine, then LIF"))
    last = chain[-2] if len(chain) > 1 else chain[-1]
    if not between.empty or not found:
        last.cannot("the network ends without neurons", "LIF or IF behind it: the class is the neuron that spikes most")
    if between.below is not found[-1]:
        last.cannot("pooling behind the last layer", "no pooling: each neuron of the last layer is a class")
    if isinstance(found[-1].wiring, Kernels):
        last.cannot("the last layer is a convolution", "Flatten and Linear behind it, then LIF or IF: a neuron for each class")
    return found, said


_NEAREST = {
    "Conv1d": "Linear with the convolution written out as a matrix",
    "NoneType": "a node; the framework wrote none for this module (Norse does so for Flatten and AvgPool2d)",
    "LI": "LIF with soft reset: the core reads spikes, and the membrane where they tie",
    "CubaLI": "LIF with soft reset: the core reads spikes, and the membrane where they tie",
    "I": "IF with soft reset: the core reads spikes, and the membrane where they tie",
    "Delay": "no delay: a spike passes through all layers in its step",
    "Threshold": "IF with soft reset, or LIF with tau = dt (no memory)",
    "NIRGraph": "one chain from Input to Output, without recurrence",
}


def _chain(graph: nir.NIRGraph) -> list[Node]:
    """The nodes from the input to the output; a chain is all the core does."""
    after: dict[str, list[str]] = {name: [] for name in graph.nodes}
    before: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in dict.fromkeys((str(a), str(b)) for a, b in graph.edges):
        for name in {source, target} - graph.nodes.keys():
            raise ValueError(f"edge {source!r} to {target!r}: there is no node {name!r}; legal is {', '.join(map(repr, after))}")
        after[source].append(target)
        before[target].append(source)
    nodes = {name: Node(name, node) for name, node in graph.nodes.items()}
    for name, node in nodes.items():
        if node.kind == "NIRGraph":
            node.cannot(f"a graph within the graph ({', '.join(node.node.nodes)})", _NEAREST["NIRGraph"])
        if name in _reached(after, name):
            node.cannot(f"part of a cycle (it feeds {', '.join(after[name])}): recurrence", _NEAREST["NIRGraph"])
    for name, node in nodes.items():
        for count, way in ((after[name], "feeds"), (before[name], "is fed by")):
            if len(count) > 1:
                node.cannot(f"{way} {len(count)} nodes ({', '.join(count)})", "one: layers in a chain, without branches")
    starts = [name for name in nodes if not before[name]]
    for name in starts[1:] or starts[:1]:
        if len(starts) > 1 or nodes[name].kind != "Input":
            nodes[name].cannot(
                "nothing feeds it" if nodes[name].kind != "Input" else "a second input", "one Input, and a chain from it"
            )
    if not starts:
        raise ValueError("the graph is empty; legal is a chain from Input to Output")
    chain = [nodes[starts[0]]]
    while after[chain[-1].name]:
        chain.append(nodes[after[chain[-1].name][0]])
    if chain[-1].kind != "Output":
        chain[-1].cannot("feeds nothing", "an Output behind it")
    return chain


def _reached(after: dict[str, list[str]], start: str) -> set[str]:
    """Nodes that can be reached from a node."""
    seen: set[str] = set()
    todo = list(after[start])
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += after[name]
    return seen


def _neurons(node: Node, between: Between, reading: Reading, said: list[str]) -> Layer:
    """A layer from its neurons' node and what lies before it."""
    wiring, rows = between.wiring, len(between.weight)
    assert wiring is not None
    shape = wiring.shape(rows)
    theta = _thresholds(node, shape, reading, said)
    reset, v_reset = _reset(node, theta, reading, said)
    r = node.array("r", shape)
    if node.kind == "IF":
        alpha, gain, leak = np.ones(shape), r * reading.dt, np.zeros(shape)
        unit_gain = bool(np.allclose(gain, 1))
    else:
        tau = "tau" if node.kind == "LIF" else "tau_mem"
        alpha = _alpha(node, tau, shape, reading)
        gain, leak = r * (1 - alpha), node.array("v_leak", shape) * (1 - alpha)
        unit_gain = not np.allclose(r, 1) or bool(np.allclose(gain, 1))
    if node.kind == "CubaLIF":
        tau_syn = node.array("tau_syn", shape)
        if (abs(tau_syn - reading.dt) > 1e-6 * reading.dt).any() and tau_syn.any():
            node.cannot(f"tau_syn: {tau_syn.min():g} to {tau_syn.max():g} s, a current that outlasts its step of {reading.dt:g} s",
                        "tau_syn = dt (in snnTorch alpha = 0), that is LIF")  # fmt: skip
        gain = gain * node.array("w_in", shape)
    spread = np.ptp(alpha)
    if spread > ALPHA_SPREAD:
        if "tau" not in reading.approximate:
            node.cannot(f"{tau}: leakage factors of {alpha.min():.4f} to {alpha.max():.4f} in one layer",
                        f"one for the layer, their mean {alpha.mean():.4f} (--approximate tau)")  # fmt: skip
        said.append(
            f"node {node.name!r}: leakage factors of {alpha.min():.4f} to {alpha.max():.4f} become their mean {alpha.mean():.4f}"
        )
    gain, leak = a_channel(node, "r (with tau, what currents are multiplied by)", gain), a_channel(node, "v_leak", leak)
    bias = gain * between.bias + leak
    if bias.any() and wiring.constant is None:
        assert isinstance(wiring, Kernels)
        kernel, padding = wiring.conv.kernel, wiring.conv.padding
        node.cannot(f"bias behind a convolution with padding {padding} and kernels of {kernel}, no part of which is always in the"
                    " image", f"bias = 0, or a padding of at most {(kernel - 1) // 2}")  # fmt: skip
    weight = gain.reshape(-1, *[1] * (between.weight.ndim - 1)) * between.weight
    return Layer(name=node.name, weight=weight, bias=bias, theta=theta, alpha=alpha, reset=reset, v_reset=v_reset,
                 unit_gain=unit_gain, wiring=wiring)  # fmt: skip


def _thresholds(node: Node, shape: Shape, reading: Reading, said: list[str]) -> np.ndarray:
    """A node's thresholds, of the neurons' shape; those of a channel are the same, or may be approximated."""
    theta = node.array("v_threshold", shape)
    if (theta <= 0).any():
        node.cannot(f"v_threshold: {np.count_nonzero(theta <= 0)} of {theta.size} values are not above 0 (least {theta.min():g})",
                    "thresholds above 0")  # fmt: skip
    of_channel = theta.reshape(len(theta), -1)
    spread = np.ptp(of_channel, 1) / of_channel.mean(1)
    if spread.max() > 1e-6:
        c = spread.argmax()
        what = f"v_threshold: {of_channel[c].min():g} to {of_channel[c].max():g} in channel {c}"
        if "theta" not in reading.approximate:
            node.cannot(what, f"one for the channel, their mean {of_channel[c].mean():g} (--approximate theta)")
        said.append(f"node {node.name!r}: {what}; each channel gets its mean")
    return theta


def _alpha(node: Node, parameter: str, shape: Shape, reading: Reading) -> np.ndarray:
    tau = node.array(parameter, shape)
    if (tau <= 0).any():
        node.cannot(f"{parameter}: {tau.min():g} s", "a time constant above 0")
    alpha = np.exp(-reading.dt / tau) if reading.decay == "exact" else 1 - reading.dt / tau
    if (alpha < -1e-9).any():
        node.cannot(
            f"{parameter}: {tau.min():g} s is shorter than a step of {reading.dt:g} s", "a shorter step (--dt), or --decay exact"
        )
    return np.maximum(alpha, 0)


def _reset(node: Node, theta: np.ndarray, reading: Reading, said: list[str]) -> tuple[str, np.ndarray]:
    """What the neurons do when they have fired, and what zero is to them."""
    value = node.array("v_reset", theta.shape)
    kind = reading.reset or (node.node.metadata or {}).get(RESET, "zero")
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if kind not in RESETS:
        node.cannot(f"metadata {RESET}: {kind}", " or ".join(RESETS))
    if kind == "subtract" and not value.any():
        return kind, value
    what = {
        "subtract": f"v_reset: {value.min():g} to {value.max():g}, but a soft reset subtracts all of the threshold",
        "delayed": "reset: the threshold is subtracted after the leak (snnTorch's reset_delay=True)",
        "zero": f"v_reset: neurons are set to {value.flat[0]:g} when they have fired, a hard reset",
    }[kind]
    if "reset" not in reading.approximate:
        hint = {
            "subtract": "v_reset = 0",
            "delayed": "train with reset_delay=False",
            "zero": "say --reset subtract if that is what the framework did (NIR cannot)",
        }[kind]
        node.cannot(what, f"subtract the threshold before the next leak; {hint}, or accept that with --approximate reset")
    said.append(f"node {node.name!r}: {what}; the core subtracts the threshold, then leaks")
    return kind, value


# -- out ---------------------------------------------------------------------------------------------------------------------------


def graph(network: Sequence[Layer], dt: float = 1e-4, decay: str = "euler") -> nir.NIRGraph:
    """A NIR graph of layers that the core can do: the inverse of `layers` for a `Reading` of the same `dt` and `decay`.

    Thresholds stay per neuron. A layer that leaks nothing or all gets a very long or short time constant, as snnTorch cannot read
    IF. NIR cannot say that the reset is soft: it is in each neuron node's metadata.
    """
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input(np.array(network[0].wiring.below))}
    for l, layer in enumerate(network, 1):
        neurons, gain = _node(layer, dt, decay)
        weight, bias, wiring = (layer.weight / gain).astype(np.float32), (layer.bias / gain).astype(np.float32), layer.wiring
        if isinstance(wiring, Kernels):
            conv = wiring.conv
            nodes[f"weight{l}"] = nir.Conv2d(input_shape=wiring.below[1:], weight=weight, stride=conv.stride, padding=conv.padding,
                                             dilation=1, groups=1, bias=bias)  # fmt: skip
        else:
            if len(wiring.below) > 1:
                nodes[f"flatten{l}"] = nir.Flatten(input_type=np.array(wiring.below), start_dim=0, end_dim=-1)
            nodes[f"weight{l}"] = nir.Affine(weight, bias) if bias.any() else nir.Linear(weight)
        nodes[layer.name] = neurons
        if layer.pool > 1:
            size = np.array([layer.pool] * 2)
            nodes[f"pool{l}"] = nir.AvgPool2d(kernel_size=size, stride=size, padding=np.zeros_like(size))
    nodes["output"] = nir.Output(np.array([network[-1].rows]))
    names = list(nodes)
    return nir.NIRGraph(nodes=nodes, edges=list(zip(names, names[1:], strict=False)))


def _node(layer: Layer, dt: float, decay: str) -> tuple[nir.LIF, float]:
    """A layer's neurons, and by what they multiply what comes in."""
    theta = layer.theta.astype(np.float32)
    alpha = min(max(float(layer.alpha.flat[0]), LEAST), 1 - LEAST)
    tau = dt / (1 - alpha) if decay == "euler" else -dt / math.log(alpha)
    r = 1 / (1 - alpha) if layer.unit_gain else 1.0
    lif = nir.LIF(tau=np.full_like(theta, tau), r=np.full_like(theta, r), v_leak=np.zeros_like(theta), v_threshold=theta,
                  v_reset=np.zeros_like(theta), metadata={RESET: "subtract"})  # fmt: skip
    return lif, r * (1 - alpha)
