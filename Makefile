# `make search` runs the main job, `make test` the tests, `make check` everything a change must pass.
# Needs Python 3.11 or newer and nothing else: the first target sets up `.venv`, with what it needs itself.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
SEARCHES := .venv/searches
READY := .venv/installed

.PHONY: search test check wheel docs format constraints clean

search: $(SEARCHES)
	$(BIN)/optnas run studies/digits_cnn.py

# Two processes share the files; one thread each, or they would fight over the cores.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) docs
	$(MAKE) test

# Into build/site; open build/site/index.html. Nothing is loaded from the network.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The wheel and the sdist, from what git has, into dist/; and the wheel tried in an empty environment.
wheel: $(READY)
	$(BIN)/python tests/built.py dist
	$(PYTHON) -m venv --clear build/empty
	build/empty/bin/pip install --quiet --disable-pip-version-check -c constraints.txt dist/*.whl
	build/empty/bin/python tests/built.py --try

# A stamp comes last, so that an interrupted installation is taken up again.
$(SEARCHES): constraints.txt pyproject.toml
	@echo "Setting up .venv (a few minutes the first time)."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

# timm comes without torchvision, which its networks do not need: docs/guides/timm.md.
$(READY): $(SEARCHES)
	@echo "Adding to .venv what tests and documentation need."
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps timm
	touch $@

# Pin what is installed now. The local part of a version (`+cpu`) is dropped: it names a build, not a release.
constraints: $(READY)
	{ sed '/^[^#]/,$$d' constraints.txt; \
	  $(BIN)/pip freeze --exclude-editable | sed 's/+[a-z0-9]*$$//'; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .hypothesis
