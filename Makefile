# Everything a fresh machine needs: `make demo` (the main job, offline), `make test` (ruff, mypy,
# pytest), `make soak` (the long proofs). Each makes .venv here if it is absent.

PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test soak clean

.venv/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch>=2.4,<2.14"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

demo: .venv/.installed
	$(BIN)/urban --workspace demo demo

test: .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not soak" -n 2 --dist loadfile

soak: .venv/.installed
	$(BIN)/python -m pytest -m soak

clean:
	rm -rf demo
