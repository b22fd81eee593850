"""A whole run, small: numbers, figures, directions, and the page as a browser shows it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import main as browser_main
from chromium import MISSING, Chromium, find, works
from torch import nn

from sw.cka.__main__ import CONFIGS, main
from sw.cka.attacks import attack
from sw.cka.config import parse, read
from sw.cka.lab import Lab, Similarity, seeded
from sw.cka.models import fit
from sw.cka.outcome import Direction, plus_minus
from sw.cka.studies import STUDIES, dynamics, middle_direction

SMALL = """
title = "A small study <of> everything"
seeds = 2
[cka]
samples = 60
batch = 30
[train]
samples = 240
test_samples = 60
hidden = [16, 12]
steps = 3
epochs = 1
batch = 20
gain = 0.6
alpha = 0.9375
lr = 0.01
[models.ann]
neuron = "relu"
method = "bptt-wt"
steps = 1
[models.bptt]
method = "bptt-wtl"
[models.stop]
method = "stop-wtl"
[models.chip]
chip = true
[models.res-ann]
model = "resnet"
neuron = "relu"
method = "bptt-wt"
steps = 1
blocks = 1
width = 0.25
norm = "batch"
[models.res-snn]
model = "resnet"
method = "bptt-wtl"
blocks = 1
width = 0.25
norm = "batch"
[models.plain-ann]
model = "plain"
neuron = "relu"
method = "bptt-wt"
steps = 1
blocks = 1
width = 0.25
norm = "batch"
[models.plain-snn]
model = "plain"
method = "bptt-wtl"
blocks = 1
width = 0.25
norm = "batch"
[models.own]
factory = "test_page:own_network"
layers = ["hidden", "out"]
[[study]]
kind = "diagonal"
pairs = [["stop", "bptt"], ["stop", "chip"]]
[[study]]
kind = "diagonal"
pairs = [["res-ann", "res-snn"]]
middle = [["res-ann", "res-snn"]]
[[study]]
kind = "heatmap"
pairs = [["ann", "own"], ["stop", "stop"]]
[[study]]
kind = "residual"
residual = ["res-ann", "res-snn"]
plain = ["plain-ann", "plain-snn"]
[[study]]
kind = "time"
models = ["stop", "chip"]
deeper = ["stop"]
[[study]]
kind = "coding"
model = "bptt"
ann = "ann"
codings = ["direct", "rate", "latency", "motion"]
[[study]]
kind = "sweep"
pair = ["ann", "bptt"]
field = "hidden"
values = [[8, 8]]
[[study]]
kind = "attack"
models = ["stop", "chip"]
eps = [0.1]
transfer = "stop"
[[study]]
kind = "training"
pairs = [["stop", "chip"]]
[[study]]
kind = "quantisation"
models = ["stop"]
bits = [4, 16]
[[study]]
kind = "energy"
models = ["ann", "stop", "chip"]
"""


class Own(nn.Module):
    """A network of a user's own, of images (B, 1, 8, 8)."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(64, 9), nn.Linear(9, 10)

    def forward(self, x):
        return self.out(self.hidden(x.flatten(1)).relu())


def own_network(seed):
    torch.manual_seed(seed)
    return Own()


class Bent(Own):
    """The same, with what a user's first attempt may have."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        if how == "unused":
            self.extra = nn.Linear(2, 2)
        if how == "wrong size":
            self.hidden = nn.Linear(100, 9)
        if how == "constant":
            nn.init.zeros_(self.hidden.weight)

    def forward(self, x):
        y = super().forward(x.repeat(3, 1, 1, 1) if self.how == "steps as samples" else x)
        return {"pair": (y, None), "classes": y.argmax(1), "steps as samples": y[: len(x)]}.get(self.how, y)


def bent(how):
    def make(seed):
        if how == "no weights":
            raise RuntimeError("no weights.pt")
        return Bent(how)

    return make


unused, wrong_size, pair, classes, steps_as_samples, no_weights, constant = map(
    bent, ("unused", "wrong size", "pair", "classes", "steps as samples", "no weights", "constant")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run of every study."""
    base = tmp_path_factory.mktemp("cka")
    (base / "small.toml").write_text(SMALL)
    folders = ["--out", str(base / "run"), "--models", str(base / "run" / "models")]
    assert main(["run", str(base / "small.toml"), *folders, "--jobs", "1", "--quiet"]) == 0
    return base / "run"


