# One entry for everything. `make demo` and `make test` set up what they need by themselves.
.DEFAULT_GOAL := help
.PHONY: help venv demo test test-long check format bench bench-full drill drill-ambient topologies lock clean

PY := .venv/bin/python
STAMP := .venv/.complete
# Three of them are in labs, which mostly wait (tests/conftest.py); the fourth computes meanwhile.
SIDE_BY_SIDE := 4
PYTEST = PYTHONDONTWRITEBYTECODE= $(PY) -m pytest \
	--numprocesses=$(SIDE_BY_SIDE) --dist=loadscope --no-loadscope-reorder
# Compiled once: many programs are started, and each process of tests imports all of them.
COMPILED = $(PY) -m compileall -q src; \
	ISTHMUS_TESTS_SLOWNESS=1 PYTHONDONTWRITEBYTECODE= $(PY) -m pytest --collect-only -qq >/dev/null

help: ## list these targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements/dev.lock pyproject.toml tools/bootstrap.sh
	@sh tools/bootstrap.sh

venv: $(STAMP) ## make the virtual environment in .venv

demo: $(STAMP) ## two clusters, two networks, one mesh: boots, joins, verifies, cleans up
	@$(PY) -m isthmus demo

test: $(STAMP) ## everything that CI runs: check, then all tests
	@($(COMPILED)) & $(MAKE) --no-print-directory check; found=$$?; wait; exit $$found
	@$(PYTEST)

test-long: $(STAMP) ## all tests: what CI leaves out too, the mesh's stories as root and fifty clusters
	@export CLUSTERS_OF_FIFTY=50; $(PYTEST) --long

check: $(STAMP) ## format, lint, types, import contracts, docs links
	@$(PY) -m ruff format --check src tests bench drill tools
	@$(PY) -m ruff check src tests bench drill tools
	@$(PY) -m mypy
	@.venv/bin/lint-imports --no-logo
	@$(PY) tools/check_links.py

format: $(STAMP) ## format and mend what can be mended by itself
	@$(PY) -m ruff format src tests bench drill tools
	@$(PY) -m ruff check --fix src tests bench drill tools

bench: $(STAMP) ## measure, some minutes; prints a table, writes bench/out/ and the page of figures
	@$(PY) -m bench; status=$$?; $(PY) -m bench --page; exit $$status

bench-full: $(STAMP) ## the same with large fleets of proxies and the grid; an hour or two
	@$(PY) -m bench --full; status=$$?; $(PY) -m bench --page; exit $$status

drill: $(STAMP) ## three clusters, 12 minutes of faults under load; fails if a promise was broken
	@$(PY) -m drill
	@$(PY) -m drill --page

drill-ambient: $(STAMP) ## the same without sidecars: 9 minutes, one fault after the other
	@$(PY) -m drill --topology ambient
	@$(PY) -m drill --topology ambient --page

topologies: $(STAMP) ## every topology in a lab, fifty clusters too; writes the table of what passed
	-@CLUSTERS_OF_FIFTY=50 $(PY) -m pytest --long -m topology --junit-xml=build/topologies.xml tests/lab
	@$(PY) tools/topology_table.py build/topologies.xml

lock: $(STAMP) ## pin all dependencies anew, with hashes
	@.venv/bin/uv pip compile --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --extra dev --extra gke pyproject.toml -o requirements/dev.lock

clean: ## remove what the targets above made
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis drill/out
