"""The PLL dividers against the equations of the data sheets."""

import pytest

from boards import BOARDS
from hw.pll import Clocking, ecp5_pll, ice40_pll


@pytest.mark.parametrize(("source", "target"), [(12e6, 24e6), (12e6, 18e6), (12e6, 48e6), (100e6, 25e6)])
def test_ice40(source, target):
    pll = ice40_pll(source, target)
    oscillator = source / pll.reference * pll.feedback
    assert pll.frequency == oscillator / pll.post == pytest.approx(target, rel=1e-3)
    assert 10e6 <= source / pll.reference <= 133e6 and 533e6 <= oscillator <= 1066e6
    assert pll.reference <= 16 and pll.feedback <= 128 and pll.post in (2, 4, 8, 16, 32, 64)


def test_ice40_is_what_icepll_finds():
    pll = ice40_pll(12e6, 24e6)
    assert (pll.reference, pll.feedback, pll.post) == (1, 64, 32)


@pytest.mark.parametrize(("source", "target"), [(25e6, 60e6), (25e6, 50e6), (48e6, 60e6), (48e6, 64e6), (100e6, 30e6)])
def test_ecp5(source, target):
    pll = ecp5_pll(source, target)
    assert pll.frequency == source / pll.reference * pll.feedback == pytest.approx(target, rel=1e-3)
    assert source / pll.reference >= 3.125e6 and 400e6 <= pll.frequency * pll.post <= 800e6
    assert pll.reference <= 128 and pll.feedback <= 80 and pll.post <= 128


@pytest.mark.parametrize(
    ("search", "source", "target", "says"),
    [
        (ice40_pll, 12e6, 5e6, "SB_PLL40 does not make 5 MHz from 12 MHz; the nearest it makes is 16.125 MHz"),
        (ice40_pll, 12e6, 300e6, "the nearest it makes is 270 MHz"),
        (ice40_pll, 12e6, 24.2e6, "does not make 24.2 MHz from 12 MHz; the nearest it makes is 24"),
        (ice40_pll, 1e6, 24e6, "makes nothing from an oscillator of 1 MHz"),
        (ecp5_pll, 25e6, 500e6, "EHXPLLL does not make 500 MHz from 25 MHz; the nearest it makes is 400 MHz"),
        (ecp5_pll, 2e6, 50e6, "makes nothing from an oscillator of 2 MHz"),
    ],
)
def test_out_of_reach(search, source, target, says):
    with pytest.raises(ValueError, match=f"clock: .*{says}"):
        search(source, target)


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_every_board_has_its_clock(board):
    assert Clocking(board).frequency == pytest.approx(board.clock, rel=1e-3)
