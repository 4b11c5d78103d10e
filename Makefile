# The few commands of this repository; `make` alone lists them. Each sets up what it needs.
MODEL ?= smollm2
PROMPT ?= What is the capital of France?
# Taken as typed: without $(value) make would expand the dollars of a prompt. Recipes read them from
# the environment, so that no quoting is needed either.
override MODEL := $(value MODEL)
override PROMPT := $(value PROMPT)
export MODEL PROMPT

# nproc counts the cores of the affinity mask; ninja by itself would start two jobs more.
JOBS := $(shell nproc)
SHELL := /bin/bash
CTEST := ctest --preset release -j $(JOBS)

.PHONY: help build build-tests run serve test bench cuda nightly format check clean
.DEFAULT_GOAL := help

help:
	@echo 'quire: an LLM inference engine'
	@echo ''
	@echo '  make run       build, fetch the default model (98 MB, once) and answer a prompt'
	@echo '                 make run PROMPT="Why is the sky blue?" MODEL=path/to/model.gguf'
	@echo '  make serve     build, fetch the default model and serve it on port 8000 as OpenAI'"'"'s API (docs/serving.md)'
	@echo '  make build     install missing packages (scripts/setup) and build build/quire'
	@echo '  make test      build and run all tests'
	@echo '  make bench     build and measure prefill and decode of MODEL against the machine'"'"'s limits'
	@echo '  make cuda      install a CUDA compiler without root if there is none, build libquire_cuda.so'
	@echo '  make check     formatting and the include DAG'
	@echo '  make format    make the formatting right (clang-format 19)'
	@echo '  make nightly   hours: long simulation, model checker, fuzzers, mutants; results to docs/nightly.md'
	@echo '  make clean     remove the build folders; models and installed packages stay'

.PHONY: setup
setup:
	@scripts/setup

# Once only: ninja runs cmake again by itself when a CMakeLists.txt changes.
build/build.ninja: | setup
	@cmake --preset release

build: build/build.ninja
	@cmake --build build -j $(JOBS) --target quire

build-tests: build/build.ninja
	@cmake --build build -j $(JOBS)

run: build
	@scripts/get-model "$$MODEL" >/dev/null && exec build/quire run "$$MODEL" -p "$$PROMPT"

serve: build
	@scripts/get-model "$$MODEL" >/dev/null && exec build/quire serve "$$MODEL"

# Without the default model (no network) its tests report that they are skipped; the others run.
test: build-tests
	@scripts/get-model smollm2 || echo 'make test: the tests of the real model will be skipped'
	@$(CTEST)

bench: build
	@scripts/get-model "$$MODEL" >/dev/null && \
	  exec build/quire bench model "$$MODEL" --prompt-tokens 512 --generate-tokens 64 --batch 1,8,32 --depth 0,4096 --repeat 5

cuda: build/build.ninja
	@scripts/setup-cuda
	@cmake -B build -DQUIRE_BUILD_CUDA=ON
	@cmake --build build -j $(JOBS) --target quire_cuda

nightly: build
	@scripts/setup --dev
	@scripts/nightly

format:
	@scripts/check_format --fix

check:
	@scripts/check_format
	@scripts/check_layers

clean:
	rm -rf build build-*
