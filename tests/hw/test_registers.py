"""Blocks that are not streams, cycle by cycle: leakage factors, readout, random words, the list of groups."""

import numpy as np
import pytest
import torch
from amaranth.sim import Simulator

from hw.config import Config
from hw.error.groups import Groups
from hw.error.leakage import Leakage
from hw.memory_map import regions
from hw.spike.readout import Readout
from hw.weight.dither import RowHash, lane_word
from sw.golden.error import descent
from sw.golden.spike import readout as golden_readout
from sw.golden.weight import dither as golden_dither

CONFIG = Config(sizes=(6, 5, 9), lanes=4, stochastic=True)


def simulate(design, bench):
    simulator = Simulator(design)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("seed", [1, 2])
def test_leakage_follows_its_gradient(seed):
    c, rng, got, want = CONFIG, np.random.default_rng(seed), [], []
    leakage, region = Leakage(c), regions(c)["alpha"]

    async def bench(ctx):
        for n in range(60):
            layer, rate = int(rng.integers(1, c.n_layers + 1)), int(rng.choice([0, 1, 3, 8, 15]))
            alpha = int(rng.choice([0, c.alpha_one, rng.integers(0, c.alpha_one + 1)]))
            grads = rng.integers(c.grad.low, c.grad.high + 1, 5) // int(rng.choice([1, 64, 4096]))
            for name, value in (("hosting", 1), ("region", region.number), ("row", layer - 1), ("data_w", alpha)):
                ctx.set(getattr(leakage.host, name), value)
            await ctx.tick()  # in which it learns that it is meant
            ctx.set(leakage.host.write, 1)
            await ctx.tick()
            ctx.set(leakage.host.hosting, 0)
            ctx.set(leakage.host.write, 0)
            ctx.set(leakage.layer, layer)
            ctx.set(leakage.rate, rate)
            ctx.set(leakage.add, 1)
            for grad in grads:
                ctx.set(leakage.grad, int(grad))
                await ctx.tick()
            ctx.set(leakage.add, 0)
            ctx.set(leakage.update, 1)
            await ctx.tick()
            ctx.set(leakage.update, 0)
            while ctx.get(leakage.busy):
                await ctx.tick()
            got.append(ctx.get(leakage.alpha))
            want.append(descent.leakage(alpha, int(grads.sum()), layer, rate, c))
            assert got[-1] == want[-1], f"update {n} (seed {seed}): alpha {got[-1]}, golden {want[-1]}, from {alpha}, layer {layer}, rate {rate}"

    simulate(leakage, bench)
    assert want.count(0) >= 5 and want.count(c.alpha_one) >= 5 and len(set(want)) >= 15, f"the scenario proves little: {want}"


def test_readout_breaks_ties_by_membrane_and_index():
    c, rng, ties = CONFIG, np.random.default_rng(3), 0
    readout = Readout(c)

    async def bench(ctx):
        nonlocal ties
        for _ in range(60):
            count = np.zeros(c.classes, np.int64)
            for step in range(3):
                s, u = rng.integers(0, 2, c.classes), rng.integers(-1, 2, c.classes)
                count += s
                ctx.set(readout.start, 1)
                await ctx.tick()
                ctx.set(readout.start, 0)
                ctx.set(readout.valid, 1)
                ctx.set(readout.first, step == 0)
                ctx.set(readout.final, step == 2)
                for n in range(c.classes):
                    ctx.set(readout.s, int(s[n]))
                    ctx.set(readout.u, int(u[n]))
                    await ctx.tick()
                ctx.set(readout.valid, 0)
                assert ctx.get(readout.firing) == s.sum()
            best = count == count.max()
            ties += best.sum() > 1 and (u[best] == u[best].max()).sum() > 1
            assert ctx.get(readout.winner) == golden_readout.winner(torch.from_numpy(count), torch.from_numpy(u), c)

    simulate(readout, bench)
    assert ties >= 5, f"the scenario proves little: {ties} ties of both count and membrane"


