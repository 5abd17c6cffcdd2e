# From a bare Debian 12 or 13 to a verdict: `make lab`, `make test`. `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

# The daemons of the lab and of the tests, and the tools that build its network. A package is installed when it is
# missing, never upgraded.
PACKAGES := frr frr-pythontools frr-rpki-rtrlib bird2 grub-common iproute2 ethtool procps openssh-client \
	openssh-server
ifneq ($(shell $(PYTHON) -c 'import ensurepip, venv' >/dev/null 2>&1 || echo missing),)
PACKAGES += python3-venv
endif

# DPDK's test program and its drivers, which the traffic check can send and receive with.
DPDK_PACKAGES := dpdk-dev librte-meta-net

# The environment is made anew when one of these changes; the stamp's name is their checksum.
KEY := $(shell { cat requirements.txt pyproject.toml; $(PYTHON) --version; pwd; } 2>&1 | sha256sum | cut -c1-16)
STAMP := $(VENV)/set-up-$(KEY)

LAB_ARGS := $(if $(SPEAKER),--speaker $(SPEAKER)) $(if $(FIB),--fib $(FIB)) $(if $(TABLE),--table "$(TABLE)") \
	$(if $(ADVERTISE),--advertise $(ADVERTISE)) \
	$(if $(IPV4),--ipv4 $(IPV4)) $(if $(IPV6),--ipv6 $(IPV6)) $(if $(filter-out 0,$(KEEP)),--keep) $(ARGS)

# Whole hosts in containers: what runs them, what builds their Debian, and what gives them a way out if they want one.
CONTAINER_PACKAGES := systemd-container mmdebstrap debian-archive-keyring slirp4netns

# Prometheus, its promtool and the exporters, against which rules, dashboard and metrics are tested.
PROMETHEUS_PACKAGES := prometheus prometheus-node-exporter prometheus-frr-exporter

# The browser that looks at the pages: the looking glass and the report.
BROWSER_PACKAGES := chromium

# What the virtual POP host needs on top: QEMU, and what builds its Debian.
VM_PACKAGES := qemu-system-x86 qemu-utils mmdebstrap debian-archive-keyring e2fsprogs openssh-client
VM_ARGS := $(if $(VPP_DEBS),--vpp-debs "$(VPP_DEBS)") $(if $(filter-out 0,$(KEEP)),--keep) $(ARGS)

# A lab's verdict is its exit code: 0 PASS, 1 FAIL, 2 INVALID. GNU make turns every failure into 2, except that
# under -q a 1 from a "+" line comes through as 1. So `make lab`, `make lab-vm` and `make acceptance-check` alone put
# themselves under -q, and set up in a make of its own that is not. `make -n lab` stays what it is.
VERDICT :=
ifneq ($(filter 1-lab 1-lab-vm 1-acceptance-check,$(words $(MAKECMDGOALS))-$(MAKECMDGOALS)$(findstring n,$(firstword -$(MAKEFLAGS)))),)
MAKEFLAGS += -q
VERDICT := +
endif

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile
	@echo
	@echo '  make lab      SPEAKER=frr|exabgp FIB=vpp|kernel TABLE=FILE IPV4=N IPV6=N KEEP=1'
	@echo '                ADVERTISE=at-once|confirmed (FRR of Debian testing, by mmdebstrap)'
	@echo '  make lab-vm   VPP_DEBS=DIR KEEP=1             make acceptance  VPP_DEBS=DIR ARGS="-k word"'
	@echo '  make guest    VPP_DEBS=DIR ARGS="-k word"     make compare     VPP_DEBS=DIR ARGS="--ipv4 N"'
	@echo '  make acceptance-check  ARGS="-i inventory/mypop/hosts.yml --limit ROUTER"'
	@echo '  make test     ARGS="-k word"      make faults   FULL=1'
	@echo '  make fleet    ARGS="-k word"      make hosts    HOSTS="r1 r2"'
	@echo '  make bench    ONLY=name ROUTES_FILE=file      make soak     MINUTES=30'
	@echo '  make lock     UPGRADE=1'

