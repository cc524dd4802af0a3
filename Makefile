# Everything a developer or CI does. `make run` and `make test` do all the set-up themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
PEERS ?= go
ARGS ?=

.PHONY: run setup test bars lint proto peers bench interop soak check-proto constraints clean
.DEFAULT_GOAL := run

run: setup ## a node, until Ctrl-C; flags: make run ARGS="--network-id harbour"
	$(BIN)/vouch run $(ARGS)

setup: $(VENV)/.stamp ## .venv with everything, from wheels: no compiler is needed

$(VENV)/.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "expected Python 3.11 to 3.13, got %d.%d: name another with PYTHON=" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

# they wait more than they compute: other processes start, and time passes
test: setup peers-if-any ## every test, three at a time: make test ARGS="-n 0 tests/node" for one after the other
	$(BIN)/pytest -n 3 --dist worksteal $(ARGS)$(if $(STATUS), || { status=$$?; echo $$status > $(STATUS); exit $$status; })

.PHONY: docs
docs: setup ## the documentation as a site, in .site; a broken link or anchor is an error
	@rm -rf .site
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --builder html docs .site
	@echo "open .site/index.html"

.PHONY: docs-reference
docs-reference: setup ## docs/reference/, from the settings, the command line and the docstrings
	$(BIN)/python docs/generate.py

.PHONY: metrics-doc
metrics-doc: setup ## docs/metrics.md, from the catalogue
	$(BIN)/python -m node.metrics.document > docs/metrics.md

.PHONY: docker-test
docker-test: setup ## the network of docker-compose.yml on a real engine of its own; needs root, and built peers
	$(BIN)/pytest -m docker -s tests/docker $(ARGS)

bars: setup peers-if-any ## the bars at full size: minutes for each, with their figures
	$(BIN)/pytest -m bar -s $(ARGS)

lint: setup check-proto ## style, types, the arrows between the rooms, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

PROTOS := $(shell find protocols -name '*.proto')

proto: setup ## the Python code of the .proto files
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. $(PROTOS)

check-proto: setup
	@rm -rf $(VENV)/proto && mkdir -p $(VENV)/proto
	@$(BIN)/python -m grpc_tools.protoc -I. --python_out=$(VENV)/proto --pyi_out=$(VENV)/proto $(PROTOS)
	@cd $(VENV)/proto && for file in $$(find . -name '*_pb2.py*'); do cmp $$file ../../$$file || { echo "expected $$file as 'make proto' makes it"; exit 1; }; done

peers: setup ## the peers in other languages: make peers PEERS=go,rust,js
	$(BIN)/python -m interop.build $(PEERS)

.PHONY: peers-if-any
peers-if-any: setup
	@$(BIN)/python -m interop.build --if-any $(PEERS)

bench: $(VENV)/.stamp-bench peers ## the benchmarks; results also in .bench/
	$(BIN)/python -m interop.bench --out .bench $(ARGS)

$(VENV)/.stamp-bench: $(VENV)/.stamp ## what only the benchmarks' picture needs
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[bench]'
	@touch $@

interop: setup ## the matrix with Go, Rust, JavaScript and py-libp2p; writes docs/interop.md
	$(BIN)/python -m interop.build go,rust,js
	$(BIN)/python -m interop.matrix $(ARGS)

soak: setup ## random traffic for ten minutes; whether memory, tasks, bytes, and what nodes tell are as they should be
	$(BIN)/python -m interop.soak $(ARGS)

constraints: setup ## new versions of everything, for constraints.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev --extra bench --no-header --no-annotate pyproject.toml --output-file constraints.txt

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache interop/.built interop/js/node_modules .bench .site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
