"""The sequencers: which rows of a program are done, when, and how time steps follow each other."""

from itertools import pairwise

import numpy as np
import pytest
from amaranth.hdl import Module, Signal

from hw.machine import Machine
from hw.memory_map import regions
from hw.network import Network
from hw.plan import compile
from hw.program import WHEN_BITS, LaneOp, When, lane_fields, neuron_fields, position_bits, table_rows
from hw.sequencer import Conductor, FixedTable, LoadedTable, Sequencer, conditions, tables
from tests.hw.test_registers import simulate

NETWORK = Network(net="6-5-4-3", steps=3)
MACHINE = Machine.holding(NETWORK, lanes=2)
FIELDS = lane_fields(MACHINE)
BEYOND = (1 << position_bits(MACHINE)) - 1  # position of a sequencer that is at no row
END: dict[str, int] = {}
LIMIT = 3000  # cycles


def random_program(rng):
    """Rows with conditions, waits and stops; END behind them."""
    rows = range(int(rng.integers(1, table_rows(MACHINE))))
    return [{"op": int(rng.integers(1, 6)), "when": int(rng.choice([0, 0, rng.integers(1 << WHEN_BITS)])), "layer": k % 4,
             "stop": int(rng.random() < 0.1), "after": int(rng.integers(BEYOND)) * (k % 2)} for k in rows] + [END]  # fmt: skip


def due(program, holds):
    """Indices of the rows that a sequencer does."""
    out = []
    for k, row in enumerate(program):
        if not row["when"] & ~holds:
            out.append(k)
        elif row.get("stop"):
            break
    return out


def walk(program, holds, rng, *, late=0, patient=False):
    """What a sequencer does, cycle by cycle from `go` to its end. The other one comes forward by chance, units work as long as they
    like and are not always ready; with `patient` nothing is ever waited for, and units work for one cycle."""
    sequencer, seen = Sequencer(MACHINE, FIELDS, late), []

    async def bench(ctx):
        other, working, busy = BEYOND if patient else 0, 0, [0] * (late + 1)
        ctx.set(sequencer.holds, holds)
        for cycle in range(LIMIT):
            ready = int(patient or rng.random() < 0.8)
            for name, value in (("go", int(cycle == 0)), ("other", other), ("ready", ready), ("busy", busy[-1])):
                ctx.set(getattr(sequencer, name), value)
            names = ("index", "start", "ends", "running", "idle", "position")
            values = (await ctx.tick().sample(*(getattr(sequencer, name) for name in names)))[-len(names) :]
            now = dict(zip(names, values, strict=True)) | {"other": other, "ready": ready}
            now["at"] = now["position"] // 2  # the row; `index` may be that of the next
            ctx.set(sequencer.row, program[now["index"]] if now["index"] < len(program) else {})  # a table answers a cycle later
            seen.append(now)
            working = (1 if patient else int(rng.integers(0, 5))) if now["start"] else max(0, working - 1)
            busy = [int(working > 0), *busy[:-1]]
            if not patient and rng.random() < 0.3:
                other = min(BEYOND, other + int(rng.integers(4)))
            if now["idle"] and cycle:
                return
        raise AssertionError("it comes to no end")

    simulate(sequencer, bench)
    return seen


@pytest.mark.parametrize("late", [0, 1])
def test_a_sequencer_does_the_rows_that_are_due_when_the_other_has_come_far_enough(late):
    counted = {"rows": 0, "skipped": 0, "waits": 0, "stops": 0}
    for n in range(60):
        rng = np.random.default_rng((late, n))
        program, holds = random_program(rng), int(rng.integers(1 << WHEN_BITS))
        seen = walk(program, holds, rng, late=late)
        begun = [s for s in seen if s["start"]]
        want = due(program[:-1], holds)
        assert [s["at"] for s in begun] == want == [s["at"] for s in seen if s["ends"]]
        assert all(s["other"] >= program[s["at"]]["after"] and s["ready"] for s in begun)
        assert all(s["position"] == BEYOND if s["idle"] else s["position"] % 2 == s["running"] for s in seen)
        running = 0
        for s in seen:  # a row runs from the cycle after its start to its end
            assert s["running"] == running
            running = 1 if s["start"] else running and not s["ends"]
        counted["rows"] += len(want)
        counted["skipped"] += len([k for k in range(len(program) - 1) if k not in want and k < max(want, default=0)])
        counted["waits"] += sum(program[k]["after"] > 0 for k in want)
        counted["stops"] += bool(len(program) - 1 > 1 + max(want, default=0))
    assert min(counted.values()) >= 10, f"the scenario proves little: {counted}"


@pytest.mark.parametrize("late", [0, 1])
def test_a_row_starts_a_cycle_after_the_one_before_and_a_skipped_one_takes_one(late):
    for n in range(20):
        rng = np.random.default_rng(n)
        program, holds = [row | ({"stop": 0} if row else {}) for row in random_program(rng)], int(rng.integers(1 << WHEN_BITS))
        seen = walk(program, holds, rng, late=late, patient=True)
        starts = [(cycle, s["at"]) for cycle, s in enumerate(seen) if s["start"]]
        ends = [cycle for cycle, s in enumerate(seen) if s["ends"]]
        for end, ((_, before), (begin, k)) in zip(ends, pairwise(starts), strict=False):
            assert begin - end == k - before  # counted from the cycle after the last busy one
        assert all(end - begin == 2 + late for end, (begin, _) in zip(ends, starts, strict=True))


