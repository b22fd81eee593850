"""Checkpoints: the whole learning state in one file, whole or absent, checked before it is used."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hw.network import Network
from sw.common import checks

FORMAT, VERSION = "orthospike-checkpoint", 2


@dataclass(frozen=True)
class Checkpoint:
    """A network, the arrays of its learning state (`hw.network.state_arrays`), learning rates and counters by name."""

    network: Network
    state: dict[str, np.ndarray]
    rates: dict[str, int]
    counters: dict[str, int]


def write(path: str | Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint in one go: `path` holds the old file or the new one, never a part. The folder must exist."""
    state = {name: np.array(array, np.int64, order="C") for name, array in sorted(checkpoint.state.items())}
    metadata = {"format": FORMAT, "version": str(VERSION), "network": checkpoint.network.to_json(),
                "rates": json.dumps(checkpoint.rates), "counters": json.dumps(checkpoint.counters)}  # fmt: skip
    metadata["checksum"] = _checksum(state, metadata)
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"path: {path.parent} is not a folder")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(save(state, metadata))
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read(path: str | Path) -> Checkpoint:
    """A checkpoint from a file. ValueError if it is none, damaged, of another version, or holds what no network may."""
    if not Path(path).is_file():
        raise ValueError(f"path: {path} is not a file")
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except (SafetensorError, OSError, ValueError) as e:
        raise ValueError(f"path: {path} is damaged or no safetensors file ({e})") from None
    if metadata.get("format") != FORMAT:
        raise ValueError(f"path: {path} is not a checkpoint of this project")
    if metadata.get("version") != str(VERSION):
        raise ValueError(f"version: {path} is of version {metadata.get('version')}; legal is {VERSION}")
    checksum = metadata.pop("checksum", "")
    if checksum != _checksum(state, metadata):
        raise ValueError(f"checksum: {path} is damaged; take an older checkpoint")
    network = Network.from_json(metadata["network"])
    known = checks.legal_state(network)
    missing = sorted(set(known) - set(state))
    if missing:
        raise ValueError(f"{missing[0]}: {path} lacks this array")
    state = {name: checks.check_state(network, name, array) for name, array in state.items()}
    return Checkpoint(network, state, json.loads(metadata["rates"]), json.loads(metadata["counters"]))


def _checksum(state: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> str:
    """SHA-256 of the metadata, and of every array's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, array in sorted(state.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
