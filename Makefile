# One verb per job. Everything runs in the checkout's environment, which `make setup` prepares.
# The longer verbs take their inputs from variables: make real-smoke SHARED=../shared

PYTHON ?= $(shell if [ -x .venv/bin/python ]; then echo .venv/bin/python; else echo python3; fi)
SHARED ?= ../shared
SEED ?=
STEPS ?= 400
REAL_DEMO ?= runs/real-demo
DEMO_FULL ?= runs/demo-full
SEED_FLAG = $(if $(SEED),--seed $(SEED),)

.PHONY: help setup test test-processors test-gpu architecture lint demo demo-ci controls data-demo data-real real-smoke real-demo gpu-suite memory-plans rank-memory preset-memory distill-circle parity triton-parity stress-starts kernel-resources plan-local check rules slurm-demo slurm-chain container-cpu summarize table ci clean demo-full

help:            ## list the verbs
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -e 's/:.*##/\t/' | expand -t 16

setup:           ## prepare .venv (once)
	./run_tests.sh --setup-only

test:            ## the whole test suite, no GPU needed
	OPENFOLD_SHARED="$(if $(wildcard $(SHARED)),$(abspath $(SHARED)),)" ./run_tests.sh

test-processors: ## the test suite as on other processors, parity with one and two threads: OUT=FILE keeps the results
	OPENFOLD_SHARED="$(if $(wildcard $(SHARED)),$(abspath $(SHARED)),)" tools/test_processors.sh $(if $(OUT),--out $(OUT),)

test-gpu:        ## the tests that need a GPU
	./run_tests.sh -m gpu

gpu-suite:       ## on a GPU: correctness, times, profile and tests, in less than nine minutes: OUT=folder
	tools/gpu_suite.sh $(or $(OUT),build/gpu_suite) $(PYTHON)

architecture:    ## only the rules of the architecture: imports, sizes, names
	./run_tests.sh tests/architecture

lint:            ## ruff check, ruff format --check and mypy
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

demo:            ## the timed run of the front door: embedded data to lDDT-Ca 0.8
	./run_and_time.sh $(SEED_FLAG)

demo-ci:         ## a few minutes of the same, to a lower bar
	./run_and_time.sh --preset demo_ci $(SEED_FLAG)

# gloo needs both cores, so each rank computes with one thread
demo-full:       ## two training phases and fine-tuning on two ranks, and a check of the confidences: DEMO_FULL=runs/demo-full
	OMP_NUM_THREADS=1 $(PYTHON) -m torch.distributed.run --no-python --nproc-per-node 2 \
	    ./run_and_time.sh --preset demo_full --output-dir $(DEMO_FULL) $(SEED_FLAG)
	test -e data/demo-fresh/complete || { rm -rf data/demo-fresh && \
	    $(PYTHON) -m data_prep synthesize --out data/demo-fresh/raw --chains 100 --seed 14 && \
	    $(PYTHON) -m data_prep convert --pdb-mmcif data/demo-fresh/raw/pdb_mmcif \
	    --open-protein-set data/demo-fresh/raw/open_protein_set --out data/demo-fresh/shards && \
	    touch data/demo-fresh/complete; }
	$(PYTHON) -m tests.train.confidence_of_run $(DEMO_FULL) --data-dir data/demo-fresh/shards $(if $(OUT),--out $(OUT),)

data-demo:       ## embedded data alone
	$(PYTHON) -m data_prep synthesize --out data/demo/raw
	$(PYTHON) -m data_prep convert --pdb-mmcif data/demo/raw/pdb_mmcif \
	    --open-protein-set data/demo/raw/open_protein_set --out data/demo/shards
	touch data/demo/complete

controls:        ## what the last demo scores on shuffled inputs: RUN=runs/demo-...
	$(PYTHON) -m benchmark controls $(RUN) --data-dir data/demo/shards

data-real:       ## shards of the real files in SHARED
	$(PYTHON) -m data_prep convert --pdb-mmcif $(SHARED)/data/real/pdb_mmcif \
	    --open-protein-set $(SHARED)/data/real/open_protein_set --out data/real/shards

real-smoke: data-real ## a small model on a few real chains, to lDDT-Ca 0.8
	./run_and_time.sh --preset real_smoke --data-dir data/real/shards $(SEED_FLAG)

# a run that uses up its steps has exit code 1, and a finished run.json
real-demo:       ## the example entries of examples/own_data to a trained model (minutes): STEPS=400 REAL_DEMO=runs/real-demo
	$(PYTHON) -m data_prep convert --own-data --missing-alignments query --pdb-mmcif examples/own_data/entries \
	    --open-protein-set examples/own_data/alignments --out data/real-demo/shards
	./run_and_time.sh --preset own_data --data-dir data/real-demo/shards --output-dir $(REAL_DEMO) $(SEED_FLAG) \
	    --set selection.validation_share=0 --set data.crop_size=48 --set max_steps=$(STEPS) \
	    || grep -q '"status": "finished"' $(REAL_DEMO)/run.json
	$(PYTHON) -m benchmark export $(REAL_DEMO) $(REAL_DEMO)/weights.pt
	$(PYTHON) -m benchmark predict-validation $(REAL_DEMO) --data-dir data/real-demo/shards

