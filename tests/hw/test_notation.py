"""The notation of networks: what it stands for, and where it is wrong."""

import pytest

from hw.machine import Machine, beyond, lacks
from hw.network import Network, state_arrays
from hw.notation import Conv, Dense, Identity, Projection, canonical, read


@pytest.mark.parametrize(("net", "shapes", "units"), [
    ("64-32-10", [(64,), (32,), (10,)], [64, 32, 10]),
    ("28x28-6C5-P2-16C5-P2-120-84-10", [(1, 28, 28), (6, 24, 24), (16, 8, 8), (120,), (84,), (10,)], [784, 864, 256, 120, 84, 10]),
    ("28x28-16C5s2-32C3s2-128-10", [(1, 28, 28), (16, 12, 12), (32, 5, 5), (128,), (10,)], [784, 2304, 800, 128, 10]),
    ("9x7x2-8C3p1-P2-R(16C3p1-16C3p1)-P4-3", [(2, 9, 7), (8, 9, 7), (16, 4, 3), (16, 4, 3), (3,)], None),
    ("9x9-3C3s2p1-P4-2", [(1, 9, 9), (3, 5, 5), (2,)], [81, 3, 2]),
    ("9x9-3C3s2p2-R(3C3p1)-2", [(1, 9, 9), (3, 6, 6), (3, 6, 6), (2,)], [81, 108, 108, 2]),
])  # fmt: skip
def test_shapes(net, shapes, units):
    if units is None:
        with pytest.raises(ValueError, match=r"'P4' at character 33 of .* legal is pooling of at most 3 units, those there are"):
            read(net)
        net, shapes, units = net.replace("P4", "P2"), shapes, [126, 96, 192, 32, 3]
    found = read(net)
    assert [p.shape for p in found] == shapes and [p.units for p in found] == units and canonical(found) == net


def test_projections_of_a_residual_block():
    found = read("8x8-4C3p1-R(4C3p1-4C3p1)-P2-R(6C3s2p1-6C1)-10")
    assert found[1].projections == (Projection(0, Conv(3, 1, 1)),)
    assert found[3].projections == (Projection(2, Conv(3, 1, 1)), Projection(1, Identity()))
    assert found[5].projections == (Projection(4, Conv(1)), Projection(3, Conv(1, 2)))
    assert found[6].projections == (Projection(5, Dense()),)
    network = Network(net=canonical(found))
    assert [(s.array("weight"), s.trace_array, s.weight_shape) for s in network.synapses][4:] == [
        ("weight.5", "weight_trace.4", (6, 6, 1, 1)),
        ("shortcut.5", "shortcut_trace.5", (6, 4, 1, 1)),
        ("weight.6", "weight_trace.5", (10, 6, 2, 2)),
    ]
    arrays = state_arrays(network)
    assert arrays["shortcut_grad.5"].shape == (6, 4, 1, 1) and arrays["theta.5"].shape == (6,)
    assert arrays["membrane.5"].shape == (6, 2, 2) and arrays["shortcut_trace.5"].shape == (4, 4, 4)


def test_equal_networks_have_equal_names():
    assert Network(net="08x8-4C3s1p0-10") == Network(net="8x8x1-4C3-10") and Network(net="8x8x1-4C3-10").net == "8x8-4C3-10"
    assert Network(net="8x8x2-20-10") == Network(net="128-20-10")  # so that a machine finds its weights by neuron and input
    for net in ("64-10", "5x4x3-2C2p1-P2-R(2C1)-R(7C3s2p1-7C1)-9-4"):
        network = Network(net=net)
        assert network.net == net and Network.from_json(network.to_json()) == network


