"""What the tools' logs say about a build, as figures and as text."""

from __future__ import annotations

import re
from typing import Any

from boards.board import Board, Family

RESOURCES = ("lut", "ff", "bram", "spram", "dsp")

_CELLS = {
    "ice40": {"lc": "ICESTORM_LC", "bram": "ICESTORM_RAM", "spram": "ICESTORM_SPRAM", "dsp": "ICESTORM_DSP"},
    "ecp5": {"lut": "TRELLIS_COMB", "ff": "TRELLIS_FF", "bram": "DP16KD", "dsp": "MULT18X18D"},
}  # nextpnr's names
_ICE40_CELLS = {"lut": ("LUT4 only", "LUT4 and DFF"), "ff": ("LUT4 and DFF", "DFF only")}  # an LC holds both
CLOCK_TOLERANCE = 0.002  # the log rounds MHz to two digits


class BuildError(Exception):
    """A build of no use, and why: a tool is missing or failed, the design does not fit or is too slow, a figure is missing."""


def resource_names(family: Family) -> dict[str, str]:
    """What a reader calls each resource of the report."""
    return {"lut": "LUT", "ff": "FF", "lc": "LC", "bram": family.bram_name, "spram": "SPRAM", "dsp": "DSP"}


def utilisation(board: Board, log: str) -> dict[str, dict[str, int]]:
    """Resources `used` and `available`, from a nextpnr log (also of a run that failed because the design does not fit).

    Available is what the data sheet says, or nextpnr if that is less. BuildError names a figure that is missing.
    """
    chip, family = board.chip, board.chip.family
    rows = re.findall(r"^Info:\s+(\w+):\s+(\d+)/\s*(\d+)\s+\d+%", log, re.MULTILINE)
    table = {name: (int(used), int(there)) for name, used, there in rows}
    out = {}
    for resource, cell in _CELLS[family.name].items():
        limit = getattr(chip, resource, chip.lut)
        if cell in table:
            used, there = table[cell]
            out[resource] = {"used": used, "available": min(there, limit)}
        elif limit:
            raise BuildError(f"{resource_names(family)[resource]}: the place-and-route log has no figure ({cell})")
        else:
            out[resource] = {"used": 0, "available": 0}
    if family.name == "ice40":
        cells = {kind: int(n) for n, kind in re.findall(r"^Info:\s+(\d+) LCs used as (.+?)\s*$", log, re.MULTILINE)}
        for resource, kinds in _ICE40_CELLS.items():
            missing = [kind for kind in kinds if kind not in cells]
            if missing:
                raise BuildError(f"{resource.upper()}: the place-and-route log has no figure (LCs used as {missing[0]})")
            out[resource] = {"used": sum(cells[kind] for kind in kinds), "available": out["lc"]["available"]}
    out.setdefault("spram", {"used": 0, "available": 0})
    return out


def _clocks(log: str) -> list[tuple[str, str, str]]:
    """Name of each clock, MHz reached and wanted, after routing."""
    *before, routed = re.split(r"^Info: (?:Routing complete|Router2 time)", log, flags=re.MULTILINE)
    return re.findall(r"Max frequency for clock\s+'(.*)': ([\d.]+) MHz \((?:PASS|FAIL) at ([\d.]+) MHz\)", routed if before else "")


def fmax(log: str, target: float) -> float:
    """Greatest frequency (Hz) of the clock constrained to `target` Hz, after routing. BuildError if the log does not have it."""
    meant = [float(reached) for _, reached, wanted in _clocks(log) if abs(float(wanted) * 1e6 / target - 1) < CLOCK_TOLERANCE]
    if not meant:
        raise BuildError(f"Fmax: the place-and-route log has no figure for a clock of {target / 1e6:g} MHz after routing")
    return meant[-1] * 1e6


def critical_path(log: str, target: float) -> dict[str, Any]:
    """What limits the clock constrained to `target` Hz, after routing.

    The registers or memories at both ends of the longest path, as far as they still have a name, and its nanoseconds in `logic` and
    in `routing`. BuildError if the log does not have it.
    """
    names = [name for name, _, wanted in _clocks(log) if abs(float(wanted) * 1e6 / target - 1) < CLOCK_TOLERANCE]
    parts = re.split(r"^Info: Critical path report for ", log, flags=re.MULTILINE)
    paths = [part for part in parts if names and part.startswith(f"clock '{names[-1]}'")]
    steps = paths[-1] if paths else ""
    sources, sinks = re.findall(r" Source (\S+)", steps), re.findall(r" Sink (\S+)", steps)
    spent = re.search(r"([\d.]+) ns logic, ([\d.]+) ns routing", steps)
    if not (sources and sinks and spent):
        raise BuildError(f"critical path: the place-and-route log has none for a clock of {target / 1e6:g} MHz")
    cell = r"_(?:[A-Z]\w*_)?(?:SB|TRELLIS|LUT4|CCU2C|PFUMX|L6MUX21|DFFLC)|\.\d+\.\d+"  # what the tools append to a name
    start, end = (re.split(cell, name)[0] for name in (sources[0], sinks[-1]))
    return {"from": start, "to": end, "logic_ns": float(spent[1]), "routing_ns": float(spent[2])}


def exceeded(board: Board, resources: dict[str, dict[str, int]]) -> str | None:
    """The resource that is used up most beyond what there is, or None."""
    over = {r: v["used"] / max(1, v["available"]) for r, v in resources.items() if v["used"] > v["available"]}
    return max(over, key=lambda r: over[r]) if over else None


def as_text(report: dict[str, Any], family: Family) -> str:
    """The report for a reader."""
    names = resource_names(family)
    lines = [
        f"{'board':<10} {report['board']} ({report['chip']})",
        f"{report['kind']:<10} {report['name']}",
        f"{'holds':<10} {report['synapses']} synapses in {report['lanes']} lanes",
        f"{'clock':<10} {report['fmax_mhz']:.2f} MHz reached, {report['target_mhz']:.2f} MHz wanted",
    ]
    path = report["critical_path"]
    lines.append(
        f"{'limited by':<10} {path['from']} -> {path['to']}: {path['logic_ns']:.1f} ns logic, {path['routing_ns']:.1f} ns routing"
    )
    for resource, figure in report["resources"].items():
        if figure["available"]:
            share = 100 * figure["used"] / figure["available"]
            lines.append(f"{names[resource]:<10} {figure['used']:>6} of {figure['available']:>6} {share:5.0f} %")
    if "harness_ff" in report:
        lines.append(f"{'harness':<10} {report['harness_ff']:>6} flip-flops of these, each in a cell of its own")
    lines += [f"{'seed':<10} {report['seed']}", *(f"{'tool':<10} {name} {version}" for name, version in report["tools"].items())]
    lines += [f"{name:<10} {report[name]}" for name in ("bitstream", "floorplan", "directory") if report.get(name)]
    return "\n".join(lines)
