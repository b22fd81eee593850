"""NIR graphs to layers and back: the equations, one neuron at a time, and what is refused."""

import nir
import numpy as np
import pytest

from sw.nir import graph as nirgraph
from sw.nir.graph import Reading
from sw.nir.layer import Layer, same_thresholds

SOFT = Reading(dt=1e-3, reset="subtract")
N, M, T = 5, 7, 40


def random_lif(rng, n=N, tau=8e-3):
    return nir.LIF(tau=np.full(n, tau), r=rng.uniform(1, 9, n), v_leak=rng.normal(0, 0.1, n), v_threshold=rng.uniform(0.5, 2, n),
                   v_reset=np.zeros(n))  # fmt: skip


def chain(*nodes, inputs=M):
    named = {f"n{k}": node for k, node in enumerate(nodes)}
    names = {"input": nir.Input(np.array([inputs])), **named, "output": nir.Output(np.array([1]))}
    return nir.NIRGraph(nodes=names, edges=list(zip(names, list(names)[1:], strict=False)), type_check=False)


def one_neuron(lif, weight, bias, i, x, dt, decay, reset):
    """NIR's differential equation for neuron i in steps of dt, from rest at 0; what it does when it has fired by `reset`."""
    v, spikes, membranes = 0.0, [], []
    for frame in x:
        current = sum(float(w) * float(a) for w, a in zip(weight[i], frame, strict=True)) + bias[i]
        target = float(lif.v_leak[i] + lif.r[i] * current)
        share = dt / lif.tau[i] if decay == "euler" else 1 - np.exp(-dt / lif.tau[i])
        late = reset == "delayed" and spikes and spikes[-1]
        v = v + share * (target - v) - (lif.v_threshold[i] if late else 0)
        spikes.append(v >= lif.v_threshold[i])
        membranes.append(v)
        if spikes[-1] and reset != "delayed":
            v = v - lif.v_threshold[i] if reset == "subtract" else float(lif.v_reset[i])
    return spikes, membranes


@pytest.mark.parametrize("decay", nirgraph.DECAYS)
@pytest.mark.parametrize("reset", nirgraph.RESETS)
def test_layers_step_as_the_differential_equation_does(decay, reset):
    rng = np.random.default_rng(1)
    lif, weight, bias, x = random_lif(rng), rng.normal(0.3, 0.6, (N, M)), rng.normal(0, 0.3, N), rng.integers(0, 2, (T, M))
    lif.v_reset = np.zeros(N) if reset == "subtract" else rng.uniform(-0.3, 0.3, N)
    reading = Reading(dt=1e-3, decay=decay, reset=reset, approximate=frozenset({"reset"}))
    (layer,), said = nirgraph.layers(chain(nir.Affine(weight, bias), lif), reading)
    u, s = np.zeros((1, N)), np.zeros((1, N), bool)
    total = 0
    want = [one_neuron(lif, weight, bias, i, x, 1e-3, decay, reset) for i in range(N)]
    for t in range(T):
        u = layer.step(u, s, x[None, t])
        s = u >= layer.theta
        assert np.allclose(u[0], [want[i][1][t] for i in range(N)], atol=1e-12)
        assert s[0].tolist() == [want[i][0][t] for i in range(N)]
        total += int(s.sum())
    assert 40 < total < T * N - 40 and len(said) == (reset != "subtract")


def test_linear_parts_between_neurons_are_one_matrix():
    rng = np.random.default_rng(2)
    a, b, c, scale = rng.normal(size=(4, M)), rng.normal(size=(N, 4)), rng.normal(size=4), rng.normal(size=N)
    lif = random_lif(rng)
    (layer,), _ = nirgraph.layers(
        chain(nir.Flatten(np.array([M]), start_dim=0), nir.Affine(a, c), nir.Linear(b), nir.Scale(scale), lif), SOFT
    )
    gain = lif.r / 8
    assert np.allclose(layer.weight, gain[:, None] * scale[:, None] * (b @ a)) and np.allclose(layer.alpha, 7 / 8)
    assert np.allclose(layer.bias, gain * scale * (b @ c) + lif.v_leak / 8)


def test_if_and_current_neurons_without_memory_of_the_current():
    rng = np.random.default_rng(3)
    w = rng.normal(size=(N, M))
    neurons = nir.IF(r=np.full(N, 2000.0), v_threshold=np.ones(N))
    (layer,), _ = nirgraph.layers(chain(nir.Linear(w), neurons), SOFT)
    assert np.allclose(layer.weight, 2 * w) and (layer.alpha == 1).all()
    for tau_syn in (1e-3, 0.0):
        cuba = nir.CubaLIF(tau_syn=np.full(N, tau_syn), tau_mem=np.full(N, 4e-3), r=np.full(N, 8.0), v_leak=np.zeros(N),
                           v_threshold=np.ones(N), w_in=np.full(N, 3.0))  # fmt: skip
        (layer,), _ = nirgraph.layers(chain(nir.Linear(w), cuba), SOFT)
        assert np.allclose(layer.weight, 6 * w) and np.allclose(layer.alpha, 0.75)


