"""`make mutants` takes an hour, so that a mutant that can no longer be made must show at once."""

import subprocess
import sys

from sim.mutants import MUTANTS, ROOT


def test_every_mutant_changes_one_place_and_has_its_test():
    outdated = [m.name for m in MUTANTS if (ROOT / m.file).read_text().count(m.old) != 1 or m.old == m.new]
    assert not outdated
    tests = sorted({m.test for m in MUTANTS})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