def test_a_unit_that_is_never_busy_is_over_at_once():
    """As long as nothing can be known of it, and no longer."""
    for late, cycles in ((0, 1), (1, 2)):
        sequencer, spans = Sequencer(MACHINE, FIELDS, late), []

        async def bench(ctx, sequencer=sequencer, spans=spans):
            ctx.set(sequencer.row, {"op": LaneOp.FORWARD})
            ctx.set(sequencer.go, 1)
            at = None
            for cycle in range(20):
                *_, start, ends = await ctx.tick().sample(sequencer.start, sequencer.ends)
                if start:
                    at = cycle
                if ends:
                    spans.append(cycle - at)

        simulate(sequencer, bench)
        assert spans and set(spans) == {cycles}


@pytest.mark.parametrize("last_step", [0, 1, 4])
@pytest.mark.parametrize("single", [0, 1])
def test_a_conductor_starts_one_step_after_another_or_one(last_step, single):
    conductor, rng, seen, ended = Conductor(), np.random.default_rng(6), [], []

    async def bench(ctx):
        step, left, alone, rests = 0, 0, False, False  # `rests`: it has nothing more to do
        ctx.set(conductor.last_step, last_step)
        for cycle in range(LIMIT):
            ctx.set(conductor.step, step)
            run = int(cycle % 100 == 3)
            one = int(single if run else rng.random() < 0.5)  # it matters only when a run begins
            ctx.set(conductor.run, run)
            ctx.set(conductor.single, one)
            ctx.set(conductor.quiet, int(left == 0))
            names = ("go", "first", "final", "step_done", "next_step", "busy", "idle")
            sampled = await ctx.tick().sample(*(getattr(conductor, name) for name in names))
            go, first, final, over, following, busy, idle = sampled[-len(names) :]
            assert busy == (not idle) and not (rests and busy)
            alone, rests = (bool(one), False) if run and idle else (alone, rests)
            if go:
                seen.append(step)
                assert left == 0 and busy and first == (step == 0) and final == (step == last_step)
            left = int(rng.integers(1, 9)) if go else max(0, left - 1)
            if over:
                assert left == 0 and following == (0 if step == last_step else step + 1)
                ended.append(step)
                rests = alone or step == last_step
                step = following

    simulate(conductor, bench)
    assert seen == ended and len(seen) >= (30 if single else 30 * (last_step + 1))
    assert seen == [n % (last_step + 1) for n in range(len(seen))]


def test_what_holds_in_a_step():
    """Of what a row may ask for (hw.program.When)."""
    m, learn, full, aged, holds = Module(), Signal(3), Signal(), Signal(), Signal(WHEN_BITS)
    m.submodules.conductor = conductor = Conductor()
    m.d.comb += holds.eq(conditions(conductor, learn, full, aged))

    async def bench(ctx):
        for step, last_step, mask, of_batch, old in np.ndindex(3, 3, 8, 2, 2):
            values = (conductor.step, step), (conductor.last_step, last_step), (learn, mask), (full, of_batch), (aged, old)
            for port, value in values:
                ctx.set(port, value)
            await ctx.tick()
            flags = {When.FIRST: step == 0, When.LAST: step == last_step}
            flags |= {When.LEARN: mask > 0, When.LEARN_W: mask & 1, When.LEARN_L: mask & 4, When.FULL: of_batch,
                      When.AGED: old}  # fmt: skip
            assert ctx.get(holds) == sum(flag for flag, true in flags.items() if true)

    simulate(m, bench)


@pytest.mark.parametrize("name, fields, side", [("lane_program", FIELDS, 0), ("neuron_program", neuron_fields(MACHINE), 1)])
def test_a_table_gives_the_rows_that_a_host_wrote(name, fields, side):
    table, words, region = LoadedTable(MACHINE, name, fields), compile(NETWORK, MACHINE).tables[side], regions(MACHINE)[name]

    async def bench(ctx):
        host = table.host
        ctx.set(host.enable, 1)
        ctx.set(host.hosting, 1)
        ctx.set(host.region, region.number)
        for lane in range(region.lanes):
            ctx.set(host.lane, lane)
            await ctx.tick()  # in which it learns which of its memories is meant
            ctx.set(host.write, 1)
            for row, word in enumerate(words):
                ctx.set(host.row, row)
                ctx.set(host.data_w, word >> 32 * lane & 0xFFFF_FFFF)
                await ctx.tick()
            ctx.set(host.write, 0)
        ctx.set(host.hosting, 0)
        await read_back(ctx, table, words)

    simulate(table, bench)
    assert region.lanes > 1, "a row of several words is what is to be shown"


def test_a_table_that_is_wired_in_gives_the_same():
    fixed = MACHINE.replace(fixed=NETWORK)
    for table, words in zip(tables(fixed, lane_fields(fixed), neuron_fields(fixed)), compile(NETWORK, fixed).tables, strict=True):
        assert isinstance(table, FixedTable)

        async def bench(ctx, table=table, words=words):
            await read_back(ctx, table, words)

        simulate(table, bench)
    assert all(isinstance(table, LoadedTable) for table in tables(MACHINE, FIELDS, neuron_fields(MACHINE)))


async def read_back(ctx, table, words):
    for row in np.random.default_rng(2).permutation(len(words)):
        ctx.set(table.index, int(row))
        await ctx.tick()
        assert ctx.get(table.word) == words[row]