@pytest.mark.parametrize("unit_gain", [True, False])
@pytest.mark.parametrize("decay", nirgraph.DECAYS)
def test_graphs_bring_layers_back(unit_gain, decay, tmp_path):
    rng = np.random.default_rng(4)
    network = [
        Layer(name="a", weight=rng.normal(size=(6, M)), bias=rng.normal(size=6), theta=rng.uniform(0.5, 2, 6),
              alpha=np.full(6, 0.9), unit_gain=unit_gain),
        Layer(name="b", weight=rng.normal(size=(5, 6)), bias=np.zeros(5), theta=np.ones(5), alpha=np.full(5, 1.0),
              unit_gain=unit_gain),
        Layer(name="c", weight=rng.normal(size=(4, 5)), bias=np.zeros(4), theta=np.ones(4), alpha=np.full(4, 0.0),
              unit_gain=unit_gain),
    ]  # fmt: skip
    nir.write(tmp_path / "x.nir", nirgraph.graph(network, 2e-3, decay))
    # No reset given: the file has it.
    again, said = nirgraph.layers(nirgraph.read(tmp_path / "x.nir"), Reading(dt=2e-3, decay=decay))
    assert not said and [layer.name for layer in again] == ["a", "b", "c"]
    for old, new in zip(network, again, strict=True):
        for name in ("weight", "bias", "theta", "alpha"):
            assert np.allclose(getattr(old, name), getattr(new, name), rtol=1e-5, atol=1e-5), name
        assert new.reset == "subtract"
    assert all(layer.unit_gain for layer in again) == unit_gain


def test_scaling_a_neuron_changes_no_spike():
    rng = np.random.default_rng(5)
    layer = Layer(name="a", weight=rng.normal(0.2, 0.5, (N, M)), bias=rng.normal(0, 0.1, N), theta=rng.uniform(0.5, 2, N),
                  alpha=np.full(N, 0.8))  # fmt: skip
    other = same_thresholds(layer, rng.uniform(0.1, 9, N))
    u, v, spikes = np.zeros((1, N)), np.zeros((1, N)), 0
    for x in rng.integers(0, 2, (T, 1, M)):
        u, v = layer.step(u, u >= layer.theta, x), other.step(v, v >= other.theta, x)
        assert ((u >= layer.theta) == (v >= other.theta)).all()
        spikes += int((u >= layer.theta).sum())
    assert 20 < spikes < N * T - 20


def test_one_leakage_factor_if_allowed():
    lif = random_lif(np.random.default_rng(6))
    lif.tau = np.linspace(4e-3, 8e-3, N)
    graph = chain(nir.Linear(np.ones((N, M))), lif)
    with pytest.raises(ValueError, match="node 'n1' .*tau: leakage factors of 0.7500 to 0.8750 .*--approximate tau"):
        nirgraph.layers(graph, SOFT)
    (layer,), said = nirgraph.layers(graph, Reading(dt=1e-3, reset="subtract", approximate=frozenset({"tau"})))
    assert np.ptp(layer.alpha) > 0.1 and np.ptp(layer.core.alpha) == 0 and "'n1'" in said[0]


@pytest.mark.parametrize(
    "edges, names, message",
    [
        ([("a", "b")], ["a", "b"], "node 'a' .*nothing feeds it"),
        ([("input", "a"), ("a", "output"), ("input2", "b")], ["a", "b", "input2"], "node 'input2' .*a second input"),
        ([("input", "a"), ("a", "b")], ["a", "b"], "node 'b' .*feeds nothing"),
        ([("input", "a"), ("a", "a"), ("a", "output")], ["a"], "node 'a' .*recurrence"),
    ],
)
def test_graphs_that_are_no_chain(edges, names, message):
    io = {"input": nir.Input(np.array([N])), "output": nir.Output(np.array([N])), "input2": nir.Input(np.array([N]))}
    used = dict.fromkeys(name for edge in edges for name in edge)
    nodes = {name: io.get(name) or random_lif(np.random.default_rng(0)) for name in used}
    with pytest.raises(ValueError, match=message):
        nirgraph.layers(nir.NIRGraph(nodes=nodes, edges=edges, type_check=False), SOFT)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"dt": 0.0}, "dt: 0.0 is not legal"),
        ({"decay": "cubic"}, "decay: cubic is not legal; legal is euler or exact"),
        ({"reset": "hard"}, "reset: hard is not legal"),
        ({"approximate": frozenset({"all"})}, "approximate: all is not legal; legal is any of reset, tau, theta"),
    ],
)
def test_bad_readings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Reading(**arguments)


def test_bad_files_are_named(tmp_path):
    (tmp_path / "x.nir").write_text("no graph")
    for name, message in (("x.nir", "x.nir: not a NIR graph"), ("y.nir", "y.nir: no such file")):
        with pytest.raises(ValueError, match=message):
            nirgraph.read(tmp_path / name)