@pytest.fixture(scope="module")
def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_two_processes_train_the_same_models(folder, tmp_path):
    plan = parse(SMALL)
    lab, kept = Lab(plan, tmp_path, jobs=2, quiet=True), Lab(plan, folder / "models", quiet=True)
    lab.train([plan.model("ann")])
    assert len(list(tmp_path.glob("*.pt"))) == 2 == len(lab.models)
    for seed in range(2):
        for a, b in zip(lab.model("ann", seed).states, kept.model("ann", seed).states, strict=True):
            assert all(torch.equal(a[name], b[name]) for name in a)


def study(results, kind, number=0):
    return [s for s in results["studies"] if s["kind"] == kind][number]


def test_every_study_is_there(results, folder):
    assert {s["kind"] for s in results["studies"]} == set(STUDIES), "a study is not tested"
    for s in results["studies"]:
        assert s["text"] and s["paper"] and s["figures"] and s["numbers"]
        for f in s["figures"]:
            assert (folder / "figures" / f["file"]).stat().st_size > 4000
    assert len(list((folder / "figures").iterdir())) == sum(len(s["figures"]) for s in results["studies"])
    assert len({d["name"] for d in results["directions"]}) == 4
    assert all(len(d["differences"]) == 2 for d in results["directions"])
    assert all(len(m["accuracy"]) == 1 for per_seed in results["models"].values() for m in per_seed)


def test_numbers_are_those_of_the_measures(results, folder):
    """One number of the file, computed once more from the models that the run kept."""
    plan = parse(SMALL)
    lab = Lab(plan, folder / "models", quiet=True)
    stop, chip = (lab.model(name, 1) for name in ("stop", "chip"))
    assert len(list((folder / "models").glob("*.pt"))) > 10
    again = lab.compare(lab.view(stop), lab.view(chip)).diagonal
    kept = study(results, "diagonal")["numbers"]["stop and chip"]["cka"][1]
    np.testing.assert_allclose(np.array(kept, float), again, atol=1e-12)
    assert 0 < kept[0] < 0.999
    own = np.array(study(results, "heatmap")["numbers"]["stop"]["cka"], float)
    assert np.nanmax(abs(own.diagonal(axis1=1, axis2=2) - 1)) < 1e-9
    assert study(results, "heatmap")["numbers"]["ann and own"]["y"] == ["hidden", "out"]


def test_what_must_hold_holds(results):
    training = study(results, "training")["numbers"]
    course = np.array(training["stop and chip"], float)
    assert course.shape == (2, 2, 3) and (course[:, 0, 0] > 0.99).all(), "both start from the same weights"
    np.testing.assert_allclose(np.array(training["stop, with its end"], float)[:, -1, 0], 1)
    bits = study(results, "quantisation")["numbers"]
    four, sixteen = (np.nanmean(np.array(bits[f"stop, {b} bits"]["cka"], float)) for b in (4, 16))
    assert four < sixteen and sixteen > 0.95, (four, sixteen)
    attacked = study(results, "attack")["numbers"]["stop, fgsm, 0.1"]
    assert np.nanmax(np.array(attacked["cka"], float)) < 0.999 and np.mean(attacked["accuracy"]) < np.mean(attacked["clean"])
    energy = study(results, "energy")["numbers"]
    assert min(energy["ann"]["multiplications"]) > 0 == max(energy["ann"]["additions"]) and min(energy["chip"]["additions"]) > 0
    steps = study(results, "time")["numbers"]["chip"]["0"]
    assert np.array(steps).shape == (2, 3, 3)


