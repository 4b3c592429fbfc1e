# make demo   train, compare and report on drawn streets, from nothing (three to five minutes on two cores)
# make test   run all tests, from nothing
# make lint   format, lint and types
#
# On a machine with a CUDA GPU: make TORCH=torch demo
TORCH ?= torch==2.13.0
PYTHON ?= python3.11
VENV ?= .venv
DEMO ?= demo
STEPS ?=

PIP := $(VENV)/bin/python -m pip --disable-pip-version-check install --quiet
SEGDA := $(VENV)/bin/segda
SHORT := $(if $(STEPS),--set steps=$(STEPS))

.PHONY: demo test lint clean

# torch first and alone, then held: anything looser draws gigabytes of CUDA, or replaces it.
$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(PIP) '$(TORCH)'
	$(VENV)/bin/python -c "import importlib.metadata as m; print('torch==' + m.version('torch').split('+')[0])" > $(VENV)/constraint.txt
	$(PIP) --constraint $(VENV)/constraint.txt --editable '.[test,imagenet]'
	touch $@

# Both runs beside each other, one thread each: quicker on two cores than one after the other with two threads.
demo: export OMP_NUM_THREADS = 1
demo: $(VENV)/ready
	@mkdir -p $(DEMO)
	@echo "source-only trains beside EBDA; its lines go to $(DEMO)/source_only.txt"
	$(SEGDA) train source_only_streets --out $(DEMO)/source_only --overwrite $(SHORT) > $(DEMO)/source_only.txt & other=$$!; \
	$(SEGDA) train ebda_streets --out $(DEMO)/ebda --overwrite $(SHORT); ebda=$$?; \
	wait $$other && exit $$ebda
	$(SEGDA) report $(DEMO)/ebda --against $(DEMO)/source_only
	$(SEGDA) compare $(DEMO)/source_only $(DEMO)/ebda
	@echo "Open $(DEMO)/ebda/report.html"

# Files stay whole, since what tests of a file share is made once a process; the longest first (tests/conftest.py).
# Bytecode is kept also where the environment asks for none: tests start python again and again.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/ready
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/ready
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) $(DEMO)
