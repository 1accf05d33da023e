# `make help` lists the targets. Everything a target needs it sets up itself.
SHELL      := /bin/bash
.DEFAULT_GOAL := help

VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
GOFLAGS_   := -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)"
RUNNER     := go run ./test/runner --
TEST_FLAGS ?=
# The race detector needs a C compiler; without one the tests still run.
RACE       := $(shell command -v gcc >/dev/null 2>&1 && echo -race)

# Packages that have tests whose names begin so: the others' test programs need not be linked to find that out.
with = $(shell grep -rl --include='*_test.go' '^func $(1)' . | xargs -n1 dirname | sort -u)

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/danm, bin/danm-node, bin/danm-controller and bin/danmctl
	@mkdir -p bin
	CGO_ENABLED=0 go build $(GOFLAGS_) -o bin/danm ./cni/cmd/danm
	CGO_ENABLED=0 go build $(GOFLAGS_) -o bin/danm-node ./node/cmd/danm-node
	CGO_ENABLED=0 go build $(GOFLAGS_) -o bin/danm-controller ./reconcile/cmd/danm-controller
	CGO_ENABLED=0 go build $(GOFLAGS_) -o bin/danmctl ./reconcile/cmd/danmctl

.PHONY: demo
demo: build ## from a Git commit to Pods that ping, on this machine, in network namespaces of its own
	go run ./test/demo --bin bin

.PHONY: test
test: test-setup test-unit test-kernel test-cluster test-vm test-e2e ## all tests

.PHONY: test-setup
test-setup:
	@test/setup.sh

.PHONY: test-unit
test-unit: ## pure code, properties, goldens, the fake kernel
	@echo "== test-unit"
	@$(RUNNER) $(RACE) $(TEST_FLAGS) -skip '^(TestKernel|TestCluster|TestE2E|TestVM|TestInside)' ./...

.PHONY: test-kernel
test-kernel: ## the real kernel, in namespaces that the tests make (TestKernelSRIOV… needs the cards of test-vm)
	@echo "== test-kernel"
	@go run ./test/runner -named -- $(RACE) $(TEST_FLAGS) -p 1 -run '^TestKernel' -skip '^TestKernelSRIOV' $(call with,TestKernel)

.PHONY: test-cluster
test-cluster: build ## a real Kubernetes: etcd and the API server, controllers and nodes
	@echo "== test-cluster"
	@bed=$$(test/cluster/build.sh) && DANM_TEST_BED=$$bed go run ./test/runner -named -- $(TEST_FLAGS) -p 1 -count 1 -timeout 20m -run '^TestCluster' ./test/cluster/... ./reconcile/sync/... ./reconcile/hostlinks/...

.PHONY: test-vm
test-vm: build ## the same on a stock Debian kernel in QEMU, which has every kind of link
	@echo "== test-vm"
	@test/vm/vm.sh build || { [ $$? = 3 ] && exit 0; }; [ ! -e .cache/vm/disk.gz ] || { export VM_TIMEOUT=$${VM_TIMEOUT:-900}; \
		go run ./test/runner -named -skips test/vm/skips.txt -- $(TEST_FLAGS) -short -p 2 -exec "$(CURDIR)/test/vm/vm.sh exec" -run '^TestKernel' -skip '^TestKernelSRIOV' \
		./cni/attach ./cni/server ./node/link ./node/probe ./test/lab ./test/matrix && \
		{ ! test/vm/vm.sh sriov || VM_SRIOV=1 go run ./test/runner -named -skips test/vm/skips.txt -- $(TEST_FLAGS) -p 1 -exec "$(CURDIR)/test/vm/vm.sh exec" -run '^TestKernelS(RIOV|imulated)' ./node/sriov ./cni/attach ./test/cnihost; } && \
		: "deadlines of a node are short: its machine runs alone" && \
		go run ./test/runner -named -skips test/vm/skips.txt -- $(TEST_FLAGS) -short -p 1 -exec "$(CURDIR)/test/vm/vm.sh exec" -run '^TestKernel' ./test/kernel && \
		go run ./test/runner -named -skips test/vm/skips.txt -- $(TEST_FLAGS) -p 1 -run '^TestVM' ./test/vm; }

.PHONY: test-e2e
test-e2e: build ## Pods on a whole Kubernetes, the demo, its sabotages, and every command of the documents
	@echo "== test-e2e"
	@bed=$$(test/cluster/build.sh) && DANM_TEST_BED=$$bed $(RUNNER) $(TEST_FLAGS) -p 1 -count 1 -timeout 20m -run '^TestE2E' $(call with,TestE2E)

.PHONY: test-ipam
test-ipam: ## address management alone, longer
	@echo "== test-ipam"
	@$(RUNNER) $(RACE) $(TEST_FLAGS) -count 3 ./ipam/...
	@$(RUNNER) $(TEST_FLAGS) -count 1 ./ipam/model
	@DANM_IPAMSIM_OPS=$${DANM_IPAMSIM_OPS:-1000000} $(RUNNER) $(TEST_FLAGS) -count 1 -timeout 40m -run '^TestLocalHome' ./test/ipamsim
	@DANM_IPAMSIM_OPS=$${DANM_IPAMSIM_OPS:-1000000} $(RUNNER) $(TEST_FLAGS) -count 1 -timeout 80m -run '^TestClusterHome' ./test/ipamsim
	@DANM_IPAMSIM_KILL=$${DANM_IPAMSIM_KILL:-60s} $(RUNNER) $(TEST_FLAGS) -count 1 ./test/ipamsim/kill
	@bed=$$(test/cluster/build.sh) && DANM_TEST_BED=$$bed DANM_IPAMSIM_STORM=$${DANM_IPAMSIM_STORM:-100000} $(RUNNER) $(TEST_FLAGS) -count 1 -timeout 60m -run '^TestClusterStorm' ./test/cluster/blocks

.PHONY: bench
bench: build ## measure the budgets beside peers and floors; exits 1 on OVER
	bed=$$(test/cluster/build.sh) && DANM_TEST_BED=$$bed go run ./test/bench

.PHONY: generate
generate: ## regenerate what is generated: schema descriptions, references, goldens stay
	go generate ./...

.PHONY: lint
lint: ## vet, formatting, and golangci-lint where it is installed
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	@if command -v golangci-lint >/dev/null 2>&1; then golangci-lint run; else echo "golangci-lint is not installed: only gofmt and vet ran"; fi

.PHONY: clean
clean: ## remove what was built
	rm -rf bin .cache
