# Set-up, demo, tests and checks. Needs make, git and Python 3.11 to 3.13 with its venv module; nothing else.
#
# Everything goes into .venv in this folder; outside it only the download caches of pip and uv are written.
# Your own pip and uv settings (mirrors, proxies, certificates, cache folders) hold.
#
#   make PYTHON=/path/to/python3.12    choose the interpreter
#   make TORCH_BACKEND=cu126           choose the build of torch: cpu, or what an older GPU driver can run
#                                      (`nvidia-smi` prints the newest CUDA that its driver knows).
#                                      The lock's hashes belong to the default build, so this one choice is
#                                      installed by version, without a hash. It is remembered in .venv.
#   make test PYTEST_ARGS="-k metrics" pass arguments to pytest
#   make lock UPGRADE=--upgrade        move all pins to the newest versions

CANDIDATES = python3.13 python3.12 python3.11 python3
READY = .venv/.ready
UV = .venv/bin/uv pip
# Developed here, so installed from here and not pinned in the lock.
PLUGIN = plugins/snakemake-executor-plugin-submitit
# Tests run in up to four processes; those that share an expensive fixture share a process. The slowest are listed.
WORKERS := $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 4 ? n : 4)))
PYTEST = .venv/bin/python -m pytest -n $(WORKERS) --durations 25 --durations-min 5
TORCH_FAMILY = torch|torchvision|triton|nvidia-.*|cuda-.*
RECORDED_BACKEND := $(shell cat .venv/.torch-backend 2>/dev/null)
TORCH_BACKEND = $(RECORDED_BACKEND)
# Scripts in .venv name the folder it was made in: empty if that is this one.
MOVED_FROM := $(shell made=$$(awk '/^command = / { sub(/^.* -m venv (--[^ ]+ )*/, ""); print }' .venv/pyvenv.cfg 2>/dev/null); \
	[ -z "$$made" ] || [ "$$made" -ef .venv ] || echo "$$made")

# Rules call `python -m luab`: this must be ours, also where .venv is not activated.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# Prints the requirements of the lock, with their hashes, whose names match (wanted=1) or do not match (wanted=0).
PICK = awk -v names='^($(1))$$' -v wanted=$(2) \
	'/^[a-zA-Z0-9]/ { split($$0, pin, "=="); keep = (pin[1] ~ names) == wanted } keep' requirements.lock

.PHONY: help setup demo pilot test test-slow test-slurm lint docs lock clean FORCE
.DELETE_ON_ERROR:

help:
	@echo "make demo    set everything up, run the whole study on the demo world (CPU, minutes), print the results"
	@echo "make pilot   a larger drawn world, longer trainings, five seeds: about 75 minutes on two cores (docs/pilot.md)"
	@echo "make test    set everything up and run the tests; those on throwaway Slurm clusters where Slurm is installed"
	@echo "             (Debian's slurm-wlm, slurmdbd, mariadb-server, munge), those of the report where Chromium is"
	@echo "             (chromium, chromium-driver)"
	@echo "make test-slow    the slow tests of tools (set-up, publishing, documentation, measurements), which CI runs too"
	@echo "make test-slurm   only the tests on Slurm"
	@echo "make lint    check style, types and the workflow"
	@echo "make docs    build the documentation as a site: site/index.html"
	@echo "make setup   only set up: one virtual environment, .venv"
	@echo "make lock    pin the dependencies of pyproject.toml in requirements.lock"
	@echo "make clean   remove .venv, the site and the tools' caches; data and results stay"
	@echo "The head of the Makefile lists the variables PYTHON, TORCH_BACKEND, PYTEST_ARGS and UPGRADE."

setup: $(READY)

demo: $(READY)
	.venv/bin/snakemake --profile profiles/demo
	@.venv/bin/luab headline --config config/demo.yaml

pilot: $(READY)
	.venv/bin/snakemake --profile profiles/pilot
	@.venv/bin/luab headline --config config/demo.yaml --config config/pilot.yaml