stress-starts:   ## 500 starts and ends of tiny runs of two and four ranks under load
	OMP_NUM_THREADS=1 $(PYTHON) -m tests.train.stress_starts

memory-plans:    ## the whole forward at 10,000 to 30,000 residues against its memory plan, no GPU needed (minutes)
	OMP_NUM_THREADS=1 $(PYTHON) -m tests.predict.long_chains

rank-memory:     ## memory of four ranks that share a chain over gloo against the plan (a minute)
	OMP_NUM_THREADS=1 $(PYTHON) -m torch.distributed.run --nproc-per-node 4 -m tests.predict.rank_memory

preset-memory:   ## memory of the presets for full training on 80 and 141 GB, no GPU needed (many minutes)
	OMP_NUM_THREADS=1 $(PYTHON) -m tests.train.preset_memory

distill-circle:  ## predict -> distill -> train on 20 synthetic chains, scores with and without (minutes): OUT=runs/distill-circle STEPS=1200 RECORD=FILE
	OMP_NUM_THREADS=1 $(PYTHON) -m tests.support.distillation_circle $(or $(OUT),runs/distill-circle) \
	    --steps $(if $(filter command line,$(origin STEPS)),$(STEPS),1200) $(SEED_FLAG) $(if $(RECORD),--record $(RECORD),)

parity:          ## model, losses, gradients and optimizer against every golden directory in SHARED
	$(PYTHON) -m benchmark parity $(SHARED)/golden/model_tiny
	$(PYTHON) -m benchmark parity $(SHARED)/golden/model_quirks
	$(PYTHON) -m benchmark parity $(SHARED)/golden/model_full

triton-parity:   ## optimizer steps after step 4 of the tiny golden model, with Triton's kernels interpreted (long): OUT=triton_parity.json
	OMP_NUM_THREADS=1 TRITON_INTERPRET=1 $(PYTHON) -m benchmark parity --kernels triton --only-resumed \
	    $(SHARED)/golden/model_tiny --json $(or $(OUT),triton_parity.json)

kernel-resources: ## shared memory, registers and spills of every kernel, no GPU needed: OUT=kernel_resources.json
	$(PYTHON) -m benchmark perf resources --capability 80 90 --widest --json $(or $(OUT),kernel_resources.json)

# the demos are measured after the predictions are written; other work on the machine disturbs both
plan-local:      ## calibrate the planner on this CPU, predict steps of the demos, then measure them (minutes): OUT=plan_local.json
	test -e data/demo/complete || $(MAKE) data-demo
	OMP_NUM_THREADS=1 $(PYTHON) -m benchmark plan local --data-dir data/demo/shards --json $(or $(OUT),plan_local.json)

check:           ## compliance of a log: LOG=runs/.../mlperf.log
	$(PYTHON) -m benchmark check $(LOG)

rules:           ## what makes a preset open: PRESET=demo
	$(PYTHON) -m benchmark rules --preset $(or $(PRESET),demo)

slurm-demo:      ## the short demo as a Slurm job on two virtual nodes of this machine (root, slurm-wlm, munge)
	tools/local_slurm.sh start build/cluster
	SLURM_CONF=$(CURDIR)/build/cluster/slurm.conf bash -c '. slurm/configs/cpu_2x2.sh && \
	    PRESET=demo_ci_2x2 NEXP=1 CHECK_OPTIONS=--below-target sbatch --wait slurm/run.sub'; \
	    status=$$?; tools/local_slurm.sh stop build/cluster; exit $$status

slurm-chain:     ## phases of a training as a chain of Slurm jobs on two virtual nodes (root, slurm-wlm, munge)
	OMP_NUM_THREADS=1 $(PYTHON) -m tests.slurm.chain_scenarios

container-cpu:   ## the CPU image by debootstrap and buildah, without a daemon (root)
	docker/build_without_docker.sh

summarize:       ## tables and pictures of logs: LOGS="runs" OUT=summary
	$(PYTHON) -m benchmark summarize $(or $(LOGS),runs) --out $(or $(OUT),summary)

table:           ## results/TABLE.md anew
	$(PYTHON) -m benchmark results

ci:              ## what CI runs
	.ci/run

clean:           ## remove embedded data and caches, keep .venv, runs and other data
	rm -rf data/demo data/demo-fresh .pytest_cache .ruff_cache .mypy_cache build
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
