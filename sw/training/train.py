"""Training of a float spiking network with STOP, BPTT or OTTT: options, data, and a run that goes on after a stop, to the bit.

`python -m sw.train` is the program.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from hw.network import Network
from hw.notation import dense
from sw.data import coding as codings
from sw.data import events, images
from sw.golden.error.output import LOSSES
from sw.golden.network import GoldenNetwork
from sw.stop import METHODS, SURROGATES, Method, Readout, parameter_groups, populations, project, set_method, step_loss, unroll
from sw.stop.integer import integer_image
from sw.training.nets import MODELS, NEURONS, NORMS, POOLS, Spec, build

OPTIMISERS = ("adam", "sgd")
SCHEDULES = ("cosine", "constant")
EVENTS = "events"


@dataclass(frozen=True)
class Options:
    """All that decides the outcome of a run; the fields are the options of the command line."""

    model: str = field(default="mlp", metadata={"choices": MODELS, "help": "network"})
    dataset: str = field(default="digits", metadata={"choices": (*images.READERS, *events.SETS), "help": "what to learn"})
    data: str = field(default="", metadata={"help": "folder of the data set's files, if not in the usual place"})
    coding: str = field(
        default="direct", metadata={"choices": codings.CODINGS, "help": "of images; event sets are shown as they are"}
    )
    method: str = field(
        default="stop-wtl", metadata={"choices": METHODS, "help": "how to learn, and which of weights, thresholds, leakages"}
    )
    steps: int = field(default=8, metadata={"help": "time steps T of a sample"})
    epochs: int = field(default=10, metadata={"help": "passes over the training samples"})
    batch: int = field(default=64, metadata={"help": "samples of an update, of all processes together"})
    samples: int = field(default=0, metadata={"help": "training samples used; 0 is all"})
    test_samples: int = field(default=0, metadata={"help": "held-out samples used; 0 is all"})
    optimiser: str = field(default="adam", metadata={"choices": OPTIMISERS, "help": "adam is AdamW; sgd has momentum 0.9"})
    lr: float = field(default=4e-3, metadata={"help": "learning rate of weights"})
    theta_lr: float = field(default=1e-3, metadata={"help": "learning rate of thresholds"})
    alpha_lr: float = field(default=1e-3, metadata={"help": "learning rate of leakages"})
    weight_decay: float = field(default=0.0, metadata={"help": "of weights"})
    schedule: str = field(default="cosine", metadata={"choices": SCHEDULES, "help": "of all learning rates, update by update"})
    loss: str = field(default="cross_entropy", metadata={"choices": LOSSES, "help": "of each step"})
    beta: float = field(default=5.0, metadata={"help": "inverse temperature of the cross entropy"})
    augment: str = field(default="none", metadata={"choices": codings.AUGMENTATIONS, "help": "of training images"})
    hidden: tuple[int, ...] = field(default=(200,), metadata={"help": "hidden layers of an mlp, such as 200 or 400-200"})
    blocks: int = field(default=3, metadata={"help": "of each of the three stages of resnet and plain: 6 blocks + 2 layers"})
    width: float = field(default=1.0, metadata={"help": "channels of a convolutional network are multiplied by it"})
    norm: str = field(default="none", metadata={"choices": NORMS, "help": "of convolutions: by batch, or by standardised weights"})
    pool: str = field(default="max", metadata={"choices": POOLS, "help": "pooling"})
    neuron: str = field(
        default="lif",
        metadata={"choices": NEURONS, "help": "relu: an artificial network (ANN) of the same definition, of one step"},
    )
    theta: float = field(default=0.5, metadata={"help": "first thresholds"})
    alpha: float = field(default=0.6, metadata={"help": "first leakages"})
    gain: float = field(default=1.0, metadata={"help": "first weights have standard deviation gain / sqrt(fan-in)"})
    surrogate: str = field(default="exponential", metadata={"choices": SURROGATES, "help": "surrogate derivative"})
    pad: int = field(default=0, metadata={"help": "images are padded with black to this many rows and columns"})
    patience: int = field(default=0, metadata={"help": "stop after so many epochs without a better accuracy; 0 is never"})
    seed: int = field(default=0, metadata={"help": "of weights, order, coding and augmentation"})
    amp: bool = field(default=False, metadata={"help": "synapses in bfloat16 (automatic mixed precision)"})

    def __post_init__(self) -> None:
        for f in fields(self):
            value, choices = getattr(self, f.name), f.metadata.get("choices")
            if choices and value not in choices:
                raise ValueError(f"--{f.name}: {value} is not legal; legal is {' or '.join(choices)}")
        for names, low in (
            (("steps", "epochs", "batch", "blocks"), 1),
            (("samples", "test_samples", "patience", "seed", "pad"), 0),
        ):
            for name in names:
                if getattr(self, name) < low:
                    raise ValueError(f"--{name}: {getattr(self, name)} is not legal; legal is at least {low}")
        for name in ("lr", "theta_lr", "alpha_lr", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"--{name.replace('_', '-')}: {getattr(self, name)} is not legal; legal is at least 0")
        if self.neuron == "relu" and (self.steps != 1 or self.method not in ("bptt-w", "bptt-wt")):
            raise ValueError(
                f"--neuron: relu needs --steps 1 and --method bptt-w or bptt-wt; here --steps {self.steps}, --method {self.method}"
            )
        step_loss(self.loss, self.beta)

    @property
    def still(self) -> bool:
        return self.dataset in images.READERS


@dataclass
class Data:
    """Samples as a run shows them: x uint8, images (n, C, H, W) or event frames (n, T, ...), and labels y (n,)."""

    options: Options
    classes: int
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    @classmethod
    def load(cls, o: Options) -> Data:
        found = images.read(o.dataset, o.data or None) if o.still else events.read(o.dataset, o.data or None, o.steps)
        parts = []
        for name, (x, y), limit in (("samples", found.train, o.samples), ("test_samples", found.test, o.test_samples)):
            if limit > len(y):
                raise ValueError(f"--{name.replace('_', '-')}: {limit} is not legal; {o.dataset} has {len(y)}")
            pixels = torch.from_numpy(np.array(x[: limit or None]))
            if o.pad:
                rows, columns = (o.pad - n for n in pixels.shape[-2:])
                if pixels.ndim < 4 or min(rows, columns) < 0:
                    raise ValueError(f"--pad: {o.pad} is not legal; samples of {o.dataset} have shape {tuple(pixels.shape[1:])}")
                pixels = nn.functional.pad(pixels, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
            parts.append((pixels, torch.from_numpy(y[: limit or None])))
        return cls(o, found.classes, *parts)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what the network sees in one step."""
        x = self.train[0]
        return (codings.channels(self.options.coding, x.shape[1]), *x.shape[2:]) if self.options.still else tuple(x.shape[2:])

    @property
    def batches(self) -> int:
        """Updates in an epoch; what is left over is shown in another epoch's order."""
        return max(1, len(self.train[1]) // self.options.batch)

    def code(self, x: Tensor, random: torch.Generator) -> Tensor:
        return (codings.CODINGS[self.options.coding] if self.options.still else codings.events)(x, self.options.steps, random)

    def batch(self, epoch: int, i: int) -> tuple[Tensor, Tensor]:
        """Batch i of an epoch, (T, B, ...) and labels; follows from seed, epoch and i alone."""
        o = self.options
        order = torch.randperm(len(self.train[1]), generator=generator(o.seed, epoch))
        pick, random = order[i * o.batch : (i + 1) * o.batch], generator(o.seed, epoch, i + 1)
        x, y = (part[pick] for part in self.train)
        return self.code(codings.augment(x, o.augment, random), random), y

    def tests(self, rank: int, world: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out samples in batches, this process's share."""
        x, y = self.test
        for i in range(0, len(y), 256):
            shown = self.code(x[i : i + 256], generator(1, i))
            yield shown[:, rank::world], y[i : i + 256][rank::world]


def generator(*seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1))


class Run:
    """A network in training. `epoch` and `update` say where it stands; `save` and `resume` keep that to the bit."""

    def __init__(self, options: Options, data: Data, device: str = "cpu") -> None:
        self.options, self.data, self.device = options, data, torch.device(device)
        o = options
        self.rank: int = dist.get_rank() if dist.is_initialized() else 0
        self.world: int = dist.get_world_size() if dist.is_initialized() else 1
        if o.batch % self.world:
            raise ValueError(f"--batch: {o.batch} is not legal; legal is a multiple of the {self.world} processes")
        torch.manual_seed(o.seed)
        self.spec = Spec(
            o.model, data.shape, data.classes, hidden=o.hidden, width=o.width, norm=o.norm, pool=o.pool,
            theta=o.theta, alpha=o.alpha, surrogate=o.surrogate, gain=o.gain, neuron=o.neuron, blocks=o.blocks,
        )  # fmt: skip
        self.net = build(self.spec).to(self.device)
        self.method: Method = set_method(self.net, o.method)
        self.loss = step_loss(o.loss, o.beta)
        groups = [
            g | {"params": [p for p in g["params"] if p.requires_grad]}
            for g in parameter_groups(self.net, lr=o.lr, theta_lr=o.theta_lr, alpha_lr=o.alpha_lr, weight_decay=o.weight_decay)
        ]
        groups = [g for g in groups if g["params"]]
        self.optimiser = torch.optim.AdamW(groups) if o.optimiser == "adam" else torch.optim.SGD(groups, momentum=0.9)
        total = o.epochs * data.batches
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda n: 0.5 * (1 + math.cos(math.pi * n / total)) if o.schedule == "cosine" else 1.0
        )
        self.parallel = DistributedDataParallel(self.net) if self.world > 1 else self.net
        self.epoch = self.update = 0
        self.loss_sum = 0.0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"accuracy": -1.0, "epoch": 0, "state": {}}

    def learn(self, x: Tensor, label: Tensor) -> float:
        """One update from a batch (T, B, ...); this process learns its share of it. Returns the loss, its sum over steps."""
        x, label = self._send(x[:, self.rank :: self.world]), label[self.rank :: self.world].to(self.device)
        self.optimiser.zero_grad()
        sum_of_losses = torch.zeros((), device=self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.amp):
            for spikes in unroll(self.parallel, x):
                loss = self.loss(spikes, label)
                if not self.method.through_time:
                    loss.backward()
                    loss = loss.detach()
                sum_of_losses = sum_of_losses + loss
            if self.method.through_time:
                sum_of_losses.backward()
        self.optimiser.step()
        self.schedule.step()
        project(self.net)
        return float(sum_of_losses.detach())

    def _send(self, x: Tensor) -> Tensor:
        """To the device; a held frame travels once."""
        return x[0].to(self.device).expand(x.shape) if x.stride(0) == 0 else x.to(self.device)

    @torch.no_grad()
    def accuracy(self) -> float:
        """Share of the held-out samples that are classified rightly."""
        self.net.eval()
        right = torch.zeros(2, dtype=torch.int64)
        for x, label in self.data.tests(self.rank, self.world):
            right += torch.tensor([int((self.classify(x) == label).sum()), len(label)])
        if self.world > 1:
            right = right.to(self.device)
            dist.all_reduce(right)
        self.net.train()
        return float(right[0] / right[1])

    def classify(self, x: Tensor) -> Tensor:
        """Classes (B,) of samples (T, B, ...)."""
        readout = Readout()
        for spikes in unroll(self.net, self._send(x)):
            readout.add(spikes)
        return readout.winner(populations(self.net)[-1].neuron.membrane).cpu()

    def finish_epoch(self, seconds: float) -> dict[str, Any]:
        """Accuracy, and what thresholds and leakages have become; keeps the best network."""
        self.epoch += 1
        entry = {
            "epoch": self.epoch,
            "loss": self.loss_sum / self.data.batches,
            "accuracy": self.accuracy(),
            "seconds": round(seconds, 2),
            "alpha": [float(p.neuron.alpha.detach()) for p in populations(self.net)],
            "theta": [float(p.neuron.theta.detach().mean()) for p in populations(self.net)],
        }
        self.loss_sum, self.update = 0.0, 0
        self.history.append(entry)
        if entry["accuracy"] > self.best["accuracy"]:
            state = {k: v.clone() for k, v in self.net.state_dict().items()}
            self.best = {"accuracy": entry["accuracy"], "epoch": self.epoch, "state": state}
        return entry

    @property
    def finished(self) -> bool:
        o = self.options
        return self.epoch >= o.epochs or bool(o.patience and self.epoch - self.best["epoch"] >= o.patience)

    def save(self, path: Path) -> None:
        """Writes all that the rest of the run depends on; a reader finds the old file or the new one, never half of one."""
        if self.rank:
            return
        state = {name: getattr(self, name) for name in ("epoch", "update", "loss_sum", "history", "best")}
        parts = {name: getattr(self, name).state_dict() for name in ("net", "optimiser", "schedule")}
        _write(path, {"options": asdict(self.options), **state, **parts})

    def resume(self, path: Path) -> None:
        saved = torch.load(path, weights_only=True, map_location=self.device)
        for name in ("net", "optimiser", "schedule"):
            getattr(self, name).load_state_dict(saved[name])
        for name in ("epoch", "update", "loss_sum", "history", "best"):
            setattr(self, name, saved[name])