.PHONY: lab
lab: ## carry a full BGP table into a forwarding plane, send traffic: exits 0 PASS, 1 FAIL, 2 INVALID
	$(VERDICT)@$(if $(VERDICT),MAKEFLAGS=) $(MAKE) --no-print-directory setup
	$(VERDICT)@$(BIN)/python -m router_agent.lab $(LAB_ARGS)

.PHONY: frr-root
frr-root: PACKAGES += mmdebstrap
frr-root: setup ## build FRR of Debian testing, which waits for confirmations, for tests and make lab ADVERTISE=confirmed
	$(BIN)/python -m router_agent.lab.root

.PHONY: lab-down
lab-down: setup ## take down what make lab KEEP=1 left up
	$(BIN)/python -m router_agent.lab down $(ARGS)

.PHONY: lab-vm
lab-vm: ## build a router out of a bare Debian in a virtual machine, and prove it: exits like lab
	$(VERDICT)@$(if $(VERDICT),MAKEFLAGS=) $(MAKE) --no-print-directory setup PACKAGES="$(PACKAGES) $(VM_PACKAGES)"
	$(VERDICT)@$(BIN)/python -m router_agent.lab.vm $(VM_ARGS)

.PHONY: lab-vm-down
lab-vm-down: setup ## take down what make lab-vm KEEP=1 left up
	$(BIN)/python -m router_agent.lab.vm down $(ARGS)

.PHONY: acceptance
acceptance: PACKAGES += $(VM_PACKAGES)
acceptance: setup ## the playbooks against a virtual POP host: 45 minutes without KVM; VPP_DEBS=DIR forwards with VPP
	VPP_DEBS="$(VPP_DEBS)" $(BIN)/pytest tests/acceptance --timeout 3000 $(ARGS)

.PHONY: acceptance-check
acceptance-check: ## a verdict on your router, drained, with real traffic: ARGS="-i INVENTORY --limit ROUTER"; exits like lab
	$(VERDICT)@$(if $(VERDICT),MAKEFLAGS=) $(MAKE) --no-print-directory setup
	$(VERDICT)@$(BIN)/python playbooks/acceptance_check.py $(ARGS)

.PHONY: guest
guest: PACKAGES += $(VM_PACKAGES)
guest: setup ## tests that need modules this kernel may lack, in a virtual machine: VPP_DEBS=DIR
	$(BIN)/python tests/guest/machine.py $(if $(VPP_DEBS),--vpp-debs "$(VPP_DEBS)") $(ARGS)

.PHONY: compare
compare: PACKAGES += $(VM_PACKAGES)
compare: setup ## the agent and linux-nl side by side in a virtual machine, an hour without KVM: VPP_DEBS=DIR
	$(BIN)/python tests/guest/machine.py --compare --name compare $(if $(VPP_DEBS),--vpp-debs "$(VPP_DEBS)") $(ARGS)

.PHONY: compare-bare
compare-bare: setup ## the same on this kernel, without TAPs and links, at its speed: ARGS="--vpp PROGRAM"
	$(BIN)/python -m tests.guest.comparison --bare --json build/comparison-bare.json $(ARGS)

.PHONY: compare-docs
compare-docs: setup ## put the figures of both into docs/comparison.md
	$(BIN)/python -m tests.guest.comparison.report build/comparison.json build/comparison-bare.json docs/comparison.md

.PHONY: test
test: PACKAGES += $(DPDK_PACKAGES) $(PROMETHEUS_PACKAGES) $(BROWSER_PACKAGES) $(CONTAINER_PACKAGES)
test: lint ## lint, types, unit and integration tests
	$(BIN)/pytest tests/unit tests/integration tests/fleet $(ARGS)

