"""The driver's half of a network in a flash: its image, and how openFPGALoader is told to write it."""

import random
import stat
import sys
import zlib

import numpy as np
import pytest

from boards import BOARDS
from hw.host.protocol import Link
from hw.host.stored import SECTOR, Stored
from hw.machine import Machine
from hw.memory_map import registers
from hw.network import Network
from hw.plan import compile
from sim.scenarios import random_machine, random_network, random_state
from sw import train_device
from sw.driver.device import Device
from sw.driver.flash import image
from sw.transport import pty
from sw.transport.base import DeviceError
from sw.transport.frames import parse_request
from sw.transport.golden import Model
from sw.transport.loader import board_with_flash, write
from sw.transport.process import InProcess
from tests.sw.driver.test_link import CONFIG, LINK, MACHINE, golden, same, start

RATES = {"rate_w": 1, "rate_theta": 2, "rate_alpha": 15, "rate_decay": 4}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("buffer", [256, 1024, 4096])
def test_an_image_is_what_a_host_would_send(seed, buffer):
    rng = np.random.default_rng(seed)
    config = random_network(rng)
    link = Link(clock=24_000_000, baud=3_000_000, buffer=buffer)
    exact = seed % 2 == 0
    machine = Machine.holding(config, lanes=int(rng.choice([1, 2, 4, 8]))) if exact else random_machine(rng, config)
    stored, state = Stored(machine, link, 0), {"class": np.array(0)} | random_state(config, rng)
    with Device.open(InProcess("golden", Model(machine, link)), network=config) as device:
        device.load(state)
        state = device.read_state()
    rates = {name: rate for name, rate in RATES.items() if name in registers(machine)}
    data = image(compile(config, machine), link, state, rates)
    assert len(data) == stored.size and (stored.size + 4) % SECTOR == 0
    assert data[:4] == stored.identity and zlib.crc32(data[4:-4]).to_bytes(4, "little") == data[-4:] and data[-5] == 0
    first, *frames = [frame for frame in data[4:-4].split(b"\0") if frame]
    assert parse_request(first, buffer) == (0, b"", True)
    assert all(parse_request(frame, buffer) for frame in frames)
    line = InProcess("golden", Model(machine, link))
    line.model.run(data[4:-4])
    with Device.open(line) as device:
        assert device.network == config
        assert same({**device.read_state(), "class": state["class"]}, state) and device.rates == rates
    used = 8 + sum(len(frame) + 1 for frame in (first, *frames))
    assert not exact or stored.size < 3 * used + SECTOR, "most of the image is padding"


def test_what_a_configuration_clears_has_its_place_in_an_image():
    """Of so many inputs the events, which are no part of the state, take several sectors."""
    network = Network(net="20000-1", input="events", steps=1)
    machine = Machine.holding(network, lanes=1)
    state = {"class": np.array(0)} | random_state(network, np.random.default_rng(0))
    assert len(image(compile(network, machine), LINK, state, RATES)) == Stored(machine, LINK, 0).size


def test_a_network_that_lacks_an_array_is_none():
    with pytest.raises(ValueError, match="alpha_grad: is missing"):
        image(compile(CONFIG, MACHINE), LINK, start(CONFIG, 1), RATES)


