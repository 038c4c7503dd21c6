# make demo: record the shipped guest, replay it, run it backwards to its bug.  make check: everything CI runs.  make bench: the figures of docs/performance.md.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
NATIVE := $(wildcard timevm/engine/cpu/native/*.[ch])
CC_FOUND := $(shell command -v cc || command -v gcc || command -v clang)

export PYTHONASYNCIODEBUG ?= 1

.PHONY: demo check bench env peers lint test clean

env: $(VENV)/stamp

# Without ensurepip (Debian's python3 without python3-venv) root gets the package; anybody else is told its name.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -q && apt-get install -y -q python3-venv; \
	  else echo "python3-venv is missing: apt-get install python3-venv" >&2; exit 1; fi; }
	$(PYTHON) -m venv $(VENV)

# The native hooks need a C compiler; where there is none, the ziglang package brings one.
$(VENV)/stamp: $(VENV)/bin/python pyproject.toml $(NATIVE)
ifeq ($(CC_FOUND),)
	$(BIN)/python -m pip install -q --disable-pip-version-check ziglang
	zig="$$($(BIN)/python -c 'import os, ziglang; print(os.path.join(os.path.dirname(ziglang.__file__), "zig"))')"; \
	  CC="$$zig cc" LDSHARED="$$zig cc -shared" \
	  $(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
else
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
endif
	@$(BIN)/python -m compileall -q timevm  # where PYTHONDONTWRITEBYTECODE is set every start would compile it all
	@touch $@

demo: env
	@PYTHONASYNCIODEBUG= $(BIN)/timevm demo

# The real programs that the tests talk to (gdb, qemu-img, telnet ...); root gets them, anybody else is told.
peers: env
	@missing="$$($(BIN)/python -m tests.peers)"; if [ -z "$$missing" ]; then :; \
	  elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing; \
	  else echo "some tests will fail without: apt-get install $$missing" >&2; fi

lint: env
	$(BIN)/ruff check .
	$(BIN)/mypy

test: peers
	$(BIN)/python -m pytest

check: lint test

bench: env
	PYTHONASYNCIODEBUG= $(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build *.egg-info timevm/engine/cpu/native/*.so
