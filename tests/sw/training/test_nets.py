"""The networks: shapes, one step of each kind, and what they share."""

import pytest
import snntorch
import torch

from sw.stop import Population, populations, project, set_method, step_loss, unroll
from sw.training.nets import MODELS, Spec, build

CIFAR, DVS = (3, 32, 32), (2, 64, 64)


def learn(net, method, x, label, optimiser=None):
    """One update; the summed loss."""
    rule = set_method(net, method).rule
    optimiser = optimiser or torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 5e-3)
    optimiser.zero_grad()
    e, total = step_loss("cross_entropy", 3.0), 0.0
    for spikes in unroll(net, x):
        loss = e(spikes, label)
        if rule != "bptt":
            loss.backward()
        total = total + (loss if rule == "bptt" else loss.detach())
    if rule == "bptt":
        total.backward()
    optimiser.step()
    project(net)
    return float(total.detach())


@pytest.mark.parametrize("norm", ["batch", "weight"])
@pytest.mark.parametrize("method", ["stop-wtl", "bptt-wtl"])
@pytest.mark.parametrize("model, shape", [("vgg11", CIFAR), ("vgg11", DVS), ("resnet18", CIFAR), ("resnet18", DVS)])
def test_one_step_of_the_large_networks(model, shape, method, norm):
    torch.manual_seed(0)
    net = build(Spec(model, shape, norm=norm, width=0.125, theta=0.3, gain=2.0))
    x = (torch.rand(2, 2, *shape) < 0.3).float()
    before = [p.detach().clone() for p in net.parameters()]
    learn(net, method, x, torch.tensor([0, 1]))
    assert all((p - b).abs().max() > 0 for p, b in zip(net.parameters(), before, strict=True))


def test_sizes_are_those_of_the_papers():
    def count(model, shape, **options):
        return sum(p.numel() for p in build(Spec(model, shape, **options)).parameters() if p.ndim > 1)

    assert count("mlp", (784,)) == 784 * 200 + 2000
    assert count("lenet5", (1, 28, 28)) == 150 + 2400 + 48000 + 10080 + 840
    assert count("vgg11", CIFAR) == 9 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 3 * 512 * 512) + 5120
    stages = ((64, 64, 0), (64, 128, 1), (128, 256, 1), (256, 512, 1))
    assert count("resnet18", CIFAR) == 27 * 64 + sum(9 * (i * o + 3 * o * o) + shortcut * i * o for i, o, shortcut in stages) + 5120
    layers = [
        len(populations(build(Spec(m, s, width=0.1)))) for m, s in (("lenet5", (1, 28, 28)), ("vgg11", CIFAR), ("resnet18", CIFAR))
    ]
    assert layers == [5, 9, 18]


def test_the_first_layer_sees_a_held_frame():
    """Every model projects a frame once a sample: nothing stands between the input and the first population."""
    for model, shape in (("mlp", (1, 8, 8)), ("lenet5", (1, 28, 28)), ("vgg11", CIFAR), ("resnet18", CIFAR)):
        net = build(Spec(model, shape, width=0.1))
        first, calls = populations(net)[0], []
        first.projections[0].register_forward_hook(lambda *_, calls=calls: calls.append(1))
        for spikes in unroll(net, torch.rand(2, *shape).expand(4, 2, *shape)):
            assert spikes.shape == (2, 10)
        assert len(calls) == 1, model


@pytest.mark.parametrize("method", ["stop-wtl", "bptt-wtl", "ottt"])
def test_learning_lowers_the_loss(method):
    torch.manual_seed(0)
    net = build(Spec("lenet5", (1, 28, 28), classes=4, theta=0.5, gain=1.5))
    x, label = torch.rand(8, 1, 28, 28).expand(4, 8, 1, 28, 28), torch.arange(8) % 4
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    losses = [learn(net, method, x, label, optimiser) for _ in range(30)]
    assert sum(losses[-5:]) / 5 < 0.7 * losses[0], losses
    for p in populations(net):
        assert p.neuron.theta.min() >= p.neuron.theta_min and 0 <= p.neuron.alpha <= 1


def test_parameters_stay_legal():
    net = build(Spec("mlp", (4,)))
    with torch.no_grad():
        for p in populations(net):
            p.neuron.theta.fill_(-1)
            p.neuron.alpha.fill_(1.5)
    project(net)
    assert all(p.neuron.theta.eq(p.neuron.theta_min).all() and p.neuron.alpha == 1 for p in populations(net))


def test_dynamics_are_those_of_snntorch():
    torch.manual_seed(0)
    net = build(Spec("mlp", (20,), hidden=(30,), alpha=0.8, theta=0.7, gain=0.7))
    theirs = snntorch.Leaky(beta=0.8, threshold=0.7, reset_delay=False)
    layer, mem, fired = populations(net)[0], theirs.reset_mem(), 0
    weight = layer.projections[0].weight
    assert isinstance(layer, Population)
    with torch.no_grad():
        x = torch.rand(12, 3, 20)
        for x_t, _ in zip(x, unroll(net, x), strict=True):
            spike, mem = theirs(x_t @ weight.T, mem)
            assert torch.equal(layer.neuron.spike, spike)
            torch.testing.assert_close(layer.neuron.membrane - 0.7 * spike, mem)
            assert layer.neuron.membrane.max() < 2 * 0.7, "above twice the threshold snnTorch resets otherwise"
            fired += int(spike.sum())
    assert fired > 50


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Spec("vgg12", CIFAR), "model: vgg12 is not legal; legal is mlp or lenet5"),
        (lambda: Spec("mlp", (3, 4)), r"shape: \(3, 4\) is not legal"),
        (lambda: Spec("mlp", (4,), norm="layer"), "norm: layer is not legal; legal is none or batch or weight"),
        (lambda: Spec("mlp", (4,), classes=1), "classes: 1 is not legal"),
        (lambda: build(Spec("lenet5", (64,))), r"shape: \(64,\) is not legal for lenet5"),
        (lambda: build(Spec("lenet5", (1, 8, 8))), r"shape: \(1, 8, 8\) is not legal; lenet5 needs larger images"),
        (lambda: Spec.from_dict({"model": "mlp", "shape": [4], "depth": 3}), "depth: no such field"),
    ],
)
def test_bad_specifications_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_specifications_survive_a_file():
    spec = Spec("resnet18", CIFAR, width=0.5)
    assert Spec.from_dict(spec.to_dict()) == spec and set(MODELS) == {"mlp", "lenet5", "vgg11", "resnet18", "resnet", "plain"}
