"""Checkpoints: the whole learning state in one file, whole or absent, checked before it is used."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hw.config import Config, Q
from sw import checks

FORMAT, VERSION = "orthospike-checkpoint", 1


@dataclass(frozen=True)
class Checkpoint:
    """A configuration, the arrays of its learning state (`hw.memory_map.state_fields`), learning rates and counters by name."""

    config: Config
    state: dict[str, np.ndarray]
    rates: dict[str, int]
    counters: dict[str, int]


def config_of(text: str) -> Config:
    """The inverse of `Config.to_json`."""
    given = json.loads(text)
    formats = {name for name, value in asdict(Config()).items() if isinstance(value, dict)}
    fields: dict[str, Any] = {name: Q(**value) if name in formats else value for name, value in given.items()}
    return Config(**fields)


def check_fits(built: Config, wanted: Config) -> None:
    """ValueError names the first field in which a network's configuration is not the one a device was built for. What changes no number is
    the device's own matter: parity, sharing, lists of lanes, registers on the way to the weights."""
    for field in (f for f in fields_of(Config) if f.name not in ("parity", "shared", "lane_lists", "weight_latency")):
        has, needs = getattr(built, field.name), getattr(wanted, field.name)
        if has != needs:
            raise ValueError(f"{field.name}: the device was built with {has}, the network needs {needs}; build one that fits"
                             " (`python -m hw.build --help`), or use another network")  # fmt: skip


def write(path: str | Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint in one go: `path` holds the old file or the new one, never a part. The folder must exist."""
    state = {name: np.array(array, np.int64, order="C") for name, array in sorted(checkpoint.state.items())}
    metadata = {"format": FORMAT, "version": str(VERSION), "config": checkpoint.config.to_json(),
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
    config = config_of(metadata["config"])
    known = checks.legal_state(config)
    missing = sorted(set(known) - set(state))
    if missing:
        raise ValueError(f"{missing[0]}: {path} lacks this array")
    state = {name: checks.check_state(config, name, array) for name, array in state.items()}
    return Checkpoint(config, state, json.loads(metadata["rates"]), json.loads(metadata["counters"]))


def _checksum(state: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> str:
    """SHA-256 of the metadata, and of every array's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, array in sorted(state.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
