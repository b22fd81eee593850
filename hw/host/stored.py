"""A network stored in an SPI flash, for a device on its own: gateware (hw/host/boot.py) and driver (sw/flash.py) derive from here.

Nothing here imports Amaranth or PyTorch.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hw.config import LANE_BITS, ROW_BITS, Config
from hw.host.protocol import CRC_BYTES, FRAME_BYTES, HEADER_BYTES, VERSION, Link
from hw.memory_map import MAX_BURST, regions, state_fields

READ, WAKE = 0x03, 0xAB  # commands of every SPI flash: read data at up to 50 MHz; release from deep power-down
COMMAND_BYTES = 4  # READ and 24 bits of address
IDENTITY_BYTES = 4
SECTOR = 4096  # bytes that a flash erases at once, at least
WAKE_SECONDS = 35e-6
"""From WAKE to the next command. Release from deep power-down takes 3 us in a Winbond W25Q128JV (tRES1), 30 us in a Micron N25Q032A (tRDP)."""


@dataclass(frozen=True)
class Stored:
    """Image of a network of `config` for a device behind `link`, at `offset` bytes of a flash.

    `identity` (4 bytes), the link's frames from one that opens a session on, delimiters up to `size` less 4 bytes, CRC-32 of all but the
    identity. The frames are what a driver sends to load the state and the learning rates. All images of a device have the same size.
    """

    config: Config
    link: Link
    offset: int

    def __post_init__(self) -> None:
        if self.offset % SECTOR or not 0 <= self.offset <= (1 << 24) - self.sectors * SECTOR:
            raise ValueError(f"offset: {self.offset:#x} is not legal; legal is a multiple of {SECTOR:#x} up to {(1 << 24) - self.sectors * SECTOR:#x}")

    @property
    def identity(self) -> bytes:
        """Names what the frames mean: version and buffer of the link, configuration, size."""
        return zlib.crc32(f"stored {VERSION} {self.link.buffer} {self.config.digest} {self.size}".encode()).to_bytes(IDENTITY_BYTES, "little")

    @cached_property
    def sectors(self) -> int:
        """Sectors that READ and the image fill, however the driver cuts the state into frames."""
        words = np.unique(np.concatenate([field.addresses.ravel() for field in state_fields(self.config).values()]))
        widths = {region.number: region.width for region in regions(self.config).values()} | {0: 4}
        numbers, counts = np.unique(words >> LANE_BITS + ROW_BITS, return_counts=True)
        operations = 3 + np.count_nonzero(np.diff(words) != 1) + len(words) // MAX_BURST  # and one that is cut in two in each frame
        payload = 3 + sum(widths[int(n)] * int(k) for n, k in zip(numbers, counts, strict=True)) + HEADER_BYTES * int(operations)
        longest = self.link.request_bytes
        frames = 2 + payload // (longest - FRAME_BYTES - 2 * HEADER_BYTES - 4)
        encoded = payload + frames * (HEADER_BYTES + FRAME_BYTES + longest // 254 + 2)  # COBS: a byte of 254 and one; the delimiter
        return -(-(COMMAND_BYTES + IDENTITY_BYTES + encoded + 1 + CRC_BYTES) // SECTOR)

    @property
    def size(self) -> int:
        """Bytes of an image."""
        return self.sectors * SECTOR - COMMAND_BYTES