def test_random_words_equal_the_golden_ones():
    c, layer, state = CONFIG, 2, 0x1234_ABCD
    words = golden_dither.Dither(c, layer)(state).numpy()
    row_hash, seen = RowHash(), set()

    async def bench(ctx):
        ctx.set(row_hash.state, state)
        for neuron in range(c.sizes[layer]):
            for j in range(c.sizes[layer - 1]):
                ctx.set(row_hash.row, c.row_base[layer] + neuron // c.lanes * c.sizes[layer - 1] + j)
                await ctx.tick().repeat(2)
                word = ctx.get(lane_word(row_hash.word, neuron % c.lanes))
                assert word == words[neuron, j], f"neuron {neuron}, input {j}: {word:#x}, golden {words[neuron, j]:#x}"
                seen.add(word)

    simulate(row_hash, bench)
    assert len(seen) == words.size, "two weights share a random word"


async def hand_over(ctx, groups, layer, deltas):
    """Gives a layer's deltas to the groups, which pass them on to their lanes."""
    c, width = groups.config, groups.config.neuron_lanes
    ctx.set(groups.layer, layer)
    ctx.set(groups.start, 1)
    await ctx.tick()
    ctx.set(groups.start, 0)
    ctx.set(groups.valid, 1)
    for i in range(0, len(deltas), width):
        word = [int(delta) for delta in deltas[i : i + width]]
        mask = (1 << len(word)) - 1
        ctx.set(groups.delta, {"mask": mask, "lane": word + [-1] * (width - len(word))})
        assert ctx.get(groups.write) == mask << i % c.lanes and ctx.get(groups.write_row) == c.delta_base[layer] + i // c.lanes
        assert [ctx.get(groups.write_data[(i + q) % c.lanes]) for q in range(len(word))] == word
        await ctx.tick()
    ctx.set(groups.valid, 0)


@pytest.mark.parametrize("neuron_lanes", [1, 2, 4])
def test_groups_list_those_with_a_delta(neuron_lanes):
    c, rng, skipped = CONFIG.replace(neuron_lanes=neuron_lanes), np.random.default_rng(4), 0
    groups = Groups(c)

    async def bench(ctx):
        nonlocal skipped
        for n in range(40):
            layer = (2, 1, 0)[n % 3]
            of = layer or 1
            deltas = rng.integers(-3, 4, c.sizes[of]) * (rng.random(c.sizes[of]) < 0.25)
            await hand_over(ctx, groups, layer, deltas)
            want = [g for g in range(c.groups[of]) if deltas[g * c.lanes : (g + 1) * c.lanes].any()]
            skipped += c.groups[of] - len(want)
            ctx.set(groups.read_odd, layer % 2)
            ctx.set(groups.read_enable, 1)
            assert ctx.get(groups.length) == len(want)
            for k, g in enumerate(want):
                ctx.set(groups.read_index, k)
                await ctx.tick()
                entry = ctx.get(groups.read_data)
                assert (entry.row, entry.delta_row, entry.last) == (
                    c.row_base[of] + g * c.sizes[of - 1], c.delta_base[layer] + g, g == c.groups[of] - 1)  # fmt: skip

    simulate(groups, bench)
    assert skipped >= 20, f"the scenario proves little: {skipped} groups skipped"


@pytest.mark.parametrize("neuron_lanes", [1, 2, 4])
def test_a_lane_lists_its_neurons_that_have_a_delta(neuron_lanes):
    c, rng, spared = CONFIG.replace(sizes=(6, 15, 9), neuron_lanes=neuron_lanes, lane_lists=True), np.random.default_rng(4), 0
    groups = Groups(c)

    async def bench(ctx):
        nonlocal spared
        for n in range(40):
            layer = (2, 1, 0)[n % 3]
            of = layer or 1
            deltas = rng.integers(-3, 4, c.sizes[of]) * (rng.random(c.sizes[of]) < 0.4)
            await hand_over(ctx, groups, layer, deltas)
            want = [[i // c.lanes for i in range(lane, c.sizes[of], c.lanes) if deltas[i]] for lane in range(c.lanes)]
            longest = max(map(len, want))
            spared += sum(deltas[g * c.lanes : (g + 1) * c.lanes].any() for g in range(c.groups[of])) - longest
            ctx.set(groups.read_odd, layer % 2)
            ctx.set(groups.read_enable, 1)
            assert ctx.get(groups.length) == longest
            for k in range(longest):
                ctx.set(groups.read_index, k)
                await ctx.tick()
                for lane, of_lane in enumerate(want):
                    found = ctx.get(groups.read_data[lane])
                    assert found.live == (k < len(of_lane))
                    if found.live:
                        g = of_lane[k]
                        assert (found.entry.row, found.entry.delta_row) == (c.row_base[of] + g * c.sizes[of - 1], c.delta_base[layer] + g)

    simulate(groups, bench)
    assert spared >= 20, f"the scenario proves little: {spared} rows spared"
