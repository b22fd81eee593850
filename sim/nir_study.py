"""Networks of snnTorch and Norse on the chip and back, measured: `python -m sim.nir_study` (or `make nir`).

Trains 64-32-10 and a convolutional network on scikit-learn's digits by back-propagation through time in snnTorch, writes NIR,
deploys it, lets gateware and golden model run it (convolutions: the golden model alone), learns shifted digits from the imported
weights by STOP, and lets the frameworks read what came of it. Needs snntorch, nirtorch and norse (`pip install -e .[dev]`).
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import nir
import numpy as np
import torch
from scipy.ndimage import rotate
from torch import Tensor, nn
from tqdm import tqdm

with warnings.catch_warnings():  # what these packages have to say to each other
    warnings.simplefilter("ignore")
    import norse.torch as norse
    import snntorch as snn
    from norse.torch.functional.reset import reset_subtract
    from norse.torch.utils.export_nir import to_nir as norse_to_nir
    from norse.torch.utils.import_nir import from_nir as norse_from_nir
    from snntorch import functional, surrogate, utils
    from snntorch.export_nir import export_to_nir
    from snntorch.import_nir import import_from_nir

from hw import notation
from hw.network import Network
from hw.numbers import PIXEL_FRAC
from hw.options import output, whole
from sim.twin import Twin
from sw import data
from sw.files.image import Image
from sw.golden.learn import accuracy
from sw.golden.network import GoldenNetwork
from sw.golden.recipe import Recipe
from sw.nir import export
from sw.nir.deploy import Samples, deploy
from sw.nir.graph import Reading

NET, CONVOLUTIONS = "64-32-10", "8x8-4C3-P2-10"
"""Networks in the notation of `hw.notation`."""
BETA = 0.9
NORSE_DT = 1e-3
"""Norse's step; its files need `to_nir(..., dt=1)` to hold seconds."""

# -- the frameworks ----------------------------------------------------------------------------------------------------------------


def leaky(*shape: int, reset_delay: bool = False, **options: Any) -> snn.Leaky:
    """Neurons of a shape that snnTorch can write to NIR (one parameter a neuron)."""
    return snn.Leaky(torch.full(shape, BETA), threshold=torch.ones(shape), init_hidden=True, reset_delay=reset_delay,
                     spike_grad=surrogate.fast_sigmoid(), **options)  # fmt: skip


def snntorch_network(net: str = NET, *, bias: bool = False, reset_delay: bool = False) -> nn.Sequential:
    """Random weights; `net` in the notation of `hw.notation`, without residual blocks."""
    modules: list[nn.Module] = []
    below, *layers = notation.read(net)
    for layer in layers:
        kind, shape = layer.projections[0].kind, below.unit_shape
        if isinstance(kind, notation.Conv):
            modules.append(nn.Conv2d(shape[0], layer.channels, kind.kernel, kind.stride, kind.padding, bias=bias))
        else:
            modules += [nn.Flatten()] * (len(shape) > 1) + [nn.Linear(below.units, layer.size, bias=bias)]
        modules += [leaky(*layer.shape, reset_delay=reset_delay)] + [nn.AvgPool2d(layer.pool)] * (layer.pool > 1)
        below = layer
    return nn.Sequential(*modules)


def input_shape(network: nn.Module) -> tuple[int, ...]:
    """How a network takes a digit: (64,), or (1, 8, 8) for a convolution."""
    first = next(module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d))
    return (1, 8, 8) if isinstance(first, nn.Conv2d) else (64,)


