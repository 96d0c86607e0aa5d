# The two commands: `make demo` runs the whole benchmark on the embedded default, `make test` checks it.
PYTHON ?= python3
BIN = .venv/bin
PIP = $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: install demo test test-all check-js bench torture fuzz growth clean

install: .venv/installed

# What a run needs; the tests' tools, MLflow, Ray, submitit and optuna are the other stamp's.
.venv/demo-installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	touch $@

.venv/installed: .venv/demo-installed
	$(PIP) -e ".[dev]"
	touch $@

demo: .venv/demo-installed
	$(BIN)/piebench-masks experiment=demo

# The page's scripts against their JSDoc types. TypeScript is fetched by name and version.
TSC = .node/node_modules/.bin/tsc
STRICT = --strict --strictNullChecks false --strictPropertyInitialization false
check-js:
	@if ! command -v npm > /dev/null; then echo "check-js: skipped, npm is not installed"; \
	elif ! { test -x $(TSC) || npm install --silent --no-save --no-package-lock --prefix .node \
	typescript@5.9.3 > /dev/null; }; then echo "check-js: skipped, npm could not get TypeScript"; \
	else $(TSC) --noEmit --allowJs --checkJs --target es2022 --lib es2023,dom,dom.iterable \
	$(STRICT) src/piebench_masks/report/page/*.js; fi

test: .venv/installed check-js
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 4 --dist worksteal

test-all: test
	OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 4 --dist worksteal -m slow

bench: .venv/installed
	$(BIN)/python benchmarks/cpu.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/methods.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/editor_rows.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/regions.py

torture: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/torture.py

fuzz: .venv/installed
	$(BIN)/python benchmarks/fuzz.py

growth: .venv/installed
	$(BIN)/python benchmarks/growth.py

clean:
	rm -rf .venv .node artifacts data results/*-*