def test_the_page_says_it_all(folder, results):
    text = (folder / "index.html").read_text()
    assert "A small study &lt;of&gt; everything" in text and "<of>" not in text
    assert text.count("data:image/png;base64,") == sum(len(s["figures"]) for s in results["studies"])
    assert not re.search(r"""(src|href)=["'](?!data:)""", text), "the page needs another file"
    for d in results["directions"]:
        assert d["verdict"] in ("confirmed", "not seen", "opposite") and d["name"] in text
    for needed in ("Seeds: 0, 1", "method = &#34;stop-wtl&#34;", "arXiv 2304.13098", "PyTorch"):
        assert needed in text, needed
    before = text
    (folder / "index.html").unlink()
    assert main(["report", str(folder)]) == 0
    assert (folder / "index.html").read_text() == before


@pytest.fixture(scope="module")
def browser():
    command = find()
    if command is None:
        pytest.fail(MISSING)
    with Chromium(command) as opened:
        yield opened


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_in_chromium(browser, folder, results, width, tmp_path):
    found = browser.open(folder / "index.html", width, tmp_path / "page.png")
    assert found["width"] == width and found["page"] <= width and not found["beyond"], found
    assert len(found["images"]) == sum(len(s["figures"]) for s in results["studies"])
    assert all(i["ok"] and i["alt"] and i["width"] >= 280 for i in found["images"])
    assert found["text"] >= 12 and not found["outside"]
    picture = (tmp_path / "page.png").read_bytes()
    assert picture[16:20] == width.to_bytes(4, "big") and len(picture) > 50_000


def test_the_browser_sees_what_is_wrong(browser, folder, tmp_path):
    """The check itself: pages with what it looks for."""
    text = (folder / "index.html").read_text()
    broken = {
        "wide": text.replace("<main>", '<main><div style="width: 500px; height: 9px">wide</div>'),
        "missing": re.sub(r"data:image/png;base64,iVBOR", "data:image/png;base64,AAAA", text, count=1),
        "outside": text.replace("<main>", '<main><img alt="x" src="nowhere.png">'),
    }
    found = {}
    for name, page in broken.items():
        (tmp_path / f"{name}.html").write_text(page)
        found[name] = browser.open(tmp_path / f"{name}.html", 400)
    assert found["wide"]["page"] > 400 and "DIV." in found["wide"]["beyond"]
    assert sum(not i["ok"] for i in found["missing"]["images"]) == 1
    assert found["outside"]["outside"] and sum(not i["ok"] for i in found["outside"]["images"]) == 1


def test_attacks_stay_within_eps_and_raise_the_loss(folder):
    lab = Lab(parse(SMALL), folder / "models", quiet=True)
    for name in ("ann", "stop", "bptt"):
        model = lab.model(name, 0)
        images, labels = (part[:60] for part in model.data.test)
        clean = lab.accuracy(lab.view(model))
        for how in ("fgsm", "pgd"):
            changed = attack(model, images, labels, how, 0.1)
            assert changed.dtype == torch.uint8 and 20 < (changed.int() - images.int()).abs().max() <= 25
            assert lab.accuracy(lab.view(model, images=changed)) < clean, (name, how)
        random = (images.int() + torch.randint(-25, 26, images.shape)).clamp(0, 255).to(torch.uint8)
        assert lab.accuracy(lab.view(model, images=changed)) < lab.accuracy(lab.view(model, images=random)), (
            "noise is not an attack"
        )


def test_directions_need_every_seed():
    assert [Direction("", "", d).verdict for d in ([0.1, 0.2], [0.1, 0.005], [-0.1, 0.2], [-0.1, -0.2])] == [
        "confirmed", "not seen", "not seen", "opposite",
    ]  # fmt: skip
    d = middle_direction("x", [np.array([0.1, 0.1, 0.9, 0.9, 0.1, 0.1]), np.array([0.5, np.nan, 0.4, 0.4, 0.5, 0.5])])
    np.testing.assert_allclose(d.differences, [0.8, -0.1])


