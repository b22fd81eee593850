"""Accesses to registers and memories, packed into as few requests as they fit."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from hw.host.protocol import FRAME_BYTES, HEADER_BYTES, Link, Op
from hw.memory_map import MAX_BURST
from hw.numbers import ceil_div

_HEADER = struct.Struct("<BHBI")


class Batch:
    """Operations in order, cut into payloads of requests.

    `payloads` are those that are full, or were ended by `flush`.

    What is read is returned by `collect`, once the data of as many replies are there.
    """

    def __init__(self, link: Link):
        self._room, self._reply_room = link.request_bytes - FRAME_BYTES, link.reply_data
        self._payload = bytearray()
        self._asked = 0  # bytes of the reply to the payload under way
        self.payloads: list[bytes] = []
        self._widths: list[tuple[int, int]] = []  # elements and bytes each, of all reads

    def write(self, address: int, elements: ArrayLike | bytes, width: int) -> None:
        """Writes whole numbers (two's complement if negative) of `width` bytes to an address and the rows behind it."""
        data = elements if isinstance(elements, bytes) else pack(elements, width)
        while data:
            count = min((self._room - len(self._payload) - HEADER_BYTES) // width, len(data) // width, MAX_BURST)
            if count < 1:
                self.flush()
                continue
            self._payload += _HEADER.pack(Op.WRITE, count, width, address)
            self._payload += data[: count * width]
            data, address = data[count * width :], address + count

    def write_words(self, address: int, words: ArrayLike, most: int) -> None:
        """Writes words that are not negative, of `most` bytes at most, to an address and the rows behind it.

        An element has as many bytes as the largest word needs: the device fills the others with 0.
        """
        self.write(address, words, min(most, max(1, ceil_div(int(np.max(words)).bit_length(), 8))))

    def read(self, address: int, count: int, width: int, op: Op = Op.READ) -> None:
        """Asks for `count` elements of `width` bytes."""
        while count:
            part = min((self._reply_room - self._asked) // width, count)
            if part < 1 or self._room - len(self._payload) < HEADER_BYTES:
                self.flush()
                continue
            self._payload += _HEADER.pack(op, part, width, address)
            self._asked += part * width
            self._widths.append((part, width))
            count, address = count - part, address + part

    def flush(self) -> None:
        """Ends the request under way."""
        if self._payload:
            self.payloads.append(bytes(self._payload))
            self._payload.clear()
            self._asked = 0

    def collect(self, replies: Iterable[bytes]) -> np.ndarray:
        """All elements read, int64 and not negative, from the data of all replies."""
        data, parts, at = b"".join(replies), [np.zeros(0, np.int64)], 0
        for count, width in self._widths:
            raw = np.frombuffer(data, np.uint8, count * width, at).reshape(count, width)
            parts.append(raw.astype(np.int64) @ (1 << 8 * np.arange(width)))
            at += count * width
        return np.concatenate(parts)


def pack(elements: ArrayLike, width: int) -> bytes:
    """Whole numbers as `width` bytes each, least first."""
    array = np.atleast_1d(np.asarray(elements, np.int64)).astype("<i8")
    return array.view(np.uint8).reshape(-1, 8)[:, :width].tobytes()
