"""Synapses and random bits."""

import numpy as np
import pytest
import torch

from hw.network import Network
from hw.notation import dense
from hw.numbers import Q
from sw.golden.weight import lanes
from sw.golden.weight.dither import Dither, flips, mix, tile_key, xorshift32
from tests.sw.golden import plain
from tests.sw.golden.plain import TWELVE as C

WIDEST = Network(net="4096-5-10", w=Q(1, 17), u=Q(3, 15), trace=Q(3, 15), delta=Q(3, 15), grad=Q(1, 17))


def matrix(config, n, m, seed=0, extreme=False):
    random = np.random.default_rng(seed)
    if extreme:
        return torch.from_numpy(random.choice([config.w.low, config.w.high], (n, m)))
    return torch.from_numpy(random.integers(config.w.low, config.w.high + 1, (n, m)))


def test_current_rounds_the_exact_sum_once_and_saturates():
    weight = torch.tensor([[1, 0, 0], [1, 1, 0], [-1, 0, 0], [-1, -1, -1], [32767, 32767, 32767], [-32768, -32768, -32768]])
    x = torch.tensor([128, 128, 255])
    assert lanes.current(torch.mv(weight, x), C).tolist() == [1, 1, 0, -2, 32767, -32768]
    assert lanes.current(torch.mv(weight, torch.tensor([256, 0, 0])), C).tolist() == [1, 1, -1, -1, 32767, -32768]


@pytest.mark.parametrize("sign", [-1, 1])
def test_widest_sums_are_exact(sign):
    """4,096 inputs of 18 bits: all of one sign, the largest sums that there are."""
    weight = torch.full((5, 4096), WIDEST.w.low if sign < 0 else WIDEST.w.high)
    weight[0, 1:], weight[1, ::2] = 0, 1
    x = torch.full((4096,), 255)
    exact = [sum(a * 255 for a in row) for row in weight.tolist()]
    assert lanes.current(torch.mv(weight, x), WIDEST).tolist() == [plain.clip(plain.rounded(v, 10), WIDEST.u) for v in exact]
    delta = torch.full((4096,), WIDEST.delta.low)
    exact = [sum(a * WIDEST.delta.low for a in row) for row in weight.tolist()]
    assert max(map(abs, exact)) > 1 << 45
    got = lanes.error(torch.mv(weight, delta), 0, WIDEST)
    assert got.tolist() == [plain.clip(plain.rounded(v, 17), WIDEST.delta) for v in exact]


def test_backward_is_the_transposed_sum():
    weight, delta = matrix(C, 7, 5, extreme=True), torch.tensor([5000, -32768, 0, 1, -1, 77, 32767])
    exact = [sum(weight[i, j].item() * delta[i].item() for i in range(7)) for j in range(5)]
    got = lanes.error(torch.mv(weight.T, delta), 0, C).tolist()
    assert got == [plain.clip(plain.rounded(v, 12), C.delta) for v in exact]
    assert C.delta.low in got or C.delta.high in got


def test_gradient_rounds_and_saturates_each_product():
    delta, trace = torch.tensor([-32768, -1, 0, 1, 32767]), torch.tensor([0, 2047, 2048, 2049, 32767])
    grad = lanes.gradient(torch.outer(delta, trace), C)
    assert grad.tolist() == [
        [0, -16376, -16384, -16392, -32768],
        [0, 0, 0, -1, -8],
        [0] * 5,
        [0, 0, 1, 1, 8],
        [0, 16376, 16384, 16391, 32767],
    ]


def test_static_gradient_takes_a_byte_as_a_fraction_of_256():
    d, x = torch.tensor([-4096, 4096, 3]), torch.tensor([0, 1, 128, 255])
    grad = lanes.gradient(torch.outer(d, lanes.frame_factor(x, C)), C)
    assert grad.tolist() == [[0, -16, -2048, -4080], [0, 16, 2048, 4080], [0, 0, 2, 3]]


