"""Deliberate faults in the gateware, each of which a test must catch: `python -m sim.mutants --help` (or `make mutants`).

A mutant is a small change of one file, made in a copy of the tree. Its test must pass in an unchanged copy and fail in this
one. Exit code 1 if a mutant survives, or if its text is no longer in the gateware.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from tqdm import tqdm

from hw.numbers import ceil_div
from hw.options import whole

ROOT = Path(__file__).resolve().parent.parent
TREE = ("boards", "hw", "sim", "sw", "tests", "pyproject.toml")
T = TypeVar("T")
FAILED = 1  # pytest's exit code if tests ran and failed


class Outdated(Exception):
    """A change's old text is not in its file once."""


class Mutant(NamedTuple):
    """`old` in `file` becomes `new`; `test` (a file, and what to select there) must fail then."""

    name: str
    file: str
    old: str
    new: str
    test: str


_CORE = "tests/hw/test_core.py::"


def _core(cadence: str, kind: str) -> str:
    return f"{_CORE}test_core_equals_golden[{kind}-{cadence}]"


_LAZY = _CORE + "test_lazy_core_equals_golden"
_STRONG = _CORE + "test_what_makes_learning_stronger_equals_golden"
_FAR = _CORE + "test_many_lanes_far_apart_equal_golden"
_SWITCH = _CORE + "test_one_machine_runs_one_network_after_the_other"
_MEMORY = "tests/hw/test_memory.py::"
_BANKS = _MEMORY + "test_lanes_far_apart_take_and_give_words_later"
_PARITY = _MEMORY + "test_a_flipped_bit_is_noticed_and_nothing_else"
_REGISTERS = "tests/hw/test_registers.py::"
_LEAKAGE = _REGISTERS + "test_leakage_follows_its_gradient"
_READOUT = _REGISTERS + "test_readout_breaks_ties_by_membrane_and_index"
_RANDOM = _REGISTERS + "test_random_words_equal_the_golden_ones"
_GROUPS = _REGISTERS + "test_lists_have_what_has_a_delta"
_WALK = _REGISTERS + "test_a_walk_meets_every_neuron_once"
_SEQUENCERS = "tests/hw/test_sequencer.py::"
_SEQUENCER = _SEQUENCERS + "test_a_sequencer_does_the_rows_that_are_due_when_the_other_has_come_far_enough"
_CONDUCTOR = _SEQUENCERS + "test_a_conductor_starts_one_step_after_another_or_one"
_PLAN = "tests/hw/test_plan.py::"
_BLOCKS = "tests/hw/test_blocks.py::"
_MEMBRANE = _BLOCKS + "test_membrane_leaks_integrates_and_fires"
_DELTA = _BLOCKS + "test_delta_follows_the_tables"
_GRADIENT = _BLOCKS + "test_gradient_multiplies_delta_by_its_traces"
_THRESHOLD = _BLOCKS + "test_threshold_descends_to_its_floor"
_COMMAND = "tests/hw/test_command.py::test_a_header_waits_until_all_words_are_answered"
_SHARED = "tests/hw/test_shared.py::test_a_core_that_shares_equals_golden[step]"
_BOOT = "tests/sim/test_boot.py::"
_STORED = _BOOT + "test_a_stored_network_goes_on_learning_after_power_up"
_DAMAGED = _BOOT + "test_of_a_damaged_image_nothing_is_loaded"

