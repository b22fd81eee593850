"""STOP's gradients against autograd, in double precision: exact for whatever is linear between spikes and currents."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

from sw.stop import LIF, BatchNorm, Conv2d, Linear, Population, Readout, Synapse, populations, reset, set_method, step_loss, unroll
from sw.stop.neuron import Clock, _Spike

STEPS, BATCH, CLASSES = 9, 6, 3


class Construction(nn.Module):
    """A population as the paper's exact reference has it (Gao et al., arXiv 2411.11082).

    Plain autograd through time; the reset spike is detached, and a spike of the layer below influences this layer only in the step
    in which it is fired.
    """

    def __init__(self, population):
        super().__init__()
        self.neuron, self.projections = population.neuron, population.projections
        self.carried = self.spike = None

    def forward(self, *inputs):
        self.untrace()
        n, trailing = self.neuron, [1] * (inputs[0].ndim - 2)
        theta = n.theta.view(-1, *trailing)
        through_time = sum(
            self.project(p, x.detach(), dict(p.named_parameters())) for p, x in zip(self.projections, inputs, strict=True)
        )
        in_space = sum(
            self.project(p, x, {k: v.detach() for k, v in p.named_parameters()})
            for p, x in zip(self.projections, inputs, strict=True)
        )
        self.carried = (
            through_time if self.carried is None else n.alpha * (self.carried - theta * self.spike.detach()) + through_time
        )
        self.spike = _Spike.apply(self.carried + in_space - in_space.detach() - theta, n.surrogate)
        return self.spike

    def untrace(self):
        for s in self.projections.modules():
            if isinstance(s, Synapse):
                s.reset(Clock(), traced=False)

    def project(self, projection, x, parameters):
        self.untrace()
        return functional_call(projection, parameters, (x,))


class Residual(nn.Module):
    """conv, spikes, conv + shortcut, spikes."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        return self.second(self.first(x), x)


def replaced(net, kind):
    """A copy of the network with `kind` in the place of every population."""
    reset(net)
    net = copy.deepcopy(net)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Population):
                setattr(parent, name, kind(child))
    return net


def conv(i, o, **options):
    return Conv2d(i, o, 3, padding=1, **options)


def mlp(surrogate="exponential"):
    def layer(i, o):
        return Population(LIF(o, surrogate=surrogate), Linear(i, o, bias=True))

    return nn.Sequential(layer(12, 10), layer(10, 8), layer(8, 7), layer(7, CLASSES))


def convolutional(standardise=False):
    return nn.Sequential(
        Population(LIF(4), conv(2, 4, standardise=standardise)),
        nn.MaxPool2d(2),
        Population(LIF(5), nn.Sequential(conv(4, 5, bias=False, standardise=standardise), nn.AvgPool2d(2))),
        nn.Flatten(),
        Population(LIF(CLASSES), Linear(20, CLASSES)),
    )


def residual():
    first = Population(LIF(4), nn.Sequential(conv(2, 4, bias=False), BatchNorm(4)))
    block = Residual(
        Population(LIF(6), nn.Sequential(conv(4, 6, bias=False), BatchNorm(6))),
        Population(
            LIF(6), nn.Sequential(conv(6, 6, bias=False), BatchNorm(6)), nn.Sequential(Conv2d(4, 6, 1, bias=False), BatchNorm(6))
        ),
    )
    plain = Residual(Population(LIF(6), conv(6, 6)), Population(LIF(6), conv(6, 6), nn.Identity()))
    tail = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), Population(LIF(CLASSES), Linear(24, CLASSES)))
    return nn.Sequential(first, block, plain, *tail).eval()  # normalisation by constants: exact


def randomised(net, seed):
    """Double precision, and every parameter and statistic away from its start."""
    torch.manual_seed(seed)
    net = net.double()
    for name, p in [*net.named_parameters(), *net.named_buffers()]:
        with torch.no_grad():
            if name.endswith("alpha"):
                p.uniform_(0.3, 0.95)
            elif name.endswith("theta"):
                p.uniform_(0.1, 0.6)
            elif name.endswith(("running_var", "gain")) or (name.endswith("weight") and p.ndim == 1):
                p.uniform_(0.5, 1.5)
            elif p.is_floating_point() and p.ndim > 1:
                p.normal_(0, 1.3 / p[0].numel() ** 0.5)
            elif p.is_floating_point():
                p.normal_(0.1, 0.2)
    return net


def gradients(net, x, label, loss):
    """By STOP: a backward pass in every step."""
    for p in net.parameters():
        p.grad = None
    for spikes in unroll(net, x):
        loss(spikes, label).backward()
    return [p.grad for p in net.parameters()]


def autograd(net, x, label, loss):
    """By the construction: one backward pass through all steps."""
    net = replaced(net, Construction)
    total = sum(loss(net(x_t), label) for x_t in x)
    return torch.autograd.grad(total, list(net.parameters()))


