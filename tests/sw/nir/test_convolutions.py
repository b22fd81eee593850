"""Graphs with convolutions: what is read, deployed, learned and written again, against the graph's own nodes run one by one."""

import nir
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from boards import BOARDS
from hw.network import Network
from hw.notation import Conv
from hw.plan import DoesNotFit
from sim import cosim
from sw import deploy as deploy_program
from sw import export as export_program
from sw.driver.device import Device
from sw.files import checkpoint
from sw.files.image import Image
from sw.golden.network import GoldenNetwork
from sw.golden.state import initial_state
from sw.nir import deploy, export
from sw.nir import graph as nirgraph
from sw.nir.deploy import Samples
from sw.nir.graph import Reading
from sw.nir.layer import Full, Kernels, Layer

T, DT = 6, 1e-3
SOFT = Reading(dt=DT, reset="subtract")


def lif(rng, shape, tau=5e-3):
    """Neurons with one threshold and one resistance a channel."""
    rows = [np.broadcast_to(values.reshape(-1, *[1] * (len(shape) - 1)), shape).copy()
            for values in (rng.uniform(0.6, 1.4, shape[0]), rng.uniform(4, 7, shape[0]))]  # fmt: skip
    return nir.LIF(tau=np.full(shape, tau), r=rows[1], v_leak=np.zeros(shape), v_threshold=rows[0], v_reset=np.zeros(shape))


def conv(rng, channels, below, kernel, bias=0.15, **changes):
    weight = rng.normal(1 / kernel**2 / below, 1.3 / kernel / np.sqrt(below), (channels, below, kernel, kernel))
    parameters = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": rng.normal(0, bias, channels)} | changes
    return nir.Conv2d(input_shape=None, weight=weight, **parameters)


def pool(k, kind=nir.AvgPool2d):
    return kind(kernel_size=np.full(2, k), stride=np.full(2, k), padding=np.zeros(2, int))


def end(rng, units, classes=5, bias=0.1):
    return [nir.Flatten(None, start_dim=0), nir.Affine(rng.normal(0, 1.6 / np.sqrt(units), (classes, units)),
            rng.normal(0, bias, classes)), lif(rng, (classes,), 9e-3)]  # fmt: skip


def chain(shape, *nodes):
    named = {"input": nir.Input(np.array(shape)), **{f"n{k}": node for k, node in enumerate(nodes)}}
    named["output"] = nir.Output(np.array([nodes[-1].v_threshold.size]))
    return nir.NIRGraph(nodes=named, edges=list(zip(named, list(named)[1:], strict=False)), type_check=False)


def graph_of(kind, bias=0.15):
    """Graphs by what is special about them, each of inputs (2, 9, 8), and the network that comes of one without biases."""
    rng = np.random.default_rng(3)

    def c(*args, **changes):
        return conv(rng, *args, bias=bias, **changes) if "bias" not in changes else conv(rng, *args, **changes)

    nodes = {
        "9x8x2-4C3p1-P2-6C3-5": lambda: [c(4, 2, 3, padding=1), lif(rng, (4, 9, 8)), pool(2), c(6, 4, 3), lif(rng, (6, 2, 2)),
                                         *end(rng, 24, bias=bias)],
        "9x8x2-4C3s2p1-5": lambda: [c(4, 2, 3, stride=(2, 2), padding=(1, 1)), lif(rng, (4, 5, 4)), *end(rng, 80, bias=bias)],
        "9x8x2-3C5p2-P4-5": lambda: [c(3, 2, 5, padding="same"), lif(rng, (3, 9, 8)), pool(2), pool(2, nir.SumPool2d),
                                     *end(rng, 12, bias=bias)],
        "9x8x2-3C4s2-5": lambda: [c(3, 2, 3), pool(2), lif(rng, (3, 3, 3)), *end(rng, 27, bias=bias)],
        "9x8x2-3C6s4p1-5": lambda: [c(3, 2, 4, stride=2, padding=1), pool(2, nir.SumPool2d), nir.Scale(np.full((3, 1, 1), 0.3)),
                                    lif(rng, (3, 2, 2)), *end(rng, 12, bias=bias)],
        "9x8x2-4C7p3-P2-4C1-5": lambda: [nir.Scale(np.array([0.5, 1.5])[:, None, None] * np.ones((2, 9, 8))), c(4, 2, 7, padding=3),
                                         lif(rng, (4, 9, 8)), pool(2, nir.SumPool2d), nir.Scale(rng.uniform(0.2, 0.6, (4, 1, 1))),
                                         lif(rng, (4, 4, 4)), *end(rng, 64, bias=bias)],
        "9x8x2-3C3-12-5": lambda: [c(3, 2, 3), lif(rng, (3, 7, 6)), *end(rng, 126, 12, bias=bias),
                                   nir.Linear(rng.normal(0, 0.5, (5, 12))), lif(rng, (5,))],
        "9x8x2-2C2-5": lambda: [c(2, 2, 2, padding="valid"),
                                nir.IF(r=np.full((2, 8, 7), 1 / DT), v_threshold=np.full((2, 8, 7), 1.2)),
                                *end(rng, 112, bias=bias)],
    }  # fmt: skip
    return chain((2, 9, 8), *nodes[kind]())


