# All commands run in this clone's own environment (.venv), which uv makes from uv.lock at first use.
#   make test ARGS='tests/device -k cache'     some of the tests
#   make test JOBS=1                           one test after the other
#   make test EXTRA=cuda13                     on another backend than this system's usual one
EXTRA ?= $(if $(filter Darwin,$(shell uname -s)),metal,cpu)
# How many test processes share the cores: two keep two cores busy, with the daemons they start.
JOBS ?= 2
SPREAD = --numprocesses $(JOBS) --dist loadscope --no-loadscope-reorder
UV = tools/uv.sh
RUN = $(UV) run --frozen --extra $(EXTRA) --extra image
CHECKS = check-lock check-format check-lint check-types check-imports check-docs check-shell

.PHONY: test test-all kernels wheels check $(CHECKS) fix install-dev

test: kernels
	$(RUN) pytest $(SPREAD) $(ARGS)

# The CPU kernels, where they apply and unless they are built already.
kernels:
	$(RUN) python -m exo.inference.kernels.build --if-needed

# Also what takes many minutes: every architecture of mlx-lm.
test-all: kernels
	$(RUN) pytest $(SPREAD) -m "exhaustive or not exhaustive" $(ARGS)

# A wheel that runs anywhere, and one with the CPU kernels for this machine.
wheels: kernels
	rm -f dist/exo-*.whl
	$(UV) build --wheel --out-dir dist
	$(RUN) python tools/wheels.py dist

# What must hold besides the tests; changes nothing. `make -k check` does not stop at a failure.
check: $(CHECKS)
check-lock:
	$(UV) lock --check
	$(UV) lock --check --project tests/clients/libraries
check-format:
	$(RUN) ruff format --check
check-lint:
	$(RUN) ruff check
check-types:
	$(RUN) pyright
check-imports:
	$(RUN) lint-imports
check-docs:
	$(RUN) python tools/docs.py --check
check-shell:
	if command -v shellcheck >/dev/null; then shellcheck install.sh tools/uv.sh .ci/run; fi

# Brings format, lint and the generated docs in order, as far as that can be done by machine.
fix:
	$(RUN) ruff check --fix
	$(RUN) ruff format
	$(RUN) python tools/docs.py

install-dev:
	./install.sh --dev
