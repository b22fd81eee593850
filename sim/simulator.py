"""The parent's half of a simulation: starts the program, sends it words to play and receives what the design answers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cocotb_tools.config
import find_libpython

from sim.build import Program

LINGER = 64  # cycles after the last expected word in which a word too many is noticed


class SimulationError(RuntimeError):
    """The design did not do what was asked: it hung, gave a word too many, or broke the stream protocol."""


class Hang(SimulationError):
    """It did not come to an end. `probes`: the design's other outputs at that moment."""

    def __init__(self, message: str, probes: Mapping[str, int]):
        super().__init__(message + "".join(f", {name} = {value}" for name, value in probes.items()))
        self.probes = probes


@dataclass(frozen=True)
class Play:
    """What came back: output words (bytes, little-endian, `Program.word_bytes` each) and the clock cycles taken."""

    data: bytes
    cycles: int


def check_stalls(stall_in: float, stall_out: float, seed: int, limit: int) -> tuple[int, int]:
    """The first random word of the stalls, and the limit of clock cycles with stalls counted.

    ValueError for a chance of 1 or more.
    """
    for name, chance in (("stall_in", stall_in), ("stall_out", stall_out)):
        if not 0 <= chance < 1:
            raise ValueError(f"{name}: {chance} is not legal; legal is 0 <= {name} < 1")
    return (seed * 0x9E3779B1 + 0x7F4A7C15) % (1 << 32) or 1, int(limit / ((1 - stall_in) * (1 - stall_out)))


class Simulator:
    """A running simulation of `program`; a context manager.

    `log`: file for the simulator's own messages; without it they are shown only if the simulator fails.
    `waves`: file for the waves of a program built with them (VCD). `stepped`: cocotb is called in every clock cycle, as by an
    ordinary testbench, and not once a play, so that the two can be compared.
    """

    def __init__(self, program: Program, *, log: Path | None = None, waves: Path | None = None, stepped: bool = False):
        if waves is not None and not program.waves:
            raise ValueError("waves: the program was built without; legal is a program from build(..., waves=True)")
        self.program = program
        if waves is not None:
            waves.parent.mkdir(parents=True, exist_ok=True)
        self._log = open(log, "w+") if log else tempfile.TemporaryFile("w+")  # noqa: SIM115
        ours, theirs = socket.socketpair()
        self._scratch = tempfile.TemporaryDirectory()
        env = os.environ | {
            "GPI_USERS": f"{find_libpython.find_libpython()};{cocotb_tools.config.pygpi_entry_point()}",
            "PYGPI_PYTHON_BIN": sys.executable,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parent.parent), *sys.path]),
            "COCOTB_TEST_MODULES": "sim.cocotb_bench",
            "COCOTB_TOPLEVEL": "bench",
            "TOPLEVEL_LANG": "verilog",
            "COCOTB_RESULTS_FILE": os.path.join(self._scratch.name, "results.xml"),
            "SIM_SOCKET": str(theirs.fileno()),
            "SIM_BENCH": json.dumps(
                {"word_bytes": program.word_bytes, "slots": program.slots, "rows": program.rows, "probes": list(program.probes),
                 "stepped": stepped}
            ),
        }
        with theirs:
            # Its own session: an interrupt from the keyboard reaches the parent alone, which then closes the connection.
            self._process = subprocess.Popen(
                [str(program.path), str(Path(waves).resolve() if waves else os.path.join(self._scratch.name, "waves.vcd"))],
                env=env, cwd=self._scratch.name, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=self._log,
                stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
        self._connection = Connection(ours.detach())

    def __enter__(self) -> Simulator:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._connection.close()
        try:
            self._process.wait(0.1 if kind else 20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            self._log.close()
            self._scratch.cleanup()

    def restart(self) -> None:
        """Reset the design's registers (not its memories) and wait until that is done."""
        self._send("restart")
        self._receive()

    def submit(self, words: Sequence[int] | bytes, outputs: int, *, limit: int, linger: int = 0, stall_in: float = 0.0,
               stall_out: float = 0.0, seed: int = 0, ports: Mapping[str, int] | None = None) -> None:  # fmt: skip
        """Have `words` played and `outputs` words collected, without waiting; `collect` returns them, in the order submitted.

        `limit`: clock cycles after which the design hangs, stalls not counted. `linger`: clock cycles after the last word in
        which no further word may come. `stall_in`, `stall_out`, `seed`, `ports`: see `sim.block.Scenario`; ports keep their
        values.
        """
        p = self.program
        for name, value in (ports or {}).items():
            if name not in p.ports:
                raise ValueError(f"ports: {name!r} is not an input of the design; legal is one of {', '.join(p.ports) or 'none'}")
            if not 0 <= value < 1 << p.ports[name]:
                raise ValueError(f"ports: {name} = {value} is not legal; legal is 0 to {(1 << p.ports[name]) - 1}")
        random, limit = check_stalls(stall_in, stall_out, seed, limit)
        if not isinstance(words, bytes):
            for n, word in enumerate(words):
                if not 0 <= word < 1 << p.i_bits:
                    raise ValueError(f"inputs: word {n} is {word}; legal is 0 to {(1 << p.i_bits) - 1} ({p.i_bits} bits)")
            words = b"".join(word.to_bytes(p.word_bytes, "little") for word in words)
        values = {f"port_{name}": value for name, value in (ports or {}).items()}
        self._send("play", data=words, outputs=outputs, limit=limit, linger=linger, stall_in=int(stall_in * 65536),
                   stall_out=int(stall_out * 65536), random=random, **values)  # fmt: skip

    def collect(self) -> Play:
        """The answer to the oldest `submit`. Raises SimulationError."""
        data, t = self._receive()
        if t["unsteady"]:
            raise SimulationError("the output changed or went away while it was valid and waited for ready")
        if t["cycles"] >= t["limit"]:
            raise Hang(f"hang: after {t['cycles']} clock cycles {t['sent']} of {t['inputs']} words were taken "
                       f"and {t['got']} of {t['outputs']} words came", t["probes"])  # fmt: skip
        if t["extra"]:
            raise SimulationError(f"more than the {t['outputs']} words expected came")
        return Play(data, t["cycles"])

    def play(self, words: Sequence[int] | bytes, outputs: int, **options: Any) -> Play:
        """`submit` and `collect` in one."""
        self.submit(words, outputs, **options)
        return self.collect()

    def words(self, data: bytes) -> list[int]:
        """Output words as integers."""
        step = self.program.word_bytes
        return [int.from_bytes(data[at : at + step], "little") for at in range(0, len(data), step)]

    def _send(self, name: str, **arguments: object) -> None:
        try:
            self._connection.send((name, arguments))
        except OSError as e:
            raise self._dead() from e

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError) as e:
            raise self._dead() from e

    def _dead(self) -> SimulationError:
        self._process.kill()
        code = self._process.wait()
        self._log.seek(0)
        return SimulationError(f"the simulator ended with exit code {code}; its messages:\n{self._log.read()}")
