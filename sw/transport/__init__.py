"""How bytes reach a device: a serial port, the simulated gateware, or the golden model; and the session on top of them."""

from __future__ import annotations

from sw.transport.base import DeviceError, Transport

__all__ = ["DeviceError", "Transport"]