MUTANTS = (
    # a spike
    Mutant("fires only above the threshold", "hw/spike/membrane.py", "u >= theta", "u > theta", _MEMBRANE),
    Mutant("membrane wraps", "hw/spike/membrane.py", "saturate(leaked[0] + pipe.reg(i.current, 2), c.u)",
           "(leaked[0] + pipe.reg(i.current, 2))[: c.u.bits].as_signed()", _MEMBRANE),
    Mutant("old membrane in step 0", "hw/spike/membrane.py", "Mux(i.first, 0, i.alpha),", "i.alpha,", _MEMBRANE),
    Mutant("no soft reset", "hw/spike/membrane.py", "i.u - Mux(i.s, i.theta, 0).as_signed()", "i.u - 0", _MEMBRANE),
    Mutant("late trace of a spike", "hw/spike/membrane.py", "o.weight_trace.eq(pipe.reg(Mux(s, ",
           "o.weight_trace.eq(pipe.reg(Mux(unit, ", _MEMBRANE),
    Mutant("tie to the last class", "hw/spike/readout.py", "self.u > best_u", "self.u >= best_u", _READOUT),
    Mutant("counts not reset", "hw/spike/readout.py", "Mux(self.first, 0, bank.read_data)", "bank.read_data", _READOUT),
    Mutant("event not cleared", "hw/spike/lane.py", "self.there & self.input & ~program.held", "0",
           _core("sample", "events")),
    Mutant("frame not restarted", "hw/spike/lists.py", "Mux(host.row == 0, 0, listed)", "listed", _core("sample",
           "static")),
    Mutant("traces listed by spikes", "hw/spike/listing.py", "(traces, traced)", "(traces, fired)", _core("step", "events")),
    Mutant("neurons beyond the layer", "hw/spike/walker.py", "mask.eq(Cat(following > k for k in range(lanes)))",
           "mask.eq((1 << lanes) - 1)", _WALK),
    Mutant("neuron without its current", "hw/spike/neurons.py", "walker.local != currents.there", "1", _core("step", "events")),
    Mutant("list taken for complete", "hw/weight/sweeper.py", "active & ~(open_end & inner_last)", "active & 1",
           _core("sample", "static")),
    Mutant("list in another's place", "hw/spike/lists.py", "reader.addr.eq(self.read_base + self.read_index)",
           "reader.addr.eq(self.read_index)", _REGISTERS + "test_units_are_listed_in_their_layers_place"),
    # a weight
    Mutant("weight wraps", "hw/weight/changes.py", "saturate(moved, c.w)", "moved[: c.w.bits].as_signed()",
           _core("step", "events")),
    Mutant("gradient not cleared", "hw/weight/gradients.py",
           "Mux(self.applies[lane], left, saturate(gradient + gathered, self.machine.grad))",
           "Mux(0, left, saturate(gradient + gathered, self.machine.grad))", _core("sample", "events")),
    Mutant("error rounded down", "hw/weight/sums.py", "rounded.eq(saturate(round_shift(total, shift), q))",
           "rounded.eq(saturate(total >> shift, q))", _core("sample", "static")),
    # what makes learning stronger
    Mutant("graded error of the other classes", "hw/error/delta.py", "most))[: len(most)], pipe.reg(i.label)",
           "most))[: len(most)], ~pipe.reg(i.label)", _DELTA),
    Mutant("mean rounded down", "hw/spike/lists.py", "round_shift(product, MEAN_BITS)", "product >> MEAN_BITS",
           _STRONG),
    Mutant("decay a sample early", "hw/core.py", "DECAY_SAMPLES - 1", "DECAY_SAMPLES - 2", _STRONG),
    Mutant("decay rounded to nearest", "hw/core.py", "registers.rounding | decays", "registers.rounding", _STRONG),
    Mutant("remainder lost", "hw/weight/gradients.py", "return Mux(keeps, Mux(negative", "return Mux(0, Mux(negative", _STRONG),
    Mutant("slow layer as fast as others", "hw/core.py", "registers.rate_w + self.lane_row.slower", "registers.rate_w", _STRONG),
    Mutant("three cipher rounds", "hw/weight/dither.py", "ROUNDS = 4", "ROUNDS = 3", _RANDOM),
    Mutant("random state stands still", "hw/weight/dither.py", "state.eq(xorshift32(self.state))", "state.eq(self.state)", _RANDOM),
    Mutant("neighbours share random bits", "hw/weight/dither.py", "near ^ Mux(turned_in[lane], input_word(own), neuron_word(own))",
           "near", _RANDOM),
    Mutant("layers share random bits", "hw/weight/dither.py", "key(self.layer - 1, 0,", "key(0, 0,", _RANDOM),
    Mutant("inputs far apart share random bits", "hw/weight/dither.py", "_part(inputs, UPPER, PLACE_BITS)", "_part(inputs, 0, 0)",
           _RANDOM),
    Mutant("operations miscounted", "hw/weight/sweeper.py", "self.counted.eq(Mux(self.nothing, 0, ", "self.counted.eq(Mux(0, 0, ",
           _core("sample", "static")),
    # multipliers that lanes and neurons share
    Mutant("row beside a membrane", "hw/weight/products.py", "self.free.eq(~self.reserve)", "self.free.eq(1)", _SHARED),
    Mutant("row beside a gradient", "hw/spike/neurons.py", "of_delta | delay(m, of_delta, 4)", "of_delta", _SHARED),
    Mutant("rounded as the next one's", "hw/weight/products.py", "Mux(flight.valid[2], c, other.c)",
           "Mux(flight.valid[1], c, other.c)", _SHARED),
    Mutant("weights of the next row", "hw/weight/changes.py", "~self.doing.changing | flight.valid[4]", "1", _SHARED),
    Mutant("the other lane's random bits", "hw/weight/changes.py", "Mux(second, self.word[other], self.word[lane])",
           "self.word[lane]", _SHARED),
    Mutant("sum begun before the last left", "hw/weight/sums.py", "self._leaving(m, self.words + 1)", "self._leaving(m, 1)",
           _SHARED),
    # an error
    Mutant("rounding constant", "hw/fixed.py", "return 1 << (n - 1) if n else 0", "return (1 << (n - 1)) - 1 if n else 0",
           _GRADIENT),
    Mutant("surrogate table wraps", "hw/error/delta.py", "Mux(magnitude < PHI_ENTRIES, magnitude, PHI_ENTRIES - 1)",
           "magnitude[:8]", _DELTA),
    Mutant("error without its label", "hw/error/delta.py", "(i.s << 1) | i.label", "(i.s << 1)", _DELTA),
    Mutant("swapped traces", "hw/error/gradient.py", "drive(self.mul[1], i.delta, i.alpha_trace",
           "drive(self.mul[1], i.delta, i.theta_trace",
           _GRADIENT),
    Mutant("threshold without a floor", "hw/error/threshold.py", "Mux(theta < c.theta_min, c.theta_min, theta).as_signed()",
           "theta",
           _THRESHOLD),
    Mutant("leakage above 1", "hw/error/leakage.py", "Mux(moved > most, most, moved)", "moved", _LEAKAGE),
    Mutant("leakage gradient kept", "hw/error/leakage.py", "m.d.comb += totals.data.eq(0)",
           "m.d.comb += totals.data.eq(total[at])", _LEAKAGE),
    Mutant("wrong group skipped", "hw/error/deltas.py", "any_delta.eq(seen | self.nonzero)", "any_delta.eq(self.nonzero)", _GROUPS),
    # the order of it all
    Mutant("row not awaited", "hw/sequencer.py", "(self.other >= row.after) & self.ready", "self.ready", _SEQUENCER),
    Mutant("unit that is not ready", "hw/sequencer.py", "(self.other >= row.after) & self.ready", "(self.other >= row.after)",
           _SEQUENCER),
    Mutant("row not skipped", "hw/sequencer.py", "(self.holds | ~row.when).all()", "Const(1)", _SEQUENCER),
    Mutant("program not stopped", "hw/sequencer.py", "(row.op == 0) | (~met & row.stop)", "row.op == 0", _SEQUENCER),
    Mutant("wrong position", "hw/sequencer.py", "Cat(begun, index)", "Cat(Const(0, 1), index)", _SEQUENCER),
    Mutant("gradients of the last network", "hw/configuration.py", '"alpha_grad", "event")', '"event")',
           _CORE + "test_a_network_starts_without_the_gradients_of_the_last_one"),
    Mutant("frame of the last network", "hw/configuration.py", '"alpha_grad", "event")', '"alpha_grad")',
           _CORE + "test_a_network_starts_without_the_frame_of_the_last_one"),
    Mutant("unit over before it is busy", "hw/sequencer.py", "range(1, self.late + 1)", "range(1, self.late)",
           _SEQUENCERS + "test_a_unit_that_is_never_busy_is_over_at_once"),
    Mutant("sample without an end", "hw/sequencer.py", "m.If(self.final | single)", "m.If(single)", _CONDUCTOR),
    Mutant("step over too early", "hw/sequencer.py", 'm.State("STEP"), m.If(self.quiet)', 'm.State("STEP")', _CONDUCTOR),
    Mutant("learns what is switched off", "hw/sequencer.py", "(learn & LEARN_W) != 0", "learn != 0",
           _SEQUENCERS + "test_what_holds_in_a_step"),
    # a network on a machine
    Mutant("plan: list overwritten", "hw/plan.py", "after = over(lanes, update, l + 2) if l + 2 in learns else 0", "after = 0",
           _PLAN + "test_nothing_is_overwritten_while_it_is_read"),
    Mutant("plan: deltas not awaited", "hw/plan.py", 'self._sweep(update, 1, When.LEARN | When.LEARN_W) | {"after": first}',
           "self._sweep(update, 1, When.LEARN | When.LEARN_W)", _PLAN + "test_what_is_read_has_been_written"),
    Mutant("plan: errors that wait for each other", "hw/plan.py", "at = begun(neurons, NeuronOp.HIDDEN_ERROR, l)",
           "at = over(neurons, NeuronOp.HIDDEN_ERROR, l)", _PLAN + "test_programs_come_to_their_end"),
    Mutant("plan: neurons in one place", "hw/plan.py", "sum(map(self._words, range(1, l)))", "sum(map(self._words, range(2, l)))",
           _PLAN + "test_no_two_arrays_of_the_state_overlap"),
    Mutant("plan: lists in one place", "hw/plan.py", "at += n.sizes[l]\n", "at += 1\n",
           _PLAN + "test_deltas_and_lists_have_places_of_their_own"),
    Mutant("plan: inputs among the deltas", "hw/plan.py", "self.delta_base[0] + (self.groups[1] if self.network.static else 0)",
           "self.delta_base[0]", _PLAN + "test_deltas_and_lists_have_places_of_their_own"),
    Mutant("plan: values taken for spikes", "hw/machine.py", 'network.n_layers > 1 or network.input == "events"',
           "network.n_layers > 1 or not network.static", _PLAN + "test_only_a_layer_of_spikes_is_banked_by_its_inputs"),
    Mutant("plan: too large a network", "hw/machine.py", "if wanted > there:", "if wanted > there + 1:",
           _PLAN + "test_what_does_not_fit_is_refused_with_its_name"),
    Mutant("deltas of lanes without a neuron", "hw/configuration.py", 'CLEARED = ("delta", ', "CLEARED = (", _SWITCH),
    Mutant("steps of the network before", "hw/configuration.py", '"last_step": network.steps - 1', '"last_step": 1', _SWITCH),
    Mutant("rounded as the network before", "hw/configuration.py", '"rounding": int(network.stochastic)', '"rounding": 1', _SWITCH),
    Mutant("batches of the network before", "hw/configuration.py", '"last_sample": network.batch - 1', '"last_sample": 0', _SWITCH),
    Mutant("samples of the batch before", "hw/configuration.py", '("gathered", "aged")', '("aged",)', _SWITCH),
    # what lies far away
    Mutant("far: sums cleared late", "hw/weight/sums.py", "spread(m, flight.valid[4 - way]",
           "spread(m, flight.valid[5 - way]", _FAR),
    Mutant("far: sums outlive a reset", "hw/weight/sums.py", "way, lanes, init=1)", "way, lanes)",
           "tests/sim/test_endpoint.py::test_a_reset_reaches_lanes_far_away"),
    Mutant("far: a row's operand early", "hw/weight/lanes.py", "spread(m, self.operand, c.wires.tree, c.lanes)",
           "[delay(m, self.operand, 2)] * c.lanes", _FAR),
    Mutant("far: a delta for the lanes before", "hw/error/deltas.py", "for bit in late(part)", "for bit in part", _FAR),
    Mutant("far: the label of the word before", "hw/spike/neurons.py", "of_label = (walker.local == label",
           "of_label = (self.local == label", _FAR),
    Mutant("far: words of other neurons", "hw/spike/neurons.py", "self._decoded(m, errs)", "self._decoded(m, self.erring)", _FAR),
    Mutant("far: another's answer", "hw/memory.py", "while answers > 1:", "while answers > 9:", _BANKS),
    Mutant("far: an answer while one waits", "hw/host/command.py", "under_way[:-1].any() | (reply.valid & ~reply.ready)",
           "under_way[:-1].any()", _COMMAND),
    # an event, learned lazily
    Mutant("lazy: events of step 0", "hw/core.py", "((self.registers.learn & LEARN_W) != 0) & (self.registers.step != 0)",
           "(self.registers.learn & LEARN_W) != 0", _LAZY),
    Mutant("lazy: an event that was none", "hw/weight/gradients.py",
           "delay(m, self.operand != 0, self.machine.wires.tree + 4)", "1", _LAZY),
    Mutant("lazy: gradient kept", "hw/weight/gradients.py", "Mux(self.applies[lane], 0, total)", "total", _LAZY),
    Mutant("lazy: last sum divided", "hw/error/gradient.py", "Mux(pipe.reg(i.final, 2), pipe.reg(total, 2), grown)", "grown",
           _LAZY),
    Mutant("lazy: sum of the last sample", "hw/error/gradient.py", "Mux(i.first, 0, i.delta_sum)", "i.delta_sum", _LAZY),
    Mutant("lazy: reciprocal not renewed", "hw/error/leakage.py", "stale.bit_select(self.which, 1).eq(1)",
           "stale.bit_select(self.which, 1).eq(0)", _LAZY),
    Mutant("lazy: no floor of leakages", "hw/error/leakage.py", "Mux(moved < least, least,", "Mux(moved < 0, 0,", _LAZY),
    Mutant("lazy: trace of another unit", "hw/spike/neurons.py", "walker.active & ~self.during[NeuronOp.FINISH]",
           "walker.active", _LAZY),
    # a byte from the host, or from the flash
    Mutant("header before the replies", "hw/host/command.py", "request.ready.eq(self.settled & self.answered)",
           "request.ready.eq(self.settled)", _COMMAND),
    Mutant("written before it is known where", "hw/host/command.py", "host.write.eq(request.valid & settled & known)",
           "host.write.eq(request.valid & settled)", _COMMAND),
    Mutant("collision taken for damage", "hw/memory.py", "fresh & ~collided & wrong", "fresh & wrong", _PARITY),
    Mutant("parity of one bit", "hw/memory.py", "Cat(word, word.xor())", "Cat(word, word[0])", _PARITY),
    Mutant("damage forgotten", "hw/host/registers.py", 'held["damaged"] | self.damaged', "self.damaged",
           "tests/sim/test_parity.py::test_what_came_of_a_damaged_word_is_never_saved"),
    Mutant("word not kept", "hw/host/command.py", "Mux(keep, kept, host.data_r)", "host.data_r", _COMMAND),
    Mutant("image unchecked", "hw/host/boot.py", "with m.If(self.check & self.good):", "with m.If(self.check):", _DAMAGED),
    Mutant("image of anybody", "hw/host/boot.py", "with m.If(self.flash.cipo != self.bit):",
           "with m.If(self.flash.cipo & ~self.flash.cipo):", _DAMAGED),
    Mutant("flash not woken up", "hw/host/boot.py", "bits(bytes([WAKE]) + address)", "bits(bytes([READ]) + address)", _STORED),
    Mutant("no time to wake up", "hw/host/boot.py", "math.ceil(WAKE_SECONDS * clock / 2)", "math.ceil(WAKE_SECONDS * clock / 4)",
           _STORED),
    Mutant("frames not awaited", "hw/host/link.py", "boot.idle.eq(done)", "boot.idle.eq(1)",
           _BOOT + "test_the_last_frame_is_awaited"),
    Mutant("session left open", "hw/host/link.py", "executor.close.eq(boot.over)", "executor.close.eq(0)", _STORED),
)  # fmt: skip


