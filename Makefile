# The first two commands of a fresh clone are `make demo` and `make test`. Both set up .venv first, once.
PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
export PIP_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export UV_CONSTRAINT := constraints.txt
export UV_BUILD_CONSTRAINT := constraints.txt

.PHONY: demo test quick rest test-portable bench lint types docs docs-site wheel

demo: .venv/installed
	@echo "== the main job on small synthetic slides"
	$(BIN)/pcam-ssl demo

# One thread a worker: two workers that each take two cores are slower than either alone. Compiled tests are kept: making them anew
# takes 10 s a worker.
test: .venv/installed
	@echo "== the tests, $(WORKERS) at a time (another number: make test WORKERS=8)"
	OMP_NUM_THREADS=1 env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# Only what trains no network and starts no second process: about a minute, for every save.
quick: .venv/installed
	OMP_NUM_THREADS=1 env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not trains and not processes"

# What `quick` leaves out, so that .ci/run runs each test once.
rest: .venv/installed
	@echo "== the other tests, $(WORKERS) at a time"
	OMP_NUM_THREADS=1 env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "trains or processes"

# The short form, as .ci/run takes it: make test-portable SHORT=1
test-portable: .venv/installed
	@echo "== the numeric tests with the kernels of other CPUs"
	$(BIN)/python scripts/test_portable.py $(if $(SHORT),--short)

bench: .venv/installed
	$(BIN)/python scripts/bench.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# What users see is typed: an editor completes `pcam.` and knows what it gives.
types: .venv/installed
	@echo "== the types of the public API"
	$(BIN)/python -m mypy

docs: .venv/installed
	$(BIN)/python -m typer pcam_ssl.cli utils docs --name pcam-ssl --output docs/cli.md
	$(BIN)/python scripts/recipe_keys.py docs/recipe-keys.md
	$(BIN)/python scripts/api_page.py docs/api.md
	$(BIN)/python scripts/foundation_table.py docs/foundation-models.md

# A dead link or a page without a place in the menu stops it.
docs-site: .venv/installed
	@echo "== the documentation as a site: site/index.html"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

wheel: .venv/installed
	$(BIN)/python -m hatchling build --target wheel

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or later is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	@echo "== making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "== installing pcam-ssl and what it needs into .venv (minutes, once; torch is large)"
	@if $(BIN)/python -m pip install --quiet uv; \
	then $(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --editable '.[dev]'; \
	else echo "== uv cannot be had: going on with pip, which is slower"; $(BIN)/python -m pip install --editable '.[dev]'; fi
	@touch $@
