"""How a machine runs a network, proved from the plan alone: places, programs, and what must have happened before what."""

import itertools
from collections import defaultdict

import numpy as np
import pytest

from hw.machine import Capacity, Machine
from hw.memory_map import LANE_BITS, ROW_BITS, regions, state_fields
from hw.network import CADENCES, INPUTS, Network, state_arrays
from hw.notation import dense
from hw.numbers import LAYERS_MAX, UNITS_MAX, Q
from hw.plan import DoesNotFit, compile
from hw.program import LaneOp, NeuronOp, When, lane_fields, neuron_fields, pack, position_bits, table_rows, unpack, varying
from sim.scenarios import random_machine, random_network
from tests.hw.test_sequencer import due

LANES, NEURONS = 0, 1
ERRORS = (NeuronOp.OUTPUT_ERROR, NeuronOp.HIDDEN_ERROR)


def plans():
    """Of random networks on random machines, of 1 to 12 layers, of both cadences and each kind of input, and lazy ones."""
    for n in range(42):
        rng = np.random.default_rng((12, n))
        layers = int(rng.choice([1, 2, 3, 4, 6, 12]))
        sizes = (int(rng.integers(1, 24)), *(int(size) for size in rng.integers(1, 14, layers - 1)), int(rng.integers(1, 8)))
        kind, cadence, lazy = INPUTS[n % 3], CADENCES[n // 3 % 2], n % 7 == 5
        kinds = {"input": "events", "cadence": "sample", "lazy": True} if lazy else {"input": kind, "cadence": cadence}
        network = random_network(rng, net=dense(sizes), **kinds)
        yield compile(network, random_machine(rng, network, **({"both_ways": True} if n % 4 == 1 and not lazy else {})))


named = pytest.mark.parametrize("plan", list(plans()), ids=lambda plan: plan.network.title)


# -- places ------------------------------------------------------------------------------------------------------------------------


def visited(row, lanes):
    """The synapse (neuron, input) at each place (row, lane) of a sweep over every group and every input.

    If the layer is turned, it is a sweep over every neuron and every group of inputs."""
    out = {}
    if row["turned"]:
        for i, group, lane in itertools.product(range(row["groups"]), range(row["fan_in"]), range(lanes)):
            if group < row["fan_in"] - 1 or lane < row["rest"]:
                out[row["row"] + i * row["fan_in"] + group, lane] = i, group * lanes + lane
        return out
    for group, lane, j in itertools.product(range(row["groups"]), range(lanes), range(row["fan_in"])):
        if group < row["groups"] - 1 or lane < row["rest"]:
            out[row["row"] + group * row["fan_in"] + j, lane] = group * lanes + lane, j
    return out


@named
def test_every_synapse_has_a_place_of_its_own_and_is_visited_once(plan):
    network, machine, taken = plan.network, plan.machine, set()
    weights, fields = regions(machine)["weight"], state_fields(plan)
    sweeps = [row for row in plan.programs[LANES] if row["op"] == LaneOp.FORWARD]
    assert [row["layer"] for row in sweeps] == list(network.layers)
    for row in sweeps:
        at = visited(row, machine.lanes)
        l = row["layer"]
        assert sorted(at.values()) == list(np.ndindex(network.sizes[l], network.sizes[l - 1]))
        addresses = fields[f"weight.{l}"].addresses
        assert all(addresses[synapse] == weights.address(*place) for place, synapse in at.items())
        assert not taken & set(at) and all(place < weights.depth for place, _ in at)
        taken |= set(at)
    assert len(taken) == network.synapse_count


@named
def test_no_two_arrays_of_the_state_overlap(plan):
    fields, memory = state_fields(plan), {region.number: region for region in regions(plan.machine).values()}
    assert set(fields) == set(state_arrays(plan.network))
    used = defaultdict(int)
    for name, field in fields.items():
        mask = (1 << field.bits) - 1 << field.low
        assert np.shape(field.addresses) == state_arrays(plan.network)[name].shape
        for address in map(int, np.ravel(field.addresses)):
            assert not used[address] & mask, f"{name} and another array are at {address:#x}"
            used[address] |= mask
            if region := memory.get(address >> LANE_BITS + ROW_BITS):
                lane, row = address >> ROW_BITS & (1 << LANE_BITS) - 1, address & (1 << ROW_BITS) - 1
                assert lane < region.lanes and row < region.depth and mask < 1 << region.bits


@named
def test_deltas_and_lists_have_places_of_their_own(plan):
    n, c = plan.network, plan.machine.capacity
    lists = [range(base, base + n.sizes[l]) for l, base in plan.list_base.items()]
    deltas = [range(base, base + plan.groups[l or 1]) for l, base in plan.delta_base.items() if l or n.static]
    deltas += [range(plan.dealt_row, plan.dealt_row + plan.shape[l][1]) for l in plan.turned]
    for stretches, most in ((lists, c.listed), (deltas, c.delta_rows)):
        taken = [place for stretch in stretches for place in stretch]
        assert len(taken) == len(set(taken)) and all(place < most for place in taken)
    assert sorted(plan.list_number.values()) == list(range(len(lists))) and len(lists) <= c.lists


@named
def test_a_machine_has_room_for_the_programs(plan):
    formats, bits = (lane_fields(plan.machine), neuron_fields(plan.machine)), position_bits(plan.machine)
    for rows, words, fields, others in zip(plan.programs, plan.tables, formats, plan.programs[::-1], strict=True):
        assert len(words) == len(rows) + 1 <= table_rows(plan.machine) and words[-1] == 0
        whole = [{name: int(row.get(name, 0)) for name in fields} for row in rows]
        assert [unpack(fields, word) for word in words[:-1]] == whole
        assert all(pack(fields, unpack(fields, word)) == word for word in words)
        assert all(row.get("after", 0) <= 2 * len(others) < (1 << bits) - 1 for row in rows)


@named
def test_the_gateware_sees_the_rows_as_they_are(plan):
    """What is a constant to it, is one in every row but END."""
    for fields, table in zip((lane_fields(plan.machine), neuron_fields(plan.machine)), plan.tables, strict=True):
        ones, zeros = varying(plan.machine, fields)
        always = ~zeros & (1 << sum(fields.values())) - 1
        assert all(row & ones | always == row for row in table[:-1])


# -- time --------------------------------------------------------------------------------------------------------------------------


def situations(network):
    """Whatever may hold in a time step: first or last, the last sample of its batch, weights decay, and what is learned."""
    places = {(t == 0, t == network.steps - 1) for t in range(network.steps)}
    whole, ages = ((True,) if network.batch == 1 else (False, True)), ((False, True) if network.decay else (False,))
    every = itertools.product(sorted(places), whole, ages, itertools.product((False, True), repeat=3))
    for (first, last), full, aged, learn in every:
        weights, _, leakages = learn
        flags = ((When.FIRST, first), (When.LAST, last), (When.LEARN, any(learn)),
                 (When.LEARN_W, weights), (When.LEARN_L, leakages), (When.FULL, full), (When.AGED, aged))  # fmt: skip
        yield sum((flag for flag, holds in flags if holds), When.ALWAYS)


class Step:
    """What happens in a time step, and what must have happened before it.

    Events of a lanes' row are `begin`, `read` (it has met every list entry and trace) and `end`; of a neurons' row `begin`,
    `walked` (it has read every neuron) and `end`.
    """

    def __init__(self, plan, holds):
        self.plan, self.programs = plan, plan.programs
        self.rows = [due(program, holds) for program in self.programs]
        self.before = defaultdict(set)
        for side, other in ((LANES, NEURONS), (NEURONS, LANES)):
            previous = None
            for k in self.rows[side]:
                begin, middle, end = self.events(side, k)
                self.before[begin] |= {previous, self._position(other, self.programs[side][k].get("after", 0))} - {None}
                self.before[middle].add(begin)
                self.before[end].add(middle)
                previous = end
        self._data()

    @staticmethod
    def events(side, k):
        return [(side, k, what) for what in ("begin", "read" if side == LANES else "walked", "end")]

    def _position(self, side, after):
        """The event by which a sequencer has come so far; None if it always has."""
        row, begun = (after - 1) // 2, after % 2
        if begun and row in self.rows[side]:
            return (side, row, "begin")
        over = [k for k in self.rows[side] if k < row or (k == row and not begun)]
        return (side, over[-1], "end") if after and over else None

    def find(self, side, ops, layer=None):
        """Rows done of these operations."""
        ops = ops if isinstance(ops, tuple) else (ops,)
        program = self.programs[side]
        return [(k, program[k]) for k in self.rows[side] if program[k]["op"] in ops and layer in (None, program[k]["layer"])]

    def _data(self):
        """A list that grows ends with the pass that fills it; currents and errors come from the lanes."""
        for k, row in self.find(LANES, LaneOp.FORWARD):
            if not row["pixels"]:
                for n, _ in self.find(NEURONS, (NeuronOp.INPUT, NeuronOp.NEURON), row["layer"] - 1):
                    self.before[LANES, k, "read"].add((NEURONS, n, "end"))
            for n, _ in self.find(NEURONS, NeuronOp.NEURON, row["layer"]):
                self.before[NEURONS, n, "walked"].add((LANES, k, "read"))
        for k, row in self.find(LANES, LaneOp.BACKWARD):
            for n, _ in self.find(NEURONS, NeuronOp.HIDDEN_ERROR, row["layer"] - 1):
                self.before[NEURONS, n, "walked"].add((LANES, k, "read"))
                self.before[LANES, k, "end"].add((NEURONS, n, "walked"))

    def order(self):
        """All events in an order in which they can happen, each when all before it has; what is left out can never happen."""
        happened, waiting = [], {event for side in (LANES, NEURONS) for k in self.rows[side] for event in self.events(side, k)}
        while ready := {event for event in waiting if not self.before[event] & waiting}:
            happened += sorted(ready)
            waiting -= ready
        return happened, waiting

    def precedes(self, first, second):
        """Whether `first` has happened whenever `second` does."""
        todo, seen = [second], set()
        while todo:
            event = todo.pop()
            if event == first:
                return True
            if event not in seen:
                seen.add(event)
                todo += self.before[event]
        return False

    def apart(self, lanes, neurons):
        """Whether rows never are between their beginning and these events at the same time."""
        begin, begins = (*lanes[:2], "begin"), (*neurons[:2], "begin")
        return self.precedes(lanes, begins) or self.precedes(neurons, begin)


def steps(plan):
    return [(holds, Step(plan, holds)) for holds in situations(plan.network)]


@named
def test_programs_come_to_their_end(plan):
    for holds, step in steps(plan):
        assert not step.order()[1], f"a deadlock where {holds!r} holds"


@named
def test_a_program_stops_only_where_nothing_is_left_to_do(plan):
    for holds, program in itertools.product(situations(plan.network), plan.programs):
        assert due(program, holds) == [k for k, row in enumerate(program) if not row["when"] & ~holds]


@named
def test_what_a_step_consists_of(plan):
    """Every layer sums, fires, errs and learns as often as the contract says."""
    n = plan.network
    for holds, step in steps(plan):
        flags = When.FIRST, When.LAST, When.LEARN, When.LEARN_W, When.LEARN_L
        first, last, learn, weights, leakages = (bool(holds & flag) for flag in flags)
        whole = n.cadence == "sample"
        over = last and (n.batch == 1 or bool(holds & When.FULL))
        for l in n.layers:
            held = n.static and l == 1
            want = {
                (LANES, LaneOp.FORWARD): first or not held,
                (LANES, LaneOp.BACKWARD): learn and l > 1,
                (LANES, LaneOp.GATHER): weights and (last and n.gathers(1) if held else whole and not n.lazy),
                (LANES, LaneOp.DESCEND): weights and (last and not n.gathers(1) if held else not whole),
                (LANES, LaneOp.APPLY): weights and over and n.gathers(l),
                (LANES, LaneOp.DECAY): weights and last and n.decay and bool(holds & When.AGED),
                (NEURONS, NeuronOp.NEURON): True,
                (NEURONS, NeuronOp.OUTPUT_ERROR): learn and l == n.n_layers,
                (NEURONS, NeuronOp.HIDDEN_ERROR): learn and l < n.n_layers,
                (NEURONS, NeuronOp.FINISH): learn and (last and held or over and whole),
                (NEURONS, NeuronOp.LEAKAGE): leakages and (over or not whole),
            }  # fmt: skip
            assert {key: len(step.find(*key, l)) for key in want} == {key: int(often) for key, often in want.items()}
        assert len(step.find(NEURONS, NeuronOp.INPUT)) == 1


@named
def test_what_is_read_has_been_written(plan):
    n = plan.network
    for holds, step in steps(plan):

        def must(first, second, why, holds=holds, step=step):
            assert step.precedes(first, second), f"{why}: {first} need not come before {second} where {holds!r} holds"

        for k, row in step.find(LANES, LaneOp.FORWARD):
            l = row["layer"]
            for e, _ in step.find(NEURONS, NeuronOp.NEURON, l):
                must((LANES, k, "begin"), (NEURONS, e, "begin"), "currents of the step before")
            for e, _ in step.find(NEURONS, (NeuronOp.INPUT, NeuronOp.NEURON), l - 1):
                if not row["pixels"]:
                    complete = row["turned"] or row["values"]  # what is dealt to the lanes, or read from the walked memory
                    must((NEURONS, e, "end" if complete else "begin"), (LANES, k, "begin"), "the list of the step before")
        for k, row in step.find(LANES, (LaneOp.BACKWARD, LaneOp.GATHER, LaneOp.DESCEND)):
            l = row["layer"]
            source = step.find(NEURONS, NeuronOp.FINISH if row["pixels"] else ERRORS, l)
            must((NEURONS, source[0][0], "end"), (LANES, k, "begin"), "deltas that are not complete")
            if row["op"] == LaneOp.BACKWARD:
                ((taker, _),) = step.find(NEURONS, NeuronOp.HIDDEN_ERROR, l - 1)
                must((NEURONS, taker, "begin"), (LANES, k, "begin"), "errors that nobody takes")
        for (k, row), (a, apply) in itertools.product(step.find(LANES, LaneOp.GATHER), step.find(LANES, LaneOp.APPLY)):
            if row["layer"] == apply["layer"]:
                must((LANES, k, "end"), (LANES, a, "begin"), "a gradient that still gathers")
        using, changing = (LaneOp.FORWARD, LaneOp.BACKWARD), (LaneOp.DESCEND, LaneOp.APPLY)
        for users, changers in ((using, changing), ((*using, *changing), LaneOp.DECAY)):
            for (k, row), (d, change) in itertools.product(step.find(LANES, users), step.find(LANES, changers)):
                if row["layer"] == change["layer"]:
                    must((LANES, k, "end"), (LANES, d, "begin"), "a weight that changed too early")
        for (e, row), (f, finish) in itertools.product(step.find(NEURONS, ERRORS), step.find(NEURONS, NeuronOp.FINISH)):
            if row["layer"] == finish["layer"]:
                must((NEURONS, e, "end"), (NEURONS, f, "begin"), "a threshold's gradient that still gathers")
        if n.lazy:
            for a, _ in step.find(LANES, LaneOp.APPLY):
                for e, _ in step.find(NEURONS, ERRORS):
                    must((NEURONS, e, "end"), (LANES, a, "begin"), "a sum that is not complete")


@named
def test_nothing_is_overwritten_while_it_is_read(plan):
    for holds, step in steps(plan):
        readers = step.find(LANES, (LaneOp.BACKWARD, LaneOp.GATHER, LaneOp.DESCEND))
        writers = step.find(NEURONS, ERRORS) + [(k, row) for k, row in step.find(NEURONS, NeuronOp.FINISH) if row["held"]]
        for (r, reader), (w, writer) in itertools.product(readers, writers):
            own = reader["layer"] == writer["layer"] and reader["pixels"] == (writer["op"] == NeuronOp.FINISH)
            if reader["odd"] == writer["odd"] and not own:
                where = f"list of deltas, lanes' row {r} and neurons' row {w} where {holds!r} holds"
                assert step.apart((LANES, r, "read"), (NEURONS, w, "end")), where
        traced = [(k, row) for k, row in step.find(LANES, (LaneOp.GATHER, LaneOp.DESCEND, LaneOp.APPLY))
                  if (plan.network.lazy if row["op"] == LaneOp.APPLY else not row["pixels"])]  # fmt: skip
        for (k, _), (w, walk) in itertools.product(traced, step.find(NEURONS, tuple(set(NeuronOp) - {NeuronOp.LEAKAGE}))):
            if plan.network.lazy and walk["op"] == NeuronOp.FINISH:
                continue  # which reads no traces
            where = f"weight traces, lanes' row {k} and neurons' row {w} where {holds!r} holds"
            assert step.apart((LANES, k, "read"), (NEURONS, w, "walked")), where


@pytest.mark.parametrize("changes", [{"cadence": "step"}, {"input": "events"}, {}], ids=["step", "events", "static"])
def test_a_missing_wait_would_be_noticed(changes):
    """What these tests can tell: without a wait something is read too early, or overwritten. Some at a sample's end are spare."""
    network = Network(net="9-8-7-6-5", **changes)
    machine = Machine.holding(network)
    for side, program in enumerate(compile(network, machine).programs):
        for k, row in enumerate(program):
            if row.get("after") and row["op"] != (LaneOp.APPLY, NeuronOp.FINISH)[side]:
                without = compile.__wrapped__(network, machine)
                without.programs[side][k]["after"] = 0
                with pytest.raises(AssertionError, match=r"need not come before|where .* holds"):
                    test_what_is_read_has_been_written(without)
                    test_nothing_is_overwritten_while_it_is_read(without)


# -- limits ------------------------------------------------------------------------------------------------------------------------

SMALL = Network(net="12-8-6")


@pytest.mark.parametrize("field, network, machine", [
    ("layers", SMALL.replace(net="12-8-6-6"), {}),
    ("population", SMALL.replace(net="1-9-1"), {}),
    ("fan_in", SMALL.replace(net="13-1-1"), {}),
    ("classes", SMALL.replace(net="8-8-7"), {}),
    ("weight_rows", SMALL, {"weight_rows": 19}),
    ("grad_rows", SMALL, {"grad_rows": 7}),
    ("delta_rows", SMALL, {"delta_rows": 2}),
    ("neuron_rows", SMALL, {"neuron_rows": 13}),
    ("unit_rows", SMALL, {"unit_rows": 8}),
    ("lists", SMALL, {"lists": 0}),
    ("listed", SMALL, {"listed": 7}),
    ("pixels", SMALL, {"pixels": 11}),
    ("events", SMALL.replace(input="events", net="2-2-2"), {"lists": 2}),
    ("step", SMALL.replace(cadence="step"), {}),
    ("sample", SMALL, {"sample": False}),
    ("w", SMALL.replace(w=Q(4, 10)), {}),
    ("theta_min", SMALL.replace(theta_min=9), {}),
    ("alpha_frac", SMALL.replace(alpha_frac=11), {}),
    ("stochastic", SMALL.replace(stochastic=True), {}),
    ("lazy", SMALL.replace(input="events", trace=Q(5, 8), lazy=True), {"events": 12}),
])  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_name(field, network, machine):
    built = Machine.holding(SMALL, lanes=8)
    built = built.replace(capacity=Capacity(**{**vars(built.capacity), **machine}))
    if field != "lazy":
        with pytest.raises(DoesNotFit, match=rf"^{field}: "):
            compile(network, built)
        return
    with pytest.raises(DoesNotFit, match="^trace: .* has Q"):
        compile(network, built)
    with pytest.raises(DoesNotFit, match=f"^{field}: "):
        compile(network, Machine.holding(network.replace(lazy=False), SMALL.replace(trace=Q(5, 8))))


def test_what_a_machine_has_wired_in_is_all_it_runs():
    machine = Machine.holding(SMALL, fixed=SMALL)
    assert compile(SMALL, machine).network == SMALL
    with pytest.raises(DoesNotFit, match="net: the machine has 12-8-6 wired in, and runs no other network; build one for 11-8-6"):
        compile(SMALL.replace(net="11-8-6"), machine)


def test_networks_of_different_formats_share_no_machine():
    with pytest.raises(ValueError, match=r"u: Q\(5,12\) of 12-8-6 is not legal; legal is that of 12-8-6, Q\(4,12\)"):
        Machine.holding(SMALL, SMALL.replace(u=Q(5, 12)))


@pytest.mark.parametrize("network, machine", [
    (Network(net=dense([20] * (LAYERS_MAX + 1)), input="events"), {"lanes": 8}),
    (Network(net=f"4-{UNITS_MAX}-4", cadence="step"), {"lanes": 128, "neuron_lanes": 16}),
    (Network(net=f"{UNITS_MAX}-16", cadence="step"), {"lanes": 1}),
], ids=["16 layers", "65,536 neurons", "2^20 rows"])  # fmt: skip
def test_the_largest_networks_have_a_plan(network, machine):
    built = Machine.holding(network, **machine)
    plan = compile(network, built)
    lanes, neurons = plan.tables
    assert len(lanes) <= table_rows(built) and len(neurons) <= table_rows(built)
    test_a_machine_has_room_for_the_programs(plan)
    test_programs_come_to_their_end(plan)
    test_what_is_read_has_been_written(plan)
    test_nothing_is_overwritten_while_it_is_read(plan)


def test_more_rows_than_a_lane_has_are_refused():
    with pytest.raises(ValueError, match="weight_rows: 1114112 in each of 1 lanes are not legal; legal is at most 1048576"):
        Machine.holding(Network(net=f"{UNITS_MAX}-17", cadence="step"), lanes=1)


def test_only_a_layer_of_spikes_is_banked_by_its_inputs():
    narrow, deeper = (16, 6), (9, 16, 6)
    for kind, sizes, turned in (("frames", narrow, 0), ("static", narrow, 0), ("events", narrow, 1), ("frames", deeper, 1)):
        network = Network(net=dense(sizes), input=kind)
        plan = compile(network, Machine.holding(network, lanes=24, both_ways=True))
        assert bool(plan.turned) == turned, (kind, sizes)
