"""Features of a network's layers: hooks by name on any `nn.Module`, and the golden model as one more source.

    with Hooks(net, ["0", "2.second"]) as hooks:
        net(x)                                # or any way to run it; a layer that runs T times has T outputs
    in_time(hooks.features(), "mean")         # {"0": (B, d), ...}
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hw.network import Network
from sw.golden.network import GoldenNetwork
from sw.stop import Population

TIMES = ("concat", "mean", "apart")
"""How the steps of a sample become features: side by side, averaged, or each step a layer of its own, `name@t`."""


def layer_names(net: nn.Module, wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of layers in the order of the network's definition: those `wanted`, which may be patterns such as `*.second`.

    If none are wanted: the populations of neurons of a network of `sw.stop`, and in any other network all modules without parts of
    their own. ValueError for a name that is not there, with names that are like it.
    """
    modules = {name: m for name, m in net.named_modules() if name}
    if not wanted:
        found = [n for n, m in modules.items() if isinstance(m, Population)]
        return tuple(found or [n for n, m in modules.items() if not any(m.children())])
    chosen: set[str] = set()
    for name in wanted:
        hits = {n for n in modules if fnmatchcase(n, name)}
        if not hits:
            near = difflib.get_close_matches(name, modules, 5, 0.3) or list(modules)[:12]
            raise ValueError(
                f"layers: {name} is not a layer of this network; legal is one of {', '.join(near)}, and others of named_modules()"
            )
        chosen |= hits
    return tuple(n for n in modules if n in chosen)


class Hooks:
    """While it is entered, keeps what the layers put out, call by call, detached.

    Where a layer puts out a tuple (spikes, state) the first tensor is kept.
    """

    def __init__(self, net: nn.Module, layers: Sequence[str] = ()) -> None:
        self.net, self.layers = net, layer_names(net, layers)
        self._modules = dict(net.named_modules())
        self.outputs: dict[str, list[Tensor]] = {}

    def clear(self) -> None:
        """Forgets what was put out, before the next batch."""
        self.outputs = {name: [] for name in self.layers}

    def __enter__(self) -> Hooks:
        self.clear()
        self._handles = [self._modules[name].register_forward_hook(self._keep(name)) for name in self.layers]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _keep(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: object, output: Any) -> None:
            if isinstance(output, tuple | list):
                output = next((o for o in output if isinstance(o, Tensor)), None)
            if not isinstance(output, Tensor):
                raise ValueError(f"layers: {name} puts out {type(output).__name__}; legal is a tensor, or a tuple that holds one")
            self.outputs[name].append(output.detach())

        return hook

    def features(self) -> dict[str, Tensor]:
        """(T, B, ...) of each layer, T being how often it ran."""
        for name, outputs in self.outputs.items():
            if not outputs:
                raise ValueError(f"layers: {name} did not run; legal are layers that the network uses")
            if len(shapes := dict.fromkeys(tuple(o.shape) for o in outputs)) > 1:
                raise ValueError(
                    f"layers: {name} puts out shapes {' and '.join(map(str, shapes))} in one pass; legal is one shape in all steps"
                )
        return {name: torch.stack(outputs) for name, outputs in self.outputs.items()}


def in_time(features: Mapping[str, Tensor], how: str) -> dict[str, Tensor]:
    """Features (T, B, ...) as (B, features) by one of TIMES."""
    if how not in TIMES:
        raise ValueError(f"time: {how} is not legal; legal is {' or '.join(TIMES)}")
    out: dict[str, Tensor] = {}
    for name, f in features.items():
        f = f.flatten(2) if f.ndim > 2 else f[..., None]
        if how == "apart":
            out |= {f"{name}@{t}": f_t for t, f_t in enumerate(f)}
        else:
            out[name] = f.mean(0) if how == "mean" else f.movedim(0, 1).flatten(1)
    return out


def golden_layers(config: Network) -> tuple[str, ...]:
    """Names of an integer network's layers: those of the float network that `sw.stop.integer` takes it from."""
    return tuple(str(l - 1) for l in config.layers)


def golden_features(network: GoldenNetwork, samples: Iterable[np.ndarray]) -> tuple[dict[str, Tensor], Tensor]:
    """Spikes (T, B, n) of each layer of the integer network, and the classes (B,) it decides on.

    Samples are as `GoldenNetwork.run` takes them.
    """
    spikes, classes = [], []
    for sample in samples:
        spikes.append(torch.stack(list(_spikes(network, sample))))
        classes.append(network.winner)
    whole = torch.stack(spikes, 1).to(torch.uint8)
    names = golden_layers(network.config)
    features = {name: whole[..., layer.neurons].float() for name, layer in zip(names, network.layers, strict=True)}
    return features, torch.tensor(classes)


def _spikes(network: GoldenNetwork, sample: np.ndarray) -> Iterator[Tensor]:
    for _ in network.steps(sample):
        yield network.spike.clone()