def assert_equal(got, want, names):
    for name, g, w in zip(names, got, want, strict=True):
        assert w.abs().max() > 1e-4, f"{name}: a gradient of 0 proves nothing"
        assert (g - w).abs().max() <= 1e-10 * w.abs().max(), name


def firing_rates(net, x):
    """Of the populations."""
    with torch.no_grad():
        return torch.stack([torch.stack([p.neuron.spike.mean() for p in populations(net)]) for _ in unroll(net, x)]).mean(0)


def case(net, seed, shape):
    """A network of which every layer fires, inputs, labels, and the names of the parameters."""
    set_method(net, "stop-wtl")
    for s in range(100 * seed, 100 * seed + 100):
        net = randomised(net, s)
        x = (torch.rand(STEPS, BATCH, *shape) < 0.5).double()
        rates = firing_rates(net, x)
        if rates.min() > 0.05 and rates.max() < 0.95:
            return net, x, torch.randint(CLASSES, (BATCH,)), [n for n, _ in net.named_parameters()]
    raise AssertionError(f"no such case, rates {rates}")


IMAGE = (2, 8, 8)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize(
    "make, shape",
    [(mlp, (12,)), (convolutional, IMAGE), (lambda: convolutional(True), IMAGE), (residual, IMAGE)],
    ids=["mlp", "conv", "conv-standardised", "residual"],
)
def test_gradients_equal_autograd(make, shape, loss):
    net, x, label, names = case(make(), 0, shape)
    e = step_loss(loss, 2.0)
    assert_equal(gradients(net, x, label, e), autograd(net, x, label, e), names)


@pytest.mark.parametrize("surrogate", ["triangular", "sigmoid", "arctan"])
def test_every_surrogate(surrogate):
    net, x, label, names = case(mlp(surrogate), 1, (12,))
    e = step_loss("cross_entropy", 2.0)
    assert_equal(gradients(net, x, label, e), autograd(net, x, label, e), names)


@pytest.mark.parametrize("make, shape", [(mlp, (12,)), (lambda: convolutional(True), IMAGE), (residual, IMAGE)])
def test_a_held_frame_is_projected_once(make, shape):
    """Equal to showing the same values step by step, in a T-th of the work of the first layer."""
    net, x, label, names = case(make(), 2, shape)
    e, frame = step_loss("cross_entropy", 2.0), torch.rand_like(x[0])
    want = gradients(net, frame.repeat(STEPS, *[1] * frame.ndim), label, e)
    first, calls = populations(net)[0].projections[0], []
    first.register_forward_hook(lambda *_: calls.append(1))
    assert_equal(gradients(net, frame.expand(STEPS, *frame.shape), label, e), want, names)
    assert len(calls) == 1
    assert_equal(want, autograd(net, frame.expand(STEPS, *frame.shape), label, e), names)


class PresentJacobian(Construction):
    """One projection, conv and norm with the batch's statistics.

    Past inputs reach the membrane through this step's normalisation.
    """

    trace = None

    def forward(self, x):
        self.untrace()
        (synapse, norm), n = self.projections[0], self.neuron
        frozen = {k: v.detach() for k, v in self.projections[0].named_parameters()}
        here = self.project(self.projections[0], x, frozen)  # the error's way down, statistics included
        past = self.project(self.projections[0], x.detach(), frozen | {k: v for k, v in norm.named_parameters(prefix="1")})
        self.trace = x.detach() if self.trace is None else n.alpha.detach() * self.trace + x.detach()
        z, dz = (torch.nn.functional.conv2d(v, synapse.weight, padding=1) for v in (x.detach(), self.trace))
        over = dict(dim=(0, 2, 3), keepdim=True)
        variance, mean = (v.detach() for v in torch.var_mean(z, correction=0, **over))
        scale, zn = torch.rsqrt(variance + norm.eps), (z.detach() - mean) * torch.rsqrt(variance + norm.eps)
        weights = (dz - dz.mean(**over) - zn * (dz * zn).mean(**over)) * scale * norm.weight.detach()[:, None, None]
        theta = n.theta[:, None, None]
        self.carried = past if self.carried is None else n.alpha * (self.carried - theta * self.spike.detach()) + past
        self.spike = _Spike.apply(self.carried + (weights - weights.detach()) + (here - here.detach()) - theta, n.surrogate)
        return self.spike


def test_batch_statistics_have_the_jacobian_of_the_step():
    net = nn.Sequential(
        Population(LIF(4), nn.Sequential(conv(2, 4, bias=False), BatchNorm(4))),
        Population(LIF(5), nn.Sequential(conv(4, 5, bias=False), BatchNorm(5))),
        nn.Flatten(),
        Population(LIF(CLASSES), Linear(5 * 64, CLASSES)),
    )
    net, x, label, names = case(net, 3, IMAGE)
    e = step_loss("cross_entropy", 2.0)
    got = gradients(net, x, label, e)
    reference = replaced(net, Construction)
    for i in (0, 1):
        reference[i].__class__ = PresentJacobian
    want = torch.autograd.grad(sum(e(reference(x_t), label) for x_t in x), list(reference.parameters()))
    assert_equal(got, want, names)
    through_all_statistics = autograd(net, x, label, e)
    i = names.index("0.projections.0.0.weight")
    off = (got[i] - through_all_statistics[i]).norm() / got[i].norm()
    assert 1e-6 < off < 0.3, f"{off}: the two ways to see statistics of past steps differ, but not much"


