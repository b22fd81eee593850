"""Trains what a plan's studies ask for, and compares layers of what was trained."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor, nn
from tqdm import tqdm

from sw.cka.config import Plan
from sw.cka.features import in_time
from sw.cka.measures import CKA, splits
from sw.cka.models import Definition, Model, Recording, fit
from sw.golden.fast import FastNetwork


@dataclass
class View:
    """A model to look at: after which epoch, as which network, shown which images (uint8; by default the held-out ones)."""

    model: Model
    network: nn.Module | FastNetwork
    images: Tensor

    def record(self, part: slice) -> Recording:
        return self.model.record(self.images[part], part.start, self.network)


@dataclass
class Similarity:
    """CKA (layers of x, layers of y) with the layers' names; it is not a number where a layer is constant.

    `constant`: the constant layers, each with its model.
    """

    x: tuple[str, ...]
    y: tuple[str, ...]
    values: np.ndarray
    constant: tuple[str, ...] = ()

    @property
    def diagonal(self) -> np.ndarray:
        """Of layers at the same place. ValueError if the networks have different numbers of layers."""
        if len(self.x) != len(self.y):
            raise ValueError(f"{len(self.x)} and {len(self.y)} layers; legal are networks of the same number of layers")
        return self.values.diagonal().copy()


@dataclass
class Lab:
    plan: Plan
    folder: Path
    """Trained models are kept there."""
    jobs: int = 1
    quiet: bool = False
    models: dict[str, Model] = field(default_factory=dict)

    def train(self, definitions: Iterable[Definition]) -> None:
        """Trains every definition with every seed, in `jobs` processes, as far as it is not there yet."""
        wanted = {d.key(s): (d, s) for d in definitions for s in range(self.plan.seeds)}
        wanted = {key: case for key, case in wanted.items() if key not in self.models}
        with tqdm(total=len(wanted), desc="models", unit=" trained", disable=self.quiet) as bar:
            for key, model in self._fit(wanted):
                self.models[key] = model
                bar.update()
                bar.set_postfix_str(f"{model.name}, seed {model.seed}")

    def _fit(self, wanted: dict[str, tuple[Definition, int]]) -> Iterator[tuple[str, Model]]:
        if self.jobs == 1 or len(wanted) < 2:
            for key, case in wanted.items():
                yield key, fit(*case, self.folder)
            return
        with ProcessPoolExecutor(self.jobs, multiprocessing.get_context("spawn")) as pool:
            cases = {pool.submit(fit, *case, self.folder): key for key, case in wanted.items()}
            try:
                for done in as_completed(cases):
                    yield cases[done], done.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def model(self, which: str | Definition, seed: int) -> Model:
        d = self.plan.model(which) if isinstance(which, str) else which
        key = d.key(seed)
        if key not in self.models:
            self.models[key] = fit(d, seed, self.folder)
        model = self.models[key]
        return Model(d, seed, model.states, model.accuracy)

    @property
    def parts(self) -> list[slice]:
        return splits(self.plan.measure.samples, self.plan.measure.batch)

    def view(
        self, model: Model, *, epoch: int = -1, network: nn.Module | FastNetwork | None = None, images: Tensor | None = None
    ) -> View:
        images = model.data.test[0][: self.plan.measure.samples] if images is None else images
        return View(model, network or model.network(epoch), images)

    def compare(self, x: View, y: View | None = None, *, time: str = "") -> Similarity:
        """Streams both models' features through `sw.cka.measures.CKA`; with `y` left out, of x with itself."""
        m = self.plan.measure
        out = CKA(m.kernel, m.bandwidth)
        names: list[tuple[str, ...]] = []
        for part in self.parts:
            sides = [in_time(v.record(part).features, time or m.time) for v in (x, y) if v is not None]
            try:
                out.add(*(list(f.values()) for f in sides))
            except ValueError as e:
                raise ValueError(f"{x.model.name} (x){f' and {y.model.name} (y)' if y else ''}: {e}") from None
            names = [tuple(f) for f in (sides * 2)[:2]]
        own = zip((x, y or x), names, (out.own_x, out.own_y), strict=True)
        constant = {
            f"{v.model.name}, layer {name}": None for v, layers, hsic in own for name, h in zip(layers, hsic, strict=True) if h <= 0
        }
        return Similarity(names[0], names[1], out.result(undefined=True).numpy(), tuple(constant))

    def accuracy(self, view: View) -> float:
        """Share of the samples of the view that are classified rightly."""
        labels = view.model.data.test[1]
        return sum(int((view.record(part).classes == labels[part]).sum()) for part in self.parts) / self.plan.measure.samples


def seeded(values: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over seeds (0 for one seed) of arrays of one shape.

    A value that is not a number is left out; the result is not a number only where no seed has one.
    """
    stacked = np.stack(list(values)).astype(float)
    there = ~np.isnan(stacked)
    n = there.sum(0)
    mean = np.where(n > 0, np.where(there, stacked, 0).sum(0) / np.maximum(n, 1), np.nan)
    spread = np.sqrt(np.where(there, (stacked - mean) ** 2, 0).sum(0) / np.maximum(n - 1, 1))
    return mean, np.where(n > 0, spread, np.nan)


