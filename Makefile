# make demo   train, compare and report on rendered streets, from an empty folder (five to ten minutes on two cores)
# make test   run all tests but the longest, from nothing (make test-long runs those)
# make lint   format, lint and types
# make docs   the site, in build/site; the notebooks are executed
# make gpu    what a GPU computes and how fast, in docs/results/gpu.md (under eight minutes; installs nothing with VENV=)
# make dist   wheel and source archive in dist/, checked, and tried in an environment of their own
#
# On a machine with a CUDA GPU: make TORCH=torch demo
# With the newest of all other libraries in place of those that were tested: make CONSTRAINTS= demo
TORCH ?= torch==2.13.0
CONSTRAINTS ?= constraints.txt
PYTHON ?= python3.11
VENV ?= .venv
DEMO ?= demo
STEPS ?=

PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet
TESTED := $(addprefix --constraint ,$(CONSTRAINTS))
SEGDA := $(VENV)/bin/segda
SHORT := $(if $(STEPS),--set steps=$(STEPS))
# Self-training begins after the first half.
LATE := $(if $(STEPS),--set method.begin=$(shell expr $(STEPS) / 2))

.PHONY: demo test test-long lint docs gpu dist clean

# torch first and alone, then held: anything looser draws gigabytes of CUDA, or replaces it.
$(VENV)/ready: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(PIP) $(TESTED) '$(TORCH)'
	$(VENV)/bin/python -c "import importlib.metadata as m; print('torch==' + m.version('torch').split('+')[0])" > $(VENV)/constraint.txt
	$(PIP) $(TESTED) --constraint $(VENV)/constraint.txt --editable '.[test,imagenet]'
	touch $@

# Both runs beside each other, one thread each: quicker on two cores than one after the other with two threads.
demo: export OMP_NUM_THREADS = 1
demo: $(VENV)/ready
	@mkdir -p $(DEMO)
	@echo "source_only learns rendered streets by day; ease adapts to their night besides, without a night label."
	$(SEGDA) train source_only_imagenet_streets --out $(DEMO)/source_only --overwrite --label source_only $(SHORT) & other=$$!; \
	$(SEGDA) train ease_streets --out $(DEMO)/ease --overwrite --label ease $(SHORT) $(LATE); ease=$$?; \
	wait $$other && exit $$ease
	$(SEGDA) report $(DEMO)/ease --against $(DEMO)/source_only
	$(SEGDA) compare $(DEMO)/source_only $(DEMO)/ease
	@echo "Open $(DEMO)/ease/report.html"

# A process that dies ends the tests: another in its place would leave some of them out, and wait for them.
# Where the environment forbids compiled files, each process compiles all of segda and its tests anew.
test test-long: export PYTHONDONTWRITEBYTECODE =
test test-long: $(VENV)/ready
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 \
		-m "$(if $(filter test,$@),not long,long)"

lint: $(VENV)/ready
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# Read as files; a search needs a server: python -m http.server --directory build/site
docs: $(VENV)/ready
	$(PIP) $(TESTED) --constraint $(VENV)/constraint.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --quiet
	@echo "Open build/site/index.html"
# VENV= PYTHON=python3.12 takes a python that has torch, transformers and pytest already, on a machine without a network.
# DEVICE=cpu tries it, tiny, and writes beside what is built.
DEVICE ?= cuda
gpu: $(if $(VENV),$(VENV)/ready)
	PYTHONPATH=src $(if $(VENV),$(VENV)/bin/python,$(PYTHON)) benchmarks/gpu.py --device $(DEVICE) \
		$(if $(filter cpu,$(DEVICE)),--tiny --out build/gpu.md)

# What is installed is the wheel, in a folder without the sources.
dist: TRIED := build/tried
dist: $(VENV)/ready
	rm -rf dist build
	$(PIP) $(TESTED) --constraint $(VENV)/constraint.txt --editable '.[release]'
	$(VENV)/bin/python -m build
	$(VENV)/bin/twine check --strict dist/*
	$(PYTHON) -m venv $(TRIED) || python3 -m venv $(TRIED)
	$(TRIED)/bin/python -m pip --disable-pip-version-check install --quiet '$(TORCH)'
	$(TRIED)/bin/python -m pip --disable-pip-version-check install --quiet $(TESTED) \
		--constraint $(VENV)/constraint.txt "$$(echo dist/*.whl)[imagenet,export]"
	cd $(TRIED) && bin/segda train source_only_imagenet_streets --out run --set steps=2
	cd $(TRIED) && bin/segda export run --to onnx
	cd $(TRIED) && bin/segda predict run.onnx --data streets:test:night --out predictions

clean:
	rm -rf $(VENV) $(DEMO) dist build
