"""Networks of snnTorch and Norse on the chip and back, measured: `python -m sim.nir_study` (or `make nir`).

Trains 64-32-10 on scikit-learn's digits by back-propagation through time in snnTorch, writes NIR, deploys it, lets gateware and
golden model run it, learns shifted digits from the imported weights by STOP, and lets the frameworks read what came of it. Needs
snntorch, nirtorch and norse (`pip install -e .[dev]`).
"""

from __future__ import annotations

import argparse
import contextlib
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

SIZES = (64, 32, 10)
BETA = 0.9
NORSE_DT = 1e-3
"""Norse's step; its files need `to_nir(..., dt=1)` to hold seconds."""

# -- the frameworks ----------------------------------------------------------------------------------------------------------------


def leaky(n: int, *, reset_delay: bool = False, **options: Any) -> snn.Leaky:
    """Neurons that snnTorch can write to NIR (one parameter a neuron)."""
    return snn.Leaky(torch.full((n,), BETA), threshold=torch.ones(n), init_hidden=True, reset_delay=reset_delay,
                     spike_grad=surrogate.fast_sigmoid(), **options)  # fmt: skip


def snntorch_network(sizes: Sequence[int] = SIZES, *, bias: bool = False, reset_delay: bool = False) -> nn.Sequential:
    blocks = [(nn.Linear(m, n, bias=bias), leaky(n, reset_delay=reset_delay)) for m, n in zip(sizes, sizes[1:], strict=False)]
    return nn.Sequential(*(module for block in blocks for module in block))


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
        return export_to_nir(network, torch.zeros(1, SIZES[0]), ignore_dims=[0])


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
    if not own_reset:
        reset_once(network)
    return network


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
        if isinstance(module, nn.Linear):
            same = nn.Linear(module.in_features, module.out_features)
            same.weight.data = module.weight.data / (1 - BETA)
            same.bias.data = torch.zeros(module.out_features) if module.bias is None else module.bias.data / (1 - BETA)
            modules.append(same)
        else:
            n = len(module.threshold)
            modules.append(norse.LIFBoxCell(norse.LIFBoxParameters(
                tau_mem_inv=torch.full((n,), (1 - BETA) / NORSE_DT), v_th=module.threshold.detach().clone(), v_leak=torch.zeros(n),
                v_reset=torch.zeros(n), reset_method=reset_subtract), dt=NORSE_DT))  # fmt: skip
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return norse_to_nir(network, torch.zeros(SIZES[0]), dt=1)


def norse_read(graph: nir.NIRGraph) -> nn.Module:
    """A graph as Norse reads it, with the soft reset that NIR cannot say."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = norse_from_nir(graph, dt=NORSE_DT)
    for module in network.modules():
        if isinstance(module, norse.LIFBoxCell):
            module.p = module.p._replace(reset_method=reset_subtract)
    return network


def classes(spikes: Tensor, membranes: Tensor) -> np.ndarray:
    """The core's readout: most spikes, then the greatest membrane, then the lowest index."""
    counts, last = spikes.detach().sum(0).numpy(), membranes.detach().numpy()
    return np.lexsort((np.broadcast_to(-np.arange(counts.shape[1]), counts.shape), last, counts))[:, -1]


# -- the samples -------------------------------------------------------------------------------------------------------------------


def samples(split: data.Split, n: int | None = None) -> Samples:
    """The first n samples of a split."""
    n = len(split) if n is None else n
    return Samples(np.stack([split.sample(i) for i in range(n)]), split.labels[:n])


def tensor(x: np.ndarray, steps: int) -> Tensor:
    """Samples as a framework takes them, (T, n, inputs)."""
    if x.ndim == 2:
        return torch.tensor(x / (1 << PIXEL_FRAC), dtype=torch.float32).expand(steps, -1, -1)
    return torch.tensor(x.transpose(1, 0, 2), dtype=torch.float32)


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
    lost_points: float
    spikes_differ: float
    read_back: dict[str, float]


def chip_classes(image: Image, x: np.ndarray) -> np.ndarray:
    network = GoldenNetwork(image.network)
    network.load(image.state)
    return np.array([network.run(image.sample(sample)).winner for sample in x])


