"""A change of the network: what goes over the line, and how long it takes there."""

import numpy as np
import pytest

from boards import BOARDS
from hw.host.protocol import HEADER_BYTES
from hw.memory_map import regions
from sw.driver.device import Device
from sw.driver.switching import LINE_BITS, Counted, switches
from sw.files.image import Image
from sw.golden.network import GoldenNetwork
from sw.golden.recipe import Recipe
from sw.transport.batch import Batch
from sw.transport.golden import golden
from tests.sw.driver.test_link import LINK, same

BOARD = BOARDS["ulx3s-85f"]
NETWORKS = [BOARD.design.network.replace(net=net) for net in ("64-32-10", "784-200-10", "120-64-9")]
WEIGHTS = 784 * 200 + 200 * 10  # of the largest


def line():
    return golden(BOARD.design.machine, BOARD.link)


def test_one_bitstream_changes_its_network_within_a_second():
    """Any of the networks, fresh. With a state of its own the largest takes longer: two bytes for each of its weights of 9 bits."""
    rows = list(switches(line(), NETWORKS))
    assert [row.network for row in rows] == [*NETWORKS, *NETWORKS] and [row.trained for row in rows] == [False] * 3 + [True] * 3
    for row in rows:
        assert row.line == row.sent * LINE_BITS / BOARD.baud and 0 < row.received < row.sent
        assert row.core is None and row.whole == row.line + row.driver
    assert max(row.line for row in rows[:3]) < 0.6
    for row, bytes_each in ((rows[1], 1), (rows[4], 2)):
        assert bytes_each * WEIGHTS < row.sent < 1.06 * bytes_each * WEIGHTS


def test_what_was_there_before_does_not_matter():
    """Words written in fewer bytes than they have are whole: a fresh network after one whose words all differ from 0."""
    small = [network.replace(net=net) for network, net in zip(NETWORKS, ("20-120-10", "30-110-9"), strict=False)]
    with Device.open(line()) as device:
        for region in regions(device.machine).values():
            if region.name not in ("frame", "network", "lane_program", "neuron_program"):
                for lane in range(region.lanes):
                    device.write_words(region.address(0, lane), np.full(region.depth, (1 << region.bits) - 1))
        device.configure(small[0])
        assert same(device.read_state(), GoldenNetwork(small[0]).read())
        network, state = GoldenNetwork(small[1]), Recipe().state(small[1], 3)
        network.load(state)
        device.load(Image(small[1], state))
        assert same(device.read_state() | {"class": 0}, network.read() | {"class": 0})


@pytest.mark.parametrize(("words", "width"), [([0, 0, 0], 1), ([255, 0, 1], 1), ([1, 256], 2), ([1 << 16], 3), ([1 << 31, 0], 4)])
def test_words_are_written_in_as_few_bytes_as_they_need(words, width):
    batch = Batch(LINK)
    batch.write_words(7, words, 4)
    batch.flush()
    (payload,) = batch.payloads
    assert len(payload) == HEADER_BYTES + width * len(words) and payload[3] == width
    assert [int.from_bytes(payload[at : at + width], "little") for at in range(HEADER_BYTES, len(payload), width)] == words


def test_bytes_and_cycles_are_counted():
    counted = Counted(line())
    with Device.open(counted) as device:
        assert counted.cycles is None and counted.sent and counted.received
        sent, received = counted.sent, counted.received
        device.read_words(0, 1)
        # Length, number, header, CRC; number, data, status, length, CRC; a byte of COBS and the delimiter each.
        assert counted.sent - sent == 3 + HEADER_BYTES + 4 + 2 and counted.received - received == 1 + 4 + 2 + 4 + 2
        counted.line.model.cycles = 5
        assert counted.cycles == 5


def test_a_network_after_itself_is_no_change():
    for networks in (NETWORKS[:1], [NETWORKS[0], NETWORKS[0], NETWORKS[1]], [*NETWORKS, NETWORKS[0]]):
        with pytest.raises(ValueError, match="networks: one after itself is not legal"):
            next(switches(line(), networks))
