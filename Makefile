# SPDX-License-Identifier: GPL-3.0-or-later
# Each target sets up what it needs. COMFYUI_PATH and PYTHON win over what would be set up.

# The interpreter that runs the set-up; a version manager's shim may exist and yet refuse to run.
BASE := $(shell for p in $$PYTHON python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null && echo $$p && break; done)
ifeq ($(BASE),)
$(error Python 3.11 is needed and none was found: install it so that python3.11 is on the PATH)
endif
SET_UP := $(BASE) .ci/setup.py
RUN := $(SET_UP) run
# Told its interpreter, since it looks for libraries in whatever `python` the PATH has otherwise.
PYRIGHT := PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(RUN) -c 'import sys, pyright.cli; \
	sys.exit(pyright.cli.main(["--pythonpath", sys.executable]))'

.PHONY: help demo host lint test test-unit test-host bench bench-gpu bench-quality check-full-size test-scale \
	train-demo locales help-pictures thumbnails clean

help:
	@echo 'make demo           a person re-posed in the real ComfyUI; the picture lands in output/'
	@echo 'make test           lint, unit, host and browser tests'
	@echo 'make lint           ruff and pyright'
	@echo 'make test-unit      tests that need no ComfyUI'
	@echo 'make test-host      tests on a real ComfyUI and in a browser'
	@echo 'make host           set up ComfyUI and its environment for development'
	@echo 'make train-demo     train the demo models (hours on a CPU, minutes on a GPU)'
	@echo 'make bench-quality  measure them on held-out pairs and persons; writes docs/benchmark.md'
	@echo 'make bench          measure what the methods cost beside plain sampling and tuning'
	@echo 'make bench-gpu      one-shot tuning at the size of Stable Diffusion XL, on a GPU'
	@echo 'make test-scale     60 jobs on two servers under Ray, through killed servers and drivers'
	@echo 'make check-full-size  FPDM at its released size, with random weights (24 GB, minutes)'
	@echo 'make locales        write the English texts of the nodes from their schemas'
	@echo 'make help-pictures  make the pictures of the help pages'
	@echo 'make thumbnails     make the pictures of the workflows'
	@echo 'make clean          remove caches and output of this clone'

host:
	$(SET_UP) host

demo:
	$(RUN) -m pose_transfer.client.demo

lint:
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(PYRIGHT)

# Two processes, each with a server of its own, that take a file of tests at a time in the order of the
# folders: the many quick unit tests last, so that both end together.
test: lint
	$(RUN) --browser -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-unit:
	$(RUN) -m pytest tests/unit $(ARGS)

test-host:
	$(RUN) --browser -m pytest tests/host tests/browser $(ARGS)

bench:
	$(RUN) tests/bench/bench_fpdm.py
	$(RUN) tests/bench/bench_tuning.py
	$(RUN) tests/bench/bench_vcm.py
	$(RUN) tests/bench/bench_truepose.py
	$(RUN) tests/bench/bench_workflows.py
	$(RUN) --browser tests/bench/bench_editor.py

bench-gpu:
	$(RUN) tests/bench/bench_tuning.py --sdxl --gpu $(ARGS)

bench-quality:
	$(RUN) -m pose_transfer.evaluation demo $(ARGS)
	$(RUN) -m pose_transfer.evaluation one-shot
	$(RUN) -m pose_transfer.evaluation truepose

check-full-size:
	$(RUN) tests/bench/check_full_size.py $(ARGS)

test-scale:
	$(RUN) tests/bench/check_scale.py $(ARGS)

train-demo:
	$(RUN) -m pose_transfer.training.demo $(ARGS)

locales:
	$(RUN) tests/bench/write_locales.py

help-pictures:
	$(RUN) tests/bench/help_pictures.py $(ARGS)
	$(RUN) --browser tests/bench/help_wiring.py

thumbnails:
	$(RUN) tests/bench/thumbnails.py $(ARGS)
	$(RUN) --browser tests/bench/graph_pictures.py

clean:
	rm -rf output build runs .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