def turn() -> int:
    """Which sample `make test` takes: TURN, else the number of commits; in a shallow clone the last one's hash, without git 0."""
    if given := os.environ.get("TURN"):
        return int(given)

    def git(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if git("rev-parse", "--is-shallow-repository") == "true":
            return int(git("rev-parse", "HEAD"), 16)
        return int(git("rev-list", "--count", "HEAD"))
    except (OSError, subprocess.CalledProcessError):
        return 0


def sample(of: Sequence[T], n: int) -> list[T]:
    """`n` far apart, as neighbours cost alike; the next turn's follow them, so that successive turns go through all."""
    return [of[(turn() + k * ceil_div(len(of), n)) % len(of)] for k in range(n)]


@contextmanager
def copy_of_the_tree() -> Iterator[Path]:
    """A copy that shares the build cache, whose keys are contents."""
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in TREE:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / name)
        (copy / "build").symlink_to(ROOT / "build")
        yield copy


@contextmanager
def changed_tree(file: str, old: str, new: str) -> Iterator[Path]:
    """Such a copy in which `old` in `file` is `new`. Raises Outdated."""
    with copy_of_the_tree() as tree:
        path = tree / file
        text = path.read_text()
        if text.count(old) != 1:
            raise Outdated(f"outdated: {old!r} is {text.count(old)} times in {file}")
        path.write_text(text.replace(old, new))
        yield tree