def test_dynamics_and_spread():
    assert dynamics(np.ones((3, 3))) == 0 and dynamics(np.eye(3)) == 1 and np.isnan(dynamics(np.full((2, 2), np.nan)))
    mean, spread = seeded([np.array([1.0, np.nan, np.nan]), np.array([3.0, 2.0, np.nan])])
    np.testing.assert_allclose(mean, [2, 2, np.nan])
    np.testing.assert_allclose(spread, [np.sqrt(2), 0, np.nan])
    assert plus_minus([1.0, 3.0]) == "2.000 ± 1.414" and plus_minus([0.5], 1, 100) == "50.0" and plus_minus([float("nan")]) == "–"
    with pytest.raises(ValueError, match="1 and 2 layers; legal are networks of the same number"):
        Similarity(("a",), ("a", "b"), np.ones((1, 2))).diagonal  # noqa: B018


def changed(old, new):
    assert old in SMALL
    return SMALL.replace(old, new, 1)


@pytest.mark.parametrize(
    "text, message",
    [
        (changed("samples = 60", "samples = 3"), "cka: samples: 3 are too few; legal is at least 4"),
        (changed("samples = 60", "samples = 61"), "cka.samples: 61 is not legal; models.ann has 60 held-out samples"),
        (changed("batch = 30", "batch = 2"), "cka: batch: 2 is not legal; legal is at least 4"),
        (changed("batch = 30", 'kernel = "cosine"'), "cka: kernel: cosine is not legal; legal is linear or rbf"),
        (changed("batch = 30", 'time = "sum"'), "cka: time: sum is not legal; legal is concat or mean or apart"),
        (changed("chip = true", "chip = true\npad = 10"),
         "models.chip.pad: 10 is not legal; models.ann has 0, and all are shown the same samples"),
        (changed("seeds = 2", "seeds = 0"), "seeds: 0 is not legal; legal is at least 1"),
        (changed("seeds = 2", "sedes = 2"), "sedes: no such field; legal is one of title, seeds, cka"),
        (changed("steps = 3", "steps = 3.5"), "models.ann.steps|models.bptt.steps: 3.5 is not legal; legal is a whole number"),
        (changed('method = "bptt-wtl"', 'method = "bp"'), "models.bptt: --method: bp is not legal; legal is stop-w or"),
        (changed("chip = true", "chip = 1"), "models.chip.chip: 1 is not legal; legal is true or false"),
        (changed("chip = true", 'chip = true\ncoding = "rate"'), "models.chip: chip needs model mlp, coding direct"),
        (changed('layers = ["hidden", "out"]', 'layers = ["hiden"]'),
         "models.own: layers: hiden is not a layer of this network; legal is one of hidden"),
        (changed("chip = true", 'chip = true\nlayers = ["0.neuron"]'),
         "models.chip: layers: 0.neuron are not legal; legal are 0, 1, 2"),
        (changed('kind = "time"', 'kind = "times"'), "study 5: kind times is not legal; legal is heatmap or diagonal"),
        (changed('models = ["stop", "chip"]', 'models = ["stop", "chop"]'),
         r"study 5 \(time\): chop: no such model; legal is one of ann, bptt"),
        (changed('models = ["stop", "chip"]', 'models = ["ann"]'), r"ann has 1 step \(layer 0\); legal is at least 2"),
        (changed('["stop", "bptt"]', '["stop", "res-snn"]'),
         "stop has 3 layers, res-snn has 8 layers, chip has 3 layers; legal are networks of"),
        (changed('["stop", "bptt"]', '["stop"]'), r"pairs\[0\]: .* is not legal; legal is a list of 2"),
        (changed('["stop", "bptt"]', '["ann", "stop"]').replace("batch = 30", 'time = "apart"', 1),
         "time: apart is not legal, as ann has 1 steps, stop has 3 steps"),
        (changed("batch = 30", 'time = "apart"'), r"study 2 \(diagonal\): time: apart is not legal; legal is concat or mean"),
        (changed('pairs = [["stop", "bptt"], ["stop", "chip"]]', "pairs = []"), r"study 1 \(diagonal\): pairs: none is not legal"),
        (changed('[models.plain-snn]', "[models.plain-snn]\nepochs = 2"),
         "residual, plain: res-ann has 1 epochs, .* plain-snn has 2 epochs; legal is the same"),
        (changed('[models.chip]', "[models.chip]\nepochs = 2"),
         "pairs: stop has 1 epochs, chip has 2 epochs; legal is the same number"),
        (changed('model = "bptt"', 'model = "own"'), "model: own is not legal; legal are models that are trained here"),
        (changed('pair = ["ann", "bptt"]', 'pair = ["own", "ann"]'),
         "pair: own is not legal; legal are models that are trained here"),
        (changed('models = ["stop", "chip"]', 'models = ["own"]'), r"own has 1 step \(layer hidden\); legal is at least 2"),
        (changed("eps = [0.1]", "eps = [0]"), "eps: 0.0 is not legal; legal is above 0"),
        (changed('transfer = "stop"', ""), "chip has no gradient by its pixels; name a model for `transfer`"),
        (changed("bits = [4, 16]", "bits = [3]"), "bits: 3 is not legal; legal is 4 to 18"),
        (changed('field = "hidden"', 'field = "depth"'), "field: depth is not legal; legal is width, blocks, hidden or steps"),
        (changed('"latency", "motion"]', '"latency"]'),
         "codings: direct, rate, latency are not legal; legal are those that hold direct and motion"),
        (changed('residual = ["res-ann"', 'residual = ["ann"'), "residual: ann is not legal; legal is model resnet"),
        (changed('kind = "residual"', 'kind = "residual"\ndepth = 3'), r"study 4 \(residual\).depth: no such field"),
        (changed('plain = ["plain-ann", "plain-snn"]', ""), r"study 4 \(residual\).plain: missing"),
        ("title = 3", "title|models"),
        ("[models.a]", "study: none is not legal; legal is at least one"),
        ("", "models: none is not legal; legal is at least one"),
        ("title = ", "Invalid value|value"),
    ],
)
def test_bad_configurations_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


