# Each target does all of its own set-up: a .venv, the locked install, the run.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test test-slow check docs bench soak lock clean

$(STAMP): infra/locks/all.txt infra/locks/uv.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r infra/locks/uv.txt
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes infra/locks/all.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

demo: $(STAMP)
	$(BIN)/covseg demo

test: $(STAMP)
	$(BIN)/pytest

test-slow: $(STAMP)
	$(BIN)/pytest -m slow

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks

MINUTES ?= 30
soak: $(STAMP)
	$(BIN)/python -m tests.soak --minutes $(MINUTES)

lock: $(STAMP)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--custom-compile-command "make lock" pyproject.toml --all-extras --group dev -o infra/locks/all.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--custom-compile-command "make lock" pyproject.toml -c infra/locks/all.txt -o infra/locks/core.txt
	for image in "run" "gpu --extra train"; do \
		set -- $$image; lock=$$1; shift; \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
			--custom-compile-command "make lock" pyproject.toml --extra s3 --extra gs --extra az --extra ray --extra flow --extra otel $$@ --group image \
			-c infra/locks/all.txt -o infra/locks/$$lock.txt || exit 1; \
	done
	grep -A 40 '^uv==' infra/locks/all.txt | awk 'NR==1 || /^    --hash/ {print; next} {exit}' > infra/locks/uv.txt

clean:
	rm -rf .venv demo site