def test_the_places_of_the_boards():
    """Behind the bitstream and within the flash, in blocks of 64 KiB, which openFPGALoader erases."""
    sizes = {"ice40": 135_100, "ecp5": 15_300_000 // 8}
    for board in BOARDS.values():
        stored = board.stored(board.design.machine)
        assert (stored is None) == (board.name == "orangecrab-25f")
        if stored:
            assert stored.offset % 0x10000 == 0 and sizes[board.chip.family.name] < stored.offset
            assert stored.offset + -(-stored.size // 0x10000) * 0x10000 <= 4 << 20
    with pytest.raises(ValueError, match="offset: 0x1001 is not legal; legal is a multiple of 0x1000"):
        Stored(MACHINE, LINK, 0x1001)


# -- openFPGALoader --------------------------------------------------------------------------------------------------------------

LOADER = """#!{python}
import sys
from pathlib import Path
*arguments, file = sys.argv[1:]
offset = int(arguments[arguments.index("--offset") + 1])
flash = Path({flash!r})
content = bytearray(flash.read_bytes())
if {broken!r}:
    sys.exit("{broken}")
assert arguments[:2] == ["-b", "ice40_generic"]
if "--write-flash" in arguments:
    data = Path(file).read_bytes()
    content[offset : offset + len(data)] = data
    content[offset + 7] &= ~{lost}
    flash.write_bytes(content)
else:
    assert "--dump-flash" in arguments
    size = int(arguments[arguments.index("--file-size") + 1])
    Path(file).write_bytes(content[offset : offset + size])
    sys.exit(1)  # as it does on an iCE40
"""


@pytest.fixture
def loader(tmp_path, monkeypatch):
    """Puts a stand-in for openFPGALoader on the path, whose flash is a file: the arguments are the real one's."""

    def make(broken="", lost=0):
        (tmp_path / "flash").write_bytes(b"\xff" * 0x20_0000)
        tool = tmp_path / "openFPGALoader"
        tool.write_text(LOADER.format(python=sys.executable, flash=str(tmp_path / "flash"), broken=broken, lost=lost))
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        return tmp_path / "flash"

    return make


def test_a_board_is_written_and_read_back(loader):
    board, held = BOARDS["icebreaker"], loader()
    data = random.Random(1).randbytes(5000)
    write(board, data)
    assert held.read_bytes() == b"\xff" * board.flash + data + b"\xff" * (0x20_0000 - board.flash - len(data))


@pytest.mark.parametrize(
    ("fault", "says"), [({"lost": 0xFF}, "does not hold what was written"), ({"broken": "no cable"}, r"\(no cable\)")]
)
def test_a_flash_that_does_not_hold_it_is_an_error(loader, fault, says):
    loader(**fault)
    with pytest.raises(DeviceError, match=f"flash: icebreaker .*{says}"):
        write(BOARDS["icebreaker"], b"\1" * 300)


def test_there_must_be_a_flash():
    with Device.open(golden()) as device:
        device.load(start(CONFIG, 1))
        with pytest.raises(ValueError, match="flash: golden has none"):
            device.store()
    for name in (None, "orangecrab-25f", "other"):
        with pytest.raises(ValueError, match=f"board: {name or 'none'} has no flash for a network; legal is one of icebreaker, "):
            board_with_flash(name)


def test_a_board_that_does_not_come_back():
    line = golden()
    line.store = lambda stored, board: setattr(line.model, "run", lambda data=b"", **options: (len(data), b""))
    with Device.open(line) as device:
        device.load(start(CONFIG, 1))
        with pytest.raises(
            DeviceError, match="the flash holds the network, but the device does not come back; is its bitstream in the flash, too"
        ):
            device.store("ulx3s-85f")


@pytest.mark.parametrize(("arguments", "says"), [
    (["--port", "golden", "--store"], "--store: golden has no flash"),
    (["--port", "/dev/nonesuch", "--store"], "board: none has no flash"),
    (["--port", "golden", "--keep", "--restore", "x"], "--keep: not beside --restore"),
    (["--port", "golden", "--flash", "x"], "flash: x is not legal at port golden"),
])  # fmt: skip
def test_what_cannot_be_stored_is_refused_before_the_work(arguments, says, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        train_device.main(arguments)
    assert stop.value.code == 2 and says in capsys.readouterr().err


def test_a_pseudo_terminal_of_golden_has_no_flash(capsys):
    with pytest.raises(SystemExit) as stop:
        pty.main(["--world", "golden", "--flash", "x"])
    assert stop.value.code == 2 and "flash: x is not legal at port golden" in capsys.readouterr().err
