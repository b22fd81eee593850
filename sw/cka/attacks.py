"""Gradient attacks on images of bytes, through time whatever the network learned by."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hw.numbers import PIXEL_FRAC
from sw.cka.models import Model, through_time
from sw.stop import step_loss, unroll

ATTACKS = ("fgsm", "pgd")
PGD_STEPS = 10
LEVELS = 255


def attack(model: Model, images: Tensor, labels: Tensor, how: str, eps: float, batch: int = 256) -> Tensor:
    """Images (B, C, H, W), uint8, changed by at most `eps` of the full scale in each pixel so that the model's training loss rises.

    fgsm: one step by the sign of the gradient (Goodfellow et al., arXiv 1412.6572). pgd: PGD_STEPS steps of eps/4 from a random
    start (Madry et al., arXiv 1706.06083). Bytes in, bytes out: the result is rounded, within eps. Raises ValueError for a network
    that has no gradient.
    """
    o = model.options
    if how not in ATTACKS:
        raise ValueError(f"attack: {how} is not legal; legal is {' or '.join(ATTACKS)}")
    if not 0 < eps <= 1:
        raise ValueError(f"eps: {eps} is not legal; legal is above 0 and at most 1, of the full scale")
    net = model.network()
    if o.coding != "direct" or model.definition.chip or model.definition.factory or not isinstance(net, nn.Module):
        raise ValueError(f"{model.name}: has no gradient by its pixels; legal is a float network with coding direct")
    loss, undo, random = step_loss(o.loss, o.beta), through_time(net), torch.Generator().manual_seed(0)
    net.requires_grad_(False)

    def gradient(x: Tensor, y: Tensor) -> Tensor:
        leaf = x.clone().requires_grad_()
        frame = leaf * (LEVELS / (1 << PIXEL_FRAC))
        total = sum((loss(spikes, y) for spikes in unroll(net, frame.expand(o.steps, *frame.shape))), torch.zeros(()))
        return torch.autograd.grad(total, leaf)[0]

    out = []
    for start in range(0, len(images), batch):
        clean, y = images[start : start + batch].float() / LEVELS, labels[start : start + batch]
        low, high = (clean - eps).clamp(min=0), (clean + eps).clamp(max=1)
        if how == "fgsm":
            x = clean + eps * gradient(clean, y).sign()
        else:
            x = clean + eps * (2 * torch.rand(clean.shape, generator=random) - 1)
            for _ in range(PGD_STEPS):
                x = x.clamp(low, high)
                x = x + eps / 4 * gradient(x, y).sign()
        least, most = (low * LEVELS).ceil(), (high * LEVELS).floor()
        out.append((x * LEVELS).round().clamp(least, most).to(torch.uint8))
    undo()
    return torch.cat(out)