def test_descend_rounds_and_saturates():
    weight, grad = torch.tensor([[0, 0, 0, 0, 32767, -32768]]), torch.tensor([[127, 128, -128, -129, -32768, 32767]])
    assert lanes.descend(weight, grad, 8, C).tolist() == [[0, -1, 0, 1, 32767, -32768]]
    assert lanes.descend(weight, grad, 0, C).tolist() == [[-127, -128, 128, 129, 32767, -32768]]
    assert lanes.descend(weight, grad, 15, C).tolist() == [[0, 0, 0, 0, 32767, -32768]]
    random = torch.tensor([[0x100, 0x180, 0x17F, 0x1FF, 0, 0]])
    assert lanes.descend(weight, grad, 8, C, random).tolist() == [[0, -1, 1, 0, 32767, -32768]]


# -- random bits --------------------------------------------------------------------------------
def test_xorshift_is_marsaglias():
    r, seen = 1, []
    for _ in range(4):
        r = xorshift32(r)
        seen.append(r)
    assert seen == [270369, 67634689, 2647435461, 307599695]
    assert all(xorshift32(1 << bit) == plain.xorshift(1 << bit) for bit in range(32))


def test_mix_maps_different_words_to_different_words():
    a = torch.cat([torch.arange(1 << 16), torch.arange(1 << 16) << 16])
    assert len(mix(a).unique()) == len(a.unique())
    assert int(mix(a).max()) < 1 << 32 and int(mix(a).min()) >= 0


@pytest.mark.parametrize("sizes", [(5, 3, 2), (19, 13, 10), (3, 7, 11, 4), (6, 50, 3)])
def test_random_words_belong_to_places(sizes):
    c = Network(net=dense(sizes), stochastic=True)
    for r in (1, 0xFFFF_FFFF, 0x1234_5678):
        for l in c.layers:
            got = Dither(c.synapses[l - 1])(r)
            assert got.tolist() == [[plain.random_word(r, l - 1, i, j) for j in range(sizes[l - 1])] for i in range(sizes[l])]


def test_the_key_of_a_tile_has_room_for_the_largest_layers():
    """Weights of many layers, of neurons and inputs far apart: each tile has another key, and each word is that of the contract."""
    places = torch.tensor([0, 1, 7, 8, 255, 256, 2047, 2048, 4096, 32768, 65535])
    i, j = (grid.flatten() for grid in torch.meshgrid(places, places, indexing="ij"))
    keys, tiles, r = set(), set(), 0x89AB_CDEF
    for l in (1, 2, 3, 16):
        key = tile_key(l - 1, i >> 3, j >> 3)
        words = mix(key ^ r) ^ flips(i & 7, of_input=False) ^ flips(j & 7, of_input=True)
        assert words.tolist() == [plain.random_word(r, l - 1, *place) for place in zip(i.tolist(), j.tolist(), strict=True)]
        keys.update(key.tolist())
        tiles.update((l, *tile) for tile in zip((i >> 3).tolist(), (j >> 3).tolist(), strict=True))
    assert len(keys) == len(tiles) and max(keys) < 1 << 32


def test_random_words_are_spread():
    """In a tile every bit is set in half of the words, 32 that differ; tiles differ, neighbours in half of the bits."""
    words = Dither(Network(net="256-64-10", stochastic=True).synapses[0])(0xDEAD_BEEF)
    bits = (words[..., None] >> torch.arange(32)) & 1
    tile = bits.view(8, 8, 32, 8, 32).transpose(1, 2).reshape(-1, 64, 32)
    assert (tile.sum(1) == 32).all()
    assert all(len(set(row.tolist())) == 32 for row in (tile << torch.arange(32)).sum(-1))
    assert len(words[::8, ::8].unique()) == 8 * 32
    for a, b in ((bits[:, 8:], bits[:, :-8]), (bits[8:], bits[:-8])):
        assert 0.4 < (a == b).double().mean() < 0.6
