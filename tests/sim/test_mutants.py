"""Every mutant can still be made, and a few are tried, others with each commit: `make mutants` tries all, which takes an hour."""

import shlex
import subprocess
import sys

import pytest

from sim.mutants import MUTANTS, ROOT, sample, try_mutant, turn


def test_every_mutant_changes_one_place_and_has_its_test():
    outdated = [m.name for m in MUTANTS if (ROOT / m.file).read_text().count(m.old) != 1 or m.old == m.new]
    assert not outdated
    tests = sorted({m.test for m in MUTANTS})
    assert not any("test_mutants" in test or "test_formal" in test for test in tests), "a mutant's test tries mutants"
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mutant", sample(MUTANTS, 3), ids=lambda mutant: mutant.name)
def test_a_mutant_of_this_commit_is_caught(mutant):
    """Its test passes without it, or fails by itself in this very run."""
    caught, how = try_mutant(mutant)
    assert caught, f"{how}; again: python -m sim.mutants --only {shlex.quote(mutant.name)}, or make test TURN={turn()}"


def test_successive_turns_try_all(monkeypatch):
    tried = []
    for number in range(41, 41 + 24):
        monkeypatch.setenv("TURN", str(number))
        tried.append(sample(range(70), 3))
    assert all(len(set(indices)) == 3 for indices in tried) and {i for indices in tried for i in indices} == set(range(70))


@pytest.mark.parametrize("shallow, number", [("false", 17), ("true", 255), (None, 0)])
def test_the_turn_is_the_number_of_commits(monkeypatch, tmp_path, shallow, number):
    """That is 1 in every shallow clone, which goes by the hash."""
    monkeypatch.delenv("TURN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    if shallow:
        (tmp_path / "git").write_text(f'#!/bin/sh\ncase "$2" in --count) echo 17;; HEAD) echo ff;; *) echo {shallow};; esac\n')
        (tmp_path / "git").chmod(0o755)
    assert turn() == number
