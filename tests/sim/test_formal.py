"""The proofs: one of them run, on the gateware and with its bug, and the texts of all bugs."""

import pytest

from sim.formal import PROOFS, main, prove, prove_with_bug
from sim.mutants import ROOT


def test_every_bug_has_its_place():
    for proof in PROOFS:
        assert (ROOT / proof.file).read_text().count(proof.old) == 1 and proof.old != proof.new, proof


def test_a_proof_passes_and_fails_with_its_bug(tmp_path, monkeypatch):
    monkeypatch.setattr("sim.formal.BUILD", tmp_path)
    proof = next(proof for proof in PROOFS if proof.name == "writer")
    assert prove(proof) == "PASS"
    assert prove_with_bug(proof) == "FAIL"


def test_an_unknown_proof_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--only", "none such"])
    assert stop.value.code == 2 and "invalid choice: 'none such'" in capsys.readouterr().err
