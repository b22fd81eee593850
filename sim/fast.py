"""The simulator for long runs: the Verilated design in this process, its words pushed and popped in a C++ loop (sim/fast.cpp).

The same two streams as `sim.simulator`, without cocotb: no second process, no VPI, no waves. A play runs in a thread of its own,
without Python's lock, so that the golden model can compute meanwhile.
"""

from __future__ import annotations

import ctypes
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from sim.build import Library
from sim.simulator import Hang, Play, SimulationError, check_stalls


class Tally(ctypes.Structure):
    """What a play did, as sim/fast.cpp reports it."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("sent", "got", "cycles")),
        *((name, ctypes.c_int32) for name in ("extra", "unsteady")),
    ]


class FastSimulator:
    """A simulation of `library`; a context manager with the methods of `sim.simulator.Simulator` that a host needs."""

    def __init__(self, library: Library):
        self.probes = library.probes
        self._c = ctypes.CDLL(str(library.path))
        pointer, long, word = ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint32
        self._c.fast_new.restype = pointer
        self._c.fast_delete.argtypes = [pointer]
        self._c.fast_play.argtypes = [pointer, ctypes.c_char_p, long, pointer, long, long, long, word, word, word, pointer, pointer]
        self._c.fast_play.restype = None
        self._c.fast_probes.argtypes = [pointer, pointer]
        self._c.fast_probes.restype = None
        self._model: int | None = None
        self._stop = ctypes.c_int32(0)
        self._thread = ThreadPoolExecutor(1)
        self._plays: deque[Future[Play]] = deque()

    def __enter__(self) -> FastSimulator:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.value = 1  # a play that is still on its way ends now
        self._thread.shutdown(cancel_futures=True)
        self._free()

    def _free(self) -> None:
        if self._model is not None:
            self._c.fast_delete(self._model)
            self._model = None

    def restart(self) -> None:
        """A fresh design: registers at their reset values, memories at their first contents."""
        if self._plays:
            raise ValueError(f"restart: {len(self._plays)} plays were submitted and not collected")
        self._free()
        self._model = self._c.fast_new()

    def submit(self, words: bytes, outputs: int, *, limit: int, linger: int = 0, stall_in: float = 0.0, stall_out: float = 0.0,
               seed: int = 0) -> None:  # fmt: skip
        """Have `words` (32 bits each, little-endian) played and `outputs` words collected; arguments as for `Simulator.submit`."""
        random, limit = check_stalls(stall_in, stall_out, seed, limit)
        if self._model is None:
            self.restart()
        self._plays.append(
            self._thread.submit(self._play, words, outputs, limit, linger, int(stall_in * 65536), int(stall_out * 65536), random)
        )

    def collect(self) -> Play:
        """The answer to the oldest `submit`. Raises SimulationError."""
        return self._plays.popleft().result()

    def _play(self, words: bytes, outputs: int, limit: int, linger: int, stall_in: int, stall_out: int, random: int) -> Play:
        inputs, out, t = len(words) // 4, np.zeros(outputs, np.uint32), Tally()
        self._c.fast_play(self._model, words, inputs, out.ctypes.data, outputs, limit, linger, stall_in, stall_out, random,
                          ctypes.byref(self._stop), ctypes.byref(t))  # fmt: skip
        if t.unsteady:
            raise SimulationError("the output changed or went away while it was valid and waited for ready")
        if t.extra:
            raise SimulationError(f"more than the {outputs} words expected came")
        if t.sent < inputs or t.got < outputs:
            raise Hang(f"hang: after {t.cycles} clock cycles {t.sent} of {inputs} words were taken and {t.got} of {outputs} words"
                       " came", self._probe())  # fmt: skip
        return Play(out.tobytes(), t.cycles)

    def _probe(self) -> dict[str, int]:
        values = (ctypes.c_uint64 * len(self.probes))()
        self._c.fast_probes(self._model, values)
        return dict(zip(self.probes, values, strict=True))
