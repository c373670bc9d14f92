# Two commands for a fresh machine with Python >= 3.11: `make demo` and `make test`.
# All paths are relative and unquoted names have no spaces, so that a checkout in "a folder with spaces" works.
PYTHON ?= python3
RUN := .venv/bin/python

.PHONY: demo test sanitize browser lint clean

demo: .venv/.installed
	$(RUN) -m hosnn reproduce demo --runs runs/demo --out runs/demo

test: lint
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --dist loadfile -m "not slow and not gpu and not sanitizer and not browser"

sanitize: .venv/.installed-dev
	$(RUN) -m pytest -m sanitizer

# Pages in a headless Chromium or Chrome, without network; skipped where there is none.
browser: .venv/.installed-dev
	$(RUN) -m pytest -m browser tests/report/test_in_a_browser.py

lint: .venv/.installed-dev
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

clean:
	rm -rf .venv runs/demo

.venv/.installed: pyproject.toml constraints.txt $(wildcard src/hosnn/spiking/kernels/*.[ch])
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hosnn needs Python >= 3.11; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
