"""CKA against a dense textbook reference, its invariances, its bias, and what it refuses."""

import numpy as np
import pytest
import torch

from sw.cka.measures import CKA, cka, splits


def hsic1(k, l):
    """HSIC1 as printed (Song et al., JMLR 2012, equation 5), dense, double precision, no centring."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))
    one = np.ones(n)
    total = np.trace(k @ l) + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ l @ one)
    return total / (n * (n - 3))


def gram(x, kernel):
    x = x.reshape(len(x), -1).astype(np.float64)
    if kernel == "linear":
        return x @ x.T
    square = ((x[:, None] - x[None]) ** 2).sum(-1)
    values = np.sort(square[square > 0])
    return np.exp(-square / (2 * values[(len(values) - 1) // 2]))


def reference(xs, ys, batch, kernel):
    """HSIC1 of each minibatch's full Gram matrices, averaged over minibatches, one pair of layers at a time."""
    out = np.zeros((len(xs), len(ys)))
    for i, x in enumerate(xs):
        for j, y in enumerate(ys):
            sums = np.zeros(3)
            for part in splits(len(x), batch):
                k, l = gram(x[part], kernel), gram(y[part], kernel)
                sums += hsic1(k, l), hsic1(k, k), hsic1(l, l)
            out[i, j] = sums[0] / np.sqrt(sums[1] * sums[2])
    return out


def related(random, n, widths, mix=1.0):
    """Features that share a common part of three dimensions, at some offset."""
    common = random.normal(size=(n, 3))
    return [common @ random.normal(size=(3, d)) * mix + random.normal(size=(n, d)) + random.normal() * 5 for d in widths]


def tensors(xs, dtype=torch.float64):
    return [torch.tensor(x, dtype=dtype) for x in xs]


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("seed", range(5))
def test_equals_the_dense_reference(seed, kernel):
    random = np.random.default_rng(seed)
    n, batch = int(random.integers(40, 120)), int(random.integers(8, 60))
    features = related(random, n, random.integers(1, 80, 5), mix=random.uniform(0.2, 2))
    xs, ys = features[:3], features[3:]
    got, want = cka(tensors(xs), tensors(ys), batch=batch, kernel=kernel).numpy(), reference(xs, ys, batch, kernel)
    assert np.abs(got - want).max() <= 1e-9
    assert got.max() - got.min() > 0.01 and abs(got).max() > 0.1, "the case proves little"


def test_binary_features_of_one_batch_too():
    """Spikes, most of them alike, in one minibatch: plain unbiased CKA of the whole."""
    random = np.random.default_rng(0)
    xs = [(random.random((60, 4, 5)) < p).astype(float) for p in (0.02, 0.3)]
    for kernel in ("linear", "rbf"):
        assert np.abs(cka(tensors(xs), batch=60, kernel=kernel).numpy() - reference(xs, xs, 60, kernel)).max() <= 1e-9


def test_order_and_grouping_of_layers_do_not_matter():
    x = tensors(related(np.random.default_rng(1), 64, (7, 20, 3)))
    whole = cka(x, batch=16)
    torch.testing.assert_close(whole, whole.T, rtol=0, atol=1e-14)
    torch.testing.assert_close(whole, cka(x, x, batch=16), rtol=0, atol=1e-14)
    for i in range(3):
        for j in range(3):
            torch.testing.assert_close(cka([x[i]], [x[j]], batch=16)[0, 0], whole[i, j], rtol=0, atol=1e-12)


def test_a_layer_equals_itself():
    for kernel in ("linear", "rbf"):
        own = cka(tensors(related(np.random.default_rng(2), 200, (5, 50)), torch.float32), batch=50, kernel=kernel).diagonal()
        assert (own - 1).abs().max() < 1e-9


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_invariant_to_rotation_scale_and_offset(kernel):
    random = np.random.default_rng(3)
    x, y = related(random, 96, (12, 30))
    rotation, _ = np.linalg.qr(random.normal(size=(12, 12)))
    want, got = cka(tensors([x]), tensors([y]), batch=32, kernel=kernel), []
    for changed in (x @ rotation, 37.5 * x, x + random.normal(size=12) * 10):
        got.append(cka(tensors([changed]), tensors([y]), batch=32, kernel=kernel))
    assert all((g - want).abs().max() < 1e-9 for g in got)
    stretched = cka(tensors([x * np.linspace(0.01, 3, 12)]), tensors([y]), batch=32, kernel=kernel)
    assert (stretched - want).abs().max() > 1e-3, "it is not invariant to any linear map"


