"""The whole device of a board, Verilated into a shared library that Python calls: bytes in, bytes out, clock cycles counted."""

from __future__ import annotations

import ctypes
import math
import shutil
from pathlib import Path

from amaranth.back import rtlil

from hw.host.protocol import Link
from hw.host.stored import Stored
from hw.machine import Machine
from hw.top import LIGHTS, Device, SerialDevice
from sim.build import WAIVERS, _cached, _run, _verilator, _versions, _yosys
from sw.common.compiler import cxx

SOURCE = Path(__file__).with_name("device.cpp")
RUNTIME = ("verilated", "verilated_threads")
CAPACITY = 1 << 16  # bytes that one call returns at most
FLASH_OFFSET = 0x10_0000  # of the network in the simulated flash
WAKE_MOST = 30e-6  # seconds that it takes to wake up, as the slowest of the boards' (hw/host/stored.py)


def build(machine: Machine, link: Link, *, serial: bool = False) -> Path:
    """The shared library; cached by its contents. `serial`: with the UART, bit by bit."""
    stored = Stored(machine, link, FLASH_OFFSET)
    design = SerialDevice(machine, link, stored) if serial else Device(machine, link, stored)
    text, main = rtlil.convert(design, name="top", emit_src=False), SOURCE.read_text()
    include = _verilator() / "include"
    unused = ("VM_COVERAGE", "VM_SC", "VM_TIMING", "VM_TRACE", "VM_TRACE_FST", "VM_TRACE_SAIF", "VM_TRACE_VCD")
    flags = ("-O2", "-std=c++17", "-fPIC", f"-I{include}", f"-I{include / 'vltstd'}", *(f"-D{name}=0" for name in unused))
    with_line = ("-DSERIAL", f"-DBIT={design.cycles_per_bit}") if isinstance(design, SerialDevice) else ()

    def runtime(folder: Path) -> None:
        for name in RUNTIME:
            _run(folder, cxx(), *flags, "-c", include / f"{name}.cpp")

    def make(folder: Path) -> None:
        objects = _cached(runtime, "shared", *flags, *_versions())
        (folder / "top.v").write_text(_yosys(text))
        (folder / "waivers.vlt").write_text("".join(line + "\n" for line in WAIVERS.splitlines() if "bench.v" not in line))
        _run(folder, _verilator() / "bin" / "verilator_bin", "--cc", "--prefix", "Vtop", "--top-module", "top", "-O3", "-Mdir", "c",
             "waivers.vlt", "top.v")  # fmt: skip
        sources = sorted((folder / "c").glob("*.cpp"))
        (folder / "all.cpp").write_text("".join(f'#include "{s.relative_to(folder)}"\n' for s in sources) + main)
        _run(folder, cxx(), *flags, *with_line, "-I.", "-Ic", "-shared", "all.cpp", *(objects / f"{name}.o" for name in RUNTIME),
             "-o", "device.so", "-lpthread")  # fmt: skip
        (folder / "all.cpp").unlink()
        shutil.rmtree(folder / "c")

    return _cached(make, "device", text, main, WAIVERS, *flags, *with_line, *_versions()) / "device.so"


class Model:
    """A simulated device. `cycles` counts clock cycles, `line_cycles` those in which the line to the device was in use.

    `flash`: what its SPI flash holds from the place of a network on; behind that it is erased. It may be set.
    """

    def __init__(self, machine: Machine, link: Link, *, serial: bool = False, flash: bytes = b""):
        self.machine, self.link, self._flash = machine, link, flash
        self._library = library = ctypes.CDLL(str(build(machine, link, serial=serial)))
        library.device_new.restype = ctypes.c_void_p
        for name in ("device_cycles", "device_line_cycles"):
            getattr(library, name).restype = ctypes.c_uint64
        self._out = (ctypes.c_uint8 * CAPACITY)()
        self._pointer = ctypes.c_void_p()
        self.power_up()

    def power_up(self) -> None:
        """Switches it off and on: registers and memories are lost, the flash is not."""
        self.close()
        self._pointer = ctypes.c_void_p(self._library.device_new())
        self.flash = self._flash
        self.reset()

    @property
    def flash(self) -> bytes:
        return self._flash

    @flash.setter
    def flash(self, data: bytes) -> None:
        self._flash, wake = data, ctypes.c_uint64(math.ceil(WAKE_MOST * self.link.clock))
        self._library.device_flash(self._pointer, data, len(data), FLASH_OFFSET, wake)

    def close(self) -> None:
        """Frees the model; it must not be used any more but for `power_up`."""
        if self._pointer:
            self._library.device_delete(self._pointer)
            self._pointer = ctypes.c_void_p()

    def reset(self) -> None:
        """Resets the registers, as at power-up; memories keep what they hold."""
        self._library.device_reset(self._pointer)

    def run(self, data: bytes = b"", *, limit: int = 1 << 40, capacity: int = CAPACITY, frame: bool = False) -> tuple[int, bytes]:
        """Sends `data` and runs until nothing is under way any more, or for `limit` clock cycles, or until `capacity` bytes have
        come, or (`frame`) a delimiter.

        How many bytes were sent, and the bytes that came.
        """
        got = ctypes.c_int()
        sent = self._library.device_run(self._pointer, data, len(data), self._out, capacity, ctypes.byref(got), int(frame),
                                        ctypes.c_uint64(limit))  # fmt: skip
        return sent, bytes(self._out[: got.value])

    @property
    def cycles(self) -> int:
        return int(self._library.device_cycles(self._pointer))

    @property
    def line_cycles(self) -> int:
        return int(self._library.device_line_cycles(self._pointer))

    @property
    def lights(self) -> dict[str, bool]:
        """What the LEDs show, by hw.top.LIGHTS."""
        lights = self._library.device_lights(self._pointer)
        return {name: bool(lights >> bit & 1) for bit, name in enumerate(LIGHTS)}