def _write(path: Path, content: dict[str, Any]) -> None:
    beside = path.with_suffix(".new")
    torch.save(content, beside)
    os.replace(beside, path)


def save_model(run: Run, path: Path) -> None:
    """Writes the network alone, at its best: model.pt."""
    best = run.best
    content = {"spec": run.spec.to_dict(), "options": asdict(run.options), "state": best["state"], "accuracy": best["accuracy"]}
    _write(path, content)


def load_model(path: Path) -> nn.Module:
    """The network of a model.pt, ready to run."""
    saved = torch.load(path, weights_only=True, map_location="cpu")
    net = build(Spec.from_dict(saved["spec"]))
    net.load_state_dict(saved["state"])
    set_method(net, saved["options"]["method"])
    return net.eval()


def train(
    run: Run, out: Path | None, *, board: Any = None, save_every: float = 60.0, quiet: bool = False, stop_after: int | None = None
) -> None:
    """Trains to the end, or for `stop_after` updates; writes checkpoints every `save_every` seconds and after each epoch.

    `board` is TensorBoard's writer, if there is one.
    """
    o, data = run.options, run.data
    saved = began = time.monotonic()
    updates = 0
    while not run.finished:
        bar = tqdm(total=data.batches, initial=run.update, desc=f"epoch {run.epoch + 1}/{o.epochs}", unit=" batches",
                   disable=quiet or run.rank > 0, leave=False)  # fmt: skip
        with bar:
            while run.update < data.batches:
                if updates == stop_after:
                    return
                run.loss_sum += run.learn(*data.batch(run.epoch, run.update))
                run.update, updates = run.update + 1, updates + 1
                bar.update()
                bar.set_postfix_str(f"loss {run.loss_sum / run.update:.3f}")
                if out and time.monotonic() - saved > save_every:
                    run.save(out / "checkpoint.pt")
                    saved = time.monotonic()
        entry = run.finish_epoch(time.monotonic() - began)
        began = time.monotonic()
        if not quiet and run.rank == 0:
            tqdm.write(f"epoch {entry['epoch']}: loss {entry['loss']:.4f}, accuracy {entry['accuracy']:.2%}, {entry['seconds']} s")
        if out:
            run.save(out / "checkpoint.pt")
        if board:
            _record(board, entry)


