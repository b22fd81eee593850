"""Models to compare, all from one definition: trained once, kept in a folder by what they depend on, and run with their layers in
view.

A definition is a set of `sw.train.Options` (the network, how it learns, coding, steps) and what it becomes. It becomes a float
network; or, with `chip`, integers learned sample by sample by the golden model, which equals the chip in every bit, from the float
network's first weights; or, with `factory`, any `nn.Module` of your own.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hw.network import Network
from hw.notation import dense
from sw import data as datasets
from sw.cka.features import Hooks, golden_features, golden_layers, layer_names
from sw.golden.fast import FastNetwork
from sw.golden.learn import learn
from sw.golden.recipe import RECIPES, Recipe
from sw.stop import Readout, populations, reset, unroll
from sw.stop.integer import integer_image
from sw.training.train import Data, Options, Run, generator, train

HERE = Path(__file__).resolve().parent
SW = HERE.parent


@dataclass(frozen=True)
class Definition:
    """A model by `name`; `layers` chooses those that are compared (patterns; empty is all populations)."""

    name: str
    options: Options
    chip: bool = False
    factory: str = ""
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        o = self.options
        if self.chip and (o.model != "mlp" or o.coding != "direct" or o.dataset not in RECIPES or not o.method.startswith("stop")):
            raise ValueError(
                f"models.{self.name}: chip needs model mlp, coding direct, a method stop-... and one of {', '.join(RECIPES)}"
            )
        if self.chip and o.neuron != "lif":
            raise ValueError(f"models.{self.name}: chip has spiking neurons; legal is neuron lif")
        if self.factory and self.chip:
            raise ValueError(f"models.{self.name}: factory and chip exclude each other")
        if self.factory and ":" not in self.factory:
            raise ValueError(f"models.{self.name}: factory {self.factory!r} is not legal; legal is package.module:function")

    @property
    def data(self) -> Data:
        return _data(self.options)

    @property
    def config(self) -> Network:
        """Of the core that `chip` stands for."""
        data, o = self.data, self.options
        return Network(net=dense((data.train[0][0].numel(), *o.hidden, data.classes)), steps=o.steps, input="static")

    @cached_property
    def runs(self) -> dict[str, int]:
        """Names of the layers that are compared, and the steps of each.

        ValueError if there are no layers by these names, or if images cannot be shown.
        """
        try:
            if self.factory:
                return _probe(self)
            names = layer_names(Run(self.options, self.data).net, self.layers)
            if self.chip and not set(names) <= set(golden_layers(self.config)):
                raise ValueError(
                    f"layers: {', '.join(self.layers)} are not legal; legal are {', '.join(golden_layers(self.config))}"
                )
        except ValueError as e:
            raise ValueError(f"models.{self.name}: {e}") from None
        return dict.fromkeys(names, self.options.steps)

    @property
    def layer_names(self) -> tuple[str, ...]:
        return tuple(self.runs)

    def key(self, seed: int) -> str:
        """Names what a trained model depends on: options, seed and the code that trains."""
        parts = {"options": asdict(replace(self.options, seed=seed)), "chip": self.chip, "factory": self.factory}
        return hashlib.sha256((json.dumps(parts, sort_keys=True) + _code()).encode()).hexdigest()[:20]


@lru_cache(maxsize=1)
def _code() -> str:
    """Hash of the sources that training depends on: all of sw/ but what only compares."""
    sources = sorted(p for p in SW.rglob("*") if p.suffix in (".py", ".cpp") and (p.parent != HERE or p.name == "models.py"))
    assert len(sources) > 10
    return hashlib.sha256(b"\0".join(p.read_bytes() for p in sources)).hexdigest()


@lru_cache(maxsize=8)
def _load(options: Options) -> Data:
    return Data.load(options)


def _data(options: Options) -> Data:
    """The image set of these options; what does not decide it does not load it again."""
    relevant: dict[str, Any] = {name: getattr(options, name) for name in ("dataset", "data", "samples", "test_samples", "pad")}
    return replace(_load(Options(**relevant)), options=options)


@dataclass
class Recording:
    """What a model did with a batch: features (T, B, ...) by layer, and the classes (B,) it decided on."""

    features: dict[str, Tensor]
    classes: Tensor


@dataclass
class Model:
    """A trained model. `states` are its parameters before training and after each epoch, `accuracy` that after each epoch."""

    definition: Definition
    seed: int
    states: list[dict[str, Tensor]] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def options(self) -> Options:
        return replace(self.definition.options, seed=self.seed)

    @property
    def data(self) -> Data:
        return _data(self.options)

    def network(self, epoch: int = -1) -> nn.Module | FastNetwork:
        """As it was after an epoch (0: before training)."""
        d = self.definition
        if d.factory:
            return _made(d, self.seed)
        if d.chip:
            golden = FastNetwork(d.config)
            golden.load({name: array.numpy() for name, array in self.states[epoch].items()})
            return golden
        net = Run(self.options, self.data).net
        net.load_state_dict(self.states[epoch])
        return net.eval()

    @torch.no_grad()
    def record(self, images: Tensor, first: int = 0, network: nn.Module | FastNetwork | None = None) -> Recording:
        """Shows images (B, C, H, W), uint8; `first` is the number of the first one, which random codings follow from."""
        network = network or self.network()
        if isinstance(network, FastNetwork):
            spikes, classes = golden_features(network, images.flatten(1).numpy())
            return Recording({name: spikes[name] for name in self.definition.layer_names}, classes)
        with Hooks(network, self.definition.layers) as hooks:
            if self.definition.factory:
                output = network(images / 255)
                return Recording(hooks.features(), output.flatten(1).argmax(1))
            classes = classify(network, self.data.code(images, generator(1, first)))
            reset(network)
            return Recording(hooks.features(), classes)


def classify(net: nn.Module, x: Tensor) -> Tensor:
    """Classes (B,) that a network of `sw.stop` decides on for samples (T, B, ...)."""
    readout = Readout()
    for spikes in unroll(net, x):
        readout.add(spikes)
    membrane = populations(net)[-1].neuron.membrane
    assert membrane is not None
    return readout.winner(membrane)


def _made(definition: Definition, seed: int) -> nn.Module:
    """What the function named by `factory` returns for a seed.

    That is an `nn.Module` that takes images (B, C, H, W) of 0 to 1 and puts out (B, classes).
    """
    module, _, function = definition.factory.partition(":")
    try:
        made = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as e:
        raise ValueError(f"factory {definition.factory} is not there ({e})") from None
    try:
        net = made(seed)
    except Exception as e:
        raise ValueError(f"factory {definition.factory} fails with seed {seed} ({type(e).__name__}: {e})") from e
    if not isinstance(net, nn.Module):
        raise ValueError(f"factory {definition.factory} returned {type(net).__name__}; legal is a torch.nn.Module")
    return net.eval()


@torch.no_grad()
def _probe(definition: Definition) -> dict[str, int]:
    """Steps of each layer of a network of one's own, which is shown two images.

    So what cannot be compared is said before anything is trained.
    """
    what, images = f"factory {definition.factory}", definition.data.test[0][:2]
    with Hooks(_made(definition, 0), definition.layers) as hooks:
        try:
            output = hooks.net(images / 255)
        except Exception as e:
            raise ValueError(f"{what} cannot be shown images of shape {tuple(images.shape)} ({type(e).__name__}: {e})") from e
        found = hooks.features()
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != len(images):
        raise ValueError(f"{what} puts out {shape} for {len(images)} images; legal is a tensor (images, classes)")
    for name, f in found.items():
        if f.ndim < 2 or f.shape[1] != len(images):
            raise ValueError(f"layers: {name} puts out {tuple(f.shape[1:])} for {len(images)} images; legal is (images, ...)")
    return {name: len(f) for name, f in found.items()}


@dataclass(frozen=True, kw_only=True)
class SameStart(Recipe):
    """The first weights, thresholds and leakages are those of the float network of the same options and seed, rounded."""

    options: Options = Options()

    def state(self, config: Network, seed: int) -> dict[str, np.ndarray]:
        o = replace(self.options, seed=seed)
        start = integer_image(Run(o, _data(o)).net, config)[0].state
        return super().state(config, seed) | {
            name: a for name, a in start.items() if name.partition(".")[0] in ("weight", "theta", "alpha")
        }


def fit(definition: Definition, seed: int, folder: Path | None = None) -> Model:
    """Trains a model, or takes it from `folder`, where it is kept under its key."""
    model = Model(definition, seed)
    if definition.factory:
        return model
    path = folder / f"{definition.key(seed)}.pt" if folder else None
    if path and path.is_file():
        kept = torch.load(path, weights_only=True)
        model.states, model.accuracy = kept["states"], kept["accuracy"]
        return model
    torch.set_num_threads(1)
    (_learn_chip if definition.chip else _learn_float)(model)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}")
        torch.save({"states": model.states, "accuracy": model.accuracy}, beside)
        os.replace(beside, path)
    return model


def _learn_float(model: Model) -> None:
    run = Run(model.options, model.data)

    def keep() -> None:
        model.states.append({name: p.detach().clone() for name, p in run.net.state_dict().items()})

    keep()
    for _ in range(model.options.epochs):
        train(run, None, quiet=True, stop_after=run.data.batches)
        keep()
    model.accuracy = [h["accuracy"] for h in run.history]


def _learn_chip(model: Model) -> None:
    d, o = model.definition, model.options
    dataset = datasets.load(o.dataset, d.config, folder=o.data or None)
    recipe = SameStart(**{f.name: getattr(RECIPES[o.dataset], f.name) for f in fields(Recipe)}, options=o)
    golden, samples = FastNetwork(d.config), len(model.data.train[1])
    tests = [(dataset.test.sample(i), int(dataset.test.labels[i])) for i in range(len(model.data.test[1]))]

    def keep() -> None:
        kinds = ("weight", "theta", "alpha", "error_table", "surrogate")
        model.states.append({n: torch.from_numpy(a) for n, a in golden.read().items() if n.partition(".")[0] in kinds})

    golden.load(recipe.state(d.config, o.seed))
    keep()
    for n in learn(golden, dataset, o.method.partition("-")[2], seed=o.seed, epochs=o.epochs, samples=samples, recipe=recipe):
        if n % samples == 0:
            model.accuracy.append(sum(golden.run(x).winner == y for x, y in tests) / len(tests))
            keep()


def through_time(net: nn.Module) -> Callable[[], None]:
    """Lets gradients of the inputs run through time, whatever the network learns by; returns what undoes it."""
    before = [p.neuron.through_time for p in populations(net)]
    for p in populations(net):
        p.neuron.through_time = True

    def undo() -> None:
        for p, was in zip(populations(net), before, strict=True):
            p.neuron.through_time = was
        reset(net)

    return undo


def integers(model: Model, config: Network) -> FastNetwork:
    """A float MLP, after its training, in the integers of `config`."""
    state = integer_image(model.network(), config, beta=model.options.beta)[0].state  # type: ignore[arg-type]
    golden = FastNetwork(config)
    golden.load(state)
    return golden


