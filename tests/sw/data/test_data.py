"""Data sets and event coding."""

import gzip
import struct

import numpy as np
import pytest

from hw.network import Network
from hw.notation import dense
from sw import data

C = Network()


def test_digits_are_split_once_and_for_all():
    digits = data.load("digits", C)
    train, test = digits.train, digits.test
    assert (len(train), len(test), train.images.shape, test.images.dtype) == (1437, 360, (1437, 64), np.uint8)
    assert train.images.max() == 255 and set(np.unique(train.images)) <= {*range(0, 256, 16), 255}
    assert np.bincount(test.labels).min() >= 34 and train.labels.sum() + test.labels.sum() == 8070
    again = data.load("digits", C)
    assert np.array_equal(train.images, again.train.images) and np.array_equal(test.labels, again.test.labels)
    sample, label = test[5]
    assert np.array_equal(sample, test.images[5]) and label == test.labels[5] and isinstance(label, int)


def test_iteration_ends():
    test = data.load("digits", C).test
    assert sum(1 for _ in test) == 360
    with pytest.raises(IndexError):
        test[360]


def test_events_count_as_the_pixels_say():
    images = np.array([[0, 1, 64, 128, 255]] * 50, np.uint8)
    events = data.to_events(images, 16, seed=3)
    assert events.shape == (50, 16, 5) and events.dtype == bool
    count, want = events.sum(1), images[0] * (16 / 256)
    assert (np.abs(count - want) < 1).all()
    assert np.abs(count.mean(0) - want).max() < 0.2
    assert (events[0] != events[1]).any() and np.array_equal(events, data.to_events(images, 16, seed=3))
    assert not np.array_equal(events, data.to_events(images, 16, seed=4))
    with pytest.raises(ValueError, match="steps: 0 is not legal; legal is at least 1"):
        data.to_events(images, 0, 0)


def test_event_samples_do_not_depend_on_their_order():
    config = C.replace(input="events")
    digits = data.load("digits", config, seed=5)
    assert np.array_equal(digits.train.sample(3), data.to_events(digits.train.images[:4], 8, 5)[3])
    assert np.array_equal(digits.test[-1][0], digits.test[359][0])
    assert not np.array_equal(digits.test.sample(3), data.to_events(digits.test.images[:4], 8, 5)[3])  # not the phases of train


@pytest.mark.parametrize(
    "name, sizes, message",
    [
        ("cifar", (64, 32, 10), "dataset: cifar is not legal; legal is digits or fashion-mnist"),
        ("digits", (784, 32, 10), "net: an input of 784 is not legal; digits has images of 64 pixels"),
        ("digits", (64, 32, 9), "net: a last layer of 9 is not legal; digits has 10 classes"),
    ],
)
def test_bad_requests(name, sizes, message):
    with pytest.raises(ValueError, match=message):
        data.load(name, C.replace(net=dense(sizes)))


# -- Fashion-MNIST ------------------------------------------------------------------------------
FASHION = C.replace(net="784-32-10")


def write_idx(path, array, pack=False):
    raw = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(raw) if pack else raw)


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for part, n in (("train", 5), ("t10k", 3)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", random.integers(0, 256, (n, 28, 28)).astype(np.uint8))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", np.arange(n, dtype=np.uint8), pack=True)
    return tmp_path


def test_fashion_reads_idx_files(folder):
    fashion = data.load("fashion-mnist", FASHION, folder=folder)
    assert (len(fashion.train), len(fashion.test), fashion.shape) == (5, 3, (28, 28))
    assert fashion.train.images.shape == (5, 784) and fashion.test.labels.tolist() == [0, 1, 2]
    raw = (folder / "t10k-images-idx3-ubyte").read_bytes()
    assert fashion.test.sample(0).tobytes() == raw[16 : 16 + 784]


def test_fashion_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv(data.FASHION_VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match="nothing: install the Debian package dataset-fashion-mnist"):
        data.load("fashion-mnist", FASHION)
    monkeypatch.setenv(data.FASHION_VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="holds neither train-images-idx3-ubyte nor .*gz"):
        data.load("fashion-mnist", FASHION)


def test_broken_idx_files_are_refused(folder):
    path = folder / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    for broken, message in (
        (whole[:-1], "3919 bytes of data, but its header promises 3920"),
        (b"PNG" + whole, "not an IDX file"),
        (b"", "not an"),
    ):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=message):
            data.load("fashion-mnist", FASHION, folder=folder)
