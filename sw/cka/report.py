"""A run's folder: results.json (every number), figures/*.png, and index.html, one page that needs nothing else."""

from __future__ import annotations

import base64
import json
import math
import os
import platform
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from tqdm import tqdm

from sw.cka import plots
from sw.cka.config import Plan
from sw.cka.lab import Lab
from sw.cka.outcome import MARGIN

RESULTS, PAGE, FIGURES = "results.json", "index.html", "figures"
PAPER = {
    "": (
        "The seed paper is Li et al., “Uncovering the Representation of Spiking Neural Networks Trained with Surrogate "
        "Gradient”, TMLR 2023, arXiv 2304.13098. What is said of it on this page is what its abstract says; none of its figures "
        "is repeated. Its networks (ResNets on CIFAR) are far larger than those here, so that a direction not seen here says "
        "nothing against it."
    ),
    "heatmap": "The paper compares every layer of an ANN with every layer of an SNN in this way.",
    "diagonal": "The paper compares ANNs with SNNs trained by backpropagation through time; it has neither STOP nor an integer "
                "network.",
    "sweep": "The paper's abstract names width and depth as what it starts from, and states no outcome for them.",
    "residual": "The paper's abstract: with residual connections SNNs learn a periodic pattern, which brings their representations "
                "back to those of the ANN.",
    "time": "The paper's abstract: deeper layers are more dynamic along the time dimension.",
    "coding": "The paper's abstract names event-stream input as something it looks into, and states no outcome.",
    "attack": "The paper's abstract names adversarial attacks as something it looks into, and states no outcome.",
    "training": "The paper's abstract does not speak of the course of training.",
    "quantisation": "The paper's abstract does not speak of integers.",
    "energy": "The paper's abstract calls SNNs energy efficient and does not report a trade-off.",
}
"""What the seed paper reports for a study; first, for all of them."""


def run(plan: Plan, folder: Path, models: Path, *, jobs: int = 1, quiet: bool = False) -> dict[str, Any]:
    """Trains, measures and writes `folder`; what was there of an earlier run stays until all is measured.

    `models`: where networks are kept.
    """
    torch.set_num_threads(1)
    start = time.monotonic()
    lab = Lab(plan, models, jobs, quiet)
    lab.train(d for study in plan.studies for d in study.definitions(plan))
    fresh = folder / "new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        studies, directions = _studies(lab, fresh)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    results = plain({
        "title": plan.title,
        "seeds": list(range(plan.seeds)),
        "measure": asdict(plan.measure),
        "models": {
            name: [{"seed": s, "accuracy": lab.model(name, s).accuracy} for s in range(plan.seeds)] for name in _trained(plan, lab)
        },
        "directions": directions,
        "studies": studies,
        "config": plan.text,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "seconds": round(time.monotonic() - start, 1),
    })  # fmt: skip
    replace_text(folder / RESULTS, json.dumps(results, indent=1, allow_nan=False) + "\n")
    shutil.rmtree(folder / FIGURES, ignore_errors=True)
    fresh.rename(folder / FIGURES)
    return results


def _studies(lab: Lab, folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Carries them out, and draws their figures into the folder."""
    studies: list[dict[str, Any]] = []
    directions: list[dict[str, Any]] = []
    with tqdm(lab.plan.studies, desc="studies", disable=lab.quiet) as bar:
        for number, study in enumerate(bar, 1):
            bar.set_postfix_str(study.kind)
            outcome = study.run(lab)
            figures = []
            for figure in outcome.figures:
                name = f"{number}-{figure.name}.png"
                plots.save(figure.draw, folder / name)
                figures.append({"file": name, "caption": figure.caption})
            studies.append({
                "kind": study.kind, "title": outcome.title, "text": outcome.text, "paper": PAPER[study.kind],
                "options": asdict(study),
                "tables": [asdict(t) for t in outcome.tables], "figures": figures, "numbers": outcome.numbers,
            })  # fmt: skip
            directions += [asdict(d) | {"verdict": d.verdict} for d in outcome.directions]
    return studies, directions


def _trained(plan: Plan, lab: Lab) -> list[str]:
    return [name for name, d in plan.models.items() if d.key(0) in lab.models and not d.factory]


def plain(value: Any) -> Any:
    """As JSON has it: lists, and null for what is not a number."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def replace_text(path: Path, text: str) -> None:
    """A reader finds the old file or the new one, never half of one."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(text)
    os.replace(beside, path)


def page(folder: Path) -> Path:
    """Writes the page of a run's folder. Raises ValueError, naming what is missing, if it is not one."""
    try:
        results = json.loads((folder / RESULTS).read_text())
        images = {f["file"]: _inline(folder / FIGURES / f["file"]) for study in results["studies"] for f in study["figures"]}
        env = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )
        text = env.get_template("report.html").render(
            **results, images=images, paper=PAPER[""], margin=MARGIN, accuracy=_accuracy(results["models"])
        )
    except FileNotFoundError as e:
        raise ValueError(f"{folder}: {e.filename} is missing; legal is the folder of a finished run") from None
    except (KeyError, TypeError, json.JSONDecodeError, jinja2.UndefinedError) as e:
        raise ValueError(f"{folder}: {RESULTS} is not that of a run ({e})") from None
    replace_text(folder / PAGE, text)
    return folder / PAGE


def _accuracy(models: dict[str, Any]) -> list[tuple[str, list[str]]]:
    return [(name, [f"{100 * m['accuracy'][-1]:.1f}" for m in per_seed]) for name, per_seed in models.items()]


def _inline(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