def read_back(image: Image, x: np.ndarray, chip: np.ndarray) -> dict[str, float]:
    """Share of the samples which each framework, given the image as NIR, puts into the same class as the chip."""
    frames = tensor(x, image.network.steps)
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
    x = tensor(test.x, image.network.steps)
    with torch.no_grad():
        spikes, membranes = run_snntorch(network, x)
    chip = chip_classes(image, test.x)
    want = float((classes(spikes, membranes) == test.labels).mean())
    got = float((chip == test.labels).mean())
    assert report.spikes_differ is not None and report.steps_of_neurons
    return Accuracy(
        network=name, bits=bits, framework=want,
        framework_counts=float((spikes.sum(0).argmax(1).numpy() == test.labels).mean()), chip=got,
        lost_points=100 * (want - got), spikes_differ=report.spikes_differ / report.steps_of_neurons,
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


def lif(n: int = 10, **changes: Any) -> nir.LIF:
    """Neurons as snnTorch writes them, with some parameters changed."""
    parameters = {"tau": 1e-3, "r": 10.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0} | changes
    return nir.LIF(**{name: np.broadcast_to(np.asarray(value, float), (n,)).copy() for name, value in parameters.items()})


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


def impossible() -> dict[str, tuple[nir.NIRGraph, Reading, str, str]]:
    """Graphs the core cannot do: each with its reading, and the node and the parameter or reason that the error must name."""
    soft = Reading(reset="subtract")
    cuba = nir.CubaLIF(
        tau_syn=np.full(10, 5e-4), tau_mem=np.full(10, 1e-3), r=np.full(10, 10.0), v_leak=np.zeros(10), v_threshold=np.ones(10)
    )
    rleaky = nn.Sequential(
        nn.Linear(64, 10), snn.RLeaky(beta=0.9, linear_features=10, init_hidden=True), nn.Linear(10, 10), leaky(10)
    )
    conv = nir.Conv2d(input_shape=(8, 8), weight=np.ones((1, 1, 3, 3)), stride=1, padding=1, dilation=1, groups=1, bias=np.zeros(1))
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
        "convolution": (chain(conv=conv, w2=_w2(), lif2=lif()), soft, "conv", "Conv2d"),
        "branch": (_with(skip, ("lif1", "w3")), soft, "lif1", "feeds 2 nodes"),
        "readout without spikes": (
            chain(w2=_w2(), li=nir.LI(tau=np.full(10, 1e-3), r=np.ones(10), v_leak=np.zeros(10))), soft, "li", "LI",
        ),
        "no neurons at the end": (chain(w2=_w2()), soft, "w2", "without neurons"),
        "seventeen layers": (
            chain(**{f"{kind}{l}": node for l in range(2, 18) for kind, node in (("w", _w2()), ("lif", lif()))}),
            soft, "lif17", "sizes",
        ),
        "weights that are not numbers": (chain(w2=nir.Linear(np.full((10, 10), np.nan)), lif2=lif()), soft, "w2", "weight"),
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
        train(network, tensor(x, Network().steps), torch.tensor(labels), epochs=options.epochs, quiet=False)
        for bits in (16, 8):
            figure, image = compare(name, network, dataset, kind, bits, reading)
            figures.append(figure)
            print(f"{figure.network:<26} {bits:>2} bits: snnTorch {figure.framework:.2%} ({figure.framework_counts:.2%} by counts"
                  f" alone), chip {figure.chip:.2%}, lost {figure.lost_points:.2f} points; spikes that differ"
                  f" {figure.spikes_differ:.2%}; classes as read back: {_shares(figure.read_back)}", flush=True)  # fmt: skip
            if bits in shift_bits:
                for change in SHIFTS:
                    shift, _ = adapt(image, dataset, change, bits=bits, cosim=options.cosim)
                    shifts.append(shift)
                    print(f"   {change}: {shift.clean:.2%} -> {shift.before:.2%}, learned on the chip {shift.after:.2%}, regained"
                          f" {shift.regained:.0%}; classes as read back: {_shares(shift.read_back)}; cosim {shift.compared_words}"
                          " words, 0 mismatches", flush=True)  # fmt: skip
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
