# make run: the whole pipeline on the embedded world.  make test: all tests.  Both install what they need.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STUDY ?=
PYTEST := pytest -n auto --maxprocesses 4 --dist loadfile
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: run test bench faults lint format doctor plan status precision parity audit annotate judge-check lock export compare answers-page merge vllm cancel clean-study unused-runs requirements check-packages schema rulegraph

run: .venv/installed ## the studies that config/config.yaml names, their results and a workflow report
	@snakemake --profile profiles/local $(STUDY)
	@mkdir -p results/logs
	@if [ ! -e workflow-report.html ] || [ -n "$$(find results/studies -name report.html -newer workflow-report.html)" ]; then \
	  snakemake --profile profiles/local $(STUDY) --report workflow-report.html > results/logs/workflow-report.log 2>&1 \
	  || { cat results/logs/workflow-report.log; exit 1; }; fi
	@python -m ftsafety results $(STUDY)

test: .venv/installed ## all tests; those that need Slurm, root or Chromium say so where they are skipped
	@$(PYTEST)

faults: .venv/installed ## make faults [QUICK=1 TESTS=…]: kills, damaged files and the like, injected for real (docs/reliability.md)
	@$(if $(QUICK),,FAULTS=all FAULTS_PAGE=docs/reliability.md) $(PYTEST) -m fault $(TESTS)

bench: .venv/installed ## make bench [QUICK=1]: every benchmark of speed, against another way of doing the same
	@$(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	@python benchmarks/speed/all.py $(if $(QUICK),--quick)

lint: .venv/installed ## formatting, style, types, workflow
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow/rules
	mypy
	snakemake --lint

format: .venv/installed
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow/rules

plan: .venv/installed ## make plan STUDY=name: runs, jobs, GPU-hours, judgements, disk, what is done
	@python -m ftsafety plan $(STUDY)

status: .venv/installed ## make status STUDY=name: done, running, failed, diverged, and how to go on
	@python -m ftsafety status $(STUDY)

doctor: .venv/installed ## make doctor [STUDY=name]: what would stop a study on this machine, each with its mend
	@python -m ftsafety doctor $(STUDY)

precision: .venv/installed ## make precision STUDY=name [POINTS=5] [PILOT=study]: how many seeds and prompts it needs
	@python -m ftsafety precision $(STUDY) $(if $(POINTS),--points $(POINTS)) $(if $(PILOT),--pilot $(PILOT))

parity: .venv/installed ## make parity [WORLD=embedded]: a page of all finished studies against the paper
	@python -m ftsafety parity $(if $(WORLD),--world $(WORLD))

audit: .venv/installed ## make audit MODEL=… [BASE=…] [STUDY=audit]: a fine-tuned model against its base, and its safety card
	@python -m ftsafety audit "$$MODEL" "$$BASE" $(if $(STUDY),--study $(STUDY)) $(if $(TEMPLATE),--template $(TEMPLATE)) $(if $(PROFILE),--profile $(PROFILE))

annotate: .venv/installed ## make annotate STUDY=name [N=500 ANNOTATORS=anna,ben OVERLAP=all SEED=0], then IMPORT="filled.csv …": people score answers, blind
	@python -m ftsafety annotate $(STUDY) $(if $(IMPORT),--import $(IMPORT),$(if $(N),--n $(N)) $(if $(ANNOTATORS),--annotators '$(ANNOTATORS)') $(if $(OVERLAP),--overlap $(OVERLAP)) $(if $(SEED),--seed $(SEED)))

judge-check: .venv/installed ## make judge-check JUDGE=name [STUDY=name N=100 REPEATS=3]: does it still say the same?
	@python -m ftsafety judge-check $(JUDGE) $(STUDY) $(if $(N),--n $(N)) $(if $(REPEATS),--repeats $(REPEATS))

lock: .venv/installed ## make lock STUDY=name [UPDATE=1]: pin what it takes from the hub and GitHub in config/lock.yaml
	@python -m ftsafety lock $(STUDY) $(if $(UPDATE),--update)

export: .venv/installed ## make export STUDY=name: its answers and verdicts as JSON Lines and Parquet (sensitive!)
	@python -m ftsafety export $(STUDY)

compare: .venv/installed ## make compare A=… B=…: two studies side by side, each by its name or by the path of its folder
	@python -m ftsafety compare "$$A" "$$B"

answers-page: .venv/installed ## make answers-page STUDY=name [RUNS=id,… SHOW=1]: answers before and after, redacted (sensitive!)
	@python -m ftsafety answers-page $(STUDY) $(if $(RUNS),--runs $(RUNS)) $(if $(SHOW),--show)

merge: .venv/installed ## make merge RUN=results/runs/…/epoch-5 TO=folder: its whole model with LoRA merged, for source: path
	@python -m ftsafety merge $(RUN) $(TO)

vllm: ## an environment of its own for models with engine: vllm (needs a GPU to run)
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet $$(sed -n 's/.*- \(vllm==.*\)/\1/p' envs/vllm.yaml)

cancel: .venv/installed ## make cancel STUDY=name: its fine-tuning jobs that still run at an endpoint
	@python -m ftsafety cancel $(STUDY)

clean-study: .venv/installed ## make clean-study STUDY=name: its folder and the runs it alone uses
	@python -m ftsafety clean-study $(STUDY)

unused-runs: .venv/installed ## runs on disk that no study uses
	@python -m ftsafety unused-runs

requirements: .venv-tools/installed ## requirements.lock: sha256 of all packages but torch, whose file depends on the machine
	echo "torch; python_version < '3'" | .venv-tools/bin/uv pip compile pyproject.toml --extra dev --universal --quiet \
	  --override - -c constraints.txt --generate-hashes --no-annotate --no-header -o requirements.lock

check-packages: .venv-tools/installed ## known vulnerabilities of the packages in requirements.lock (asks PyPI)
	.venv-tools/bin/pip-audit --strict --disable-pip --require-hashes -r requirements.lock

schema: .venv/installed ## config/schema.json, from the pydantic models
	@python -m ftsafety schema > config/schema.json

rulegraph: .venv/installed ## the picture in the README (needs graphviz)
	@snakemake --rulegraph dot smoke 2>/dev/null | dot -Grankdir=LR -Tsvg > docs/rulegraph.svg

.venv/installed: pyproject.toml constraints.txt requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --no-deps --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet --no-deps -e .
	@touch $@

.venv-tools/installed:
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/pip install --quiet uv pip-audit
	@touch $@
