"""NIR graphs (Pedersen et al., Nature Communications 15, 8122, 2024) to layers that the core can compute, and back.

docs/nir.md has the equations, and what each framework writes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import nir
import numpy as np

DECAYS = ("euler", "exact")
RESETS = ("subtract", "delayed", "zero")
APPROXIMATIONS = ("reset", "tau")
ALPHA_SPREAD = 2.0**-13
"""Leakage factors of one layer that differ by less are the same: half of what the core resolves at 12 fraction bits."""
LEAST = 2.0**-24
"""Leakage factors are written this far from 0 and 1, where time constants end."""
RESET = "reset"
"""Key of a neuron node's metadata under which this project writes what the graph itself cannot say."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of neurons in floating point: U[t] = leak and reset of U[t-1], plus weight x[t] + bias;  s = U >= theta.

    By `reset`, leak and reset are: `subtract`, alpha (U - theta s), what the core does; `delayed`, alpha U - theta s; `zero`,
    alpha (v_reset where s, else U).
    """

    name: str
    """Of the neurons' node."""
    weight: np.ndarray
    """(N, M)"""
    bias: np.ndarray
    """(N,), added in every step."""
    theta: np.ndarray
    """(N,), above 0."""
    alpha: np.ndarray
    """(N,), 0 to 1; one value is what the core does."""
    reset: str = "subtract"
    v_reset: np.ndarray | float = 0.0
    """(N,)"""
    unit_gain: bool = True
    """Whether the node's resistance lets weights add to the membrane as they are."""

    def step(self, membrane: np.ndarray, spike: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Membranes (B, N) after a step with inputs x (B, M), from membranes and spikes (0 or 1) of the step before."""
        if self.reset == "subtract":
            rest = self.alpha * (membrane - self.theta * spike)
        elif self.reset == "delayed":
            rest = self.alpha * membrane - self.theta * spike
        else:
            rest = self.alpha * np.where(spike, self.v_reset, membrane)
        return rest + x @ self.weight.T + self.bias

    @property
    def core(self) -> Layer:
        """The nearest layer that the core can do: soft reset before the leak, one leakage factor."""
        return replace(self, alpha=np.full_like(self.alpha, self.alpha.mean()), reset="subtract", v_reset=0.0)


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
    """`reset`: take another reset for subtraction. `tau`: take the mean of a layer's leakage factors."""

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


class _Node:
    """A node under its name, and its arrays; every complaint names it."""

    def __init__(self, name: str, node: nir.NIRNode):
        self.name, self.node, self.kind = name, node, type(node).__name__

    def cannot(self, what: str, nearest: str) -> NoReturn:
        raise ValueError(f"node {self.name!r} ({self.kind}): {what}; the nearest that can be done: {nearest}")

    def array(self, parameter: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """A parameter as float64, of this shape if given. It must be finite."""
        value = np.asarray(getattr(self.node, parameter), np.float64)
        if not np.isfinite(value).all():
            self.cannot(
                f"{parameter}: {np.count_nonzero(~np.isfinite(value))} of {value.size} values are NaN or infinite", "finite values"
            )
        if shape is None:
            return value
        try:
            return np.broadcast_to(value, shape).copy()
        except ValueError:
            self.cannot(f"{parameter}: shape {value.shape} does not go with {shape} neurons", f"shape {shape}, or one value")


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
    weight: np.ndarray | None = None  # of what lies between the last neurons and the node, with its bias
    bias: Any = 0.0
    for node in _chain(graph):
        if node.kind in ("Linear", "Affine"):
            w = node.array("weight")
            if w.ndim != 2:
                node.cannot(f"weight: {w.ndim} dimensions", "a matrix")
            b = node.array("bias", w.shape[:1]) if node.kind == "Affine" else np.zeros(len(w))
            if weight is not None and w.shape[1] != len(weight):
                node.cannot(f"weight: {w.shape[1]} inputs, but {len(weight)} come", f"{len(weight)} columns")
            weight, bias = (w, b) if weight is None else (w @ weight, w @ bias + b)
        elif node.kind == "Scale":
            scale = node.array("scale").reshape(-1)
            weight, bias = (np.diag(scale), np.zeros(len(scale))) if weight is None else (scale[:, None] * weight, scale * bias)
        elif node.kind in ("LIF", "CubaLIF", "IF"):
            if weight is None:
                weight, bias = np.eye(node.array("v_threshold").size), np.zeros(node.array("v_threshold").size)
            found.append(_neurons(node, weight, bias, reading, said))
            weight, bias = None, 0.0
        elif node.kind not in ("Input", "Output", "Flatten"):
            node.cannot("no such node in the core", _NEAREST.get(node.kind, "Linear or Affine, then LIF"))
    if weight is not None or not found:
        last = _chain(graph)[-2]
        last.cannot("the network ends without neurons", "LIF or IF behind it: the class is the neuron that spikes most")
    return found, said


_NEAREST = {
    "Conv1d": "Linear with the convolution written out as a matrix",
    "Conv2d": "Linear with the convolution written out as a matrix",
    "AvgPool2d": "Linear with the pooling written out as a matrix",
    "SumPool2d": "Linear with the pooling written out as a matrix",
    "LI": "LIF with soft reset: the core reads spikes, and the membrane where they tie",
    "CubaLI": "LIF with soft reset: the core reads spikes, and the membrane where they tie",
    "I": "IF with soft reset: the core reads spikes, and the membrane where they tie",
    "Delay": "no delay: a spike passes through all layers in its step",
    "Threshold": "IF with soft reset, or LIF with tau = dt (no memory)",
    "NIRGraph": "one chain from Input to Output, without recurrence",
}


def _chain(graph: nir.NIRGraph) -> list[_Node]:
    """The nodes from the input to the output; a chain is all the core does."""
    after: dict[str, list[str]] = {name: [] for name in graph.nodes}
    before: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in dict.fromkeys((str(a), str(b)) for a, b in graph.edges):
        after[source].append(target)
        before[target].append(source)
    nodes = {name: _Node(name, node) for name, node in graph.nodes.items()}
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


def _neurons(node: _Node, weight: np.ndarray, bias: np.ndarray, reading: Reading, said: list[str]) -> Layer:
    """A layer from its neurons' node and the weights before it."""
    shape = (len(weight),)
    theta = node.array("v_threshold", shape)
    if (theta <= 0).any():
        node.cannot(f"v_threshold: {np.count_nonzero(theta <= 0)} of {theta.size} values are not above 0 (least {theta.min():g})",
                    "thresholds above 0")  # fmt: skip
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
    return Layer(name=node.name, weight=gain[:, None] * weight, bias=gain * bias + leak, theta=theta, alpha=alpha,
                 reset=reset, v_reset=v_reset, unit_gain=unit_gain)  # fmt: skip


def _alpha(node: _Node, parameter: str, shape: tuple[int, ...], reading: Reading) -> np.ndarray:
    tau = node.array(parameter, shape)
    if (tau <= 0).any():
        node.cannot(f"{parameter}: {tau.min():g} s", "a time constant above 0")
    alpha = np.exp(-reading.dt / tau) if reading.decay == "exact" else 1 - reading.dt / tau
    if (alpha < -1e-9).any():
        node.cannot(
            f"{parameter}: {tau.min():g} s is shorter than a step of {reading.dt:g} s", "a shorter step (--dt), or --decay exact"
        )
    return np.maximum(alpha, 0)


def _reset(node: _Node, theta: np.ndarray, reading: Reading, said: list[str]) -> tuple[str, np.ndarray]:
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
    size = network[0].weight.shape[1]
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input(np.array([size]))}
    for l, layer in enumerate(network, 1):
        neurons, gain = _node(layer, dt, decay)
        weight, bias = (layer.weight / gain).astype(np.float32), (layer.bias / gain).astype(np.float32)
        nodes[f"weight{l}"] = nir.Affine(weight, bias) if bias.any() else nir.Linear(weight)
        nodes[layer.name] = neurons
    nodes["output"] = nir.Output(np.array([len(network[-1].weight)]))
    names = list(nodes)
    return nir.NIRGraph(nodes=nodes, edges=list(zip(names, names[1:], strict=False)))


def _node(layer: Layer, dt: float, decay: str) -> tuple[nir.LIF, float]:
    """A layer's neurons, and by what they multiply what comes in."""
    theta = layer.theta.astype(np.float32)
    alpha = min(max(float(layer.alpha[0]), LEAST), 1 - LEAST)
    tau = dt / (1 - alpha) if decay == "euler" else -dt / math.log(alpha)
    r = 1 / (1 - alpha) if layer.unit_gain else 1.0
    lif = nir.LIF(tau=np.full_like(theta, tau), r=np.full_like(theta, r), v_leak=np.zeros_like(theta), v_threshold=theta,
                  v_reset=np.zeros_like(theta), metadata={RESET: "subtract"})  # fmt: skip
    return lif, r * (1 - alpha)


def same_thresholds(layer: Layer, theta: np.ndarray) -> Layer:
    """The same neurons with other thresholds: membranes, weights and biases scale with them, and every spike stays."""
    factor = theta / layer.theta
    return replace(layer, weight=factor[:, None] * layer.weight, bias=factor * layer.bias, theta=theta)