test: $(READY)
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-slow: $(READY)
	$(PYTEST) -m slow $(PYTEST_ARGS)

test-slurm: $(READY)
	$(PYTEST) -m slurm $(PYTEST_ARGS)

lint: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/snakefmt --check Snakefile workflow
	.venv/bin/mypy
	.venv/bin/snakemake --lint

# Strict: a dead link, an unknown page or a docstring that does not fit its signature is an error.
docs: $(READY)
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
	@echo "The documentation is site/index.html."

lock: $(READY)
	$(UV) compile pyproject.toml --extra workflow --group dev --group annotate --group setup --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-package snakemake-executor-plugin-submitit --custom-compile-command "make lock" --quiet $(UPGRADE) --output-file requirements.lock

clean:
	rm -rf .venv .venv.lock .venv.locked site .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The stamp comes last: without it the environment is incomplete and is made again. A newer lock is installed
# over a complete one. pip brings uv, and setuptools for the two dependencies that come as source only, so that
# no build fetches anything beyond the lock. Temporary files go to the disk of .venv, because TMPDIR may be small.
$(READY): requirements.lock pyproject.toml $(wildcard $(PLUGIN)/pyproject.toml) $(if $(filter-out x$(RECORDED_BACKEND),x$(TORCH_BACKEND)),FORCE) $(if $(MOVED_FROM),FORCE)
	@set -e; $(TAKE_LOCK) \
	if [ -z "$(MOVED_FROM)" ] && [ -f $@ ] && .venv/bin/python -c '' 2>/dev/null; then rm -f $@; else \
		$(if $(MOVED_FROM),echo "This checkout was copied or moved (its .venv is that of $(MOVED_FROM)): it gets a new one.";) \
		$(MAKE_VENV); \
	fi; \
	echo "Setting up .venv: a minute or two where the packages are cached, longer where they must be downloaded."; \
	mkdir -p .venv/tmp; export TMPDIR="$$PWD/.venv/tmp"; $(CACHE) \
	$(call PICK,uv|setuptools,1) > .venv/first.txt; \
	PIP_USER=0 .venv/bin/python -m pip install --quiet --require-hashes -r .venv/first.txt; \
	$(call PICK,$(if $(TORCH_BACKEND),$(TORCH_FAMILY),none),0) > .venv/rest.txt; \
	$(UV_SETTINGS) $(UV) install $(QUIET) --python .venv/bin/python --no-deps --no-build-isolation \
		--require-hashes -r .venv/rest.txt; \
	$(if $(TORCH_BACKEND),$(UV) install $(QUIET) --python .venv/bin/python --torch-backend $(TORCH_BACKEND) \
		--reinstall-package torch --reinstall-package torchvision "torch>=2.6" torchvision;) \
	$(UV) install --quiet --python .venv/bin/python --no-deps --no-build-isolation \
		$(if $(wildcard $(PLUGIN)),--editable $(PLUGIN)) --editable .; \
	$(COMPILE) \
	rm -rf .venv/tmp; echo "$(TORCH_BACKEND)" > .venv/.torch-backend; touch $@

# One set-up at a time. Whoever waited uses what the other one made. The kernel releases the lock of a killed
# set-up; without flock (macOS), a lock whose process is gone is removed.
WAITING = echo "Another set-up of this checkout is running: waiting for it."
TAKE_LOCK = \
	[ -w . ] || { echo "$(CURDIR) is not writable: make a checkout in a folder of your own." >&2; exit 1; }; \
	if [ "$$(command -v flock)" ]; then \
		exec 9> .venv.lock; flock -n 9 || { waited=1; $(WAITING); flock 9; }; \
	else \
		until mkdir .venv.locked 2>/dev/null; do \
			holder=$$(cat .venv.locked/pid 2>/dev/null || true); \
			if [ "$$holder" ] && ! kill -0 "$$holder" 2>/dev/null; then rm -rf .venv.locked; continue; fi; \
			[ "$$waited" ] || $(WAITING) "If it is not, remove .venv.locked."; waited=1; sleep 2; \
		done; \
		echo $$$$ > .venv.locked/pid; trap 'rm -rf .venv.locked' EXIT; trap 'exit 1' HUP INT TERM; \
	fi; \
	if [ "$$waited" ] && [ -f $@ ] && [ ! requirements.lock -nt $@ ] && [ ! pyproject.toml -nt $@ ] \
		&& [ "$$(cat .venv/.torch-backend)" = "$(TORCH_BACKEND)" ]; then exit 0; fi;

