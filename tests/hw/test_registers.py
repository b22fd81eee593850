"""Blocks that are not streams, cycle by cycle: leakage factors, readout, random words, lists of units and groups, walks."""

import numpy as np
import pytest
import torch
from amaranth.sim import Simulator

from hw.error.deltas import DeltaLists
from hw.error.leakage import Leakage
from hw.machine import FAR, NEAR, Capacity, Machine
from hw.memory_map import regions
from hw.network import CADENCES, Network
from hw.numbers import LAYERS_MAX, UNITS_MAX
from hw.plan import compile
from hw.program import NeuronOp
from hw.spike.lists import UnitList
from hw.spike.readout import Readout
from hw.spike.walker import Walker
from hw.weight.dither import TILE, WORD, Dither, TileHash
from sw.golden.error import descent
from sw.golden.spike import readout as golden_readout
from sw.golden.weight import dither as golden_dither

NETWORK = Network(net="6-5-9", stochastic=True)


def simulate(design, bench):
    simulator = Simulator(design)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("cadence", CADENCES)
@pytest.mark.parametrize("seed", [1, 2])
def test_leakage_follows_its_gradient(seed, cadence):
    c, rng, got, want = NETWORK.replace(cadence=cadence), np.random.default_rng(seed), [], []
    machine = Machine.holding(c, lanes=4)
    leakage, region = Leakage(machine), regions(machine)["alpha"]

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
            ctx.set(leakage.shift, c.mean_shift(c.sizes[layer]))
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
            want.append(descent.leakage(alpha, int(grads.sum()), c.sizes[layer], rate, c))
            where = f"update {n} (seed {seed}), from {alpha}, layer {layer}, rate {rate}"
            assert got[-1] == want[-1], f"{where}: alpha {got[-1]}, golden {want[-1]}"

    simulate(leakage, bench)
    assert want.count(0) >= 5 and want.count(c.alpha_one) >= 5 and len(set(want)) >= 15, f"the scenario proves little: {want}"


def test_readout_breaks_ties_by_membrane_and_index():
    c, rng, ties = NETWORK, np.random.default_rng(3), 0
    readout = Readout(Machine.holding(c, lanes=4))

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


def golden_word(state, layer, neuron, unit):
    """The random word of a weight; `layer` counts from 1."""
    i, j = torch.tensor(neuron), torch.tensor(unit)
    low, bits = TILE - 1, golden_dither.TILE_BITS
    mixed = golden_dither.mix(golden_dither.tile_key(layer - 1, i >> bits, j >> bits) ^ state)
    return int(mixed ^ golden_dither.flips(i & low, of_input=False) ^ golden_dither.flips(j & low, of_input=True))


def test_the_golden_words_of_a_layer_are_those_of_its_weights():
    words = golden_dither.Dither(NETWORK.synapses[1])(0x1234_ABCD).numpy()
    assert all(words[i, j] == golden_word(0x1234_ABCD, 2, i, j) for i, j in np.ndindex(words.shape))
    assert np.unique(words, return_counts=True)[1].max() <= 2, "more than two weights share a random word"


@pytest.mark.parametrize("holds", [False, True])
def test_a_tile_hashes_what_it_is_given(holds):
    rng, tile = np.random.default_rng(9), TileHash()

    async def bench(ctx):
        ctx.set(tile.enable, 1)
        for _ in range(200):
            mixed, neuron, unit = int(rng.integers(1 << WORD)), int(rng.integers(TILE)), int(rng.integers(TILE))
            for port, value in ((tile.mixed, mixed), (tile.neuron_low, neuron), (tile.input_low, unit)):
                ctx.set(port, value)
            await ctx.tick().repeat(2)
            flips = (golden_dither.flips(torch.tensor(low), of_input=of_input) for low, of_input in ((neuron, False), (unit, True)))
            want = int(golden_dither.mix(torch.tensor(mixed)) ^ next(flips) ^ next(flips))
            assert ctx.get(tile.word) == want
            if holds:
                ctx.set(tile.enable, 0)
                ctx.set(tile.mixed, mixed ^ 1)
                await ctx.tick().repeat(3)
                assert ctx.get(tile.word) == want
                ctx.set(tile.enable, 1)

    simulate(tile, bench)


