"""What a run of `python -m sw.cka` does: a TOML file, checked before anything is trained.

    title = "STOP and BPTT on the digits"
    seeds = 3

    [cka]                       # fields of Measure
    samples = 360

    [train]                     # fields of sw.train.Options, for all models
    dataset = "digits"

    [models.stop]               # and for one of them; also chip, factory, layers (sw/cka/models.py)
    method = "stop-wtl"

    [[study]]                   # any number, carried out in this order; fields: those of its class in sw/cka/studies.py
    kind = "diagonal"
    pairs = [["stop", "bptt"]]
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from sw.cka.features import TIMES
from sw.cka.measures import KERNELS, splits
from sw.cka.models import Definition
from sw.training.train import Options


@dataclass(frozen=True)
class Measure:
    """How similarity is measured: on the first `samples` held-out samples, in minibatches of about `batch`."""

    samples: int = 360
    batch: int = 120
    kernel: str = "linear"
    bandwidth: float = 1.0
    time: str = "concat"

    def __post_init__(self) -> None:
        splits(self.samples, self.batch)
        for name, legal in (("kernel", KERNELS), ("time", TIMES)):
            if getattr(self, name) not in legal:
                raise ValueError(f"{name}: {getattr(self, name)} is not legal; legal is {' or '.join(legal)}")
        if not 0 < self.bandwidth < float("inf"):
            raise ValueError(f"bandwidth: {self.bandwidth} is not legal; legal is above 0")


@dataclass(frozen=True)
class Plan:
    """A checked configuration file, and its `text`; `studies` are of sw/cka/studies.py."""

    title: str
    seeds: int
    measure: Measure
    models: Mapping[str, Definition]
    text: str
    studies: tuple[Any, ...] = ()

    def model(self, name: str) -> Definition:
        if name not in self.models:
            raise ValueError(f"{name}: no such model; legal is one of {', '.join(self.models)}")
        return self.models[name]


def read(path: Path) -> Plan:
    """Raises ValueError, naming the file and the field, for anything that is not legal."""
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    try:
        return parse(path.read_text())
    except (ValueError, OSError) as e:  # OSError: also of a data set that is not there
        raise ValueError(f"{path}: {e}") from e


def parse(text: str) -> Plan:
    from sw.cka.studies import STUDIES

    top = tomllib.loads(text)
    _known("", top, ("title", "seeds", "cka", "train", "models", "study"))
    seeds = convert("seeds", top.get("seeds", 3), int)
    if seeds < 1:
        raise ValueError(f"seeds: {seeds} is not legal; legal is at least 1")
    measure = make("cka", top.get("cka", {}), Measure)
    train = _table("train", top.get("train", {}))
    models = {
        name: _definition(name, train, _table(f"models.{name}", t)) for name, t in _table("models", top.get("models", {})).items()
    }
    if not models:
        raise ValueError("models: none is not legal; legal is at least one [models.NAME]")
    one = next(iter(models.values()))
    for d in models.values():
        for name in ("dataset", "data", "pad"):
            ours, theirs = getattr(d.options, name), getattr(one.options, name)
            if ours != theirs:
                raise ValueError(f"models.{d.name}.{name}: {ours} is not legal; models.{one.name} has {theirs}, and all are shown"
                                 " the same samples")  # fmt: skip
        held_out = len(d.data.test[1])
        if measure.samples > held_out:
            raise ValueError(f"cka.samples: {measure.samples} is not legal; models.{d.name} has {held_out} held-out samples")
    plan = Plan(convert("title", top.get("title", "Representations"), str), seeds, measure, models, text)
    tables = top.get("study", [])
    if not (isinstance(tables, list) and tables):
        raise ValueError("study: none is not legal; legal is at least one [[study]]")
    studies = []
    for i, table in enumerate(tables, 1):
        kind = _table(f"study {i}", table).get("kind")
        if kind not in STUDIES:
            raise ValueError(f"study {i}: kind {kind} is not legal; legal is {' or '.join(STUDIES)}")
        study = make(f"study {i} ({kind})", {k: v for k, v in table.items() if k != "kind"}, STUDIES[kind])
        try:
            study.check(plan)
        except ValueError as e:
            raise ValueError(f"study {i} ({kind}): {e}") from None
        studies.append(study)
    return Plan(plan.title, seeds, measure, models, text, tuple(studies))


def _definition(name: str, train: dict[str, Any], table: dict[str, Any]) -> Definition:
    where = f"models.{name}"
    own = {f.name: f for f in fields(Definition) if f.name not in ("name", "options")}
    types = get_type_hints(Definition)
    given = {key: convert(f"{where}.{key}", table[key], types[key]) for key in own if key in table}
    options: Options = make(where, train | {key: value for key, value in table.items() if key not in own}, Options)
    if options.seed:
        raise ValueError(f"{where}.seed: {options.seed} is not legal; legal is to leave it out, as `seeds` counts them")
    if not options.still:
        raise ValueError(f"{where}.dataset: {options.dataset} is not legal; legal are image sets, which all models can be shown")
    return Definition(name, options, **given)


def make(where: str, table: Any, kind: type) -> Any:
    """The dataclass `kind` from a table, whose names and types are checked."""
    types = get_type_hints(kind)
    legal = [f.name for f in fields(kind)]
    _known(where, _table(where, table), legal)
    for f in fields(kind):
        if f.default is MISSING and f.name not in table:
            raise ValueError(f"{where}.{f.name}: missing")
    values = {name: convert(f"{where}.{name}", value, types[name]) for name, value in table.items()}
    try:
        return kind(**values)
    except ValueError as e:
        raise ValueError(f"{where}: {e}") from None


def convert(where: str, value: Any, kind: Any) -> Any:
    """The value as `kind`: lists become tuples, whole numbers numbers; ValueError for anything else of another type."""
    if kind is Any or type(value) is kind:
        return value
    if kind is float and type(value) is int:
        return float(value)
    if get_origin(kind) is tuple and isinstance(value, list):
        parts = get_args(kind)
        inner = [parts[0]] * len(value) if parts[-1] is ... else list(parts)
        if len(inner) != len(value):
            raise ValueError(f"{where}: {value!r} is not legal; legal is a list of {len(inner)}")
        return tuple(convert(f"{where}[{i}]", v, k) for i, (v, k) in enumerate(zip(value, inner, strict=True)))
    named = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(kind, "a list")
    raise ValueError(f"{where}: {value!r} is not legal; legal is {named}")


def _table(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: {value!r} is not legal; legal is a table")
    return value


def _known(where: str, table: Mapping[str, Any], legal: Iterable[str]) -> None:
    for name in table:
        if name not in legal:
            raise ValueError(f"{f'{where}.' if where else ''}{name}: no such field; legal is one of {', '.join(legal)}")
