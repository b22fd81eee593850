"""The faults for bring-up: their texts are in the gateware, their rows in the table, and what counts as named."""

import pytest

from sim.faults import FAULTS, judge, main
from sim.fuzz import DESIGN
from sim.mutants import ROOT
from sw.driver.bringup import ADVICE


def test_every_fault_has_its_place_and_its_row():
    assert len({fault.row for fault in FAULTS}) == len(FAULTS) >= 8 and DESIGN.network.stochastic
    for fault in FAULTS:
        assert (ROOT / fault.file).read_text().count(fault.old) == 1 and fault.old != fault.new, fault
        assert fault.row.split(" ")[0] in ADVICE, fault


def test_the_first_row_to_fail_must_be_the_faults_own():
    fault = FAULTS[0]
    assert judge(None, []) and judge(fault, [fault.row]) and judge(fault, [fault.row, "speed"])
    assert not judge(None, ["speed"]) and not judge(fault, []) and not judge(fault, ["speed", fault.row])
    assert not judge(fault, "outdated: ...")


def test_an_unknown_fault_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--only", "none such"])
    assert stop.value.code == 2 and "--only: no fault has 'none such'" in capsys.readouterr().err
