# Needs git, make and Python 3.11 or newer (with venv); everything else is set up here.

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
COMPILED := var/compiled/.ready
SOURCES := shared issuer verifier deploy loadtests tests .ci

# Written down with the lock files, so that a new resolver cannot change their form.
UV := uv==0.13.9
RESOLVE := var/lock-venv/bin/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-header --no-emit-index-url pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help setup up compile test proof bench bench-issuer bench-revocation lint lock clean

help: ## Show what there is to make
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

setup: $(READY) ## Make .venv with everything pinned (quick when nothing changed)

$(READY): requirements/dev.lock pyproject.toml Makefile .ci/find_python
	@python="$$(PYTHON3="$(PYTHON3)" sh .ci/find_python)" || exit 1; \
	if ! $(PYTHON) -c '' 2>/dev/null; then rm -rf $(VENV); "$$python" -m venv $(VENV); fi
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-input \
		--require-hashes -r requirements/dev.lock
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-input \
		--no-deps --no-build-isolation -e .
	@touch $@

up: $(READY) ## Start everything on loopback: issuer, verifier, demo application, gateway
	@exec $(PYTHON) -m deploy.demo.up

compile: $(COMPILED) ## Compile the gate into var/compiled (needs gcc, python3-dev)

$(COMPILED): $(READY) deploy/compile.py $(wildcard shared/*.py verifier/*.py)
	@$(PYTHON) -m deploy.compile var/compiled
	@touch $@

# Three at a time on two processors: many wait for a server they started, and the longest
# begin. What compares times runs alone, afterwards, also when one of the others failed.
test: $(READY) ## Run all tests, of each long proof a small share
	@together=0; alone=0; \
	$(VENV)/bin/pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not alone" \
		|| together=$$?; \
	$(VENV)/bin/pytest -m alone || alone=$$?; \
	echo "make test: side by side: exit code $$together; alone: exit code $$alone"; \
	test $$together -eq 0 && test $$alone -eq 0

# The share of `make test`, so many times; and all of what has an end. About two hours.
SCALE := 20

proof: $(READY) ## Run the long proofs whole (SCALE=20: so many times the share of make test)
	$(VENV)/bin/pytest -n 2 --dist loadfile -m proof --proof-scale=$(SCALE)

bench: $(COMPILED) ## What a check costs, ours and elsewhere, in five minutes (needs wrk)
	$(PYTHON) -m loadtests.bench --compiled var/compiled \
		--json var/bench.json --plot var/bench.png

bench-issuer: $(READY) ## What logins, refreshes and grants cost, also in a flood (needs PostgreSQL)
	$(PYTHON) -m loadtests.bench_issuer --json var/bench-issuer.json
	$(PYTHON) -m loadtests.bench_issuer.grants --json var/bench-grants.json

bench-revocation: $(READY) ## How fast a revocation is everywhere (needs nginx, PostgreSQL)
	$(PYTHON) -m loadtests.bench_revocation --json var/bench-revocation.json

lint: $(READY) ## Formatting, lint, types, import rules, what may not stand in a file
	$(VENV)/bin/black --check --quiet --diff $(SOURCES)
	$(VENV)/bin/ruff check $(SOURCES)
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --explicit-package-bases deploy
	$(VENV)/bin/lint-imports
	$(PYTHON) .ci/check_tree.py

lock: $(READY) ## Resolve requirements/*.lock anew from pyproject.toml
	$(PYTHON) -m venv var/lock-venv
	var/lock-venv/bin/pip install --quiet $(UV)
	$(RESOLVE) --upgrade --extra dev -o requirements/dev.lock
	$(RESOLVE) --extra issuer -c requirements/dev.lock -o requirements/issuer.lock
	$(RESOLVE) --extra verifier -c requirements/dev.lock -o requirements/verifier.lock
	$(RESOLVE) --extra compile -c requirements/dev.lock -o requirements/compile.lock

clean: ## Remove .venv, var/ (the demo's database and secrets) and caches
	rm -rf $(VENV) var build dist *.egg-info .coverage .coverage.* \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
