"""The proofs: one of them run, another with each commit, on the gateware and with its bug, and the texts of all bugs."""

import shlex

import pytest

from sim.formal import PROOFS, main, prove, prove_with_bug
from sim.mutants import ROOT, sample, turn


def test_every_bug_has_its_place():
    for proof in PROOFS:
        assert (ROOT / proof.file).read_text().count(proof.old) == 1 and proof.old != proof.new, proof


@pytest.mark.parametrize("proof", sample(PROOFS, 1), ids=lambda proof: proof.name)
def test_a_proof_of_this_commit_passes_and_fails_with_its_bug(proof, tmp_path, monkeypatch):
    monkeypatch.setattr("sim.formal.BUILD", tmp_path)
    again = f"again: python -m sim.formal --only {shlex.quote(proof.name)}, or make test TURN={turn()}"
    assert prove(proof) == "PASS", again
    assert prove_with_bug(proof) == "FAIL", again


def test_an_unknown_proof_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--only", "none such"])
    assert stop.value.code == 2 and "invalid choice: 'none such'" in capsys.readouterr().err
