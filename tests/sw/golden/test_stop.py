"""Float STOP against autograd, and the golden model against float STOP."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from hw.network import Network
from hw.numbers import PHI_STEP_FRAC, Q
from sw.golden.network import GoldenNetwork
from sw.golden.state import initial_state
from sw.stop import Parameters, stop


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v >= 0).to(v)

    @staticmethod
    def backward(ctx, grad):
        (v,) = ctx.saved_tensors
        return grad * torch.exp(-v.abs())


def autograd_gradients(p, x, label, loss, beta):
    """The same forward pass; the spike below reaches this step's membrane, but not what the membrane carries on."""
    for q in p:
        q.requires_grad_()
    carried = [x.new_zeros(x.shape[1], len(theta)) for theta in p.theta]
    s = [torch.zeros_like(c) for c in carried]
    total = 0.0
    for x_t in x:
        below = x_t
        for l, (weight, theta, alpha) in enumerate(zip(p.weight, p.theta, p.alpha, strict=True)):
            carried[l] = alpha * (carried[l] - theta * s[l].detach()) + below.detach() @ weight.T
            u = carried[l] + (below - below.detach()) @ weight.detach().T
            below = s[l] = Spike.apply(u - theta)
        if loss == "mse":
            total = total + 0.5 * ((below - one_hot(label, below.shape[1])) ** 2).sum()
        else:
            total = total + cross_entropy(beta * below, label, reduction="sum")
    return torch.autograd.grad(total, list(p))


def random_parameters(sizes, random):
    def tensor(a):
        return torch.tensor(a, dtype=torch.float64)

    pairs = list(pairwise(sizes))
    return Parameters(
        [tensor(random.normal(0.2, 2 / math.sqrt(m), (n, m))) for m, n in pairs],
        [tensor(random.uniform(0.3, 1.2, n)) for _, n in pairs],
        [tensor(random.uniform(0.2, 1.0)) for _ in pairs],
    )


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("seed, sizes", list(enumerate([(7, 5, 3), (9, 8, 6, 4), (5, 6, 7, 5, 3), (6, 9, 8, 7, 6, 5)])))
def test_gradients_equal_autograd(seed, sizes, loss):
    random = np.random.default_rng(seed)
    p = random_parameters(sizes, random)
    x = torch.tensor(random.random((12, 6, sizes[0])) < 0.4, dtype=torch.float64)
    label = torch.tensor(random.integers(0, sizes[-1], 6))
    got, record = stop(p, x, label, loss=loss, beta=2.5)
    for g, want in zip(got, autograd_gradients(p, x, label, loss, 2.5), strict=True):
        assert (g - want).abs().max() <= 1e-10 * want.abs().max()
        assert want.abs().max() > 1e-3
    for l in range(len(p.weight)):
        spikes = sum(int(s[l].sum()) for s in record.spike)
        assert 10 <= spikes <= 12 * 6 * sizes[l + 1] - 10, f"layer {l + 1}: {spikes} spikes prove little"


