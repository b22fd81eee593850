"""A network stored in an SPI flash, for a device on its own: what gateware (hw/host/boot.py) and driver (sw/driver/flash.py) share.

Nothing here imports Amaranth or PyTorch.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property

from hw.configuration import cleared
from hw.host.protocol import CRC_BYTES, FRAME_BYTES, HEADER_BYTES, VERSION, Link
from hw.machine import Machine
from hw.memory_map import MAX_BURST, regions, registers

READ, WAKE = 0x03, 0xAB  # commands of every SPI flash: read data at up to 50 MHz; release from deep power-down
COMMAND_BYTES = 4  # READ and 24 bits of address
IDENTITY_BYTES = 4
SECTOR = 4096  # bytes that a flash erases at once, at least
WAKE_SECONDS = 35e-6
"""From WAKE to the next command.

Release from deep power-down takes 3 us in a Winbond W25Q128JV (tRES1), 30 us in a Micron N25Q032A (tRDP).
"""

NOT_STORED = ("frame", "event")
"""Memories of a sample's input, which are no part of a network."""


@dataclass(frozen=True)
class Stored:
    """Image of a network for a device, a `machine` behind `link`, at `offset` bytes of a flash.

    It consists of `identity` (4 bytes), the link's frames from one that opens a session on, delimiters up to `size` less 4
    bytes, and the CRC-32 of frames and delimiters. The frames are what a driver sends to configure the device (where networks
    are loaded), and to load learning rates and state. All images of a device have the same size, that of the largest network.
    """

    machine: Machine
    link: Link
    offset: int

    def __post_init__(self) -> None:
        if self.offset % SECTOR or not 0 <= self.offset <= (1 << 24) - self.sectors * SECTOR:
            legal = f"a multiple of {SECTOR:#x} up to {(1 << 24) - self.sectors * SECTOR:#x}"
            raise ValueError(f"offset: {self.offset:#x} is not legal; legal is {legal}")

    @property
    def identity(self) -> bytes:
        """Names what the frames mean: version and buffer of the link, machine, size."""
        text = f"stored {VERSION} {self.link.buffer} {self.machine.digest} {self.size}"
        return zlib.crc32(text.encode()).to_bytes(IDENTITY_BYTES, "little")

    @cached_property
    def sectors(self) -> int:
        """Sectors that READ and the image fill, however the driver cuts the state into frames."""
        memory = regions(self.machine)
        written = [region for region in memory.values() if region.name not in NOT_STORED]
        runs = 1 if self.machine.fixed else self.machine.capacity.layers + 1  # of addresses in a lane that follow each other
        written += cleared(self.machine)  # before the state is loaded
        words = sum(region.width * region.lanes * region.depth for region in written)
        operations = sum(region.lanes * (min(runs, region.depth) + region.depth // MAX_BURST) for region in written)
        settings = sum(register.access == "rw" for register in registers(self.machine).values())
        payload = words + 4 * settings + HEADER_BYTES * (operations + settings)
        longest = self.link.request_bytes
        frames = 2 + payload // (longest - FRAME_BYTES - 2 * HEADER_BYTES - 4)
        encoded = payload + frames * (HEADER_BYTES + FRAME_BYTES + longest // 254 + 2)  # COBS: a byte of 254 and one; the delimiter
        return -(-(COMMAND_BYTES + IDENTITY_BYTES + encoded + 1 + CRC_BYTES) // SECTOR)

    @property
    def size(self) -> int:
        """Bytes of an image."""
        return self.sectors * SECTOR - COMMAND_BYTES