def test_bptt_is_autograd_and_the_forward_pass_is_the_same():
    net, x, label, _ = case(residual(), 4, IMAGE)
    e, seen = step_loss("mse"), {}
    for method in ("stop-wtl", "bptt-wtl"):
        set_method(net, method)
        spikes = list(unroll(net, x)) if method == "bptt-wtl" else [s.detach() for s in unroll(net, x)]
        seen[method] = torch.stack(spikes)
    assert torch.equal(seen["stop-wtl"], seen["bptt-wtl"])
    sum(e(s, label) for s in seen["bptt-wtl"]).backward()
    assert all(p.grad.abs().max() > 1e-6 for p in net.parameters())


@pytest.mark.parametrize("method", ["stop-w", "stop-wt", "stop-wl", "ottt"])
def test_what_is_switched_off_gets_no_gradient(method):
    net, x, label, names = case(mlp(), 5, (12,))
    e = step_loss("cross_entropy", 2.0)
    full = dict(zip(names, gradients(net, x, label, e), strict=True))
    set_method(net, method)
    part = dict(zip(names, gradients(net, x, label, e), strict=True))
    for name in names:
        kind = name.rpartition(".")[2]
        on = kind in ("weight", "bias") or kind[0] in (
            "" if method == "ottt" else "a" * ("l" in method) + "t" * ("t" in method[5:])
        )
        assert (part[name] is not None) == on, name
        if on and not (method == "ottt" and kind == "bias"):
            assert torch.equal(part[name], full[name])
        elif on:
            assert (part[name] - full[name]).abs().max() > 1e-3  # a bias of this step alone


def test_backward_of_an_earlier_step_is_refused():
    net, x, label, _ = case(mlp(), 6, (12,))
    e = step_loss("mse")
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        sum(e(s, label) for s in unroll(net, x)).backward()


def test_standardised_weights_need_to_know_the_last_step():
    net = convolutional(standardise=True)
    reset(net)
    with pytest.raises(RuntimeError, match="run the network by sw.stop.unroll"):
        net(torch.rand(1, *IMAGE))
    with torch.no_grad():
        assert net(torch.rand(1, *IMAGE)).shape == (1, CLASSES)


def test_nothing_is_kept_without_gradients():
    net, x, _, _ = case(residual(), 7, IMAGE)
    with torch.no_grad():
        spikes = list(unroll(net, x))
    assert not any(s.requires_grad for s in spikes)
    for p in populations(net):
        assert p.neuron.alpha_trace is None and p.neuron.theta_trace is None
        assert all(getattr(m, "trace", None) is None for m in p.projections.modules())


def test_readout_breaks_ties_by_the_membrane():
    r = Readout()
    for spikes in ([1, 1, 0], [0, 0, 1], [1, 1, 0]):
        r.add(torch.tensor([spikes, [0, 0, 0]], dtype=torch.float))
    assert r.winner(torch.tensor([[0.1, 0.2, 0.9], [0.3, -0.1, 0.2]])).tolist() == [1, 0]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: LIF(0), "n: 0 is not legal"),
        (lambda: LIF(3, alpha=1.5), "alpha: 1.5 is not legal; legal is 0 to 1"),
        (lambda: LIF(3, theta=0.01), "theta: 0.01 is not legal; legal is at least theta_min"),
        (lambda: LIF(3, surrogate="relu"), "surrogate: relu is not legal; legal is exponential or"),
        (lambda: Population(LIF(3)), "projections: none"),
        (lambda: Population(LIF(3), nn.Linear(2, 3)), "projections: the parameter weight has no trace"),
        (lambda: Conv2d(1, 1, 3, padding="same"), "padding: zeros same is not legal"),
        (lambda: set_method(mlp(), "stop"), "method: stop is not legal; legal is stop-w or"),
        (lambda: step_loss("hinge"), "loss: hinge is not legal"),
        (lambda: step_loss("mse", 0), "beta: 0 is not legal"),
        (lambda: next(unroll(mlp(), torch.zeros(3, 12))), "x: shape .* is not legal"),
        (lambda: mlp()[0](torch.zeros(1, 12), torch.zeros(1, 12)), "inputs: 2 are not legal; legal is 1"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_changed_batch_needs_a_reset():
    net = mlp()
    reset(net)
    net(torch.zeros(2, 12))
    with pytest.raises(ValueError, match="inputs: a batch of 3 is not legal in the middle of a sample; legal is 2"):
        net(torch.zeros(3, 12))
