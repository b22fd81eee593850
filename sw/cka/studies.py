"""The studies. Each is a dataclass whose fields are those of its table in the configuration file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import Any, ClassVar

import numpy as np

from hw.network import Network
from hw.numbers import Q
from sw.cka import plots
from sw.cka.attacks import ATTACKS, PGD_STEPS, attack
from sw.cka.config import Plan
from sw.cka.energy import cost
from sw.cka.lab import Lab, Similarity, seeded
from sw.cka.models import Definition, Model, integers
from sw.cka.outcome import Direction, Figure, Outcome, Table, plus_minus
from sw.data.coding import CODINGS

Pair = tuple[str, str]


class Study:
    """`check` raises ValueError for what the plan does not hold, `definitions` are the models to train, `run` measures."""

    kind: ClassVar[str]

    def check(self, plan: Plan) -> None:
        definitions = self.definitions(plan)
        if not definitions:
            raise ValueError(f"{fields(self)[0].name}: none is not legal; legal is at least one")  # type: ignore[arg-type]
        for d in definitions:
            assert d.runs

    def definitions(self, plan: Plan) -> list[Definition]:
        raise NotImplementedError

    def run(self, lab: Lab) -> Outcome:
        raise NotImplementedError


def _of(plan: Plan, names: Iterable[str]) -> list[Definition]:
    return [plan.model(name) for name in dict.fromkeys(names)]


def _seeds(lab: Lab) -> range:
    return range(lab.plan.seeds)


def _named(pair: Pair) -> str:
    return pair[0] if pair[0] == pair[1] else f"{pair[0]} and {pair[1]}"


def _slug(*parts: object) -> str:
    return "-".join(str(p) for p in parts).replace(" ", "-").replace("/", "-").replace(".", "_").lower()


def _compare(lab: Lab, pair: Pair, seed: int, other: int | None = None) -> Similarity:
    """Two models of one seed, or of seeds `seed` and `other`; a model with itself if they are the same."""
    x = lab.view(lab.model(pair[0], seed))
    if pair[0] == pair[1] and other is None:
        return lab.compare(x)
    return lab.compare(x, lab.view(lab.model(pair[1], seed if other is None else other)))


def _same_layers(plan: Plan, definitions: Iterable[Definition]) -> None:
    """Layers at the same place: as many of them, and, with `time` apart, of as many steps."""
    runs = {d.name: tuple(d.runs.values()) for d in definitions}
    if len(set(map(len, runs.values()))) > 1:
        found = ", ".join(f"{name} has {len(r)} layers" for name, r in runs.items())
        raise ValueError(f"{found}; legal are networks of the same number of layers")
    if plan.measure.time == "apart" and len(set(runs.values())) > 1:
        found = ", ".join(f"{name} has {max(r)} steps" for name, r in runs.items())
        raise ValueError(f"time: apart is not legal, as {found}; legal are networks of the same steps, or concat or mean")


def _whole_samples(plan: Plan) -> None:
    """For a study that counts layers."""
    if plan.measure.time == "apart":
        raise ValueError("time: apart is not legal; legal is concat or mean, as each layer counts once")


def _trained_here(what: str, definitions: Iterable[Definition]) -> None:
    for d in definitions:
        if d.factory:
            raise ValueError(f"{what}: {d.name} is not legal; legal are models that are trained here")


def _same_epochs(what: str, definitions: Iterable[Definition]) -> None:
    epochs = {d.name: d.options.epochs for d in definitions}
    if len(set(epochs.values())) > 1:
        found = ", ".join(f"{name} has {n} epochs" for name, n in epochs.items())
        raise ValueError(f"{what}: {found}; legal is the same number")


def _constant(found: Iterable[Similarity]) -> list[str]:
    """A paragraph that names the layers without CKA, if there are any."""
    names = dict.fromkeys(name for s in found for name in s.constant)
    return (
        [f"The same for all samples with some seed, and so without CKA (grey, or left out): {'; '.join(names)}."] if names else []
    )


def _by_layer(caption: str, columns: dict[str, list[np.ndarray]], names: Iterable[str]) -> Table:
    """Mean and spread over seeds of (seeds, layers) by name; layers are rows, or columns if they are fewer than the names."""
    layers = [f"{i + 1} ({name})" for i, name in enumerate(names)]
    rows = [[layer, *(plus_minus([values[i] for values in v]) for v in columns.values())] for i, layer in enumerate(layers)]
    table = [["layer (its name)", *columns], *rows]
    if len(columns) > len(layers):
        table = [list(column) for column in zip(*table, strict=True)]
    return Table(caption, table[0], table[1:])


def _samples(lab: Lab) -> str:
    m = lab.plan.measure
    sigma = f", bandwidth {m.bandwidth:g} of the median distance" if m.kernel == "rbf" else ""
    time = {"concat": "the steps of a sample side by side", "mean": "steps averaged", "apart": "each step apart"}[m.time]
    return (
        f"CKA with a {m.kernel} kernel{sigma}, unbiased HSIC averaged over {len(lab.parts)} minibatches of about {m.batch}, on the "
        f"first {m.samples} held-out samples; {time}."
    )


@dataclass
class Heatmap(Study):
    """Every layer of one model with every layer of another, or of itself, by pair."""

    kind: ClassVar[str] = "heatmap"
    pairs: tuple[Pair, ...]

    def definitions(self, plan: Plan) -> list[Definition]:
        return _of(plan, (name for pair in self.pairs for name in pair))

    def run(self, lab: Lab) -> Outcome:
        out = Outcome(
            "Layer by layer", [f"{_samples(lab)} Mean over {lab.plan.seeds} seeds; the colours are the same in all pictures."], {}
        )
        found = {pair: [_compare(lab, pair, s) for s in _seeds(lab)] for pair in self.pairs}
        out.text += _constant(s for per_seed in found.values() for s in per_seed)
        for pair, per_seed in found.items():
            mean, spread = seeded(s.values for s in per_seed)
            out.numbers[_named(pair)] = {
                "x": per_seed[0].x, "y": per_seed[0].y, "cka": [s.values for s in per_seed], "mean": mean, "sd": spread,
            }  # fmt: skip
            draw = plots.heatmap(mean, f"layer of {pair[1]}", f"layer of {pair[0]}")
            within = "within one model" if pair[0] == pair[1] else "between two models"
            out.figures.append(Figure(_slug("heatmap", *pair), f"{_named(pair)}: CKA {within}, mean over seeds", draw))
        return out


@dataclass
class Diagonal(Study):
    """Layers at the same place, with the spread over seeds, beside what two seeds of one model have in common.

    `middle`: of these pairs, whether the middle third of the layers is the more alike one (a direction).
    """

    kind: ClassVar[str] = "diagonal"
    pairs: tuple[Pair, ...]
    middle: tuple[Pair, ...] = ()
    title: str = "Layers at the same place"

    def check(self, plan: Plan) -> None:
        super().check(plan)
        if self.middle:
            _whole_samples(plan)
        _same_layers(plan, self.definitions(plan))
        for pair in self.middle:
            if pair not in self.pairs:
                raise ValueError(f"middle: {_named(pair)} is not legal; legal is one of the pairs")

    def definitions(self, plan: Plan) -> list[Definition]:
        return _of(plan, (name for pair in self.pairs for name in pair))

    def run(self, lab: Lab) -> Outcome:
        found = {_named(pair): [_compare(lab, pair, s) for s in _seeds(lab)] for pair in self.pairs}
        names = found[_named(self.pairs[0])][0].x
        if lab.plan.seeds > 1:
            for name in dict.fromkeys(pair[0] for pair in self.pairs):
                found[f"{name}, two seeds"] = [_compare(lab, (name, name), *seeds) for seeds in combinations(_seeds(lab), 2)]
        columns = {name: [s.diagonal for s in similar] for name, similar in found.items()}
        text = [
            f"{_samples(lab)} Mean ± standard deviation over {lab.plan.seeds} seeds. Models of one seed start from the same "
            "weights and see samples in the same order. “Two seeds” compares one model with itself started from other weights "
            "and shown samples in another order: a yardstick, and not the effect of the way of learning alone, as the two models "
            "of a pair share their start.",
            *_constant(s for similar in found.values() for s in similar),
        ]
        chips = [d.name for d in self.definitions(lab.plan) if d.chip]
        if chips:
            text.append(
                f"{', '.join(chips)}: the integer golden model, to which the gateware is equal in every bit in simulation (tests "
                "of this repository). It starts from the same weights, rounded, and learns by STOP as the chip does: one sample "
                "an update, in an order of its own, with learning rates that are powers of two; the float networks learn in "
                "batches by Adam."
            )
        out = Outcome(self.title, text, {k: {"layers": names, "cka": v} for k, v in columns.items()})
        out.tables.append(_by_layer("CKA of layers at the same place", columns, names))
        for i, (title, chosen) in enumerate((("pairs of models", False), ("two seeds of one model", True))):
            series = {k: seeded(v) for k, v in columns.items() if k.endswith(", two seeds") is chosen}
            if series:
                draw = plots.lines(series, "layer", "CKA")
                caption = f"CKA of layers at the same place: {title}; bars: standard deviation"
                out.figures.append(Figure(_slug("diagonal", self.title, i), caption, draw))
        for pair in self.middle:
            out.directions.append(middle_direction(_named(pair), columns[_named(pair)]))
        return out


def middle_direction(name: str, diagonals: list[np.ndarray]) -> Direction:
    """Mean of the middle third of the layers minus that of all others, for each seed."""
    n = len(diagonals[0])
    inner = np.zeros(n, bool)
    inner[n // 3 : n - n // 3] = True
    differences = [float(np.nanmean(d[inner]) - np.nanmean(d[~inner])) for d in diagonals]
    level = plus_minus([float(np.nanmean(d[inner])) for d in diagonals])
    rest = plus_minus([float(np.nanmean(d[~inner])) for d in diagonals])
    where = f"layers {n // 3 + 1} to {n - n // 3} of {n}"
    return Direction(
        "middle layers are ANN-like", f"{name}: CKA of {where} ({level}) minus that of the others ({rest})", differences
    )


@dataclass
class Sweep(Study):
    """An option of the networks (`width`, `blocks`, `hidden`, `steps`) over `values`: how alike the pair stays."""

    kind: ClassVar[str] = "sweep"
    pair: Pair
    field: str
    values: tuple[Any, ...]
    title: str = "Size"

    def check(self, plan: Plan) -> None:
        if self.field not in ("width", "blocks", "hidden", "steps"):
            raise ValueError(f"field: {self.field} is not legal; legal is width, blocks, hidden or steps")
        if not self.values:
            raise ValueError("values: none is not legal; legal is at least one")
        _whole_samples(plan)
        _trained_here("pair", _of(plan, self.pair))
        super().check(plan)
        for value in self.values:
            _same_layers(plan, [self._changed(plan, name, value) for name in self.pair])

    def _changed(self, plan: Plan, name: str, value: Any) -> Definition:
        d = plan.model(name)
        if self.field == "steps" and d.options.neuron == "relu":
            return d
        from sw.cka.config import convert

        kind = {"width": float, "blocks": int, "steps": int}.get(self.field, tuple[int, ...])
        return replace(d, options=replace(d.options, **{self.field: convert("values", value, kind)}))

    def definitions(self, plan: Plan) -> list[Definition]:
        return [self._changed(plan, name, value) for value in self.values for name in self.pair]

    def run(self, lab: Lab) -> Outcome:
        labels = ["-".join(map(str, v)) if isinstance(v, list | tuple) else str(v) for v in self.values]
        rows, numbers = [], {}
        curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        means: list[list[float]] = []
        for label, value in zip(labels, self.values, strict=True):
            x, y = (self._changed(lab.plan, name, value) for name in self.pair)
            pairs = [(lab.model(x, s), lab.model(y, s)) for s in _seeds(lab)]
            found = [lab.compare(lab.view(a), lab.view(b)).diagonal for a, b in pairs]
            hidden = [float(np.nanmean(d[:-1])) for d in found]
            accuracy = [[m.accuracy[-1] for m in side] for side in zip(*pairs, strict=True)]
            numbers[label] = {"cka": found, "hidden": hidden, "accuracy": dict(zip(self.pair, accuracy, strict=True))}
            rows.append([label, str(len(found[0])), plus_minus(hidden), *(plus_minus(a, 1, 100) for a in accuracy)])
            curves[f"{self.field} {label}"] = seeded(found)
            means.append(hidden)
        text = (
            f"{_samples(lab)} {_named(self.pair)} with other values of {self.field}, each trained anew with {lab.plan.seeds} seeds."
        )
        header = [self.field, "layers", "CKA, hidden layers", *(f"accuracy of {name}, %" for name in self.pair)]
        mean = np.array([np.mean(m) for m in means]), np.array([np.std(m, ddof=1) if len(m) > 1 else 0.0 for m in means])
        return Outcome(
            self.title, [text], numbers,
            [Table("Mean CKA of hidden layers at the same place; accuracy on held-out samples", header, rows)],
            [
                Figure(_slug("sweep", self.field, *self.pair), "mean over hidden layers at the same place",
                       plots.lines({_named(self.pair): mean}, self.field, "CKA", x=labels)),
                Figure(_slug("sweep", self.field, *self.pair, "layers"), "by layer", plots.lines(curves, "layer", "CKA")),
            ],
        )  # fmt: skip


@dataclass
class Residual(Study):
    """A residual network and the same without shortcuts, each as an ANN and as an SNN: is the similarity periodic in the blocks?

    In block k, `first` is the layer inside and `second` the one after the addition. The step of a block is CKA(ANN, SNN) at
    `second` minus CKA(ANN, SNN) at `first`.
    """

    kind: ClassVar[str] = "residual"
    residual: Pair
    plain: Pair

    def check(self, plan: Plan) -> None:
        _whole_samples(plan)
        _trained_here("residual, plain", self.definitions(plan))
        _same_epochs("residual, plain", self.definitions(plan))
        super().check(plan)
        for which in ("residual", "plain"):
            for d in _of(plan, getattr(self, which)):
                if d.options.model not in (("resnet", "resnet18") if which == "residual" else ("plain",)) or d.layers:
                    raise ValueError(
                        f"{which}: {d.name} is not legal; legal is model {'resnet' if which == 'residual' else 'plain'}, all layers"
                    )
        _same_layers(plan, self.definitions(plan))

    def definitions(self, plan: Plan) -> list[Definition]:
        return _of(plan, (*self.residual, *self.plain))

    def run(self, lab: Lab) -> Outcome:
        kinds = {"residual": self.residual, "plain": self.plain}
        columns: dict[str, list[np.ndarray]] = {}
        steps: dict[str, list[np.ndarray]] = {}
        names: dict[str, tuple[str, ...]] = {}
        for kind, pair in kinds.items():
            compared = [_compare(lab, pair, s) for s in _seeds(lab)]
            columns[kind], names[kind] = [c.diagonal for c in compared], compared[0].x
            first = [i for i, n in enumerate(names[kind]) if n.endswith(".first")]
            steps[kind] = [d[[i + 1 for i in first]] - d[first] for d in columns[kind]]
        means = {k: [float(np.nanmean(s)) for s in v] for k, v in steps.items()}
        share = {k: [float(np.mean(s > 0)) for s in v] for k, v in steps.items()}
        text = (
            f"{_samples(lab)} Each block has a layer inside (“first”) and a layer after the addition (“second”); without "
            "shortcuts, the same layers and no addition. A periodic pattern shows as steps upwards, from inside a block to its "
            "end, in block after block."
        )
        table = Table(
            "CKA of ANN and SNN at the end of a block minus inside it",
            ["network", "mean step", "blocks that step up, %", *(f"accuracy of {w}, %" for w in ("ANN", "SNN"))],
            [
                [k, plus_minus(means[k]), plus_minus(share[k], 0, 100),
                 *(plus_minus([lab.model(n, s).accuracy[-1] for s in _seeds(lab)], 1, 100) for n in pair)]
                for k, pair in kinds.items()
            ],
        )  # fmt: skip
        out = Outcome("Residual and plain networks", [text], {"cka": columns, "steps": steps, "layers": names}, [table])
        blocks = [[str(b + 1), *(plus_minus([s[b] for s in v]) for v in steps.values())] for b in range(len(steps["residual"][0]))]
        out.tables.append(Table("The same, block by block", ["block", *steps], blocks))
        out.tables.append(_by_layer("CKA of ANN and SNN at the same place", columns, names["residual"]))
        out.figures.append(
            Figure("residual-diagonal", "ANN and SNN at the same place: even layers are inside blocks, odd ones after the addition",
                   plots.lines({k: seeded(v) for k, v in columns.items()}, "layer", "CKA", unit=False))
        )  # fmt: skip
        differences = [min(r, r - p) for r, p in zip(means["residual"], means["plain"], strict=True)]
        measured = (
            f"step of CKA(ANN, SNN) from inside a block to its end, mean over blocks: {plus_minus(means['residual'])} with "
            f"shortcuts, {plus_minus(means['plain'])} without; tested: the lesser of the step with shortcuts and what it exceeds "
            f"that without by; blocks that step up: {plus_minus(share['residual'], 0, 100)} % and "
            f"{plus_minus(share['plain'], 0, 100)} %"
        )
        out.directions.append(Direction("residual connections make a periodic pattern", measured, differences))
        return out


@dataclass
class TimeSteps(Study):
    """Each step of a layer with each other step of it. Dynamics is 1 minus the mean CKA of two different steps.

    `deeper`: of these models, whether the deeper half of the hidden layers is the more dynamic one (a direction).
    """

    kind: ClassVar[str] = "time"
    models: tuple[str, ...]
    deeper: tuple[str, ...] = ()

    def check(self, plan: Plan) -> None:
        super().check(plan)
        for d in self.definitions(plan):
            for layer, steps in d.runs.items():
                if steps < 2:
                    raise ValueError(f"models: {d.name} has {steps} step (layer {layer}); legal is at least 2")
        for name in self.deeper:
            if name not in self.models:
                raise ValueError(f"deeper: {name} is not legal; legal is one of the models")

    def definitions(self, plan: Plan) -> list[Definition]:
        return _of(plan, self.models)

    def run(self, lab: Lab) -> Outcome:
        text = (
            f"{_samples(lab).rpartition(';')[0]}. Every step of a layer with every other step of it; dynamics is 1 minus their "
            "mean CKA: 0 where a layer says the same in all steps. Steps in which a layer says the same of all samples (none has "
            "spiked yet) have no CKA: grey, and left out."
        )
        out = Outcome("Time steps", [text], {})
        columns: dict[str, list[np.ndarray]] = {}
        names: dict[str, tuple[str, ...]] = {}
        for name in self.models:
            per_seed = [self._blocks(lab, lab.model(name, s)) for s in _seeds(lab)]
            names[name] = tuple(per_seed[0])
            out.numbers[name] = {layer: [p[layer] for p in per_seed] for layer in names[name]}
            columns[name] = [np.array([dynamics(block) for block in p.values()]) for p in per_seed]
            picked = np.unique(np.linspace(0, len(names[name]) - 1, 3).round().astype(int))
            for i in picked:
                mean, _ = seeded(out.numbers[name][names[name][i]])
                draw = plots.heatmap(mean, "time step", "time step")
                out.figures.append(
                    Figure(_slug("time", name, i + 1), f"{name}, layer {i + 1} of {len(names[name])}, step by step", draw)
                )
        for layers in dict.fromkeys(names.values()):
            out.tables.append(_by_layer("Dynamics by layer", {n: c for n, c in columns.items() if names[n] == layers}, layers))
        series = {name: seeded(column) for name, column in columns.items()}
        out.figures.insert(
            0, Figure("time-dynamics", "dynamics by layer", plots.lines(series, "layer", "1 - CKA between steps", unit=False))
        )
        for name in self.deeper:
            hidden = [c[:-1] for c in columns[name]]
            half = (len(hidden[0]) + 1) // 2
            low, high = (
                [float(np.nanmean(part)) for part in parts] for parts in ([h[:half] for h in hidden], [h[half:] for h in hidden])
            )
            measured = (
                f"{name}: dynamics of the deeper half of the hidden layers ({plus_minus(high)}) minus that of the others "
                f"({plus_minus(low)})"
            )
            out.directions.append(
                Direction("deeper layers are more dynamic in time", measured, [b - a for a, b in zip(low, high, strict=True)])
            )
        return out

    def _blocks(self, lab: Lab, model: Model) -> dict[str, np.ndarray]:
        """(T, T) of each layer."""
        found = lab.compare(lab.view(model), time="apart")
        layers = dict.fromkeys(name.rpartition("@")[0] for name in found.x)
        where = {layer: [i for i, name in enumerate(found.x) if name.rpartition("@")[0] == layer] for layer in layers}
        return {layer: found.values[np.ix_(at, at)] for layer, at in where.items()}


def dynamics(block: np.ndarray) -> float:
    """1 minus the mean of what is off the diagonal; not a number if nothing there is defined."""
    off = block[~np.eye(len(block), dtype=bool)]
    return float(1 - off[~np.isnan(off)].mean()) if not np.isnan(off).all() else float("nan")


@dataclass
class Coding(Study):
    """The SNN `model` trained with each of `codings`, beside the ANN `ann` that sees the picture.

    `event`: the coding that stands for an event camera.
    """

    kind: ClassVar[str] = "coding"
    model: str
    ann: str
    codings: tuple[str, ...] = ("direct", "rate", "latency", "motion")
    event: str = "motion"

    def check(self, plan: Plan) -> None:
        for coding in self.codings:
            if coding not in CODINGS:
                raise ValueError(f"codings: {coding} is not legal; legal is {' or '.join(CODINGS)}")
        if self.event and not {"direct", self.event} <= set(self.codings):
            raise ValueError(f"codings: {', '.join(self.codings)} are not legal; legal are those that hold direct and {self.event}")
        if plan.model(self.model).chip:
            raise ValueError(f"model: {self.model} is not legal; legal is a float network")
        _whole_samples(plan)
        _trained_here("model", [plan.model(self.model)])
        super().check(plan)
        _same_layers(plan, _of(plan, (self.model, self.ann)))

    def _coded(self, plan: Plan, coding: str) -> Definition:
        d = plan.model(self.model)
        return replace(d, options=replace(d.options, coding=coding))

    def definitions(self, plan: Plan) -> list[Definition]:
        return [*_of(plan, [self.ann]), *(self._coded(plan, c) for c in self.codings)]

    def run(self, lab: Lab) -> Outcome:
        columns: dict[str, list[np.ndarray]] = {}
        accuracy: dict[str, list[float]] = {}
        names: tuple[str, ...] = ()
        for coding in self.codings:
            models = [lab.model(self._coded(lab.plan, coding), s) for s in _seeds(lab)]
            compared = [lab.compare(lab.view(m), lab.view(lab.model(self.ann, s))) for s, m in enumerate(models)]
            columns[coding], names = [c.diagonal for c in compared], compared[0].x
            accuracy[coding] = [m.accuracy[-1] for m in models]
        hidden = {c: [float(np.nanmean(d[:-1])) for d in v] for c, v in columns.items()}
        text = (
            f"{_samples(lab)} {self.model}, trained and shown each coding of the pictures, beside {self.ann}, which is shown the "
            "picture itself. “motion” and “delta” are simulated event cameras (sw/data/coding.py), not recordings of one."
        )
        rows = [[c, plus_minus(hidden[c]), plus_minus(accuracy[c], 1, 100)] for c in self.codings]
        out = Outcome("Input codings", [text], {"cka": columns, "hidden": hidden, "accuracy": accuracy, "layers": names})
        out.tables = [
            Table(f"{self.model} and {self.ann}", ["coding", "CKA, hidden layers", f"accuracy of {self.model}, %"], rows),
            _by_layer(f"CKA of {self.model} and {self.ann} at the same place", columns, names),
        ]
        draw = plots.lines({c: seeded(v) for c, v in columns.items()}, "layer", "CKA")
        out.figures.append(Figure("coding", f"{self.model} by coding, and {self.ann} shown the picture", draw))
        if self.event:
            measured = (
                f"CKA of hidden layers with {self.ann}: direct ({plus_minus(hidden['direct'])}) minus {self.event} "
                f"({plus_minus(hidden[self.event])}); "
                f"accuracy of the two: {plus_minus(accuracy['direct'], 1, 100)} % and {plus_minus(accuracy[self.event], 1, 100)} %"
            )
            differences = [a - b for a, b in zip(hidden["direct"], hidden[self.event], strict=True)]
            out.directions.append(Direction("direct coding is closer to the ANN than event input", measured, differences))
        return out


@dataclass
class Attack(Study):
    """FGSM and PGD of several strengths: accuracy, and each layer's similarity to itself on the clean images.

    A model without gradients, such as the chip's integers, is shown the images made against `transfer`.
    """

    kind: ClassVar[str] = "attack"
    models: tuple[str, ...]
    eps: tuple[float, ...] = (0.05, 0.1, 0.2)
    transfer: str = ""

    def check(self, plan: Plan) -> None:
        super().check(plan)
        for eps in self.eps:
            if not 0 < eps <= 1:
                raise ValueError(f"eps: {eps} is not legal; legal is above 0 and at most 1, of the full scale")
        for d in self.definitions(plan):
            if self._transferred(d) and not self.transfer:
                raise ValueError(f"models: {d.name} has no gradient by its pixels; name a model for `transfer`")
            if d.options.coding != "direct":
                raise ValueError(f"models: {d.name} has coding {d.options.coding}; legal is direct")
        if self.transfer and self._transferred(plan.model(self.transfer)):
            raise ValueError(f"transfer: {self.transfer} is not legal; legal is a float network")

    def definitions(self, plan: Plan) -> list[Definition]:
        return _of(plan, (*self.models, *filter(None, [self.transfer])))

    def run(self, lab: Lab) -> Outcome:
        text = (
            f"{_samples(lab)} Images are changed by at most ε of the full scale in each pixel, rounded to bytes, so as to raise "
            f"the loss of the model (gradients through time): FGSM in one step, PGD in {PGD_STEPS} steps. CKA is that of a layer "
            "shown the clean images with the same layer shown the attacked ones."
        )
        others = [d.name for d in self.definitions(lab.plan) if self._transferred(d)]
        if others:
            text += (
                f" {', '.join(others)}: has no gradient and is shown the images made against {self.transfer} of the same seed, a "
                "weaker attack than the others' own; its accuracy is not to be compared with theirs."
            )
        out = Outcome("Attacks", [text], {})
        rows = []
        layers: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {how: {} for how in ATTACKS}
        curves: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {how: {} for how in ATTACKS}
        for name in self.models:
            shown = f"{name} (transfer)" if self._transferred(lab.plan.model(name)) else name
            clean = [lab.accuracy(lab.view(lab.model(name, s))) for s in _seeds(lab)]
            rows.append([shown, "none", "0", plus_minus(clean, 1, 100), "–"])
            for how in ATTACKS:
                found = {eps: [self._attacked(lab, name, how, eps, s) for s in _seeds(lab)] for eps in self.eps}
                for eps, per_seed in found.items():
                    accuracies, similar = [a for a, _ in per_seed], [c for _, c in per_seed]
                    out.numbers[f"{name}, {how}, {eps:g}"] = {"accuracy": accuracies, "cka": similar, "clean": clean}
                    hidden = [float(np.nanmean(c)) for _, c in per_seed]
                    rows.append([shown, how, f"{eps:g}", plus_minus([a for a, _ in per_seed], 1, 100), plus_minus(hidden)])
                curves[how][shown] = seeded([np.array([clean[s], *(found[e][s][0] for e in self.eps)]) * 100 for s in _seeds(lab)])
                layers[how][shown] = seeded([found[self.eps[-1]][s][1] for s in _seeds(lab)])
        out.tables.append(Table("Under attack", ["model", "attack", "ε", "accuracy, %", "CKA with clean, all layers"], rows))
        for how in ATTACKS:
            draw = plots.lines(curves[how], "ε, of the full scale", "accuracy, %", x=[0.0, *self.eps], unit=False)
            out.figures.append(Figure(_slug("attack", how, "accuracy"), f"accuracy under {how.upper()}", draw))
            draw = plots.lines(layers[how], "layer", "CKA, clean and attacked")
            out.figures.append(
                Figure(_slug("attack", how, "layers"), f"clean and attacked by {how.upper()}, ε = {self.eps[-1]:g}", draw)
            )
        return out

    @staticmethod
    def _transferred(d: Definition) -> bool:
        return d.chip or bool(d.factory)

    def _attacked(self, lab: Lab, name: str, how: str, eps: float, seed: int) -> tuple[float, np.ndarray]:
        model = lab.model(name, seed)
        against = lab.model(self.transfer, seed) if self._transferred(model.definition) else model
        clean = lab.view(model)
        changed = attack(against, clean.images, model.data.test[1][: len(clean.images)], how, eps)
        attacked = lab.view(model, images=changed)
        return lab.accuracy(attacked), lab.compare(clean, attacked).diagonal


@dataclass
class Training(Study):
    """How representations part during training: pairs after each epoch, and each model with what it becomes in the end."""

    kind: ClassVar[str] = "training"
    pairs: tuple[Pair, ...]

    def check(self, plan: Plan) -> None:
        super().check(plan)
        for pair in self.pairs:
            _trained_here("pairs", _of(plan, pair))
            _same_layers(plan, _of(plan, pair))
            _same_epochs("pairs", _of(plan, pair))

    def definitions(self, plan: Plan) -> list[Definition]:
        return _of(plan, (name for pair in self.pairs for name in pair))

    def run(self, lab: Lab) -> Outcome:
        text = (
            f"{_samples(lab)} After each epoch; epoch 0 is before training, when models of one seed have the same weights. A "
            "point is missing where a layer does not spike yet."
        )
        out = Outcome("During training", [text], {})
        for pair in self.pairs:
            found = np.array([self._course(lab, [(n, s) for n in pair]) for s in _seeds(lab)])
            out.numbers[_named(pair)] = found
            self._add(out, _slug("training", *pair), f"{_named(pair)}, by epoch", found)
        for name in dict.fromkeys(name for pair in self.pairs for name in pair):
            found = np.array([self._course(lab, [(name, s)]) for s in _seeds(lab)])
            out.numbers[f"{name}, with its end"] = found
            self._add(out, _slug("training", name), f"{name} after each epoch, with what it becomes in the end", found)
        return out

    def _course(self, lab: Lab, models: list[tuple[str, int]]) -> np.ndarray:
        """(epochs + 1, layers): the two models after each epoch, or one after each epoch and in the end."""
        found = [lab.model(*m) for m in models]
        return np.array([
            lab.compare(lab.view(found[0], epoch=e), lab.view(found[-1], epoch=e if len(found) > 1 else -1)).diagonal
            for e in range(len(found[0].states))
        ])  # fmt: skip

    def _add(self, out: Outcome, name: str, caption: str, found: np.ndarray) -> None:
        epochs = list(range(found.shape[1]))
        series = {f"layer {l + 1}": seeded(found[:, :, l]) for l in range(found.shape[2])}
        out.figures.append(Figure(name, caption, plots.lines(series, "epoch", "CKA", x=epochs)))


@dataclass
class Quantisation(Study):
    """Float networks against themselves in the chip's integers, by the bits of a weight."""

    kind: ClassVar[str] = "quantisation"
    models: tuple[str, ...]
    bits: tuple[int, ...] = (4, 5, 6, 8, 12, 16)

    def check(self, plan: Plan) -> None:
        for bits in self.bits:
            if not 4 <= bits <= 18:
                raise ValueError(f"bits: {bits} is not legal; legal is 4 to 18")
        super().check(plan)
        for d in self.definitions(plan):
            if d.chip or d.factory or d.options.model != "mlp" or d.options.coding != "direct" or d.options.neuron != "lif":
                raise ValueError(f"models: {d.name} is not legal; legal is a float mlp of spiking neurons with coding direct")

    def definitions(self, plan: Plan) -> list[Definition]:
        return _of(plan, self.models)

    def run(self, lab: Lab) -> Outcome:
        text = (
            f"{_samples(lab)} The trained float network, and the same rounded to the chip's formats: weights of so many bits, as "
            "many of them integer bits as its largest weight needs; membranes and thresholds with 12 fraction bits, or 8 more "
            "than weights have, if that is fewer. All other formats are the chip's own (docs/numerics.md)."
        )
        out = Outcome("Quantisation", [text], {})
        rows = []
        for name in self.models:
            models = [lab.model(name, s) for s in _seeds(lab)]
            exact = [lab.accuracy(lab.view(m)) for m in models]
            rows.append([name, "float", plus_minus(exact, 1, 100), "–"])
            curves: list[list[np.ndarray]] = []
            for bits in self.bits:
                views = [lab.view(m, network=integers(m, formats(m, bits))) for m in models]
                found = [lab.compare(lab.view(m), v).diagonal for m, v in zip(models, views, strict=True)]
                accuracy = [lab.accuracy(v) for v in views]
                out.numbers[f"{name}, {bits} bits"] = {"cka": found, "accuracy": accuracy, "float": exact}
                rows.append([name, str(bits), plus_minus(accuracy, 1, 100), plus_minus([float(np.nanmean(f)) for f in found])])
                curves.append(found)
            by_layer = np.array(curves).transpose(2, 1, 0)
            draw = plots.lines(
                {f"layer {l}": seeded(c) for l, c in enumerate(by_layer, 1)}, "bits of a weight", "CKA", x=self.bits, unit=False
            )
            out.figures.append(Figure(_slug("bits", name), f"{name}: float against integers, by the bits of a weight", draw))
        header = ["model", "bits of a weight", "accuracy, %", "CKA with float, all layers"]
        out.tables.append(Table("Float against the chip's integers", header, rows))
        return out