@pytest.mark.parametrize(
    "name, message",
    [
        ("unused", "layers: extra did not run; legal are layers that the network uses"),
        ("wrong_size", r"cannot be shown images of shape \(2, 1, 8, 8\) \(RuntimeError: mat1"),
        ("pair", r"puts out tuple for 2 images; legal is a tensor \(images, classes\)"),
        ("classes", r"puts out \(2,\) for 2 images; legal is a tensor \(images, classes\)"),
        ("steps_as_samples", r"layers: hidden puts out \(6, 9\) for 2 images; legal is \(images, ...\)"),
        ("no_weights", r"factory test_page:no_weights fails with seed 0 \(RuntimeError: no weights.pt\)"),
        ("nowhere", "factory test_page:nowhere is not there"),
    ],
)
def test_networks_that_cannot_be_compared_are_named_before_anything_is_trained(name, message):
    text = changed("own_network", name).replace('layers = ["hidden", "out"]\n', "")
    with pytest.raises(ValueError, match=rf"study 3 \(heatmap\): models.own: .*{message}"):
        parse(text)


def test_an_own_network_beside_a_model_of_the_same_options(tmp_path, capsys):
    """A factory has no options of its own, so that they may be those of a model.

    A layer that says the same of all samples is named.
    """
    text = SMALL[: SMALL.index("[models.ann]")] + """
[models.stop]
[models.own]
factory = "test_page:constant"
[[study]]
kind = "heatmap"
pairs = [["stop", "own"]]
"""
    plan = parse(text)
    assert plan.model("stop").options == plan.model("own").options and plan.model("stop").key(0) != plan.model("own").key(0)
    (tmp_path / "own.toml").write_text(text)
    command = ["run", str(tmp_path / "own.toml"), "--out", str(tmp_path / "run"), "--models", str(tmp_path), "--jobs", "1"]
    command += ["--quiet"]
    assert main(command) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (
        list(results["models"]) == ["stop"]
        and "without CKA (grey, or left out): own, layer hidden; own, layer out." in results["studies"][0]["text"][1]
    )
    assert np.isnan(np.array(results["studies"][0]["numbers"]["stop and own"]["cka"], float)).all()