KINDS = ["9x8x2-4C3p1-P2-6C3-5", "9x8x2-4C3s2p1-5", "9x8x2-3C5p2-P4-5", "9x8x2-3C4s2-5", "9x8x2-3C6s4p1-5", "9x8x2-4C7p3-P2-4C1-5",
         "9x8x2-3C3-12-5", "9x8x2-2C2-5"]  # fmt: skip


def double(values):
    return torch.tensor(np.asarray(values), dtype=torch.float64)


def run_nodes(graph, x, dt=DT):
    """Spikes (n, T, neurons) of the last neurons, and of all, each (n, T, *shape): the graph's nodes, one by one, in PyTorch; soft
    reset. x: (T, n, *shape)."""
    nodes, after = graph.nodes, dict(graph.edges)
    order, name = [], "input"
    while name != "output":
        name = after[name]
        order.append(name)
    state, spikes = {}, {}
    for frame in x:
        value = double(frame)
        for name in order:
            node = nodes[name]
            match type(node).__name__:
                case "Conv2d":
                    stride, padding = (tuple(map(int, v)) if not isinstance(v, str) else v for v in (node.stride, node.padding))
                    value = F.conv2d(value, double(node.weight), double(node.bias), stride, padding)
                case "AvgPool2d":
                    value = F.avg_pool2d(value, int(node.kernel_size[0]))
                case "SumPool2d":
                    value = F.avg_pool2d(value, int(node.kernel_size[0]), divisor_override=1)
                case "Flatten":
                    value = value.flatten(1)
                case "Linear" | "Affine":
                    value = value @ double(node.weight).T + (double(node.bias) if hasattr(node, "bias") else 0)
                case "Scale":
                    value = value * double(node.scale)
                case "LIF" | "IF":
                    theta, r, v = double(node.v_threshold), double(node.r), state.get(name, 0)
                    if isinstance(node, nir.LIF):
                        v = v + dt / double(node.tau) * (double(node.v_leak) - v + r * value)
                    else:
                        v = v + dt * r * value
                    value = (v >= theta).double()
                    state[name] = v - theta * value
                    spikes.setdefault(name, []).append(value.numpy().astype(bool))
    return {name: np.stack(s, 1) for name, s in spikes.items()}


def samples(kind="events", n=24, seed=1, shape=(2, 9, 8)):
    """Samples, flat, and as the graph takes them, (T, n, *shape)."""
    rng, size = np.random.default_rng(seed), int(np.prod(shape))
    if kind == "events":
        x = rng.random((n, T, size)) < 0.35
        return x, x.swapaxes(0, 1).reshape(T, n, *shape).astype(float)
    x = rng.integers(0, 256, (n, size)).astype(np.uint8)
    return x, np.broadcast_to(x.reshape(n, *shape) / 256, (T, n, *shape))


def in_order(spikes):
    """Spikes of all neurons as the golden model counts them: place by place, channels fastest."""
    flat = [np.moveaxis(s, 2, -1) if s.ndim == 5 else s for s in spikes.values()]
    return np.concatenate([s.reshape(*s.shape[:2], -1) for s in flat], -1)


