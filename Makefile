# Every target sets up what it needs in .venv the first time and reuses it afterwards.
VENV ?= .venv
PYTHON_BIN := $(VENV)/bin/python
.DEFAULT_GOAL := help
# the tests of what drives a robot, and the rooms that they measure
ROBOT_TESTS := test/protocol test/camera test/nodes test/graph test/sim_bridge/test_bridge_node.py
# studies take hours, or data that they are given; report.py and step_work.py are parts of others
STUDIES := $(addprefix benchmarks/,ablations.py held_out.py robustness.py real_size.py)
BENCHMARKS := $(filter-out $(STUDIES) benchmarks/report.py benchmarks/step_work.py,$(wildcard benchmarks/*.py))
COVERED := janusvln_ros/protocol/*,janusvln_ros/camera/*,janusvln_ros/policy/*,janusvln_ros/nodes/*,janusvln_ros/graph/*
.PHONY: help setup demo test test-all test-kilted test-habitat faults hunt mutants coverage bench lint clean

help:  ## this list
	@grep -hE '^[a-z0-9%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup:  ## system libraries, virtual environment, ROS 2 wheels, our interfaces; options in scripts/setup.sh
	@scripts/setup.sh $(VENV)

demo: setup  ## drive a simulated robot through a house by instruction, on real ROS 2
	@$(VENV)/bin/janusvln demo

# Three at a time on two cores, a file to one process: many tests wait for processes of their own.
test: setup  ## the tests, minutes
	@$(PYTHON_BIN) -m pytest -q -n 3 --dist loadfile

test-all: setup test-310 test-kilted  ## slow tests too, and the graph on Python 3.10 and on the Kilted wheels
	@$(PYTHON_BIN) -m pytest -q -m "not faults"

test-3%:  ## the ROS graph and the pure rooms on another Python: test-310, test-312, test-313, test-314
	@PYTHON=$${PYTHON3$*:-python3.$*} scripts/setup.sh .venv-3$*
	@.venv-3$*/bin/python -m pytest -q $(ROBOT_TESTS) test/test_architecture.py

test-kilted:  ## the ROS graph on the Kilted wheels, while they live
	@ROS_WHEELS=kilted scripts/setup.sh .venv-kilted
	@.venv-kilted/bin/python -m pytest -q $(ROBOT_TESTS)

test-habitat: setup  ## the real habitat-sim, where JANUSVLN_HABITAT_PYTHON names its interpreter
	@$(PYTHON_BIN) -m pytest -q -rs test/sim_bridge/test_habitat_real.py

faults: setup  ## every fault injected into the real graph
	@$(PYTHON_BIN) -m pytest -q -m faults $(ROBOT_TESTS)

hunt: setup  ## input that nobody thought of: damaged files, messages, events (MINUTES, SEED)
	@$(PYTHON_BIN) -m hunt --minutes $(or $(MINUTES),10) --seed $(or $(SEED),1)

mutants: setup  ## small mistakes put into the code that must not be wrong: which does no test notice? (COUNT, SEED)
	@$(PYTHON_BIN) test/mutation/run.py --count $(or $(COUNT),200) --seed $(or $(SEED),1)

coverage: setup  ## line coverage of what drives the robot, node processes and faults included; fails below 90 %
	@$(PYTHON_BIN) -m coverage erase && $(PYTHON_BIN) -m coverage run -m pytest -q -m "not slow" $(ROBOT_TESTS) test/policy
	@$(PYTHON_BIN) -m coverage combine -q && $(PYTHON_BIN) -m coverage report --include "$(COVERED)" --fail-under 90

bench: setup  ## the figures of docs/performance.md, measured here; goes on past one that fails
	@failed=; for script in $(BENCHMARKS); do echo "== $$script"; $(PYTHON_BIN) $$script || failed="$$failed $$script"; done; \
	[ -z "$$failed" ] || { echo "failed:$$failed" >&2; exit 1; }

lint: setup  ## format, ruff and mypy
	@$(VENV)/bin/ruff format --check . && $(VENV)/bin/ruff check . && $(VENV)/bin/mypy

clean:  ## remove builds, environments and runs
	rm -rf build install log runs .venv .venv-3* .venv-kilted *.egg-info .pytest_cache .mypy_cache .ruff_cache
