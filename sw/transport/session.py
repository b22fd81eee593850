"""Requests that arrive once and in order, whatever the line does to them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator

from hw.host.protocol import DELIMITER, WINDOW, Link, Status
from sw.transport.base import DeviceError, DeviceReset, Transport
from sw.transport.frames import Reply, parse_reply, request

RETRIES = 5
_END = bytes([DELIMITER])


class Session:
    """Requests to a device in a session of their own, up to WINDOW of them on their way (go-back-N).

    A reply that does not come within `timeout` seconds is asked for again RETRIES times. `link` is set once the device has told of
    its own. `repeats` counts requests that were sent again, `frames` all.
    """

    def __init__(self, transport: Transport, *, timeout: float = 1.0):
        self.transport, self.timeout = transport, timeout
        self.link: Link | None = None
        self.repeats = self.frames = 0
        self._next = 0
        self._buffer = b""
        self._replies: deque[Reply] = deque()

    def open(self, *, timeout: float | None = None, tries: int = RETRIES) -> None:
        """Begins a session; DeviceError if nothing answers."""
        wait = self.timeout if timeout is None else timeout
        for _ in range(tries):
            self.transport.discard()
            self._buffer = b""
            self._replies.clear()
            # Another host may have opened the session before with the same number, and then the device takes this for a repeat.
            # A second opening, with another number, is no repeat.
            first = os.urandom(1)[0]
            if self._opens(first, wait) and self._opens((first + 128) % 256, wait):
                self._next = (first + 129) % 256
                return
        raise DeviceError(f"{self.transport.name}: no device answers; is it powered, programmed (`python -m sw.bringup --program`),"
                          " and is this its port?")  # fmt: skip

    def _opens(self, number: int, timeout: float) -> bool:
        """Whether the device answers to the opening of a session."""
        self.transport.send(_END + request(number, b"", opening=True))
        reply = self._reply(timeout)
        while reply and reply.sequence != number:
            reply = self._reply(timeout)
        return bool(reply and reply.status == Status.OK)

    def run(self, payloads: Iterable[bytes]) -> Iterator[bytes]:
        """Data of the replies, in order. DeviceError if the device does not answer, or answers that a request is not legal."""
        waiting: deque[tuple[int, bytes]] = deque()
        source = iter(payloads)
        upcoming = next(source, None)
        on_the_way, room = 0, self.link.buffer - 1 if self.link else 0
        while waiting or upcoming is not None:
            while upcoming is not None and len(waiting) < WINDOW and (not waiting or on_the_way + len(upcoming) + 8 <= room):
                wire = request(self._next, upcoming)
                waiting.append((self._next, wire))
                on_the_way += len(upcoming) + 8
                self._next = (self._next + 1) % 256
                self.frames += 1
                self.transport.send(wire)
                upcoming = next(source, None)
            reply = self._await(waiting)
            _, wire = waiting.popleft()
            on_the_way = sum(len(wire) for _, wire in waiting)
            yield reply.data

    def call(self, payload: bytes) -> bytes:
        """Data of one reply."""
        (data,) = self.run([payload])
        return data

    def _await(self, waiting: deque[tuple[int, bytes]]) -> Reply:
        """The reply to the oldest request; all are sent again if it, or one of them, was lost."""
        sequence, numbers = waiting[0][0], {number for number, _ in waiting}
        for _ in range(RETRIES + 1):
            reply = self._reply(self.timeout)
            while reply and not (reply.sequence in numbers and reply.status != Status.CLOSED):
                if reply.status == Status.CLOSED:
                    raise DeviceReset(f"{self.transport.name}: the device was reset, or another program uses it; open it again, and"
                                      " restore a checkpoint if it was reset: leakage factors at least are lost")  # fmt: skip
                reply = self._reply(self.timeout)
            if reply and reply.sequence == sequence and reply.status == Status.OK:
                return reply
            if reply and reply.status == Status.ILLEGAL:
                raise DeviceError(f"{self.transport.name}: the device calls a request illegal; gateware and driver are of different"
                                  " versions: build and program it again")  # fmt: skip
            self.repeats += len(waiting)
            self.transport.send(_END + b"".join(wire for _, wire in waiting))
        raise DeviceError(f"{self.transport.name}: no answer within {self.timeout:g} s, {RETRIES} times; check the cable and the"
                          " power, and open the device again. What was learned is still in it")  # fmt: skip

    def _reply(self, timeout: float) -> Reply | None:
        """The next whole reply; None if none comes in time. Damaged ones are dropped."""
        while not self._replies:
            data = self.transport.receive(timeout)
            if not data:
                return None
            *frames, self._buffer = (self._buffer + data).split(_END)
            self._replies += (r for r in map(parse_reply, frames) if r)
        return self._replies.popleft()
