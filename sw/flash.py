"""A network in the SPI flash of a board, with which it starts on its own: the image (hw/host/stored.py), and how it gets there."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from numpy.typing import ArrayLike

from boards import BOARDS, Board
from hw.host.protocol import CRC_BYTES, DELIMITER, Link
from hw.host.stored import Stored
from hw.memory_map import REGISTERS
from hw.plan import Plan
from sw.checks import RATES
from sw.layout import layout, write_configuration
from sw.transport.base import DeviceError
from sw.transport.batch import Batch
from sw.transport.frames import request


def image(plan: Plan, link: Link, state: Mapping[str, ArrayLike], rates: Mapping[str, int]) -> bytes:
    """The image of a network: its programs, its whole learning state, and the rates rate_w, rate_theta, rate_alpha.

    ValueError names an array that is missing or not legal.
    """
    stored, places = Stored(plan.machine, link, 0), layout(plan)
    missing = sorted(set(places.fields) - set(state) - {"class"})
    if missing:
        raise ValueError(f"{missing[0]}: is missing; a stored network has all arrays")
    words, given, _ = places.encode(state)
    batch = Batch(link)
    write_configuration(batch, plan)
    batch.write(REGISTERS["rate_w"].address, [rates[name] for name in RATES], 1)
    places.write(batch, words, given)
    batch.flush()
    frames = request(0, b"", opening=True) + b"".join(request(k % 256, payload) for k, payload in enumerate(batch.payloads, 1))
    body = frames.ljust(stored.size - len(stored.identity) - CRC_BYTES, bytes([DELIMITER]))
    assert body[-1] == DELIMITER and len(body) + len(stored.identity) + CRC_BYTES == stored.size
    return stored.identity + body + zlib.crc32(body).to_bytes(CRC_BYTES, "little")


def board_with_flash(name: str | None) -> Board:
    """The board of that name; ValueError if it has no flash for a network."""
    able = ", ".join(board.name for board in BOARDS.values() if board.flash is not None)
    if name not in BOARDS or BOARDS[name].flash is None:
        raise ValueError(f"board: {name or 'none'} has no flash for a network; legal is one of {able}")
    return BOARDS[name]


def openfpgaloader(board: Board, *arguments: str | Path) -> tuple[bool, str]:
    """Runs openFPGALoader for a board; whether it ended well, and the last line it said."""
    command = [sys.executable, "-m", "openfpgaloader", *board.loader, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).strip().splitlines()
    return done.returncode == 0, said[-1] if said else "nothing said"


def write(board: Board, data: bytes) -> None:
    """Writes an image to its place in the board's flash, reads it back, and lets the board start anew.

    DeviceError if the flash then does not hold it.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, back, place = Path(folder) / "network.bin", Path(folder) / "back.bin", ("--offset", str(board.flash))
        file.write_bytes(data)
        well, said = openfpgaloader(board, "--write-flash", *place, file)
        if well:  # what it makes of --verify does not reach its exit code on every board
            _, said = openfpgaloader(board, "--dump-flash", *place, "--file-size", str(len(data)), back)
        if not back.is_file() or back.read_bytes() != data:
            raise DeviceError(f"flash: {board.name} does not hold what was written ({said}); check the USB cable and its driver"
                              " (Linux: libusb-1.0, libftdi1 and the udev rules of openFPGALoader), and store again")  # fmt: skip
