"""Images: a network and the integers that it has learned, in one file.

`sw.deploy` and `sw.train --chip` write one; `sw.train_device --image` and `Device.load` put it on a board, `sim.cosim --image`
simulates it, and `load(image.state)` puts it into a golden network or a simulated core. Needs NumPy only.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from hw.network import Network
from hw.numbers import PIXEL_FRAC
from sw.common import checks
from sw.data import Dataset, Split

PARAMETERS = ("weight", "shortcut", "theta", "alpha", "error_table", "graded_table", "surrogate", "rng")
"""Kinds of arrays of the state that outlive a sample."""
ONE = {"static": (1 << PIXEL_FRAC) - 1, "events": 1 << PIXEL_FRAC, "frames": (1 << PIXEL_FRAC) - 1}
"""The constant input's value by kind of input, of 256: the greatest byte, or a spike in every step."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a network came from: what its way back needs beside the integers."""

    names: tuple[str, ...] = ()
    """Name of each layer's neurons in the graph; none if there was no graph."""
    theta: tuple[tuple[float, ...], ...] = ()
    """Each neuron's threshold in the graph, or each channel's, by layer; the core's own has another scale. None if there was no
    graph."""
    dt: float = 1e-4
    """Seconds of a time step, to which the graph's time constants refer."""
    decay: str = "euler"
    """How a time constant becomes a leakage factor: `euler`, 1 - dt/tau, or `exact`, exp(-dt/tau)."""
    unit_gain: bool = True
    """Whether resistances are such that weights add to the membrane as they are (r = tau/dt); r = 1 if not."""
    ones: int = 0
    """Layers, the input counted first, whose last unit, or channel, is always on: it carries the biases of the layer above."""
    input_scale: float = 1.0
    """What the network was given where the core is given 1.0."""


@dataclass(frozen=True)
class Image:
    """A network, the arrays to load (by the names of `hw.network.state_arrays`, raw int64), and where they came from."""

    network: Network
    state: dict[str, np.ndarray]
    origin: Origin = Origin()

    def __post_init__(self) -> None:
        checked = {name: checks.check_state(self.network, name, array) for name, array in self.state.items()}
        object.__setattr__(self, "state", {name: array for name, array in checked.items() if name.partition(".")[0] in PARAMETERS})

    def learned(self, state: Mapping[str, ArrayLike]) -> Image:
        """The same network with what it has become: `state` as a core or the golden model reads it."""
        return replace(self, state=self.state | {name: np.asarray(array) for name, array in state.items() if name in self.state})

    @property
    def _constant(self) -> int:
        """Inputs that are always on: none, one, or a channel of an image. They are the last ones."""
        return self.network.populations[0].positions if self.origin.ones else 0

    @property
    def inputs(self) -> int:
        """Inputs of the network, without constant ones."""
        return self.network.sizes[0] - self._constant

    def sample(self, sample: ArrayLike) -> np.ndarray:
        """A sample of the network, (inputs,) bytes or (T, inputs) spikes, as the core takes it: with the constant inputs, if any.

        Instead of inputs it may have the axes C, H, W of an image."""
        x, lead = np.asarray(sample), self.network.input != "static"
        x = x.reshape(*x.shape[:lead], -1) if x.ndim > lead else x
        return self._append(x, 1 if self.network.input == "events" else ONE[self.network.input])

    def dataset(self, dataset: Dataset) -> Dataset:
        """The same for all samples of a data set that was loaded for the network's own inputs."""
        if not self.origin.ones:
            return dataset
        train, test = (Split(self.network, self._append(s.images.astype(np.int64), ONE[self.network.input]), s.labels, s.seed)
                       for s in (dataset.train, dataset.test))  # fmt: skip
        return replace(dataset, train=train, test=test)

    def _append(self, x: np.ndarray, value: int) -> np.ndarray:
        return np.concatenate([x, np.full((*x.shape[:-1], self._constant), value, x.dtype)], -1) if self.origin.ones else x

    def save(self, path: Path) -> None:
        texts = {"network": self.network.to_json(), "origin": json.dumps(asdict(self.origin))}
        with path.open("wb") as file:
            arrays = {name: np.array(text) for name, text in texts.items()} | self.state
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Image:
        """Raises ValueError, naming the file, if it is not an image."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
            network, origin = Network.from_json(str(arrays.pop("network"))), json.loads(str(arrays.pop("origin")))
            origin |= {"names": tuple(origin.get("names", ())), "theta": tuple(map(tuple, origin.get("theta", ())))}
            return cls(network, arrays, Origin(**origin))
        except FileNotFoundError:
            raise ValueError(f"{path}: no such file") from None
        except (ValueError, KeyError, TypeError, AttributeError, OSError, zipfile.BadZipFile) as e:
            raise ValueError(f"{path}: not an image of a network ({e})") from None


def is_image(path: str | Path) -> bool:
    """Whether the file there is one, by its beginning: a ZIP file."""
    path = Path(path)
    return path.is_file() and zipfile.is_zipfile(path)