@pytest.mark.parametrize("kernel, stride, padding", [(1, 1, 0), (3, 1, 1), (3, 2, 1), (4, 3, 2), (5, 2, 0), (7, 4, 6)])
def test_kernels_convolve_as_pytorch_does(kernel, stride, padding):
    rng = np.random.default_rng(kernel)
    weight, x = rng.normal(size=(3, 2, kernel, kernel)), rng.normal(size=(4, 2, 9, 8))
    wiring = Kernels((2, 9, 8), Conv(kernel, stride, padding))
    want = F.conv2d(torch.tensor(x), torch.tensor(weight), stride=stride, padding=padding).numpy()
    assert wiring.shape(3) == want.shape[1:] and np.allclose(wiring.currents(weight, x), want)
    ones = np.ones((1, 2, 9, 8))
    held = F.conv2d(torch.tensor(ones), torch.ones(1, 2, kernel, kernel, dtype=torch.float64), stride=stride, padding=padding)
    assert wiring.seen(ones[0]).sum() == pytest.approx(float(held.mean()))
    if wiring.constant is not None:
        more, grown = wiring.with_channel(weight, np.array([1.0, -2.0, 3.0]))
        added = more.currents(grown, np.concatenate([x, np.ones((4, 1, 9, 8))], 1)) - want
        assert np.allclose(added, np.array([1.0, -2.0, 3.0])[:, None, None])
        less, back, values = more.without_channel(grown)
        assert less == wiring and (back == weight).all() and values.tolist() == [1, -2, 3]
        assert more.held(grown).tolist() == [1, -2, 3]
    else:
        assert 2 * padding >= kernel - 1