def run_snntorch(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Output spikes (T, B, C), and the last layer's membranes (B, C) after the last step, before its reset."""
    utils.reset(network)
    spikes = [out[0] if isinstance(out := network(frame), tuple) else out for frame in x]
    last = [module for module in network.modules() if isinstance(module, snn.Leaky)][-1]
    return torch.stack(spikes), last.mem if last.reset_delay else last.mem + spikes[-1] * last.threshold


def train(network: nn.Module, x: Tensor, labels: Tensor, *, epochs: int, seed: int = 0, quiet: bool = True) -> None:
    """Back-propagation through time of the cross entropy of spike counts; x is (T, n, inputs)."""
    torch.manual_seed(seed)
    optimiser, loss = torch.optim.Adam(network.parameters(), 5e-3), functional.ce_count_loss()
    for _ in tqdm(range(epochs), desc="train", unit=" epochs", leave=False, disable=quiet or not sys.stderr.isatty()):
        for batch in torch.randperm(len(labels)).split(64):
            optimiser.zero_grad()
            loss(run_snntorch(network, x[:, batch])[0], labels[batch]).backward()
            optimiser.step()


def snntorch_graph(network: nn.Module) -> nir.NIRGraph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside snnTorch
        return export_to_nir(network, torch.zeros(1, *input_shape(network)), ignore_dims=[0])


def snntorch_read(graph: nir.NIRGraph, *, own_reset: bool = False) -> nn.Module:
    """A graph as snnTorch reads it, with the soft reset that NIR cannot say.

    With `own_reset` a membrane that is still above the threshold after its reset is reset again before the next comparison, as
    snnTorch's reset_delay=False does; without, a spike subtracts one threshold and that is all.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        network = import_from_nir(graph)
    for module in network.modules():
        if isinstance(module, snn.Leaky):
            module.reset_mechanism, module.state_function = "subtract", module._base_sub
    flatten_samples(network)
    if not own_reset:
        reset_once(network)
    return network


def flatten_samples(network: nn.Module) -> None:
    """Makes what a framework read of a graph flatten each sample of a batch: NIR's axes are those of one sample."""
    for module in network.modules():
        if isinstance(module, nn.Flatten):
            module.start_dim = 1


def reset_once(network: nn.Module) -> None:
    """Makes a network of snnTorch with reset_delay=False reset as the chip does.

    A spike subtracts one threshold and that is all.
    """
    for module in network.modules():
        if isinstance(module, snn.Leaky):
            module.mem_reset = torch.zeros_like


def norse_network(layers: Sequence[nn.Module]) -> nn.Module:
    """The same network as one of snnTorch, in Norse: there a current charges the membrane by dt/tau of itself."""
    modules: list[nn.Module] = []
    for module in layers:
        if isinstance(module, nn.Linear | nn.Conv2d):
            same = copy.deepcopy(module)
            same.weight.data = module.weight.data / (1 - BETA)
            bias = torch.zeros(len(module.weight)) if module.bias is None else module.bias.data / (1 - BETA)
            same.bias = nn.Parameter(bias)  # Norse writes no others
            modules.append(same)
        elif isinstance(module, snn.Leaky):
            shape = module.threshold.shape
            modules.append(norse.LIFBoxCell(norse.LIFBoxParameters(
                tau_mem_inv=torch.full(shape, (1 - BETA) / NORSE_DT), v_th=module.threshold.detach().clone(),
                v_leak=torch.zeros(shape), v_reset=torch.zeros(shape), reset_method=reset_subtract), dt=NORSE_DT))  # fmt: skip
        else:
            modules.append(module)
    return norse.SequentialState(*modules)


def run_norse(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """As `run_snntorch`."""
    state, spikes = None, []
    for frame in x:
        out, state = network(frame, state)
        spikes.append(out)
    last = _last_lifbox(state)
    return torch.stack(spikes), last.v + spikes[-1] * [m for m in network.modules() if isinstance(m, norse.LIFBoxCell)][-1].p.v_th


def _last_lifbox(state: Any) -> Any:
    """The last layer's state in what Norse or nirtorch returns."""
    states = [s[0] for s in state.state.values() if s] if hasattr(state, "state") else list(state)
    return [s for s in states if hasattr(s, "v")][-1]


def norse_graph(network: nn.Module) -> nir.NIRGraph:
    """The network as Norse writes it, completed: it writes no pooling, no Flatten and no sizes."""
    shape = input_shape(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = norse_to_nir(network, torch.zeros(*[1] * (len(shape) > 1), *shape), dt=1)
    nodes = graph.nodes
    for name, module in network.named_children():
        if isinstance(module, nn.AvgPool2d):
            nodes[name] = nir.AvgPool2d(*(np.full(2, n) for n in (module.kernel_size, module.stride, module.padding)))
        elif isinstance(module, nn.Flatten):
            nodes[name] = nir.Flatten(None, start_dim=0)
    nodes["input"] = nir.Input(np.array(shape))
    nodes["output"] = nir.Output(np.array(nodes["output"].output_type["output"][-1:]))
    return nir.NIRGraph(nodes, graph.edges)  # sizes follow from the input's


def norse_read(graph: nir.NIRGraph) -> nn.Module:
    """A graph as Norse reads it, with the soft reset that NIR cannot say. It knows no mean, but the sum."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = norse_from_nir(summed(graph), dt=NORSE_DT)
    for module in network.modules():
        if isinstance(module, norse.LIFBoxCell):
            module.p = module.p._replace(reset_method=reset_subtract)
    flatten_samples(network)
    return network


def summed(graph: nir.NIRGraph) -> nir.NIRGraph:
    """The same chain with sums in the place of means, and smaller weights behind them."""
    nodes, share = dict(graph.nodes), 1.0
    for name, node in graph.nodes.items():
        if isinstance(node, nir.AvgPool2d):
            nodes[name] = nir.SumPool2d(node.kernel_size, node.stride, node.padding)
            share = share / float(np.prod(node.kernel_size))
        elif hasattr(node, "weight"):
            nodes[name], share = replace(node, weight=np.asarray(node.weight) * share), 1.0
    return nir.NIRGraph(nodes, graph.edges)


def classes(spikes: Tensor, membranes: Tensor) -> np.ndarray:
    """The core's readout: most spikes, then the greatest membrane, then the lowest index."""
    counts, last = spikes.detach().sum(0).numpy(), membranes.detach().numpy()
    return np.lexsort((np.broadcast_to(-np.arange(counts.shape[1]), counts.shape), last, counts))[:, -1]


# -- the samples -------------------------------------------------------------------------------------------------------------------


def samples(split: data.Split, n: int | None = None) -> Samples:
    """The first n samples of a split."""
    n = len(split) if n is None else n
    return Samples(np.stack([split.sample(i) for i in range(n)]), split.labels[:n])


def tensor(x: np.ndarray, steps: int, shape: tuple[int, ...] = (64,)) -> Tensor:
    """Samples as a framework takes them, (T, n, *shape)."""
    if x.ndim == 2:
        frames = torch.tensor(x / (1 << PIXEL_FRAC), dtype=torch.float32).expand(steps, -1, -1)
    else:
        frames = torch.tensor(x.transpose(1, 0, 2), dtype=torch.float32)
    return frames.unflatten(-1, shape)


def shifted(dataset: data.Dataset, change: Callable[[np.ndarray, int], np.ndarray]) -> data.Dataset:
    """The same digits, changed: `change` gets images (n, rows, columns) and a seed, and returns their like."""

    def split(s: data.Split, seed: int) -> data.Split:
        images = change(s.images.reshape(-1, *dataset.shape).astype(np.float64), seed)
        return replace(s, images=np.clip(np.round(images), 0, 255).astype(np.uint8).reshape(s.images.shape))

    return replace(dataset, train=split(dataset.train, 1), test=split(dataset.test, 2))


SHIFTS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "rotated by 30 degrees": lambda images, seed: rotate(images, 30, axes=(2, 1), reshape=False, order=1),
    "noisy": lambda images, seed: images + np.random.default_rng(seed).normal(0, 80, images.shape),
}


# -- the figures -------------------------------------------------------------------------------------------------------------------


@dataclass
class Accuracy:
    """Held-out accuracy of one network in the framework, on the chip, and what the frameworks read back. Shares."""

    network: str
    bits: int
    framework: float
    framework_counts: float
    chip: float
    same_class: float
    """Of the samples, by chip and framework."""
    lost_points: float
    spikes_differ: float
    read_back: dict[str, float]


def chip_classes(image: Image, x: np.ndarray) -> np.ndarray:
    network = GoldenNetwork(image.network)
    network.load(image.state)
    return np.array([network.run(image.sample(sample)).winner for sample in x])


def read_back(image: Image, x: np.ndarray, chip: np.ndarray) -> dict[str, float]:
    """Share of the samples which each framework, given the image as NIR, puts into the same class as the chip."""
    shape = export.layers(image)[0].wiring.below
    frames = tensor(x, image.network.steps, shape)
    as_norse = replace(image, origin=replace(image.origin, dt=NORSE_DT, unit_gain=False))
    with torch.no_grad():
        heard = {"snnTorch": classes(*run_snntorch(snntorch_read(export.graph(image)), frames)),
                 "snnTorch with its own reset": classes(*run_snntorch(snntorch_read(export.graph(image), own_reset=True), frames)),
                 "Norse": classes(*run_norse(norse_read(export.graph(as_norse)), frames))}  # fmt: skip
    return {framework: float((winners == chip).mean()) for framework, winners in heard.items()}


def compare(name: str, network: nn.Module, dataset: data.Dataset, kind: str, bits: int, reading: Reading, *, n: int | None = None,
            calibrate: int = 100) -> tuple[Accuracy, Image]:  # fmt: skip
    """A trained network of snnTorch against itself on the chip, on the first n held-out samples."""
    graph, test = snntorch_graph(network), samples(dataset.test, n)
    report = deploy(graph, reading=reading, input=kind, bits=bits, calibration=samples(dataset.train, calibrate))
    image = report.image
    x = tensor(test.x, image.network.steps, input_shape(network))
    with torch.no_grad():
        spikes, membranes = run_snntorch(network, x)
    chip = chip_classes(image, test.x)
    own = classes(spikes, membranes)
    want = float((own == test.labels).mean())
    got = float((chip == test.labels).mean())
    assert report.spikes_differ is not None and report.steps_of_neurons
    return Accuracy(
        network=name, bits=bits, framework=want,
        framework_counts=float((spikes.sum(0).argmax(1).numpy() == test.labels).mean()), chip=got,
        same_class=float((chip == own).mean()), lost_points=100 * (want - got),
        spikes_differ=report.spikes_differ / report.steps_of_neurons,
        read_back=read_back(image, test.x, chip),
    ), image  # fmt: skip


@dataclass
class Shift:
    """Accuracy on held-out samples before and after learning shifted ones on the chip. Shares."""

    shift: str
    bits: int
    clean: float
    before: float
    after: float
    read_back: dict[str, float]
    compared_words: int
    """Of gateware and golden model, all equal: the first that is not ends the study."""

    @property
    def regained(self) -> float:
        """Share of what was lost."""
        return (self.after - self.before) / (self.clean - self.before)


def adapt(image: Image, dataset: data.Dataset, name: str, *, bits: int, cosim: int, switches: str = "w", rate: int = 8,
          n: int | None = None) -> tuple[Shift, Image]:  # fmt: skip
    """Learn shifted digits from imported weights in the golden model, each of the first n once.

    The first `cosim` are learned in the gateware too.

    Raises `sim.twin.Mismatch` where gateware and golden model differ.
    """
    clean, moved = image.dataset(dataset), image.dataset(shifted(dataset, SHIFTS[name]))
    recipe, n = Recipe(rate_w=rate), n or len(moved.train)
    order = recipe.order(0, 0, n)
    words = 0
    if cosim:
        with Twin(image.network) as twin:
            twin.load(image.state)
            for k, i in enumerate(order[:cosim]):
                twin.set_rates(**recipe.rates(k / n))
                twin.run(*moved.train[i], switches)
            words = twin.compared_words
    network = GoldenNetwork(image.network)
    network.load(image.state)
    before = accuracy(network, clean.test), accuracy(network, moved.test)
    for k, i in enumerate(order):
        vars(network).update(recipe.rates(k / n))
        network.run(*moved.train[i], switches)
    learned = image.learned(network.read())
    test = samples(shifted(dataset, SHIFTS[name]).test)
    same = read_back(learned, test.x, chip_classes(learned, test.x))
    return Shift(name, bits, *before, accuracy(network, moved.test), same, words), learned


# -- what the core cannot do -------------------------------------------------------------------------------------------------------


def lif(*shape: int, **changes: Any) -> nir.LIF:
    """Neurons as snnTorch writes them, 10 if no shape is given, with some parameters changed."""
    parameters = {"tau": 1e-3, "r": 10.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0} | changes
    return nir.LIF(**{name: np.broadcast_to(np.asarray(value, float), shape or (10,)).copy() for name, value in parameters.items()})


def chain(**named: nir.NIRNode) -> nir.NIRGraph:
    """64 inputs, a good layer of 10, the nodes, and an output."""
    all_nodes = {"input": nir.Input(np.array([64])), "w1": nir.Linear(np.ones((10, 64))), "lif1": lif(), **named}
    all_nodes["output"] = nir.Output(np.array([10]))
    return nir.NIRGraph(nodes=all_nodes, edges=list(zip(all_nodes, list(all_nodes)[1:], strict=False)), type_check=False)


def _with(graph: nir.NIRGraph, *edges: tuple[str, str]) -> nir.NIRGraph:
    graph.edges = [*graph.edges, *edges]
    return graph


def _w2() -> nir.Linear:
    return nir.Linear(np.ones((10, 10)))


def conv(channels: int = 4, below: int = 1, kernel: int = 3, **changes: Any) -> nir.Conv2d:
    """A convolution, with some parameters changed."""
    weight, bias = np.ones((channels, below, kernel, kernel)), np.zeros(channels)
    parameters = {"input_shape": None, "weight": weight, "stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": bias}
    return nir.Conv2d(**parameters | changes)


def pooling(kernel: int = 2, **changes: Any) -> nir.AvgPool2d:
    return nir.AvgPool2d(**{"kernel_size": np.full(2, kernel), "stride": np.full(2, kernel), "padding": np.zeros(2, int)} | changes)


def image_chain(shape: tuple[int, ...] | None = (1, 8, 8), **named: nir.NIRNode) -> nir.NIRGraph:
    """Inputs of a shape, the nodes, and an output."""
    nodes = {"input": nir.Input(shape if shape is None else np.array(shape)), **named, "output": nir.Output(np.array([10]))}
    return nir.NIRGraph(nodes=nodes, edges=list(zip(nodes, list(nodes)[1:], strict=False)), type_check=False)


def behind(units: int) -> dict[str, nir.NIRNode]:
    """The end of a network: flat units and a layer of 10."""
    return {"flat": nir.Flatten(None, start_dim=0), "w": nir.Linear(np.ones((10, units))), "lif": lif()}


def impossible_images() -> dict[str, tuple[nir.NIRGraph, str, str]]:
    """Graphs with convolutions that the core cannot do: each with the node and the parameter or reason that the error must name."""
    lif1 = lif(4, 6, 6)
    thresholds = np.ones((4, 6, 6))
    thresholds[2, 0, 0] = 2

    def one(convolution: nir.Conv2d) -> nir.NIRGraph:
        return image_chain(conv=convolution, lif1=lif1, **behind(144))

    return {
        "oblong kernels": (one(conv(weight=np.ones((4, 1, 3, 2)))), "conv", "kernels of 3 x 2"),
        "large kernels": (one(conv(kernel=8)), "conv", "kernels of 8 x 8"),
        "kernels larger than the image": (
            image_chain((1, 4, 4), conv=conv(kernel=5), lif1=lif1, **behind(144)), "conv", "the image has 4 x 4 units",
        ),
        "kernels of no size": (one(conv(weight=np.ones((4, 1, 0, 0)))), "conv", "weight: shape (4, 1, 0, 0)"),
        "unequal strides": (one(conv(stride=(1, 2))), "conv", "stride: 1 x 2"),
        "a stride of 5": (one(conv(stride=5)), "conv", "stride: 5"),
        "unequal borders": (one(conv(padding=(0, 1))), "conv", "padding: 0 x 1"),
        "a border as wide as the kernel": (one(conv(padding=3)), "conv", "padding: 3"),
        "a border of its own kind": (one(conv(kernel=2, padding="same")), "conv", "padding: same"),
        "groups": (one(conv(groups=2)), "conv", "groups: 2"),
        "dilation": (one(conv(dilation=2)), "conv", "dilation: 2 x 2"),
        "channels that do not come": (one(conv(below=2)), "conv", "2 channels"),
        "another image": (one(conv(input_shape=(9, 9))), "conv", "input_shape: 9 x 9, but 8 x 8"),
        "an image of unknown size": (image_chain(None, conv=conv(), lif1=lif1, **behind(144)), "conv", "input_shape"),
        "an image of no size": (image_chain((1, 0, 8), conv=conv(), lif1=lif1, **behind(144)), "input", "shape (1, 0, 8)"),
        "a flat input": (image_chain((64,), conv=conv(), lif1=lif1, **behind(144)), "conv", "without channels"),
        "a bias of a kernel that nowhere sees all": (
            image_chain(conv=conv(padding=2, bias=np.ones(4)), lif1=lif(4, 10, 10), **behind(400)), "lif1", "bias behind",
        ),
        "two convolutions in one": (image_chain(conv=conv(), conv2=conv(4, 4), lif1=lif1, **behind(144)), "conv2", "right behind"),
        "a matrix in a convolution": (image_chain(conv=conv(), **behind(144)), "flat", "between a convolution and its neurons"),
        "thresholds within a channel": (
            image_chain(conv=conv(), lif1=lif(4, 6, 6, v_threshold=thresholds), **behind(144)),
            "lif1", "v_threshold: 1 to 2 in channel 2",
        ),
        "leakage within a channel": (
            image_chain(conv=conv(), lif1=lif(4, 6, 6, tau=1e-3 * thresholds), **behind(144)), "lif1", "tau: leakage factors",
        ),
        "parameters of another shape": (image_chain(conv=conv(), lif1=lif(4, 5, 5), **behind(144)), "lif1", "shape (4, 5, 5)"),
        "pooling of the input": (image_chain(pool=pooling(), conv=conv(), lif1=lif1, **behind(144)), "pool", "of the input"),
        "pooling of 3 x 3": (image_chain(conv=conv(), lif1=lif1, pool=pooling(3), **behind(16)), "pool", "kernel_size: 3"),
        "overlapping pooling": (
            image_chain(conv=conv(), lif1=lif1, pool=pooling(stride=np.ones(2)), **behind(100)),
            "pool", "stride: 1, but kernel_size 2",
        ),
        "pooling with a border": (
            image_chain(conv=conv(), lif1=lif1, pool=pooling(padding=np.ones(2)), **behind(64)), "pool", "padding: 1",
        ),
        "pooling of too little": (image_chain(conv=conv(), lif1=lif1, pool=pooling(8), **behind(4)), "pool", "6 x 6 units"),
        "pooling at the end": (image_chain(conv=conv(), lif1=lif1, pool=pooling()), "pool", "pooling behind the last layer"),
        "a convolution at the end": (image_chain(conv=conv(), lif1=lif1), "lif1", "last layer is a convolution"),
        "a matrix of other units": (image_chain(conv=conv(), lif1=lif1, **behind(100)), "w", "100 inputs, but 144 (4 x 6 x 6)"),
        "a convolution behind a matrix": (
            image_chain(conv=conv(), lif1=lif1, **behind(144), conv2=conv(), lif2=lif()), "conv2", "10 units without channels",
        ),
        "recurrence of convolutions": (
            _with(image_chain(conv=conv(), lif1=lif1, back=conv(4, 4, padding=1), **behind(144)), ("back", "lif1")),
            "lif1", "recurrence",
        ),
    }  # fmt: skip


def impossible() -> dict[str, tuple[nir.NIRGraph, Reading, str, str]]:
    """Graphs the core cannot do: each with its reading, and the node and the parameter or reason that the error must name."""
    soft = Reading(reset="subtract")
    cuba = nir.CubaLIF(
        tau_syn=np.full(10, 5e-4), tau_mem=np.full(10, 1e-3), r=np.full(10, 10.0), v_leak=np.zeros(10), v_threshold=np.ones(10)
    )
    rleaky = nn.Sequential(
        nn.Linear(64, 10), snn.RLeaky(beta=0.9, linear_features=10, init_hidden=True), nn.Linear(10, 10), leaky(10)
    )
    skip = chain(w2=_w2(), lif2=lif(), w3=_w2(), lif3=lif())
    return {
        "hard reset": (chain(w2=_w2(), lif2=lif()), Reading(), "lif1", "v_reset"),
        "soft reset to another value": (chain(w2=_w2(), lif2=lif(v_reset=-0.5)), soft, "lif2", "v_reset"),
        "reset after the leak": (chain(w2=_w2(), lif2=lif()), Reading(reset="delayed"), "lif1", "reset"),
        "recurrence": (_with(chain(w2=_w2(), lif2=lif()), ("lif2", "w2")), soft, "w2", "recurrence"),
        "recurrence of snnTorch": (snntorch_graph(rleaky), soft, "1.lif", "recurrence"),
        "leakage a neuron": (chain(w2=_w2(), lif2=lif(tau=np.linspace(1e-3, 2e-3, 10))), soft, "lif2", "tau"),
        "time constant below a step": (chain(w2=_w2(), lif2=lif(tau=5e-5)), soft, "lif2", "tau"),
        "synaptic current": (chain(w2=_w2(), cuba=cuba), soft, "cuba", "tau_syn"),
        "threshold of 0": (chain(w2=_w2(), lif2=lif(v_threshold=0.0)), soft, "lif2", "v_threshold"),
        "delay": (chain(delay=nir.Delay(np.full(10, 1e-3)), w2=_w2(), lif2=lif()), soft, "delay", "Delay"),
        "convolution": (chain(conv=conv(1, padding=1, input_shape=(8, 8)), w2=_w2(), lif2=lif()), soft, "conv", "Conv2d"),
        "branch": (_with(skip, ("lif1", "w3")), soft, "lif1", "feeds 2 nodes"),
        "readout without spikes": (
            chain(w2=_w2(), li=nir.LI(tau=np.full(10, 1e-3), r=np.ones(10), v_leak=np.zeros(10))), soft, "li", "LI",
        ),
        "no neurons at the end": (chain(w2=_w2()), soft, "w2", "without neurons"),
        "seventeen layers": (
            chain(**{f"{kind}{l}": node for l in range(2, 18) for kind, node in (("w", _w2()), ("lif", lif()))}),
            soft, "lif17", "net",
        ),
        "weights that are not numbers": (chain(w2=nir.Linear(np.full((10, 10), np.nan)), lif2=lif()), soft, "w2", "weight"),
        **{name: (graph, soft, *named) for name, (graph, *named) in impossible_images().items()},
    }


def refusal(graph: nir.NIRGraph, reading: Reading) -> str:
    """The error for a graph, or nothing if there is none."""
    try:
        deploy(graph, reading=reading)
    except ValueError as e:
        return str(e)
    return ""


# -- the command -------------------------------------------------------------------------------------------------------------------


_SOFT, _LATE = Reading(reset="subtract"), Reading(reset="delayed", approximate=frozenset({"reset"}))
NETWORKS: dict[str, tuple[str, dict[str, Any], Reading, tuple[int, ...]]] = {
    "static": ("static", {}, _SOFT, (16, 8)),
    "events": ("events", {}, _SOFT, (16,)),
    "static, biases": ("static", {"bias": True}, _SOFT, ()),
    "static, reset_delay": ("static", {"reset_delay": True}, _LATE, ()),
    "static, convolution": ("static", {"net": CONVOLUTIONS}, _SOFT, (16,)),
    "events, convolution": ("events", {"net": CONVOLUTIONS}, _SOFT, ()),
    "static, convolution, biases": ("static", {"net": CONVOLUTIONS, "bias": True}, _SOFT, ()),
}
"""Networks that are trained: kind of input, how they are made, how their graphs are read, and with how many bits shifted digits are
learned."""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m sim.nir_study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "--epochs", type=whole(1), default=30, metavar="N", help="of back-propagation through time (default: %(default)s)"
    )
    p.add_argument(
        "--cosim", type=whole(0), default=20, metavar="N",
        help="samples learned in the gateware too, for each (default: %(default)s)",
    )
    p.add_argument("--only", choices=NETWORKS, help="one of the networks (default: all)")
    p.add_argument("--json", type=output, metavar="FILE", help="write the figures there too (default: nowhere)")
    return p


def main(arguments: list[str] | None = None) -> int:
    p = parser()
    options = p.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module=r"(snntorch|nirtorch|norse|torch)\.")
    figures: list[Accuracy] = []
    shifts: list[Shift] = []
    for name, (kind, how, reading, shift_bits) in NETWORKS.items():
        if options.only not in (None, name):
            continue
        dataset = data.load("digits", Network(input=kind))
        torch.manual_seed(0)
        network = snntorch_network(**how)
        x, labels = samples(dataset.train)
        train(network, tensor(x, Network().steps, input_shape(network)), torch.tensor(labels), epochs=options.epochs, quiet=False)
        for bits in (16, 8):
            figure, image = compare(name, network, dataset, kind, bits, reading)
            figures.append(figure)
            where = "chip" if image.network.all_dense else "golden model"
            print(f"{figure.network:<26} {bits:>2} bits: snnTorch {figure.framework:.2%} ({figure.framework_counts:.2%} by counts"
                  f" alone), {where} {figure.chip:.2%}, lost {figure.lost_points:.2f} points, same class {figure.same_class:.2%};"
                  f" spikes that differ {figure.spikes_differ:.2%};"
                  f" classes as read back: {_shares(figure.read_back)}", flush=True)  # fmt: skip
            if bits in shift_bits:
                for change in SHIFTS:
                    cosim = options.cosim if image.network.all_dense else 0  # gateware has no convolutions so far
                    shift, _ = adapt(image, dataset, change, bits=bits, cosim=cosim)
                    shifts.append(shift)
                    print(f"   {change}: {shift.clean:.2%} -> {shift.before:.2%}, learned in the {where} {shift.after:.2%},"
                          f" regained {shift.regained:.0%}; classes as read back: {_shares(shift.read_back)};"
                          f" cosim {shift.compared_words} words, 0 mismatches", flush=True)  # fmt: skip
    cases = impossible()
    named = sum(f"'{node}'" in (text := refusal(graph, reading)) and what in text for graph, reading, node, what in cases.values())
    print(f"graphs the core cannot do: {len(cases)}, errors that name node and parameter: {named}")
    if options.json:
        report = {"accuracy": [asdict(f) for f in figures], "shifts": [asdict(s) | {"regained": s.regained} for s in shifts],
                  "refused": {"graphs": len(cases), "named": named}}  # fmt: skip
        options.json.write_text(json.dumps(report, indent=2) + "\n")
        print(f"report: {options.json}")
    return 0


def _shares(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.2%}" for name, share in shares.items())


if __name__ == "__main__":
    sys.exit(main())
