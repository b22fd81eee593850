"""The image (hw/host/stored.py) of a network in the SPI flash of a board, with which it starts on its own."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from numpy.typing import ArrayLike

from hw.host.protocol import CRC_BYTES, DELIMITER, Link
from hw.host.stored import Stored
from hw.memory_map import REGISTERS
from hw.plan import Plan
from sw.common.checks import RATES
from sw.driver.layout import layout, write_configuration
from sw.transport.batch import Batch
from sw.transport.frames import request


def image(plan: Plan, link: Link, state: Mapping[str, ArrayLike], rates: Mapping[str, int]) -> bytes:
    """The image of a network: its programs, its whole learning state, and the rates of RATES.

    ValueError names an array that is missing or not legal.
    """
    stored, places = Stored(plan.machine, link, 0), layout(plan)
    missing = sorted(set(places.fields) - set(state) - {"class"})
    if missing:
        raise ValueError(f"{missing[0]}: is missing; a stored network has all arrays")
    words, given, _ = places.encode(state)
    batch = Batch(link)
    write_configuration(batch, plan)
    batch.write(REGISTERS["rate_w"].address, [rates[name] for name in RATES if name in rates], 1)
    places.write(batch, words, given)
    batch.flush()
    frames = request(0, b"", opening=True) + b"".join(request(k % 256, payload) for k, payload in enumerate(batch.payloads, 1))
    body = frames.ljust(stored.size - len(stored.identity) - CRC_BYTES, bytes([DELIMITER]))
    assert body[-1] == DELIMITER and len(body) + len(stored.identity) + CRC_BYTES == stored.size
    return stored.identity + body + zlib.crc32(body).to_bytes(CRC_BYTES, "little")