def test_a_run_that_fails_leaves_the_last_one(tmp_path, monkeypatch, capsys):
    text = SMALL[: SMALL.index("[models.ann]")] + "[models.stop]\n[[study]]\nkind = 'heatmap'\npairs = [['stop', 'stop']]\n"
    (tmp_path / "a.toml").write_text(text)
    command = ["run", str(tmp_path / "a.toml"), "--out", str(tmp_path / "run"), "--models", str(tmp_path), "--jobs", "1", "--quiet"]
    assert main(command) == 0

    def there():
        return {p: p.is_file() and p.read_bytes() for p in (tmp_path / "run").rglob("*")}

    before = there()

    def diverged(*_):
        raise ValueError("x: layer 0 has features that are infinite or not a number")

    monkeypatch.setattr("sw.cka.measures.CKA.add", diverged)
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 2 and "stop (x): x: layer 0 has features that are infinite" in capsys.readouterr().err
    assert there() == before


def test_bad_files_stop_the_command(tmp_path, capsys):
    for arguments, message in (
        (["run", str(tmp_path / "no.toml")], "no.toml: no such file"),
        (["run", "default", "--jobs", "0"], "--jobs: 0 is not legal"),
        (["run", "default", "--only", "time,width"], "--only: width is not legal; legal is diagonal or heatmap"),
        (["report", str(tmp_path)], "results.json is missing; legal is the folder of a finished run"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2 and message in capsys.readouterr().err
    (tmp_path / "no-data.toml").write_text(changed("[train]", '[train]\ndataset = "fashion-mnist"\ndata = "/no/such/folder"'))
    with pytest.raises(SystemExit):
        main(["run", str(tmp_path / "no-data.toml")])
    assert "fashion-mnist is not in /no/such/folder" in capsys.readouterr().err
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path)])
    assert "results.json is not that of a run" in capsys.readouterr().err and not (tmp_path / "index.html").exists()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda p: p.stem)
def test_the_ready_configurations_are_legal(path, monkeypatch):
    try:
        plan = read(Path(path))
    except ValueError as e:
        if isinstance(e.__cause__, FileNotFoundError):
            pytest.skip(f"a data set is not installed: {e}")
        raise
    assert plan.studies and plan.seeds >= 3
    assert all(study.definitions(plan) for study in plan.studies)


def test_trained_models_depend_on_their_code_and_options():
    plan = parse(SMALL)
    stop, bptt = plan.model("stop"), plan.model("bptt")
    assert len({stop.key(0), stop.key(1), bptt.key(0), plan.model("chip").key(0)}) == 4
    assert fit(plan.model("own"), 0).states == []


def stub(path, does):
    path.write_text(f"#!/bin/sh\n{does}\n")
    path.chmod(0o755)


def test_a_browser_that_shows_nothing_is_none(monkeypatch, tmp_path):
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr("chromium.HERE", tmp_path)
    monkeypatch.setattr("chromium.works", lambda command: command.endswith("google-chrome"))
    stub(tmp_path / "chromium", "exit 3")
    stub(tmp_path / "google-chrome", "exit 3")
    assert find() == str(tmp_path / "google-chrome")
    assert not works(str(tmp_path / "chromium"))


@pytest.mark.parametrize(
    "apt, named, why",
    [
        (None, "", "there is no apt-get"),
        ("echo E: no such package >&2; echo E: nor this >&2; exit 100", "", "E: no such package"),
        ("exit 0", "", "Debian's package holds no chromium-headless-shell"),
        ("exit 0", "/nowhere/chrome", "/nowhere/chrome, which CHROMIUM names, shows no page"),
    ],
)
def test_no_browser_is_one_line(monkeypatch, tmp_path, capfd, apt, named, why):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CHROMIUM", named)
    monkeypatch.setattr("chromium.HERE", tmp_path)
    monkeypatch.setattr("browser.UNPACKED", tmp_path / "unpacked")
    if apt:
        stub(tmp_path / "apt-get", apt)
    assert browser_main() == 1
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "run `sudo apt-get install" in said and f"({why})" in said
