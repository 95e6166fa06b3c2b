# Two commands on a fresh machine: `make demo` and `make test`.  Each makes its own environment in .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

GUIDE  := examples/grpc_guide
STUBS  := $(GUIDE)/user_defined_protos_pb2.py

.PHONY: demo test lint types unit format docs bench bench-overload conformance soak clean

demo: $(VENV)/demo $(STUBS)  ## serve the gRPC guide and call it with a real grpcio client
	@$(BIN)/python $(GUIDE)/demo.py

test: lint types unit  ## everything that must hold, in some minutes

lint: $(VENV)/test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/test
	@$(BIN)/mypy

unit: $(VENV)/test  ## every test, on all cores
	@$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal

format: $(VENV)/test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/test  ## docs/api.md, from the docstrings
	@$(BIN)/python docs/write_api.py

bench: $(VENV)/bench  ## speed beside grpcio, grpc.aio, grpclib, (where Go is there) grpc-go, uvicorn and hypercorn
	@$(BIN)/python -m benchmarks --page docs/benchmark.md --plot docs/benchmark.svg

bench-overload: $(VENV)/bench  ## what is still served at 2, 5 and 10 times the capacity, beside grpc.aio
	@$(BIN)/python -m benchmarks.overload --plot docs/overload.svg

bench-ray: $(VENV)/bench  ## beside Ray Serve, which gets an environment of its own (some minutes)
	@$(PYTHON) -m venv $(VENV)-ray
	@if $(VENV)-ray/bin/python -m pip install --quiet --disable-pip-version-check 'ray[serve]>=2.60'; \
	then $(BIN)/python -m benchmarks.beside_ray --ray-python $(VENV)-ray/bin/python; \
	else echo "bench-ray is skipped: Ray cannot be installed here, for the reason above"; fi

conformance: $(VENV)/test  ## outside tools (h2spec, interop clients, ...), as far as this machine has them
	@$(BIN)/python -m tests.conformance

soak: $(VENV)/test  ## the attacks at full size, and long runs
	@TRIO_SERVE_SOAK=1 $(BIN)/python -m pytest tests/attacks tests/soak

clean:
	rm -rf $(VENV) $(VENV)-ray build *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

# An environment is a stamp a kind: made again when what the package needs has changed.
$(BIN)/python:
	@$(PYTHON) -m venv $(VENV)

$(VENV)/demo: $(BIN)/python setup.cfg
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[examples]'
	@touch $@

$(VENV)/test: $(BIN)/python setup.cfg
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

$(VENV)/bench: $(BIN)/python setup.cfg
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

# grpcio-tools makes what the guide's programs import.
$(STUBS): protos/user_defined_protos.proto $(VENV)/demo
	@$(BIN)/python -m grpc_tools.protoc -I protos --python_out=$(GUIDE) --grpc_python_out=$(GUIDE) $<
