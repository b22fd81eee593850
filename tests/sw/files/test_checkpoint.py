"""Checkpoints: they hold everything, are whole or absent, and none that is damaged is taken."""

import json
import os
import struct

import pytest
from safetensors.numpy import load_file, save_file

from sw.driver.device import Device
from sw.files import checkpoint
from tests.sw.driver.test_link import CONFIG, digits, golden, same, start


@pytest.fixture
def kept(tmp_path):
    path = tmp_path / "kept.safetensors"
    with Device.open(golden()) as device:
        device.load(start(CONFIG, 1))
        device.set_rates(rate_w=5, rate_theta=7)
        device.train(*digits(CONFIG, 20))
        device.save(path)
        return path, device.read_state(), device.counters(), dict(device.rates)


def test_a_checkpoint_holds_everything(kept):
    path, state, counters, rates = kept
    with Device.open(golden()) as device:
        device.restore(path)
        assert same(device.read_state() | {"class": 0}, state | {"class": 0})
        assert device.counters() == counters and device.rates == rates and counters["sops"] > 100
        device.train(*digits(CONFIG, 5))
        assert device.counters()["sops"] > counters["sops"]
    assert os.listdir(path.parent) == [path.name]  # no temporary files


def test_a_checkpoint_is_whole_or_the_old_one(kept, monkeypatch):
    path = kept[0]
    old = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with Device.open(golden()) as device, pytest.raises(OSError, match="disk full"):
        device.save(path)
    assert path.read_bytes() == old and os.listdir(path.parent) == [path.name]


def test_damaged_checkpoints_are_refused(kept, tmp_path):
    path = kept[0]
    whole = path.read_bytes()
    header = struct.unpack("<Q", whole[:8])[0]
    bad = tmp_path / "bad"
    for spoilt, says in ((whole[:-1], "damaged or no safetensors"), (b"", "damaged or no safetensors"),
                         (whole[: 8 + header] + bytes([whole[8 + header] ^ 1]) + whole[9 + header :], "checksum")):  # fmt: skip
        bad.write_bytes(spoilt)
        with pytest.raises(ValueError, match=says):
            checkpoint.read(bad)


def test_parity_is_no_part_of_a_network(kept, tmp_path):
    with Device.open(golden(parity=True)) as device:
        device.restore(kept[0])
        device.save(tmp_path / "other")
    with Device.open(golden()) as device:
        device.restore(tmp_path / "other")
        assert same(device.read_state() | {"class": kept[1]["class"]}, kept[1])  # which is the core's own


@pytest.mark.parametrize(("change", "says"), [
    (dict(version="1"), "version: .* is of version 1; legal is 2"),
    (dict(format="other"), "not a checkpoint of this project"),
    (dict(rates=json.dumps({"rate_w": 1})), "checksum"),
])  # fmt: skip
def test_other_checkpoints_are_refused(kept, tmp_path, change, says):
    from safetensors import safe_open

    with safe_open(str(kept[0]), framework="numpy") as file:
        metadata = dict(file.metadata())
    save_file(load_file(kept[0]), tmp_path / "other", metadata | change)
    with pytest.raises(ValueError, match=says):
        checkpoint.read(tmp_path / "other")