def run_test(tree: Path, test: str) -> tuple[int, str]:
    """Exit code of pytest, and the line that says what failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})
    why = re.findall(r"^E\s+(\S.*)$", done.stdout, re.M) or (done.stdout + done.stderr).strip().splitlines()[-1:]
    return done.returncode, (why or [""])[0]


def try_mutant(mutant: Mutant) -> tuple[bool, str]:
    """Whether the mutant was caught, and how (or why not)."""
    try:
        with changed_tree(mutant.file, mutant.old, mutant.new) as tree:
            code, why = run_test(tree, mutant.test)
            return code == FAILED, why if code else "survived: its test passed"
    except Outdated as outdated:
        return False, str(outdated)


def try_original(test: str) -> str | None:
    """What is wrong with a test in an unchanged copy, or None."""
    with copy_of_the_tree() as tree:
        code, why = run_test(tree, test)
        return f"{test} fails without a mutant: {why}" if code else None


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m sim.mutants", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    p.add_argument("--only", metavar="TEXT", default="", help="mutants whose name or file has this text (default: all)")
    p.add_argument("--jobs", type=whole(1), default=os.cpu_count(), metavar="N",
                   help="tests at the same time (default: %(default)s)")  # fmt: skip
    p.add_argument("--list", action="store_true", help="show the mutants and their tests")
    options = p.parse_args(arguments)
    chosen = [m for m in MUTANTS if options.only in m.name or options.only in m.file]
    if not chosen:
        p.error(f"--only: no mutant has {options.only!r}; legal is a part of {', '.join(m.name for m in MUTANTS)}")
    if options.list:
        print("\n".join(f"{m.name:<28} {m.file:<24} {m.test}" for m in chosen))
        return 0
    tests = sorted({m.test for m in chosen})
    with ThreadPoolExecutor(options.jobs) as pool, tqdm(total=len(tests) + len(chosen), unit=" tests") as bar:
        broken = []
        for problem in pool.map(try_original, tests):
            bar.update()
            broken += [problem] if problem else []
        results = []
        for result in pool.map(try_mutant, [] if broken else chosen):
            bar.update()
            results.append(result)
    for problem in broken:
        print(problem, file=sys.stderr)
    for mutant, (caught, how) in zip(chosen, results, strict=False):
        print(f"{'caught  ' if caught else 'SURVIVED'}  {mutant.name:<28} {mutant.file:<24} {how[:100]}")
    survivors = sum(not caught for caught, _ in results)
    if not broken:
        print(f"{len(results) - survivors} of {len(results)} caught")
    return 1 if broken or survivors else 0


if __name__ == "__main__":
    sys.exit(main())
