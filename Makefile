# SPDX-License-Identifier: Apache-2.0

# The image that deploy and build-installer use.
IMG ?= rpi-connect-operator:latest
# The image of the simulator, which nothing in a cluster needs.
SIMULATOR_IMG ?= rpi-connect-simulator:latest
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
# How long each fuzz target runs.
FUZZTIME ?= 10s

# Tools are pinned in tools/go.mod; the linters, which are larger than that, here.
TOOL := go tool -modfile=tools/go.mod
GOLANGCI_LINT_VERSION := v2.15.0
KUBE_API_LINTER_VERSION := v0.0.0-20260716143926-092fe0c72997
GOLANGCI_LINT := bin/golangci-lint-$(GOLANGCI_LINT_VERSION)
KUBE_API_LINTER := bin/kube-api-linter-$(KUBE_API_LINTER_VERSION)

# The folder with kube-apiserver, etcd and kubectl; the first time, they are built.
ASSETS = set -e; assets="$$(hack/controlplane/assets.sh)"; export KUBEBUILDER_ASSETS="$$assets"

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

##@ General

.PHONY: help
help: ## Show this help.
	@awk 'BEGIN {FS = ":.*##"; printf "Usage: make \033[36m<target>\033[0m\n"} /^[a-zA-Z_-]+:.*?##/ { printf "  \033[36m%-18s\033[0m %s\n", $$1, $$2 } /^##@/ { printf "\n%s\n", substr($$0, 5) } ' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## See it work: a real API server, the simulator, the operator. DEMO_KEEP=1 leaves it running.
	@$(ASSETS); go run ./hack/demo

##@ Development

.PHONY: manifests
manifests: ## Generate CRDs and RBAC.
	$(TOOL) controller-gen crd paths=./api/... output:crd:dir=config/crd/bases
	$(TOOL) controller-gen rbac:roleName=manager-role paths=./internal/controller/... output:rbac:dir=config/rbac

.PHONY: generate
generate: ## Generate deep copies.
	$(TOOL) controller-gen object:headerFile=hack/boilerplate.go.txt paths=./api/...

.PHONY: docs
docs: ## Generate the API reference and the list of reasons.
	$(TOOL) crd-ref-docs --source-path=api --config=hack/crd-ref-docs.yaml --renderer=markdown --output-path=docs/api.md
	go run ./hack/conditions > docs/conditions.md

.PHONY: check-generated
check-generated: ## Check that what is generated is current.
	@work="$$(mktemp -d)"; trap 'rm -rf "$$work"' EXIT; \
	cp -r api config docs internal hack go.mod go.sum tools Makefile "$$work/"; \
	$(MAKE) --no-print-directory -C "$$work" manifests generate docs >/dev/null; \
	for generated in config/crd/bases config/rbac/role.yaml api/v1alpha1/zz_generated.deepcopy.go docs/api.md docs/conditions.md; do \
		diff -r "$$generated" "$$work/$$generated" || { echo "$$generated is not current: run make manifests generate docs"; exit 1; }; \
	done

.PHONY: fmt
fmt: $(GOLANGCI_LINT) ## Format the code.
	$(GOLANGCI_LINT) fmt

.PHONY: vet
vet: ## Run go vet.
	go vet ./...

.PHONY: lint
lint: $(GOLANGCI_LINT) $(KUBE_API_LINTER) ## Run the linters.
	$(GOLANGCI_LINT) run
	$(KUBE_API_LINTER) run --config .golangci-api.yml ./api/...

.PHONY: lint-fix
lint-fix: $(GOLANGCI_LINT) ## Run the linters and fix what they can.
	$(GOLANGCI_LINT) run --fix

.PHONY: test
# The end-to-end stories run by themselves, and so do the crashes: their processes want the machine.
test: check-generated vet lint ## Run everything that must hold.
	@$(ASSETS); go test -race -timeout 30m ./api/... ./cmd/... ./internal/... .
	@$(ASSETS); go test -race -timeout 30m $$(go list ./test/... | grep -v test/crash)
	@$(ASSETS); go test -timeout 30m ./test/crash

.PHONY: crash-matrix
crash-matrix: ## Disturb every step of every kind, on both revisions, and print the steps.
	@$(ASSETS); go test ./test/crash -v -timeout 60m -args -all -ginkgo.v

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME.
	@go list ./... | while read -r package; do \
		go test "$$package" -list '^Fuzz' | grep '^Fuzz' | while read -r target; do \
			go test "$$package" -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME); \
		done; \
	done

.PHONY: bench
bench: ## Measure requests, writes, time and memory. The README's tables are its output.
	@$(ASSETS); go run ./test/bench

.PHONY: control-plane
control-plane: ## Find, download or build the control plane for tests, and say where it is.
	@hack/controlplane/assets.sh

##@ Build

.PHONY: build
build: ## Build the operator.
	go build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/manager .

.PHONY: run
run: ## Run the operator against the cluster of your kubeconfig.
	go run -ldflags "-X main.version=$(VERSION)" . --metrics-bind-address=0

.PHONY: simulator
simulator: ## Serve the Connect API from memory, on 127.0.0.1:8080. ARGS="--pis 3" are its flags.
	@go run ./cmd/connectsim $(ARGS)

.PHONY: docker-build
docker-build: ## Build the images IMG and SIMULATOR_IMG, where there is Docker.
	docker build --build-arg VERSION=$(VERSION) --target manager -t $(IMG) .
	docker build --target simulator -t $(SIMULATOR_IMG) .

.PHONY: build-installer
build-installer: ## Write everything a cluster needs to dist/install.yaml.
	@mkdir -p dist
	$(call kustomize-with-image,config/default) > dist/install.yaml
	@echo "dist/install.yaml"

##@ Deployment

.PHONY: install
install: ## Install the CRDs.
	$(TOOL) kustomize build config/crd | kubectl apply --server-side -f -

.PHONY: uninstall
uninstall: ## Remove the CRDs, and with them every resource.
	$(TOOL) kustomize build config/crd | kubectl delete --ignore-not-found -f -

.PHONY: deploy
deploy: ## Install everything, with the image IMG.
	$(call kustomize-with-image,config/default) | kubectl apply --server-side -f -

.PHONY: undeploy
undeploy: ## Remove everything.
	$(TOOL) kustomize build config/default | kubectl delete --ignore-not-found -f -

# Builds a folder with the image IMG, without changing a file that Git tracks.
define kustomize-with-image
$(TOOL) kustomize build $(1) | sed 's|image: rpi-connect-operator:latest|image: $(IMG)|'
endef

$(GOLANGCI_LINT):
	GOBIN="$(CURDIR)/bin" go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@mv bin/golangci-lint $@

$(KUBE_API_LINTER):
	GOBIN="$(CURDIR)/bin" go install sigs.k8s.io/kube-api-linter/cmd/golangci-lint-kube-api-linter@$(KUBE_API_LINTER_VERSION)
	@mv bin/golangci-lint-kube-api-linter $@
