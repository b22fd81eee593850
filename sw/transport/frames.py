"""Frames of hw/host/protocol.py, the PC's half: what goes over the line, and what comes back."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from cobs import cobs

from hw.host.protocol import CRC_BYTES, DELIMITER, OPEN, Status

_HEAD = struct.Struct("<HB")
_CRC = struct.Struct("<I")
_END = bytes([DELIMITER])


class Reply(NamedTuple):
    """The sequence number of the request it answers, its data, and how the request ended."""

    sequence: int
    data: bytes
    status: Status


def request(sequence: int, payload: bytes, *, opening: bool = False) -> bytes:
    """A request as it goes over the line, delimiter included."""
    frame = _HEAD.pack(1 + len(payload) + CRC_BYTES | (OPEN if opening else 0), sequence) + payload
    return cobs.encode(frame + _CRC.pack(zlib.crc32(frame))) + _END


def parse_reply(encoded: bytes) -> Reply | None:
    """A reply from the bytes between two delimiters; None if it is damaged."""
    try:
        frame = cobs.decode(encoded)
    except cobs.DecodeError:
        return None
    body = frame[:-CRC_BYTES]
    if len(body) < 3 or _CRC.pack(zlib.crc32(body)) != frame[-CRC_BYTES:] or body[-1] != len(body):
        return None
    try:
        return Reply(body[0], body[1:-2], Status(body[-2]))
    except ValueError:
        return None


def parse_request(encoded: bytes, buffer: int) -> tuple[int, bytes, bool] | None:
    """Sequence number, payload and whether it opens a session; None if it is damaged or does not fit into `buffer`
    bytes. The device's half."""
    try:
        frame = cobs.decode(encoded)
    except cobs.DecodeError:
        return None
    least = _HEAD.size + CRC_BYTES
    if not least <= len(frame) < buffer or _CRC.pack(zlib.crc32(frame[:-CRC_BYTES])) != frame[-CRC_BYTES:]:
        return None
    length, sequence = _HEAD.unpack_from(frame)
    if length % buffer != len(frame) - 2:
        return None
    return sequence, frame[_HEAD.size : -CRC_BYTES], bool(length & OPEN)


def reply(sequence: int, data: bytes, status: Status) -> bytes:
    """A reply as it goes over the line. The device's half."""
    body = bytes([sequence]) + data + bytes([status])
    body += bytes([len(body) + 1])
    return cobs.encode(body + _CRC.pack(zlib.crc32(body))) + _END