def _record(board: Any, entry: dict[str, Any]) -> None:
    """The curves of a run: loss, accuracy, leakage and mean threshold of each layer."""
    for name in ("loss", "accuracy"):
        board.add_scalar(name, entry[name], entry["epoch"])
    for name in ("alpha", "theta"):
        for layer, value in enumerate(entry[name], 1):
            board.add_scalar(f"{name}/layer {layer}", value, entry["epoch"])


def chip_image(run: Run, path: Path, samples: int, quiet: bool = False) -> dict[str, Any]:
    """The best network in the chip's integers, written to `path`; accuracy of both on the first held-out samples."""
    o = run.options
    x, y = (part[:samples] for part in run.data.test)
    config = Network(net=dense((x[0].numel(), *o.hidden, run.data.classes)), steps=o.steps, input="static")
    image, clipped = integer_image(run.net, config, beta=o.beta, loss=o.loss)
    image.save(path)
    network = GoldenNetwork(config)
    network.load(image.state)
    right = sum(
        network.run(frame.flatten().numpy()).winner == int(label)
        for frame, label in tqdm(zip(x, y, strict=True), total=len(y), desc="integers", unit=" samples", disable=quiet, leave=False)
    )
    with torch.no_grad():
        run.net.eval()
        exact = sum(
            int((run.classify(run.data.code(x[i : i + 256], generator(0))) == y[i : i + 256]).sum()) for i in range(0, len(y), 256)
        )
    return {"file": str(path), "samples": len(y), "clipped": clipped, "float": exact / len(y), "integer": right / len(y)}
