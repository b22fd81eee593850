"""Centered kernel alignment (Kornblith et al., arXiv 1905.00414) from minibatches (Nguyen et al., arXiv 2010.15327).

    cka = CKA()
    for x, y in batches:                    # features of the same samples: lists of (n, ...), one of each layer
        cka.add(x, y)
    cka.result()                            # (layers of x, layers of y)

CKA(X, Y) = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with the Gram matrices K, L of X and Y. Each of the three HSICs is estimated
without bias in each minibatch (HSIC1: Song et al., JMLR 2012, equation 5) and averaged over the minibatches; memory holds one
minibatch, whatever the data set.

HSIC1 is computed as an inner product. With the U-centred Gram matrix (Székely and Rizzo 2014; K with its diagonal set to 0)

    K~_ij = K_ij - sum_l K_il / (n-2) - sum_l K_lj / (n-2) + sum_kl K_kl / ((n-1)(n-2)),   K~_ii = 0

HSIC1(K, L) = sum_ij K~_ij L~_ij / (n(n-3)), so that all pairs of layers are one matrix product. It is 0 on average for independent
features of any width, and HSIC1(K, K) is never negative.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

KERNELS = ("linear", "rbf")
SAMPLES_MIN = 4
"""HSIC1 divides by n - 3."""
ROUNDING = 1e-12
"""What is left of a Gram matrix, relative to it, if centring takes away all but rounding errors."""


def linear_gram(x: Tensor) -> Tensor:
    """(n, n) inner products of features (n, d), counted from the first sample (centring takes any offset out again)."""
    x = x - x[:1]
    return x @ x.T


def rbf_gram(x: Tensor, bandwidth: float = 1.0) -> Tensor:
    """(n, n) of exp(-|x_i - x_j|^2 / (2 sigma^2)); sigma is `bandwidth` times the median distance of two samples of the minibatch.

    Samples that are alike do not count in the median: most spikes of a sparse layer may be. 0 if all are alike.
    """
    k = linear_gram(x)
    square = (k.diagonal()[:, None] + k.diagonal() - 2 * k).clamp_(min=0)
    apart = square[square > 1e-12 * square.max()]
    if not len(apart):
        return torch.zeros_like(k)
    return (square / (-2 * bandwidth**2 * apart.median())).exp_()


def u_centred(k: Tensor) -> Tensor:
    """The U-centred Gram matrix (n, n), n of at least 4; overwrites `k`."""
    n = len(k)
    row = k.fill_diagonal_(0).sum(1) / (n - 2)
    k.sub_(row[:, None]).sub_(row).add_(row.sum() / (n - 1))
    return k.fill_diagonal_(0)


def hsic1(x: Tensor, y: Tensor) -> Tensor:
    """HSIC1 of all pairs of U-centred Gram matrices (a, n, n) and (b, n, n): (a, b)."""
    n = x.shape[1]
    return x.flatten(1) @ y.flatten(1).T / (n * (n - 3))


def splits(samples: int, batch: int) -> list[slice]:
    """Samples 0 .. samples - 1 in minibatches of about `batch`, whose sizes differ by at most one.

    Raises ValueError where a minibatch would be too small for HSIC1.
    """
    if batch < SAMPLES_MIN:
        raise ValueError(f"batch: {batch} is not legal; legal is at least {SAMPLES_MIN}, as unbiased HSIC divides by n - 3")
    if samples < SAMPLES_MIN:
        raise ValueError(f"samples: {samples} are too few; legal is at least {SAMPLES_MIN}, as unbiased HSIC divides by n - 3")
    count = max(1, round(samples / batch))
    edges = [samples * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in zip(edges, edges[1:], strict=False)]


class CKA:
    """Streaming CKA of every layer of x with every layer of y; `kernel` is linear or rbf (`bandwidth`: see `rbf_gram`).

    With `y` left out, of x with itself. Sums are in double precision.
    """

    def __init__(self, kernel: str = "linear", bandwidth: float = 1.0) -> None:
        if kernel not in KERNELS:
            raise ValueError(f"kernel: {kernel} is not legal; legal is {' or '.join(KERNELS)}")
        if not 0 < bandwidth < float("inf"):
            raise ValueError(f"bandwidth: {bandwidth} is not legal; legal is above 0")
        self.kernel, self.bandwidth = kernel, bandwidth
        self.samples = self.batches = 0
        self.cross = self.own_x = self.own_y = torch.zeros(0, dtype=torch.float64)

    def add(self, x: Sequence[Tensor], y: Sequence[Tensor] | None = None) -> None:
        """One minibatch: features (n, ...) of the same n samples, a tensor for each layer.

        ValueError, with nothing added, if they are not of the same samples.
        """
        sides = [("x", x)] if y is None else [("x", x), ("y", y)]
        n = len(x[0]) if len(x) else 0
        for side, layers in sides:
            for i, f in enumerate(layers):
                if f.ndim < 2 or not f.shape[1:].numel():
                    raise ValueError(f"{side}: layer {i} has shape {tuple(f.shape)}; legal is (samples, features)")
                if len(f) != n:
                    raise ValueError(
                        f"{side}: layer {i} has {len(f)} samples where x has {n}; legal are the same samples for all layers"
                    )
                if not torch.isfinite(f).all():
                    raise ValueError(f"{side}: layer {i} has features that are infinite or not a number")
            if not len(layers):
                raise ValueError(f"{side}: no layers; legal is at least one")
        if n < SAMPLES_MIN:
            raise ValueError(
                f"x: {n} samples in a minibatch are too few; legal is at least {SAMPLES_MIN}, as unbiased HSIC divides by n - 3"
            )
        shape = (len(x), len(x if y is None else y))
        if self.batches and self.cross.shape != shape:
            raise ValueError(
                f"x, y: {shape} layers where there were {tuple(self.cross.shape)}; legal are the same layers in all minibatches"
            )
        k = self._centred(x)
        l = k if y is None else self._centred(y)
        sums = (hsic1(k, l), _own(k), _own(l))
        if self.batches:
            sums = (self.cross + sums[0], self.own_x + sums[1], self.own_y + sums[2])
        self.cross, self.own_x, self.own_y = sums
        self.batches, self.samples = self.batches + 1, self.samples + n

    def _centred(self, layers: Sequence[Tensor]) -> Tensor:
        out = torch.empty(len(layers), len(layers[0]), len(layers[0]), dtype=torch.float64)
        for centred, f in zip(out, layers, strict=True):
            x = f.detach().flatten(1).double()
            k = linear_gram(x) if self.kernel == "linear" else rbf_gram(x, self.bandwidth)
            size = k.norm()
            if u_centred(k).norm() > ROUNDING * size:
                centred.copy_(k)
            else:
                centred.zero_()
        return out

    def result(self, names: Sequence[Sequence[str]] | None = None, *, undefined: bool = False) -> Tensor:
        """CKA (layers of x, layers of y), float64; at most 1.

        For independent features it is about 0; as the estimate is without bias, it may also be below 0. A layer whose features are
        the same for all samples has HSIC 0 with itself and no CKA: then ValueError names the layer by `names` (those of x and those
        of y), or, if `undefined`, its row or column is not a number.
        """
        if not self.batches:
            raise ValueError("x: no minibatch was added; legal is at least one")
        own = (self.own_x, self.own_y)
        for side, values in zip("xy", own, strict=True):
            for i in torch.nonzero(values <= 0).flatten().tolist() if not undefined else []:
                what = names[side == "y"][i] if names else f"layer {i}"
                raise ValueError(
                    f"{side}: {what} is constant over the {self.samples} samples (its HSIC with itself is 0), so that CKA is not"
                    " defined"
                )
        scale = (self.own_x[:, None] * self.own_y).sqrt()
        return torch.where(scale > 0, self.cross / scale, torch.nan)


def _own(k: Tensor) -> Tensor:
    """HSIC1 of each with itself, (a,)."""
    n = k.shape[1]
    return k.square().sum((1, 2)) / (n * (n - 3))


def cka(
    x: Sequence[Tensor], y: Sequence[Tensor] | None = None, *, batch: int = 256, kernel: str = "linear", bandwidth: float = 1.0
) -> Tensor:
    """CKA of features that are at hand whole, (samples, ...) a layer, from minibatches of about `batch`."""
    out = CKA(kernel, bandwidth)
    for part in _parts(x, y, batch):
        out.add(*part)
    return out.result()


def _parts(x: Sequence[Tensor], y: Sequence[Tensor] | None, batch: int) -> Iterator[tuple[list[Tensor], list[Tensor] | None]]:
    samples = {len(f) for f in (*x, *(y or ()))}
    if len(samples) > 1:
        raise ValueError(f"x, y: {' and '.join(map(str, sorted(samples)))} samples; legal are the same samples for all layers")
    for part in splits(samples.pop() if samples else 0, batch):
        yield [f[part] for f in x], None if y is None else [f[part] for f in y]