@pytest.mark.parametrize(("net", "message"), [
    ("", "'' at character 1 of '' is not legal; legal is an input: N, HxW or HxWxC"),
    ("64", "'64' is not legal; legal is an input, then 1 to 16 layers"),
    ("64-", "'' at character 4 of '64-' is not legal; legal is a layer: a number N, NCk with sS and pP, Pk or R(...)"),
    ("64--10", "'-' at character 4 of"),
    ("64-x-10", "'x' at character 4 of '64-x-10' is not legal; legal is a layer"),
    ("64-0-10", "'0' at character 4 of '64-0-10' is not legal; legal is neurons of 1 to 65536"),
    ("64-" + "9" * 5000, "legal is neurons of 1 to 65536"),
    ("8x8-3C3-P" + "2" * 5000 + "-10", "legal is P2 or P4 or P8 or P16"),
    ("0x5-10", "'0x5' at character 1 of '0x5-10' is not legal; legal is sizes of 1 to 65536"),
    ("8x8x8x8-10", "'8x8x8x8' at character 1"),
    ("300x300-10", "legal is at most 65536 units of a layer, and not 90000"),
    ("64-3C3-10", "'3C3' at character 4 of '64-3C3-10' is not legal; legal is a convolution of an image"),
    ("8x8-3C9-10", "'3C9' at character 5 of '8x8-3C9-10' is not legal; legal is a kernel of 1 to 7"),
    ("8x8-3C3s5-10", "'3C3s5' at character 5 of '8x8-3C3s5-10' is not legal; legal is a stride of 1 to 4"),
    ("8x8-3C3p3-10", "legal is a border of 0 to 2"),
    ("8x8-3c3-10", "'3c3' at character 5"),
    ("4x4-3C5-10", "'3C5' at character 5 of '4x4-3C5-10' is not legal; legal is a kernel of at most 4, the units it sees"),
    ("8x8-P2-10", "'P2' at character 5 of '8x8-P2-10' is not legal; legal is pooling right behind a convolution"),
    ("8x8-3C3-P3-10", "'P3' at character 9 of '8x8-3C3-P3-10' is not legal; legal is P2 or P4 or P8 or P16"),
    ("8x8-3C3-P2-P2-10", "'P2' at character 12"),
    ("8x8-20-P2-10", "'P2' at character 8"),
    ("8x8-R(3C3)-10", "'R(' at character 5 of '8x8-R(3C3)-10' is not legal; legal is a residual block behind another layer"),
    ("8x8-3C3-R(3C3-P2)-10", "'P2' at character 15"),
    ("8x8-3C3-R(4C3)-10", "legal is a block that ends in 6 x 6 units a channel"),
    ("8x8-3C3-R(3C1-10", "'10' at character 15"),
    ("8x8-3C3-R(3C1", "'' at character 14 of '8x8-3C3-R(3C1' is not legal; legal is a hyphen, or the closing parenthesis of R("),
    ("8x8-3C3)-10", "')' at character 8 of '8x8-3C3)-10' is not legal; legal is a hyphen"),
    ("8x8-3C3", "legal is a last layer N of at most 256 classes"),
    ("64-257", "legal is a last layer N of at most 256 classes"),
    ("9-" * 17 + "9", "legal is an input, then 1 to 16 layers"),
])  # fmt: skip
def test_errors_point_at_the_character(net, message):
    with pytest.raises(ValueError) as error:
        Network(net=net)
    assert str(error.value).startswith("net: ") and message in str(error.value)


@pytest.mark.parametrize(("net", "pairs"), [
    ("64-10", 640), ("8x8-10", 640),
    ("4x4-2C3-3", 2 * 9 * 4 + 3 * 8), ("3x3-1C3p1-2", 49 + 18), ("5x5-2C3s2-P2-3", 2 * 9 * 4 + 3 * 2),
    ("4x4-2C1-R(2C3p1)-1", 2 * 16 + 4 * 100 + 32), ("4x4-2C1-R(3C1)-1", 2 * 16 + 6 * 16 + 6 * 16 + 48),
])  # fmt: skip
def test_synapses_are_counted_without_the_border(net, pairs):
    assert Network(net=net).synapse_count == pairs


@pytest.mark.parametrize(("changes", "message"), [
    ({"net": "8x8-4C3-10"}, "net: 8x8-4C3-10 has convolutions; machines run dense layers so far, the golden model runs it"),
    ({"net": "9-8-7-3", "centred": True}, "centred: 9-8-7-3 has gradients in layer 2 that gather; machines centre those"),
    ({"input": "events", "centred": True}, "centred: 64-32-10 has gradients in layer 1 that gather; machines centre those"),
    ({"net": "64-65536-10", "batch": 64}, "steps: 64-65536-10 needs .* bits for a leakage gradient.*; machines have 32"),
])  # fmt: skip
def test_what_no_machine_does_is_said(changes, message):
    network = Network().replace(**changes)
    with pytest.raises(ValueError, match=message):
        Machine.holding(network)
    assert list(lacks(Machine.holding(Network()), network)) == list(beyond(network)) != []


@pytest.mark.parametrize(("changes", "message"), [
    ({"net": 64}, "net: 64 is not legal; legal is a text such as 64-32-10"),
    ({"output_error": "soft"}, "output_error: soft is not legal; legal is counted or graded"),
    ({"centred": True, "cadence": "step", "net": "9-8-7-3"}, "centred: True is not legal; legal is False where lazy"),
    ({"centred": True, "cadence": "step", "input": "events"}, "centred: True is not legal; legal is False where lazy"),
    ({"remainder": True, "stochastic": True}, "remainder: True is not legal; legal is False where stochastic is True"),
    ({"slower": [1]}, r"slower: \(1,\) is not legal; legal is empty, or 2 whole numbers of 0 to 15, one a layer"),
    ({"slower": [1, 16]}, r"slower: \(1, 16\) is not legal"),
    ({"net": "8x8-4C3-10", "lazy": True, "input": "events"}, "net: 8x8-4C3-10 is not legal; legal is dense layers where lazy"),
])  # fmt: skip
def test_bad_fields(changes, message):
    with pytest.raises(ValueError, match=message):
        Network().replace(**changes)
