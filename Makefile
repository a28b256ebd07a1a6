# Needs Python 3.11, git and make; everything else is installed into .venv.

# oneDNN keeps one kernel per layer shape, and a search meets more of them than its default, 1024.
export ONEDNN_PRIMITIVE_CACHE_CAPACITY = 8192
export DVC_NO_ANALYTICS = 1

READY = .venv/.ready
# Stages call `python`: the one of the environment comes first.
IN_VENV = env PATH="$(CURDIR)/.venv/bin:$$PATH"
STUDY_NAME = $(IN_VENV) python -m experiments.common.study_file study

.PHONY: help repro rerun study plan tables paper pretrained channel-bench compare data test bench lint

help: ## list the targets (what `make` does without one)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

repro: ## run the study of params.yaml, from data to report; LAUNCH=slurm: as jobs of a cluster
rerun: ## run every stage of the study again, even those that are up to date
rerun: FLAGS = --force
repro rerun: $(READY)
	@$(IN_VENV) python -m experiments.repro $(FLAGS) $(if $(LAUNCH),--launch $(LAUNCH))

study: ## choose a study: `make study STUDY=smoke` makes studies/smoke.yaml the params.yaml
	@test -f "studies/$(STUDY).yaml" || { echo "error: there is no studies/$(STUDY).yaml; \
	there are:" $$(basename -s .yaml studies/*.yaml) >&2; exit 2; }
	cp "studies/$(STUDY).yaml" params.yaml

plan: $(READY) ## what STUDY=name (or params.yaml) costs; FLAGS=--measure: at the speed of this machine
	@$(IN_VENV) python -m experiments.plan $(STUDY) $(FLAGS)

# What is made of the results in the shell's `results`; channel-bench has tables of its own kind.
MADE_OF_RESULTS = for part in $$(test "$$results" = results/channel-bench && echo channel_bench || \
	  echo tables figures report); do $(IN_VENV) python -m paper.$$part "$$results" || exit; done

tables: $(READY) ## tables, figures, report from results (of STUDY=name, or params.yaml's)
	@study=$${STUDY:-$$($(STUDY_NAME))} && results="results/$$study" && $(MADE_OF_RESULTS) && \
	$(IN_VENV) python -m paper.verdicts && $(IN_VENV) python -m paper.readme

# From the root, where the text finds its tables and figures; what LaTeX leaves stays in build/.
paper: $(READY) ## the write-up, paper/report.pdf, from the committed results; needs LaTeX
	@command -v latexmk >/dev/null || { echo "error: latexmk is needed: apt-get install latexmk \
	texlive-latex-recommended texlive-fonts-recommended texlive-latex-extra" >&2; exit 2; }
	@$(IN_VENV) python -m paper.macros && mkdir -p build/paper && \
	{ latexmk -pdf -interaction=nonstopmode -halt-on-error -silent -outdir=build/paper \
	  paper/report.tex >build/paper/latexmk.txt 2>&1 || \
	  { echo "error: LaTeX stopped; build/paper/report.log says why:" >&2; \
	    grep -A 3 '^!' build/paper/report.log >&2; exit 2; }; } && \
	cp build/paper/report.pdf paper/report.pdf

# DVC runs no frozen stage, not even by force. So it is told afterwards what the stage has left.
pretrained: $(READY) ## networks that others trained, on the images in $IMAGENET_SAMPLES
	@$(IN_VENV) python -m experiments.pretrained && \
	$(IN_VENV) dvc commit --force pretrained/dvc.yaml:pretrained && \
	results=results/pretrained && $(MADE_OF_RESULTS)

channel-bench: $(READY) ## generated weights against known truth: $CIFAR10_IMAGES, $CHANNEL_BENCH
	@$(IN_VENV) python -m experiments.channel_bench.repro && \
	results=results/channel-bench && $(MADE_OF_RESULTS)

compare: $(READY) ## your own method's results (METHOD=my_results.csv) beside those of STUDY
	@test -n "$(METHOD)" || { echo "error: say METHOD=my_results.csv" >&2; exit 2; }
	@study=$${STUDY:-$$($(STUDY_NAME))} && \
	$(IN_VENV) python -m paper.compare "results/$$study" "$(METHOD)"

data: $(READY) ## fetch Fashion-MNIST, if it is not there yet
	$(IN_VENV) python -m experiments.fetch_data

# A file's tests share what they prepared, so a file stays with one process; each has one thread.
# In their own order, the long files come first, and no process ends with one alone.
test: $(READY) ## run the tests, in two processes
	$(IN_VENV) OMP_NUM_THREADS=1 pytest -q -n 2 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder

bench: $(READY) ## measure what is fast, against what (IMAGES=folder: loading too); nothing else may run
	@$(IN_VENV) python -m benchmarks $(if $(IMAGES),--images $(IMAGES))

lint: $(READY) ## check style, format, types and imports
	$(IN_VENV) ruff check
	$(IN_VENV) ruff format --check
	$(IN_VENV) mypy
	$(IN_VENV) lint-imports --no-logo

$(READY): requirements.lock pyproject.toml
	@for python in python3.11 python3; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; \
	  then exec "$$python" -m venv .venv; fi; done; \
	echo "error: Python 3.11 is needed: neither python3.11 nor python3 on PATH is one" >&2; exit 2
	.venv/bin/python -m pip install -r requirements.lock
	.venv/bin/python -m pip install --no-deps --no-build-isolation -e .
	@touch $@
