# make demo       simulate recordings, train on them, score the result
# make test       style, types, import floors and all tests but the slow ones
# make test-slow  the slow ones
# make leaderboard  all models on the simulated recordings, under equal terms, compared (long)
# make bench      time and memory of the losses against those of other packages
# make gpu-check  tests, losses, training steps and a resume on one CUDA GPU, in minutes
# make faults     kills, damage, full disks and more, done to a tiny run (long; root mounts disks)
# make clean      remove the environments, the demo's recordings, its run, the leaderboard
# make demo EXTRAS=cuda12   the same on a GPU or TPU: cuda12, cuda13 or tpu

PYTHON ?= python3
EXTRAS ?= cpu
# Not to be taken from a variable of the shell, for `make clean` removes them.
DATA   := runs/simulated
RUN    := runs/demo
BOARD  := runs/leaderboard
BIN    := .venv/bin

.PHONY: demo test check style types suite test-slow leaderboard bench gpu-check faults clean

# One environment; it is brought up to date when the dependencies change.
.venv/has-%: setup.cfg
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[$*]'
	touch $@

SIMULATE = test -e $(DATA)/truth.json || \
	$(BIN)/python -m experiments.simulate --out $(DATA) --overwrite

demo: .venv/has-$(EXTRAS)
	$(SIMULATE)
	$(BIN)/python -m experiments.train --config=configs/multiscale.py:demo \
		--config.data.root=$(DATA) --workdir=$(RUN)
	$(BIN)/python -m experiments.evaluate --workdir $(RUN) --split val \
		--predictions $(RUN)/val.jsonl

# Types are checked beside the tests: that takes a minute of one processor.
test: style
	$(MAKE) --jobs=2 types suite

check: style types

style: .venv/has-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/has-dev
	$(BIN)/pyright

suite: .venv/has-dev
	$(BIN)/pytest -m 'not slow' -n 2 --dist loadfile --no-loadscope-reorder

test-slow: .venv/has-dev
	$(BIN)/pytest -m slow

leaderboard: .venv/has-$(EXTRAS)
	$(SIMULATE)
	$(BIN)/python -m studies.leaderboard gru:demo transformer:demo conformer:demo \
		multiscale:demo modessm:demo --data $(DATA) --work $(BOARD) --out $(BOARD)/board \
		--seeds 0 --seconds 150

# Its own environment, on top of what the machine has: a torch that is installed is used.
.venv/bench/has-%: setup.cfg
	test -x .venv/bench/bin/python || $(PYTHON) -m venv --system-site-packages .venv/bench
	.venv/bench/bin/python -m pip install --quiet --editable '.[bench,dev,$*]'
	touch $@

# fast_rnnt, optimized_transducer and warp-transducer (WARPRNNT=libwarprnnt.so) are built by hand.
LOSSES := .venv/bench/bin/python -m benchmarks.losses
TIMES  := benchmarks/results/losses

bench: .venv/bench/has-cpu
	$(LOSSES) ctc rnnt --rounds 7 --out $(TIMES)
	$(LOSSES) joint --rounds 9 --out $(TIMES)_joint
	$(LOSSES) growth --rounds 7 --out $(TIMES)_growth
	$(LOSSES) compile --out $(TIMES)_compile
	$(LOSSES) ctc --rounds 7 --threads 2 --out $(TIMES)_two_threads

gpu-check: .venv/bench/has-cuda12
	.venv/bench/bin/python -m benchmarks.gpu_check --out benchmarks/results/gpu.md

faults: .venv/has-dev
	$(BIN)/python -m benchmarks.faults all --out benchmarks/results/faults.md

clean:
	rm -rf .venv $(RUN) $(BOARD) $(DATA) build *.egg-info
