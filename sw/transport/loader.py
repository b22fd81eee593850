"""openFPGALoader, which programs boards and writes their SPI flash."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from boards import BOARDS, Board
from sw.transport.base import DeviceError


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