# Homes of service accounts may not be writable; uv then needs to know that there is no cache.
CACHE = cache=$${UV_CACHE_DIR:-$${XDG_CACHE_HOME:-$$HOME/.cache}/uv}; \
	if ! mkdir -p "$$cache" 2>/dev/null || [ ! -w "$$cache" ]; then \
		echo "$$cache is not writable, so downloads are not cached; set UV_CACHE_DIR to a folder that is."; \
		export UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1; \
	fi;

# uv does not read pip's configuration: a mirror set there is handed on, unless uv has one of its own.
UV_SETTINGS = index=$$(.venv/bin/python -m pip config get :env:.index-url 2>/dev/null \
		|| .venv/bin/python -m pip config get user.index-url 2>/dev/null \
		|| .venv/bin/python -m pip config get global.index-url 2>/dev/null || true); \
	if [ -n "$$index" ] && [ -z "$$UV_DEFAULT_INDEX$$UV_INDEX_URL$$UV_CONFIG_FILE" ]; then \
		UV_DEFAULT_INDEX=$$index; export UV_DEFAULT_INDEX; fi;
# Python compiles a module when it is imported first: done here for what the study imports, in two processes, because
# two trainings would both compile torch at the same time. Where Python may not keep what it compiles (images of
# containers say so), each process would compile it anew. All 18,000 modules would take three times as long.
COMPILED = "torch._dynamo, torchvision, timm, timm.optim, timm.scheduler, safetensors.torch" \
	"snakemake.cli, dvc.cli, submitit, pandas, pyarrow.parquet, sklearn.metrics, scipy.stats, scipy.optimize, seaborn, \
	matplotlib.backends.backend_pdf, rich.markdown, typer.rich_utils, docutils.core, rocrate.rocrate, cv2, lxml.etree"
COMPILE = for names in $(COMPILED); do \
		env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -c "import $$names" & \
	done; env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -m compileall -q luab; wait;
# A list of two hundred packages is for nobody's log.
QUIET = $$(test -t 2 || echo --quiet)

# A file called python3.12 may not run (version managers leave such shims), so each candidate is tried.
PROBE = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
SAY = exec >&2; rm -rf .venv; echo
MAKE_VENV = \
	python=; bare=; \
	for candidate in $(if $(PYTHON),"$(PYTHON)",$(CANDIDATES)); do \
		"$$candidate" -c '$(PROBE)' >/dev/null 2>&1 || continue; \
		if "$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then python=$$candidate; break; fi; \
		bare=$${bare:-$$candidate}; \
	done; \
	rm -rf .venv; \
	if [ -n "$$python" ] && ! "$$python" -m venv .venv >/dev/null 2>&1; then bare=$$python; python=; fi; \
	if [ -z "$$python$$bare" ]; then \
		$(SAY) "luab needs Python 3.11, 3.12 or 3.13, and$(if $(PYTHON), PYTHON=$(PYTHON) is none that runs:, none was found:) install one (Debian, Ubuntu: apt-get install python3 python3-venv; macOS: brew install python@3.12) or name one with make PYTHON=/path/to/python3.12."; \
		exit 1; \
	elif [ -z "$$python" ]; then \
		$(SAY) "$$bare cannot make a virtual environment: install its venv module (Debian, Ubuntu: apt-get install python3-venv) or name another Python with make PYTHON=/path/to/python3.12."; \
		exit 1; \
	fi