def test_batch_sums_its_samples():
    random = np.random.default_rng(3)
    p = random_parameters((6, 5, 3), random)
    x, label = torch.tensor(random.random((5, 4, 6))), torch.tensor([0, 2, 1, 1])
    whole, _ = stop(p, x, label)
    parts = [list(stop(p, x[:, i : i + 1], label[i : i + 1])[0]) for i in range(4)]
    for g, part in zip(whole, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(g, sum(part), rtol=1e-12, atol=1e-12)


def test_bad_arguments_are_named():
    p = random_parameters((6, 5, 3), np.random.default_rng(0))
    with pytest.raises(ValueError, match="loss: hinge is not legal; legal is cross_entropy or mse"):
        stop(p, torch.zeros(2, 1, 6), [0], loss="hinge")
    with pytest.raises(ValueError, match=r"x: shape \(2, 6\) is not legal; legal is \(steps, batch, 6\)"):
        stop(p, torch.zeros(2, 6), [0])


# -- the golden model --------------------------------------------------------------------------------
WIDE = Network(
    net="20-16-12-5", steps=9, input="events", w=Q(3, 15), u=Q(4, 14), trace=Q(3, 15), delta=Q(3, 15), grad=Q(3, 15),
    alpha_frac=15,
)  # fmt: skip
ALPHA = 0.5
ROUNDING = 1.5 / (1 - ALPHA)  # LSB: a current is off by at most 1/2, each leak by 1, and old errors leak away


def as_float(state, config):
    def tensor(name, q):
        return torch.tensor(state[name] / q.one, dtype=torch.float64)

    return Parameters(
        [tensor(f"weight.{l}", config.w) for l in config.layers],
        [tensor(f"theta.{l}", config.u) for l in config.layers],
        [torch.tensor(a / config.alpha_one, dtype=torch.float64) for a in state["alpha"]],
    )


def steady_case(config, beta):
    """A state and a sample in which no membrane comes so near to its threshold that rounding could decide a spike."""
    for seed in range(1000):
        state = initial_state(config, seed, alpha=ALPHA, gain=1.6, theta=0.8, beta=beta)
        sample = np.random.default_rng(seed).random((config.steps, config.sizes[0])) < 0.3
        p, x = as_float(state, config), torch.tensor(sample, dtype=torch.float64)[:, None]
        _, record = stop(p, x)
        gap = min(float((u - theta).abs().min()) for step in record.membrane for u, theta in zip(step, p.theta, strict=True))
        if gap > 2 * ROUNDING / config.u.one:
            return state, sample, p, x
    raise AssertionError("no such case")


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_golden_model_follows_float_stop(loss):
    c, beta, label = WIDE, 1.0, 3
    state, sample, p, x = steady_case(c, beta)
    network = GoldenNetwork(c)
    network.load(state | {"error_table": initial_state(c, 0, beta=beta, loss=loss)["error_table"]})
    table = torch.tensor(state["surrogate"] / 4096)

    def phi(v):  # the table's steps, so that what is left is rounding
        return table[(v.abs() * (1 << PHI_STEP_FRAC)).long().clamp(max=255)]

    spikes, largest = 0, {"weight": 0.0, "theta": 0.0, "alpha": 0.0}
    for t in network.steps(sample, label, "wtl"):
        if t == c.steps - 1:
            break  # the last step ends with the updates, which clear the gradients
        got, (want, record) = network.read(), stop(p, x[: t + 1], [label], loss=loss, beta=beta, phi=phi)
        exact, _ = stop(p, x[: t + 1], [label], loss=loss, beta=beta)
        for l in c.layers:
            membrane, spike = record.membrane[t][l - 1][0], record.spike[t][l - 1][0]
            assert np.array_equal(got[f"spike.{l}"], spike.numpy())
            assert np.abs(got[f"membrane.{l}"] - membrane.numpy() * c.u.one).max() <= ROUNDING
            spikes += int(spike.sum())
            # A membrane's rounding may move |U - theta| into the next entry of the table, 3 % away; an entry stands for values
            # up to 1.6 % away. Both add up over the layers that an error passes. The leakage gradient is a sum over neurons
            # that may cancel: there the errors are those of its terms, and traces are of the order of 1.
            passed, terms = c.n_layers - l + 1, float(sum(d[l - 1].abs().sum() for d in record.delta))
            for kind, found in (
                ("weight", got[f"grad.{l}"]),
                ("theta", got[f"theta_grad.{l}"]),
                ("alpha", got["alpha_grad"][l - 1]),
            ):
                near, far = (np.asarray(getattr(g, kind)[l - 1]) for g in (want, exact))
                scale = terms if kind == "alpha" else float(np.abs(far).max())
                for reference, part in ((near, 0.032), (far, 0.048)):
                    assert np.abs(found / c.grad.one - reference).max() <= part * passed * scale + 32 / c.grad.one, (kind, l, t)
                largest[kind] = max(largest[kind], float(np.abs(far).max()))
    assert spikes >= 30 and min(largest.values()) > 0.1, (spikes, largest)


def test_static_frame_is_the_same_input_in_every_step():
    """The separable first layer (current once, gradient once) against the plain sum over steps."""
    c = WIDE.replace(input="static", net="20-16-5")
    frame = np.random.default_rng(0).integers(0, 256, 20)
    x = torch.tensor(frame / 256)[None, None].repeat(c.steps, 1, 1)
    for seed in range(1000):
        state = initial_state(c, seed, alpha=ALPHA, gain=1.6, theta=0.5, beta=0.5)
        p = as_float(state, c)
        want, record = stop(p, x, [2], beta=0.5)
        gap = min(float((u - theta).abs().min()) for step in record.membrane for u, theta in zip(step, p.theta, strict=True))
        if gap > 2 * ROUNDING / c.u.one:
            break
    network = GoldenNetwork(c)
    network.load(state)
    network.rate_w = 2
    network.run(frame, 2, "w")
    change = (state["weight.1"] - network.read()["weight.1"]) / c.w.one * 2**network.rate_w
    scale = float(want.weight[0].abs().max())
    assert np.abs(change - want.weight[0].numpy()).max() <= 0.1 * scale + 64 / c.w.one and scale > 0.2
    assert sum(int(s[0].sum()) for s in record.spike) >= 10