def test_units_are_means_and_a_rest_is_left_out():
    wiring = Kernels((1, 7, 5), Conv(1))
    layer = Layer(name="a", weight=np.ones((2, 1, 1, 1)), bias=np.zeros(2), theta=np.ones((2, 7, 5)), alpha=np.ones((2, 7, 5)),
                  wiring=wiring, pool=2)  # fmt: skip
    spikes = np.random.default_rng(0).random((3, 2, 7, 5)) < 0.5
    assert np.array_equal(layer.units(spikes), F.avg_pool2d(torch.tensor(spikes).double(), 2).numpy())
    assert layer.unit_shape == (2, 3, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_spike_as_the_nodes_do(kind):
    """To the last spike, in floating point: those of all neurons."""
    graph = graph_of(kind)
    x, frames = samples()
    want = in_order(run_nodes(graph, frames))
    network, said = nirgraph.layers(graph, SOFT)
    run = deploy.simulate(network, x, T)
    assert np.array_equal(run.spikes, want) and not said and 0.03 < want.mean() < 0.9
    assert deploy.notation(network) and Network(net=deploy.notation(network)).net == kind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("input", ["static", "events"])
def test_the_golden_model_spikes_as_the_nodes_do(kind, input):
    """But where rounding turns a spike; with biases, whose channels that are always on are left out."""
    graph = graph_of(kind)
    x, frames = samples(input)
    report = deploy.deploy(graph, reading=SOFT, input=input, steps=T, calibration=Samples(x))
    image = report.image
    assert image.origin.ones == image.network.n_layers - (kind == "9x8x2-3C3-12-5")
    assert image.network.populations[0].shape == (3, 9, 8)
    network, _ = nirgraph.layers(graph, SOFT)
    own = deploy.ordinary(deploy.with_ones(network, input)[0])
    golden, want = deploy.run_golden(image, x).spikes, in_order(run_nodes(graph, frames))
    assert golden[..., ~own].all() and (~own).any()
    differ = (golden[..., own] != want).mean()
    assert differ < 0.004 and want.mean() > 0.03
    assert report.spikes_differ == (golden[..., own] != want).sum() and report.spikes == want.sum()


def test_a_network_without_biases_needs_no_more_channels():
    kind = KINDS[0]
    x, frames = samples("static")
    report = deploy.deploy(graph_of(kind, bias=0), reading=SOFT, steps=T, calibration=Samples(x.reshape(-1, 2, 9, 8)))
    assert report.image.network.net == kind and report.image.origin.ones == 0 and report.image.inputs == 144
    assert np.array_equal(report.image.sample(x[0]), x[0]) and report.classes_equal == 1
    arrays = {name: array.shape for name, array in report.image.state.items()}
    assert arrays["weight.2"] == (6, 4, 3, 3) and arrays["weight.3"] == (5, 6, 2, 2) and arrays["theta.1"] == (4,)


def test_samples_of_an_image_get_a_constant_channel():
    image = deploy.deploy(graph_of(KINDS[1]), reading=SOFT, steps=T).image
    x = samples("static")[0][0]
    for form in (x, x.reshape(2, 9, 8)):
        got = image.sample(form).reshape(3, 9, 8)
        assert np.array_equal(got[:2], x.reshape(2, 9, 8)) and (got[2] == 255).all()
    assert image.inputs == 144
    events = deploy.deploy(graph_of(KINDS[1]), reading=SOFT, steps=T, input="events").image
    assert events.sample(np.zeros((T, 2, 9, 8), bool)).reshape(T, 3, 72).sum((0, 2)).tolist() == [0, 0, T * 72]


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_come_back(kind, tmp_path):
    """What is deployed is written, read and run by its nodes again: the same weights but for rounding, the same spikes."""
    graph = graph_of(kind)
    x, frames = samples("static")
    image = deploy.deploy(graph, reading=SOFT, steps=T, calibration=Samples(x)).image
    image.save(tmp_path / "x.npz")
    again = Image.load(tmp_path / "x.npz")
    assert again.network == image.network and again.origin == image.origin and again.state.keys() == image.state.keys()
    assert all(np.array_equal(again.state[name], array) for name, array in image.state.items())
    nir.write(tmp_path / "x.nir", export.graph(again))
    written = nirgraph.read(tmp_path / "x.nir")
    network, _ = nirgraph.layers(written, Reading(dt=DT))
    for old, new in zip(nirgraph.layers(graph, SOFT)[0], network, strict=True):
        assert new.wiring == old.wiring and new.pool == old.pool and new.name == old.name
        for name in ("weight", "bias", "theta", "alpha"):
            assert np.allclose(getattr(old, name), getattr(new, name), atol=3e-3), name
    differ = in_order(run_nodes(written, frames)) != in_order(run_nodes(graph, frames))
    assert differ.mean() < 0.004
    kinds = [type(node).__name__ for node in written.nodes.values()]
    assert kinds.count("Conv2d") == sum(isinstance(layer.wiring, Kernels) for layer in network) and "Flatten" in kinds
    assert kinds.count("AvgPool2d") == sum(layer.pool > 1 for layer in network)


def learned(kind, input="static", bias=0.15):
    """An image, and what became of it after some samples."""
    x, _ = samples(input)
    image = deploy.deploy(graph_of(kind, bias), reading=SOFT, input=input, steps=T, calibration=Samples(x)).image
    golden = GoldenNetwork(image.network)
    golden.load(image.state)
    for k, sample in enumerate(x):
        golden.run(image.sample(sample), k % 5, "wtl")
    return image, image.learned(golden.read()), x


@pytest.mark.parametrize("kind, bias", [("9x8x2-4C3p1-P2-6C3-5", 0), ("9x8x2-3C4s2-5", 0.15), ("9x8x2-3C3-12-5", 0.15)])
@pytest.mark.parametrize("input", ["static", "events"])
def test_what_was_learned_comes_back(kind, bias, input):
    image, after, x = learned(kind, input, bias)
    for name in ("weight.1", "weight.2", "theta.1", "alpha"):
        assert (after.state[name] != image.state[name]).any(), name
    network = export.layers(after)
    own = deploy.ordinary(deploy.with_ones(network, input)[0])
    golden, want = deploy.run_golden(after, x).spikes, deploy.simulate(network, x, T).spikes
    assert golden.shape[-1] == own.size and (golden[..., own] != want).mean() < 0.01 and want.mean() > 0.03
    before = deploy.simulate(export.layers(image), x, T).spikes
    assert (before != want).mean() > 0.02  # it mattered what was learned


def test_biases_that_became_others_at_the_border_are_no_biases():
    _, after, _ = learned("9x8x2-4C3s2p1-5")
    with pytest.raises(ValueError, match="weight.1: what n1 learned of the constant inputs is no bias"):
        export.layers(after)


def test_a_channel_that_is_no_bias_stays_one():
    """Layer 2 has a border, so that what it learns of the channel below that is always on differs there: the channel is written."""
    rng = np.random.default_rng(0)
    graph = chain((2, 9, 8), conv(rng, 3, 2, 3, bias=0), lif(rng, (3, 7, 6)), conv(rng, 4, 3, 3, padding=1), lif(rng, (4, 7, 6)),
                  *end(rng, 168))  # fmt: skip
    x, _ = samples("static")
    image = deploy.deploy(graph, reading=SOFT, steps=T, calibration=Samples(x)).image
    state = {"weight.2": image.state["weight.2"].copy()}
    state["weight.2"][:, -1, 0, 0] += 300  # a tap that the border hides
    changed = image.learned(state)
    network = export.layers(changed)
    assert [layer.rows for layer in network] == [4, 4, 5] and not network[1].bias.any() and network[0].bias[-1] > 0
    golden = deploy.run_golden(changed, x).spikes
    own = deploy.ordinary([*deploy.with_ones(network, "static")[0]])
    # what it has beside its own: the channel that carries the last layer's biases
    run = deploy.simulate(network, x, T).spikes
    keep = np.r_[0 : 42 * 4, 42 * 4 + np.flatnonzero(np.arange(42 * 5) % 5 != 4), 42 * 9 : 42 * 9 + 5]
    assert (golden[..., keep] != run).mean() < 0.004 and own.size >= run.shape[-1]


def test_a_channel_that_others_hold_down_stays_one():
    """And so does the one above it, which it drove."""
    x, _ = samples("events")
    image = deploy.deploy(graph_of(KINDS[0]), reading=SOFT, input="events", steps=T, calibration=Samples(x)).image
    assert [layer.rows for layer in export.layers(image)] == [4, 6, 5]
    state = {"weight.1": image.state["weight.1"].copy()}
    state["weight.1"][4, :2] = image.network.w.low
    changed = image.learned(state)
    network = export.layers(changed)
    assert [layer.rows for layer in network] == [5, 7, 5] and network[0].bias.any() and not network[1].bias.any()
    golden, run = deploy.run_golden(changed, x).spikes, deploy.simulate(network, x, T).spikes
    assert (golden != run).mean() < 0.004 and not golden[..., 4::5][..., :72].all()


def test_one_threshold_a_channel_if_allowed():
    rng = np.random.default_rng(0)
    graph = chain((1, 6, 6), conv(rng, 2, 1, 3, bias=0), lif(rng, (2, 4, 4)), *end(rng, 32, bias=0))
    graph.nodes["n1"].v_threshold[:, 0] *= 2
    with pytest.raises(ValueError, match="node 'n1' .*v_threshold: .* in channel [01]; .*--approximate theta"):
        nirgraph.layers(graph, SOFT)
    reading = Reading(dt=DT, reset="subtract", approximate=frozenset({"theta"}))
    (layer, _), said = nirgraph.layers(graph, reading)
    assert np.ptp(layer.theta[1]) > 0.1 and np.ptp(layer.core.theta[1]) == 0 and "'n1'" in said[0]
    x, frames = samples("static", shape=(1, 6, 6))
    assert np.array_equal(deploy.simulate(nirgraph.layers(graph, reading)[0], x, T).spikes, in_order(run_nodes(graph, frames)))
    report = deploy.deploy(graph, reading=reading, steps=T, calibration=Samples(x))
    assert report.approximations == said and report.spikes_differ > 0


def test_resistances_within_a_channel_are_refused():
    rng = np.random.default_rng(0)
    for name in ("r", "v_leak"):
        graph = chain((1, 6, 6), conv(rng, 2, 1, 3), lif(rng, (2, 4, 4)), *end(rng, 32))
        getattr(graph.nodes["n1"], name)[1, 0, 0] += 1
        with pytest.raises(ValueError, match=f"node 'n1' .*{name}.* in channel 1; .*one value a channel"):
            nirgraph.layers(graph, SOFT)


def test_an_always_on_unit_below_a_wide_border_is_refused():
    rng = np.random.default_rng(0)
    graph = chain((1, 6, 6), conv(rng, 2, 1, 3, padding=2, bias=0), lif(rng, (2, 8, 8)), *end(rng, 128))
    with pytest.raises(ValueError, match="node 'n1': bias of a layer above it, .* legal is a smaller padding"):
        deploy.deploy(graph, reading=SOFT)


def test_networks_that_did_not_come_from_a_graph_are_written():
    for net, kinds in (
        ("8x8-3C3-P2-4C2-5", ["Input", "Conv2d", "LIF", "AvgPool2d", "Conv2d", "LIF", "Flatten", "Linear", "LIF", "Output"]),
        ("4x4x2-6-5", ["Input", "Linear", "LIF", "Linear", "LIF", "Output"]),  # dense layers see 32 inputs
    ):
        network = Network(net=net, output_error="graded", centred=True)
        image = Image(network, initial_state(network, 0))
        assert "graded_table" in image.state
        graph = export.graph(image)
        assert [type(node).__name__ for node in graph.nodes.values()] == kinds
        x, frames = samples("static", shape=network.populations[0].shape)
        golden = deploy.run_golden(Image(network.replace(steps=T), image.state), x).spikes
        assert (golden != in_order(run_nodes(graph, frames, 1e-4))).mean() < 0.01 and golden.mean() > 0.02
    residual = Network(net="8x8-3C3-R(3C3p1-3C3p1)-5")
    with pytest.raises(ValueError, match=r"net: .* has a residual block; legal is a chain"):
        export.graph(Image(residual, initial_state(residual, 0)))


def test_images_and_checkpoints_hold_convolutions(tmp_path):
    network = Network(net="8x8-3C3-R(4C3s2p1-4C3p1)-P2-5", output_error="graded", remainder=True, decay=True)
    golden = GoldenNetwork(network)
    golden.load(initial_state(network, 1))
    golden.run(np.arange(64, dtype=np.uint8), 2, "wtl")
    state = golden.read()
    checkpoint.write(tmp_path / "c", checkpoint.Checkpoint(network, state, {"rate_w": 3}, {"samples": 1}))
    again = checkpoint.read(tmp_path / "c")
    assert again.network == network and again.rates == {"rate_w": 3}
    assert again.state.keys() == state.keys() and all(np.array_equal(again.state[name], state[name]) for name in state)
    image = Image(network, state)
    assert {"shortcut.3", "graded_table", "weight.1"} <= image.state.keys() and "membrane.1" not in image.state
    image.save(tmp_path / "i.npz")
    loaded = Image.load(tmp_path / "i.npz")
    assert loaded.network == network and all(np.array_equal(loaded.state[name], image.state[name]) for name in image.state)
    other = GoldenNetwork(network)
    other.load(loaded.state)
    sample = np.arange(64, dtype=np.uint8)[::-1].copy()
    assert np.array_equal(other.run(sample).membranes, golden.run(sample).membranes)


def test_commands(tmp_path, capsys):
    model, file, out = tmp_path / "m.nir", tmp_path / "x.npz", tmp_path / "back.nir"
    graph = graph_of(KINDS[0])
    nir.write(model, nir.NIRGraph(graph.nodes, graph.edges))
    x, _ = samples("static")
    np.savez(file, x=x.reshape(-1, 2, 9, 8), labels=np.arange(len(x)) % 5)
    options = [str(model), "--steps", str(T), "--dt", str(DT), "--reset", "subtract"]
    assert deploy_program.main([*options, "--calibrate", str(file), "--json", str(tmp_path / "r.json")]) == 0
    text = capsys.readouterr().out
    assert "the golden model runs it" in text and "classes equal" in text and "GoldenNetwork" in text and "hw.build" not in text
    assert '"board": null' in (tmp_path / "r.json").read_text()
    image = tmp_path / "m.image.npz"
    assert export_program.main([str(image), "--nir", str(out)]) == 0
    assert nirgraph.layers(nirgraph.read(out), Reading(dt=DT))[0][1].wiring == Kernels((4, 4, 4), Conv(3))
    for program, arguments, message in (
        (deploy_program, [*options, "--board", "ulx3s-12f"], "board: ulx3s-12f is not legal; legal is none"),
        (deploy_program, [str(model), "--dt", str(DT)], "v_reset: neurons are set to 0"),
        (cosim, ["--image", str(image)], "has convolutions; machines run dense layers so far"),
    ):
        with pytest.raises(SystemExit) as e:
            program.main(arguments)
        assert e.value.code == 2 and message in capsys.readouterr().err
    with (
        Device.open("golden", machine=BOARDS["ulx3s-12f"].design.machine, network=None) as device,
        pytest.raises(DoesNotFit, match="has convolutions; machines run dense layers so far"),
    ):
        device.load(image)


def test_edges_to_nowhere_are_named():
    graph = graph_of(KINDS[1])
    graph.edges.append(("n1", "nothing"))
    with pytest.raises(ValueError, match="edge 'n1' to 'nothing': there is no node 'nothing'; legal is 'input', 'n0'"):
        nirgraph.layers(graph, SOFT)


def test_matrices_that_do_not_follow_are_named():
    rng = np.random.default_rng(0)
    graph = chain((3,), nir.Linear(np.ones((4, 3))), lif(rng, (4,)), nir.Linear(np.ones((5, 6))), lif(rng, (5,)))
    with pytest.raises(ValueError, match="node 'n2' .*weight: 6 inputs, but 4 come"):
        nirgraph.layers(graph, SOFT)
    assert nirgraph.layers(chain((3,), nir.Linear(np.ones((4, 3))), lif(rng, (4,))), SOFT)[0][0].wiring == Full((3,))
