# libmantle: the commands of the project. `make help` lists them.
#
# Assumed: Rust, a C compiler, Python 3 with pip. Whatever else is missing (cmake, the models) is
# fetched into ${MANTLE_CACHE:-${XDG_CACHE_HOME:-~/.cache}/libmantle}, never into the system.

CARGO ?= cargo
PYTHON ?= python3
BUILD := build
export PYTHON

FETCH := $(PYTHON) tests/tools/fetch_models.py
PROMPT ?= Write a short story about a lighthouse keeper who finds a message in a bottle.
# What `make bench` passes on to mantle-bench; for example BENCH='matvec --types q4_1'.
BENCH ?=
# What `make report` passes on to tests/tools/bench_report.py; for example REPORT='--types q8_0 --docs /tmp/report'.
REPORT ?=

.DEFAULT_GOAL := all
.PHONY: all configure models header test test-rust test-isa test-aarch64 test-c demo bench report fmt lint clean help

## all: the library in build/lib, the programs in build/bin (the default)
all: configure
	@cmake=$$(cmake/find-cmake.sh) && "$$cmake" --build $(BUILD) --parallel

configure:
	@cmake=$$(cmake/find-cmake.sh) && "$$cmake" -S . -B $(BUILD) -DCMAKE_BUILD_TYPE=Release >$(BUILD).log 2>&1 \
		|| { cat $(BUILD).log >&2; rm -f $(BUILD).log; exit 1; }; rm -f $(BUILD).log

## models: fetch the models that tests and demo read (checked by sha256, kept in the cache)
models:
	@$(FETCH) smollm2
	@$(FETCH) minilm

## test: everything: Rust tests, instruction sets, header drift, C tests, programs
test: models test-rust test-isa test-c

test-rust:
	$(CARGO) test --release

# The same tests once per instruction set that this machine has: all must give the same bits.
test-isa:
	@tests/tools/sweep_isa.sh $(CARGO)

## test-aarch64: the kernel tests for aarch64, cross-compiled and run by qemu (not a part of `make test`)
test-aarch64:
	@CARGO=$(CARGO) tests/tools/aarch64.sh

test-c: all
	@cmake=$$(cmake/find-cmake.sh) && cd $(BUILD) && "$$(dirname "$$cmake")/ctest" --output-on-failure

## demo: fetch two small models, compare sentences with one and watch the other write
demo: all
	@encoder=$$($(FETCH) minilm) && model=$$($(FETCH) smollm2) && \
		sh c_examples/demo.sh $(BUILD)/bin "$$encoder" "$$model" "$(PROMPT)"

## bench: this machine's limits, and how close the library comes to them
bench: all
	@model=$$($(FETCH) smollm2) && sh c_examples/bench.sh $(BUILD)/bin "$$model" $(BENCH)

## report: measure every type and op (minutes): chart and tables in docs/
report: all
	$(PYTHON) tests/tools/bench_report.py --programs $(BUILD)/bin $(REPORT)

## header: write include/*.h anew from src/ffi
header:
	MANTLE_WRITE_HEADER=1 $(CARGO) build --release --lib

## fmt: format the Rust code
fmt:
	$(CARGO) fmt

## lint: formatting and clippy, without changing a file
lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --release -- -D warnings

## clean: remove what the build made (the models in the cache stay)
clean:
	rm -rf $(BUILD)
	$(CARGO) clean

## help: this list
help:
	@sed -n 's/^## /  make /p' $(MAKEFILE_LIST)
