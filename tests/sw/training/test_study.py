"""What the study measures: memory that does not grow with time, and its tables."""

import json
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sw import study
from sw.stop import unroll
from sw.training import cost
from sw.training.nets import Spec, build


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all storages that are alive, as operations make them; `peak` is the most there were."""

    def __init__(self):
        super().__init__()
        self.live, self.peak, self.seen = 0, 0, weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor):
                self.add(t.untyped_storage())
        return out

    def add(self, storage):
        if storage in self.seen:
            return
        size = storage.nbytes()
        self.seen.add(storage)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self.drop, size)

    def drop(self, size):
        self.live -= size


def peak_of_step(spec, method, steps):
    torch.manual_seed(0)
    frame = torch.rand(2, *spec.shape)
    step = cost.stepper(build(spec), method, frame.expand(steps, *frame.shape), torch.tensor([0, 1]))
    with PeakMemory() as memory:
        step()
    return memory.peak


@pytest.mark.parametrize("model", ["vgg11", "resnet18"])
def test_memory_is_flat_in_time(model):
    spec = Spec(model, (3, 32, 32), norm="batch", width=0.125, theta=0.5, gain=2.0)
    stop = [peak_of_step(spec, "stop-wtl", t) for t in (2, 4, 16)]
    bptt = [peak_of_step(spec, "bptt-wtl", t) for t in (2, 16)]
    assert stop[0] > 1e6 and stop[1] == stop[2] and stop[2] <= 1.1 * stop[0], stop
    assert bptt[1] > 2 * bptt[0] and bptt[1] > 2 * stop[2], (bptt, stop)


def test_cost_compares_with_snntorch(tmp_path, capsys):
    arguments = ["cost", "--methods", "stop-wtl,snntorch", "--steps", "2", "--batch", "4", "--repeat", "2"]
    assert study.main([*arguments, "--out", str(tmp_path)]) == 0
    assert "| T | stop-wtl, MiB | stop-wtl, ms | snntorch, MiB | snntorch, ms |" in capsys.readouterr().out
    rows = json.loads((tmp_path / "cost-mlp.json").read_text())["rows"]
    assert [r["method"] for r in rows] == ["stop-wtl", "snntorch"] and all(r["ms"] > 0 for r in rows)
    assert (tmp_path / "cost-mlp.png").stat().st_size > 5000


def test_snntorch_gets_the_same_network():
    net = build(Spec("lenet5", (1, 28, 28), theta=0.4, gain=1.5))
    theirs, x = cost.SnnTorch(net), (torch.rand(3, 2, 1, 28, 28) < 0.3).float()
    with torch.no_grad():
        ours = [s.clone() for s in unroll(net, x)]
        assert torch.equal(ours[0], next(iter(theirs(x))))  # before the first reset, which snnTorch does not leak
    assert len(list(theirs.parameters())) == 5 * 3


def test_learning_tables(tmp_path):
    short = ["--steps", "2", "--seeds", "2", "--epochs", "1", "--samples", "64", "--hidden", "8"]
    assert study.main(["learning", "--methods", "stop-w,stop-wtl", *short, "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "learning-mlp.json").read_text())
    last = [100 * r["history"][-1]["accuracy"] for r in report["rows"] if r["method"] == "stop-w"]
    assert f"| stop-w | {sum(last) / 2:.2f} ±" in (tmp_path / "learning-mlp.md").read_text()
    fixed, learned = (next(r for r in report["rows"] if r["method"] == m)["history"][0]["alpha"] for m in ("stop-w", "stop-wtl"))
    assert fixed == pytest.approx([0.6, 0.6]) and learned != pytest.approx([0.6, 0.6])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["cost", "--methods", "stop"], "stop is not legal; legal is stop-w"),
        (["cost", "--steps", "2,0"], "'0' is not legal; legal is a whole number of at least 1"),
        (["learning", "--methods", "snntorch"], "snntorch is for cost only"),
        (["learning", "--dataset", "cifar10"], "fetch cifar-10-python.tar.gz"),
    ],
)
def test_bad_options_end_with_2(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("CIFAR10", raising=False)
    with pytest.raises(SystemExit, match="2"):
        study.main([*arguments, "--out", str(tmp_path)])
    assert message in capsys.readouterr().err
