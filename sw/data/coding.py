"""Input codings: from batches of images or event frames to what a network is shown.

Images are (B, C, H, W), uint8, event frames (B, T, ...); what is shown is (T, B, ...), float32.

What is random follows from the generator that is handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from hw.numbers import PIXEL_FRAC

DELTA = 0.25
"""Step of the delta modulator, of a full scale of 1."""
CONTRAST = 0.15
"""Change of log intensity that makes an event camera report one."""
REACH = 2.5
"""Pixels by which the simulated camera moves."""


def direct(x: Tensor, steps: int, random: Generator) -> Tensor:
    """The frame itself, held for all steps, a pixel being a fraction of 256 (as the chip takes it); costs no memory."""
    return (x / (1 << PIXEL_FRAC)).expand(steps, *x.shape)


def rate(x: Tensor, steps: int, random: Generator) -> Tensor:
    """A pixel x spikes x/256 of the time, evenly spread and with a random phase: its count is never off by one or more."""
    phase = torch.randint(1 << PIXEL_FRAC, x.shape, generator=random)
    integral = x.int() * torch.arange(steps + 1).view(-1, *[1] * x.ndim) + phase.int()
    return (integral >> PIXEL_FRAC).diff(dim=0).float()


def latency(x: Tensor, steps: int, random: Generator) -> Tensor:
    """One spike a pixel, the earlier the brighter: in step floor((256 - x) T / 256), none for black."""
    when = ((1 << PIXEL_FRAC) - x.int()) * steps >> PIXEL_FRAC
    return (when == torch.arange(steps).view(-1, *[1] * x.ndim)).float()


def delta(x: Tensor, steps: int, random: Generator) -> Tensor:
    """Delta modulation of the frame, which appears on black: (T, B, 2C, H, W), see `modulate`."""
    return modulate(direct(x, steps, random), DELTA, start=torch.zeros(x.shape))


def motion(x: Tensor, steps: int, random: Generator) -> Tensor:
    """An event camera that moves over the picture: (T, B, 2C, H, W), brighter and darker apart.

    The camera runs along a triangle, as the three saccades of N-MNIST (Orchard et al. 2015) do, from a random point of it; an event
    is a change of log intensity by CONTRAST since the pixel's last event.
    """
    image = x.float() / 255
    start = torch.rand(len(x), generator=random)
    moved = torch.stack([_shift(image, *_triangle((start + t / steps) % 1)) for t in range(steps + 1)])
    intensity = torch.log(moved + 0.1)
    return modulate(intensity[1:], CONTRAST, start=intensity[0])


def modulate(x: Tensor, threshold: float, start: Tensor) -> Tensor:
    """Delta modulation of (T, B, C, ...): channel c spikes where x has risen by the threshold above what was reported,
    channel C + c where it has fallen; (T, B, 2C, ...). What was reported begins with `start` (B, C, ...)."""
    reported, out = start.clone(), []
    for x_t in x:
        up, down = (x_t - reported >= threshold).float(), (reported - x_t >= threshold).float()
        reported += threshold * (up - down)
        out.append(torch.cat([up, down], 1))
    return torch.stack(out)


def _triangle(share: Tensor) -> tuple[Tensor, Tensor]:
    """Where on the path, in pixels right and down, after a share (B,) of it."""
    corners = torch.tensor([[math.sin(a), math.cos(a)] for a in (0, math.tau / 3, 2 * math.tau / 3, 0)]) * REACH
    side = (share * 3).long().clamp(max=2)
    along = (share * 3 - side)[:, None]
    x, y = torch.lerp(corners[side], corners[side + 1], along).T
    return x, y


def _shift(image: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Images (B, C, H, W) moved by fractions of a pixel (B,), bilinear, black beyond the edge."""
    b, (h, w) = len(image), image.shape[2:]
    move = torch.eye(2, 3).repeat(b, 1, 1)
    move[:, 0, 2], move[:, 1, 2] = -2 * right / w, -2 * down / h
    grid = F.affine_grid(move, list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, align_corners=False, padding_mode="zeros")


def events(x: Tensor, steps: int, random: Generator) -> Tensor:
    """Event frames (B, T, ...) as spikes: 1 where there was an event."""
    return (x.transpose(0, 1) > 0).float()


CODINGS: dict[str, Callable[[Tensor, int, Generator], Tensor]] = {f.__name__: f for f in (direct, rate, latency, delta, motion)}
"""Codings of images; `events` is that of event sets."""


def channels(coding: str, count: int) -> int:
    """Channels of the network's input for images of `count` channels."""
    return 2 * count if coding in ("delta", "motion") else count


def augment(x: Tensor, how: str, random: Generator) -> Tensor:
    """The usual augmentation of (B, ..., H, W): `flip` mirrors half of the images, `crop` also moves them by up to 4 pixels
    over black; the same way for all channels and steps of a sample."""
    if how == "none":
        return x
    mirror = torch.rand(len(x), generator=random) < 0.5
    x = torch.where(mirror.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)
    if how == "flip":
        return x
    h, w = x.shape[-2:]
    down, right = torch.randint(9, (2, len(x)), generator=random)
    rows, columns = down[:, None] + torch.arange(h), right[:, None] + torch.arange(w)
    each = torch.arange(len(x))[:, None, None]
    padded = F.pad(x, (4, 4, 4, 4)).flatten(1, -3)
    return padded.movedim(1, -1)[each, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).reshape(x.shape)


AUGMENTATIONS = ("none", "flip", "crop")
