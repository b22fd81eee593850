"""Memories with a parity bit: a bit that flips is noticed, and nothing else is."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Cat, Fragment
from amaranth.sim import Simulator

from hw.machine import Machine
from hw.memory import Bank, LaneBanks
from hw.memory import Memory as AmaranthMemory
from hw.memory_map import regions
from hw.network import Network
from hw.pipeline import NEAR, NEXT

NETWORK = Network(net="6-4-3")
REGION = regions(Machine.holding(NETWORK, lanes=2, parity=True))["theta"]


@pytest.fixture
def memories(monkeypatch):
    """The memories that are made, so that a test can reach into them."""
    made = []

    def memory(**arguments):
        made.append(AmaranthMemory(**arguments))
        return made[-1]

    monkeypatch.setattr("hw.memory.Memory", memory)
    return made


def test_a_flipped_bit_is_noticed_and_nothing_else(memories):
    bank, rng = Bank(REGION), np.random.default_rng(1)
    seen = {"reads": 0, "collisions": 0}

    async def play(ctx):
        (memory,) = memories
        await ctx.tick()
        for _ in range(500):  # core and host, reads held, words read in the cycle in which they are written
            row, other = int(rng.integers(REGION.depth)), int(rng.integers(REGION.depth))
            word, hosting, reads = int(rng.integers(1 << REGION.bits)), int(rng.random() < 0.3), int(rng.random() < 0.8)
            write = int(rng.random() < 0.5)
            for signal, value in (
                (bank.host.region, REGION.number), (bank.host.row, row), (bank.host.hosting, hosting), (bank.host.enable, 1),
                (bank.host.write, hosting & write), (bank.host.data_w, word), (bank.read_address, other), (bank.read_enable, reads),
                (bank.write, write), (bank.write_address, row), (bank.write_data, word),
            ):  # fmt: skip
                ctx.set(signal, value)
            seen["reads"] += reads
            seen["collisions"] += reads & write and row == other
            *_, damaged = await ctx.tick().sample(bank.damaged)
            assert not damaged
        for name in ("write", "read_enable"):
            ctx.set(getattr(bank, name), 0)
        ctx.set(bank.host.hosting, 0)
        await ctx.tick().repeat(4)
        for row in range(REGION.depth):
            for bit in range(REGION.bits + 1):
                ctx.set(memory.data[row], ctx.get(memory.data[row]) ^ 1 << bit)
                ctx.set(bank.read_address, row)
                ctx.set(bank.read_enable, 1)
                await ctx.tick().repeat(2)
                assert ctx.get(bank.damaged)
                ctx.set(memory.data[row], ctx.get(memory.data[row]) ^ 1 << bit)
                await ctx.tick().repeat(2)
                assert not ctx.get(bank.damaged)

    simulator = Simulator(bank)
    simulator.add_clock(1e-6)
    simulator.add_testbench(play)
    simulator.run()
    assert seen["collisions"] > 20 and seen["reads"] > 300, seen


@pytest.mark.parametrize("registers", [0, 1, 3])
def test_lanes_far_apart_take_and_give_words_later(registers):
    """Core and host, one word a cycle each, in more lanes than share a register; an answer comes when the host expects it."""
    lanes, rows, rng = (NEXT + 1) * NEAR + 3, 4, np.random.default_rng(2)
    banks = LaneBanks(replace(REGION, lanes=lanes, depth=rows, parity=False), registers)
    words = rng.integers(1, 1 << REGION.bits, (rows, lanes))

    async def play(ctx):
        ctx.set(banks.host.enable, 1)
        for row in range(rows):
            ctx.set(banks.write, (1 << lanes) - 1 if row else 0)  # row 0 is the host's
            ctx.set(banks.write_address, row)
            for lane in range(lanes):
                ctx.set(banks.write_data[lane], int(words[row, lane]))
            await ctx.tick()
        ctx.set(banks.write, 0)
        ctx.set(banks.host.hosting, 1)
        ctx.set(banks.host.region, REGION.number)
        for lane in range(lanes):
            ctx.set(banks.host.lane, lane)
            await ctx.tick()
            ctx.set(banks.host.data_w, int(words[0, lane]))
            ctx.set(banks.host.write, 1)
            await ctx.tick()
            ctx.set(banks.host.write, 0)
        answers = []
        for row, lane in np.ndindex(rows, lanes):
            ctx.set(banks.host.row, row)
            ctx.set(banks.host.lane, lane)
            answers.append(int(words[row, lane]))
            *_, answer = await ctx.tick().sample(banks.host.data_r)
            if len(answers) > 1 + banks.answer_moves:
                assert answer == answers[-2 - banks.answer_moves], (row, lane)
        ctx.set(banks.host.hosting, 0)
        for row in range(rows + registers + 1):
            ctx.set(banks.read_address, row % rows)
            *_, read = await ctx.tick().sample(Cat(banks.read_data))
            if row > registers:
                assert read == sum(int(word) << REGION.bits * lane for lane, word in enumerate(words[row - registers - 1])), row

    simulator = Simulator(banks)
    simulator.add_clock(1e-6)
    simulator.add_testbench(play)
    simulator.run()


def test_a_core_without_parity_has_none_of_it(memories):
    region = regions(Machine.holding(NETWORK, lanes=2))["theta"]
    Fragment.get(Bank(region), None)
    (memory,) = memories
    assert not region.parity and len(memory.data[0]) == region.bits


@pytest.mark.parametrize("change, message", [
    ({"parity": 1}, "parity: 1 is not legal; legal is True or False"),
    ({"weight_memory": "spram", "lanes": 4}, "parity: True is not legal; legal is False where weight_memory is spram"),
])  # fmt: skip
def test_parity_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        Machine.holding(NETWORK, **{"parity": True, **change})