@pytest.mark.parametrize("width", [4, 100, 3000])
def test_independent_features_give_nothing_at_any_width(width):
    random = torch.Generator().manual_seed(4)
    values = [
        cka([torch.randn(2048, width, generator=random)], [torch.randn(2048, width, generator=random)], batch=256).item()
        for _ in range(3)
    ]
    assert max(map(abs, values)) < 0.02, values


def test_the_biased_estimator_would_not():
    """What the correction is for: plain CKA of independent wide features is close to 1 in small minibatches."""
    x, y = (torch.randn(64, 3000, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (5, 6))
    k, l = (f @ f.T for f in (x - x.mean(0), y - y.mean(0)))
    assert (k * l).sum() / (k.norm() * l.norm()) > 0.9
    assert abs(cka([x], [y], batch=64).item()) < 0.1


def test_unbiased_over_minibatches():
    """The mean of HSIC1 over many small minibatches is HSIC1 of the whole, within its spread."""
    x, y = tensors(related(np.random.default_rng(7), 4000, (6, 9)))
    small, whole = cka([x], [y], batch=8).item(), cka([x], [y], batch=4000).item()
    assert abs(small - whole) < 0.02 and whole > 0.1, (small, whole)


def test_splits_are_even():
    for samples, batch in ((360, 256), (10, 4), (1000, 64), (4, 100), (9, 8)):
        sizes = [part.stop - part.start for part in splits(samples, batch)]
        assert sum(sizes) == samples and max(sizes) - min(sizes) <= 1 and min(sizes) >= 4


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda r: cka([r(3, 5)]), "samples: 3 are too few; legal is at least 4"),
        (lambda r: cka([r(9, 5)], batch=3), "batch: 3 is not legal; legal is at least 4"),
        (lambda r: CKA().add([r(3, 5)]), "x: 3 samples in a minibatch are too few; legal is at least 4"),
        (lambda r: cka([r(8, 5), r(9, 5)]), "8 and 9 samples; legal are the same samples"),
        (lambda r: CKA().add([r(8, 5)], [r(9, 5)]), "y: layer 0 has 9 samples where x has 8"),
        (lambda r: cka([r(8, 5), torch.ones(8, 2)]), "y: layer 1 is constant|x: layer 1 is constant over the 8 samples"),
        (lambda r: cka([r(8, 5)], [torch.zeros(8, 2)], kernel="rbf"), "y: layer 0 is constant over the 8 samples"),
        (lambda r: cka([torch.eye(8)[:, :1]]), "x: layer 0 is constant"),  # one sample differs: nothing to align
        (lambda r: cka([r(8)]), r"x: layer 0 has shape \(8,\); legal is"),
        (lambda r: cka([r(8, 0)]), r"x: layer 0 has shape \(8, 0\); legal is"),
        (lambda r: cka([r(8, 2) / 0]), "x: layer 0 has features that are infinite"),
        (lambda r: cka([r(8, 2)], []), "y: no layers"),
        (lambda r: CKA("cosine"), "kernel: cosine is not legal; legal is linear or rbf"),
        (lambda r: CKA("rbf", 0), "bandwidth: 0 is not legal"),
        (lambda r: CKA().result(), "no minibatch was added"),
    ],
)
def test_bad_input_is_named(make, message):
    random = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match=message):
        make(lambda *shape: torch.randn(*shape, generator=random))


def test_a_refused_minibatch_leaves_no_trace():
    x, one = tensors(related(np.random.default_rng(8), 32, (4, 6))), CKA()
    one.add(x)
    before = one.result()
    for bad in ([x[0], x[1][:3]], [x[0]], [x[0], torch.full((32, 2), torch.nan)]):
        with pytest.raises(ValueError):
            one.add(bad)
    assert torch.equal(one.result(), before) and one.samples == 32


def test_constant_layers_can_be_left_undefined():
    x, one = tensors(related(np.random.default_rng(9), 32, (4,))), CKA()
    one.add([*x, torch.ones(32, 3)])
    with pytest.raises(ValueError, match="x: conv2 is constant over the 32 samples"):
        one.result((["conv1", "conv2"],) * 2)
    assert torch.isnan(one.result(undefined=True)).tolist() == [[False, True], [True, True]]


def test_nothing_is_kept_of_a_minibatch():
    """What memory holds after two minibatches and after twenty (`python -m sw.cka memory` measures the whole process)."""
    one, random, kept = CKA(), torch.Generator().manual_seed(0), []
    for _ in range(20):
        one.add([torch.randn(16, 7, generator=random) for _ in range(3)])
        kept.append(sum(v.untyped_storage().nbytes() for v in vars(one).values() if isinstance(v, torch.Tensor)))
    assert kept[1] == kept[-1] == (9 + 3 + 3) * 8 and one.samples == 320