.PHONY: fleet
fleet: PACKAGES += $(CONTAINER_PACKAGES)
fleet: setup ## three routers of two POPs, changed under traffic; a table of what it cost; FULL=1 for each component alone
	FULL_FLEET=$(FULL) $(BIN)/pytest tests/fleet $(ARGS)

.PHONY: hosts
hosts: PACKAGES += $(CONTAINER_PACKAGES)
hosts: setup ## bare Debian hosts in containers, to try things on: HOSTS="r1 r2"
	$(BIN)/python -m router_agent.lab.containers up $(or $(HOSTS),r1) $(ARGS)

.PHONY: faults
faults: setup ## what each fault costs: packets, time, routes; a table of it; FULL=1 for a whole Internet
	FULL_TABLE=$(FULL) $(BIN)/pytest tests/integration/test_faults.py $(ARGS)

MINUTES ?= 30

.PHONY: soak
soak: setup ## churn for MINUTES=30, and see that the agent's memory does not grow
	CHURN_SECONDS=$$(($(MINUTES) * 60)) $(BIN)/pytest tests/integration/test_churn.py -k memory -s \
		--timeout $$(($(MINUTES) * 60 + 600)) $(ARGS)

.PHONY: lint
lint: setup ## lint, formatting and types, of the kit too
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" ansible-lint playbooks roles inventory

.PHONY: format
format: setup ## put the code into its one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: docs
docs: setup ## write docs/inventory.md from the roles' argument specifications, docs/metrics.md from metrics and rules
	$(BIN)/python docs/inventory.py
	$(BIN)/python docs/metrics.py

.PHONY: bench
bench: setup ## measure; prints a table and writes build/bench.json
	$(BIN)/python tests/bench/run.py $(if $(ONLY),--only $(ONLY)) $(ARGS)

.PHONY: bench-docs
bench-docs: setup ## put the figures of build/bench.json into docs/performance.md
	$(BIN)/python tests/bench/run.py --document docs/performance.md

COMPILE = $(BIN)/uv pip compile --universal --generate-hashes --python-version 3.11 --no-config \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet \
	$(if $(UPGRADE),--upgrade)

.PHONY: lock
lock: setup ## pin the requirements of pyproject.toml and of the roles with their hashes; UPGRADE=1 takes newer ones
	$(COMPILE) pyproject.toml --all-extras --output-file requirements.txt
	$(COMPILE) pyproject.toml --constraints requirements.txt --output-file roles/router_agent/files/requirements.txt
	for wanted in $(wildcard roles/*/files/requirements.in); do \
		$(COMPILE) $$wanted --constraints requirements.txt --output-file $${wanted%.in}.txt; \
	done

.PHONY: setup
setup: packages $(STAMP) ## install Debian packages that are missing and the virtual environment

.PHONY: packages
packages:
	@missing=(); for package in $(PACKAGES); do \
		status=$$(dpkg-query --show --showformat='$${db:Status-Status}' $$package 2>/dev/null || true); \
		[[ $$status == installed ]] || missing+=($$package); \
	done; \
	[[ $${#missing[@]} -eq 0 ]] || bash .ci/install-packages "$${missing[@]}"
	@mountpoint --quiet / || echo 'warning: / is no mount point, as in a plain chroot, and "ip netns" needs one;' \
		'leave, run "mount --bind DIR DIR" and enter again' >&2

$(STAMP):
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit( \
		f"found Python {v[0]}.{v[1]} as $(PYTHON), expected 3.11 or later; set PYTHON=...")'
	@if [[ "$$($(BIN)/python --version 2>&1)" != "$$($(PYTHON) --version)" ]]; then \
		echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); \
	fi
	@echo "installing the requirements into $(VENV)"
	@$(BIN)/python -m pip --disable-pip-version-check --quiet install --require-hashes --requirement requirements.txt
	@$(BIN)/python -m pip --disable-pip-version-check --quiet install --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/set-up-*
	@touch $@

.PHONY: clean
clean: ## remove what building and testing leaves behind
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find router_agent tests -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## remove the virtual environment too
	rm -rf $(VENV)