@pytest.mark.parametrize("lanes, wires", [*((n, NEAR) for n in (1, 2, 4, 8, 24)), *((n, FAR) for n in (1, 4, 40, 104))])
@pytest.mark.parametrize("neurons, inputs", [(UNITS_MAX, UNITS_MAX), (6, 2), (2, 9), (1, 1)])
def test_random_words_equal_the_golden_ones(lanes, wires, neurons, inputs):
    """Of any layer, neuron and input, a row a cycle; the state goes on between sweeps, and the host may set it."""
    capacity = Capacity(layers=LAYERS_MAX, population=neurons, fan_in=inputs)
    machine = Machine(lanes=lanes, wires=wires, stochastic=True, capacity=capacity)
    lead, rng = 5, np.random.default_rng(lanes)
    dither, latency, groups = Dither(machine, lead), lead + Dither.LATENCY + wires.ends, -(-neurons // lanes)

    async def bench(ctx):
        state = 1
        for n in range(6):
            if n == 2:
                state = int(rng.integers(1, 1 << WORD))
                ctx.set(dither.data, state)
                ctx.set(dither.write, 1)
                await ctx.tick()
                ctx.set(dither.write, 0)
            assert ctx.get(dither.state) == state
            layer, rows = int(rng.integers(1, LAYERS_MAX + 1)), []
            ctx.set(dither.layer, layer)
            for k in range(20 + latency):
                group = int(rng.integers(groups if k % 2 else min(4, groups)))
                rows.append((group, int(rng.integers(inputs if k % 3 else min(20, inputs)))))
                ctx.set(dither.group, rows[-1][0])
                ctx.set(dither.unit, rows[-1][1])
                await ctx.tick()
                if k >= latency:
                    group, unit = rows[k - latency + 1]
                    for lane in rng.choice(lanes, min(lanes, 4), replace=False):
                        neuron = group * lanes + int(lane)
                        if neuron < neurons:
                            assert ctx.get(dither.word[lane]) == golden_word(state, layer, neuron, unit), (layer, neuron, unit)
            ctx.set(dither.next, 1)
            await ctx.tick()
            ctx.set(dither.next, 0)
            state = golden_dither.xorshift32(state)

    simulate(dither, bench)


@pytest.mark.parametrize("neuron_lanes", [1, 2, 4])
def test_units_are_listed_in_their_layers_place(neuron_lanes):
    """Three lists beside each other; a list that is begun again loses what it held, and the others do not."""
    network = Network(net="13-9-11-3", input="events")
    machine, rng = Machine.holding(network, lanes=4, neuron_lanes=neuron_lanes), np.random.default_rng(7)
    units, plan = UnitList(machine), compile(network, machine)
    held: dict = {}

    async def fill(ctx, layer):
        ctx.set(units.list, plan.list_number[layer])
        ctx.set(units.base, plan.list_base[layer])
        ctx.set(units.start, 1)
        await ctx.tick()
        ctx.set(units.start, 0)
        on = rng.random(network.sizes[layer]) < rng.choice([0.0, 0.4, 1.0])
        for row in range(machine.neuron_words(len(on))):
            ctx.set(units.push, sum(int(bit) << q for q, bit in enumerate(on[row * neuron_lanes :][:neuron_lanes])))
            ctx.set(units.row, row)
            await ctx.tick()
        ctx.set(units.push, 0)
        while neuron_lanes > 1 and ctx.get(units.busy):
            await ctx.tick()
        await ctx.tick()
        held[layer] = np.flatnonzero(on).tolist()

    async def bench(ctx):
        ctx.set(units.read_enable, 1)
        for n in range(12):
            await fill(ctx, n % 3)
            for layer, want in held.items():
                ctx.set(units.read_list, plan.list_number[layer])
                ctx.set(units.read_base, plan.list_base[layer])
                assert ctx.get(units.length) == len(want)
                for k, unit in enumerate(want):
                    ctx.set(units.read_index, k)
                    await ctx.tick()
                    assert ctx.get(units.read_data) == unit

    simulate(units, bench)
    assert len(held) == 3 and any(held.values())


@pytest.mark.parametrize("neuron_lanes", [1, 2, 4])
@pytest.mark.parametrize("serial", [False, True])
def test_a_walk_meets_every_neuron_once(neuron_lanes, serial):
    machine = Machine.holding(Network(net="5-14-9"), lanes=4, neuron_lanes=neuron_lanes)
    walker, rng = Walker(machine), np.random.default_rng(8)

    async def bench(ctx):
        ctx.set(walker.serial, serial)
        for count in (1, 2, 3, 4, 5, 8, 13, 14):
            base, met = int(rng.integers(5)), []
            ctx.set(walker.base, base)
            ctx.set(walker.count, count)
            ctx.set(walker.start, 1)
            await ctx.tick()
            ctx.set(walker.start, 0)
            while ctx.get(walker.active):
                ctx.set(walker.step, int(rng.random() < 0.7))
                if ctx.get(walker.valid):
                    mask, rows = ctx.get(walker.mask), [ctx.get(row) for row in walker.row]
                    assert mask and set(rows) == {base + ctx.get(walker.local)}
                    met += [ctx.get(walker.local) * neuron_lanes + q for q in range(neuron_lanes) if mask >> q & 1]
                    assert not serial or mask.bit_count() == 1
                await ctx.tick()
            assert met == list(range(count))

    simulate(walker, bench)


async def hand_over(ctx, lists, row, deltas, *, serial=False):
    """Gives the deltas of a row of the neurons' program to the lists, which name the lanes they go to; `serial`: one by one."""
    lanes, width = lists.machine.lanes, lists.machine.neuron_lanes
    ctx.set(lists.row, row)
    ctx.set(lists.start, 1)
    await ctx.tick()
    ctx.set(lists.start, 0)
    ctx.set(lists.valid, 1)
    for i in range(0, len(deltas), 1 if serial else width):
        word = {i % width: int(deltas[i])} if serial else {q: int(delta) for q, delta in enumerate(deltas[i : i + width])}
        mask = sum(1 << q for q in word)
        ctx.set(lists.word, {"mask": mask, "lane": [word.get(q, -1) for q in range(width)]})
        ctx.set(lists.nonzero, any(word.values()))
        first = i - i % width
        assert ctx.get(lists.write) == mask << first % lanes and ctx.get(lists.write_row) == row["delta_row"] + i // lanes
        await ctx.tick()
    ctx.set(lists.valid, 0)


HANDING = ("odd", "words", "fan_in", "weight_row", "delta_row", "turned", "deals")


def handing(plan):
    """The rows of the neurons' program that hand deltas to the lanes."""
    passes = (NeuronOp.OUTPUT_ERROR, NeuronOp.HIDDEN_ERROR)
    return [row for row in plan.programs[1] if row["op"] in passes or (row["op"] == NeuronOp.FINISH and row["held"])]


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("neuron_lanes", [1, 2, 4])
def test_lists_have_what_has_a_delta(neuron_lanes, both_ways):
    """Groups of lanes; of a last layer that is banked by its inputs neurons, with their deltas."""
    c, rng, skipped, values = Network(net="6-13-3"), np.random.default_rng(4), 0, 0
    machine = Machine.holding(c, lanes=4, neuron_lanes=neuron_lanes, both_ways=both_ways)
    lists, plan = DeltaLists(machine), compile(c, machine)
    rows = handing(plan)
    assert plan.turned == ({2} if both_ways else set())

    async def bench(ctx):
        nonlocal skipped, values
        for n in range(45):
            row = rows[n % len(rows)]
            of, turned = row["layer"], bool(row.get("turned"))
            deltas = rng.integers(-3, 4, c.sizes[of]) * (rng.random(c.sizes[of]) < 0.25)
            await hand_over(ctx, lists, {name: row.get(name, 0) for name in HANDING}, deltas, serial=turned)
            size = 1 if turned else machine.lanes
            numbers = range(-(-len(deltas) // size))
            want = [g for g in numbers if deltas[g * size : (g + 1) * size].any()]
            skipped += len(numbers) - len(want)
            ctx.set(lists.read_odd, row["odd"])
            ctx.set(lists.read_enable, 1)
            assert ctx.get(lists.length) == len(want)
            for k, g in enumerate(want):
                ctx.set(lists.read_index, k)
                await ctx.tick()
                entry = ctx.get(lists.read_data)
                assert entry.row == plan.row_base[of] + g * plan.shape[of][1]
                assert entry.number == g and entry.last == (g == numbers[-1])
                if turned:
                    values += 1
                    assert sum(bit << k for k, bit in enumerate(entry.value)) == int(deltas[g]) % (1 << c.delta.bits)

    simulate(lists, bench)
    assert len(rows) == 3 and skipped >= 20, f"the scenario proves little: {skipped} groups skipped"
    assert values >= 5 or not both_ways


@pytest.mark.parametrize("neuron_lanes", [1, 4])
def test_spikes_and_traces_are_dealt_and_nothing_is_listed(neuron_lanes):
    c = Network(net="6-13-3")
    machine = Machine.holding(c, lanes=4, neuron_lanes=neuron_lanes, both_ways=True)
    lists, plan, rng = DeltaLists(machine), compile(c, machine), np.random.default_rng(5)
    (deal,) = [row for row in plan.programs[1] if row.get("deals")]
    assert deal["layer"] == 1 and deal["delta_row"] == plan.dealt_row

    async def bench(ctx):
        for row in handing(plan)[:2]:
            fields, ones = {name: row.get(name, 0) for name in HANDING}, np.ones(c.sizes[row["layer"]], int)
            await hand_over(ctx, lists, fields, ones, serial=bool(row.get("turned")))
        before = []
        for odd in (0, 1):
            ctx.set(lists.read_odd, odd)
            before.append(ctx.get(lists.length))
        await hand_over(ctx, lists, {name: deal.get(name, 0) for name in HANDING}, rng.integers(1, 9, 13))
        for odd in (0, 1):
            ctx.set(lists.read_odd, odd)
            assert ctx.get(lists.length) == before[odd] > 0

    simulate(lists, bench)