def formats(model: Model, bits: int) -> Network:
    """The chip's formats with weights of so many bits.

    Gradients, which inference does not use, have as many fraction bits as these formats ask for.
    """
    most = max(float(p.abs().max()) for name, p in model.states[-1].items() if name.endswith("weight"))
    whole = min(bits, 2 + max(0, int(np.floor(np.log2(max(most, 1.0))))))
    w = Q(whole, bits - whole)
    u, fine = Q(4, min(12, w.f + 8)), max(12, w.f)
    return replace(model.definition.config, w=w, u=u, grad=Q(18 - fine, fine), theta_min=max(1, u.one // 16))


@dataclass
class Energy(Study):
    """Spikes and synaptic operations of a sample, beside accuracy."""

    kind: ClassVar[str] = "energy"
    models: tuple[str, ...]

    def definitions(self, plan: Plan) -> list[Definition]:
        return _of(plan, self.models)

    def check(self, plan: Plan) -> None:
        super().check(plan)
        for d in self.definitions(plan):
            if d.factory or d.layers:
                raise ValueError(f"models: {d.name} is not legal; legal are models of sw.training.nets with all their layers")

    def run(self, lab: Lab) -> Outcome:
        text = (
            f"On the first {lab.plan.measure.samples} held-out samples. An operation is a weight that meets an input which is not "
            "zero, as in the chip: an addition if the input is a spike, a multiplication if it is graded; a frame that is held "
            "for all steps is multiplied once. Of an artificial network, “spikes” are outputs that are not zero. These are "
            "counts, not joules."
        )
        rows, points, numbers = [], {}, {}
        for name in self.models:
            views = [lab.view(lab.model(name, s)) for s in _seeds(lab)]
            costs, accuracy = [cost(v, lab.parts) for v in views], [lab.accuracy(v) for v in views]
            numbers[name] = {f.name: [getattr(c, f.name) for c in costs] for f in fields(costs[0])} | {"accuracy": accuracy}
            rows.append([name, plus_minus(accuracy, 1, 100), *(plus_minus(numbers[name][f.name], 0) for f in fields(costs[0]))])
            points[name] = ([c.additions + c.multiplications for c in costs], [100 * a for a in accuracy])
        header = ["model", "accuracy, %", "spikes", "additions", "multiplications"]
        draw = plots.scatter(points, "synaptic operations of a sample", "accuracy, %")
        return Outcome(
            "Energy", [text], numbers, [Table("Of one sample", header, rows)], [Figure("energy", "one point a seed", draw)]
        )


STUDIES: dict[str, type[Study]] = {
    s.kind: s for s in (Heatmap, Diagonal, Sweep, Residual, TimeSteps, Coding, Attack, Training, Quantisation, Energy)
}
