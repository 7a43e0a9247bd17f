# Every target works on a clean checkout: what it needs it installs or builds first. `make help` lists them.
# The repository is a set of Go modules; targets loop over them. CI runs `make check`, and nothing else that counts.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Modules that go.work binds together, and the connectors among them. tools/ stands alone, so that no library carries
# what developers use.
MODULES := protocol sdk $(sort $(wildcard source-* materialize-*)) runtime
CONNECTORS := $(sort $(wildcard source-* materialize-*))
PACKAGES := $(MODULES:%=./%/...)

# A binary carries its own module's version. $(call build,<module>,<package>,<output>)
REVISION := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
PROCESS := github.com/sluicedata/sluice/sdk/process
build = CGO_ENABLED=0 go build -trimpath \
	-ldflags "-s -w -X $(PROCESS).version=$$(cat $(1)/VERSION) -X $(PROCESS).revision=$(REVISION)" -o $(3) $(2)

# Tests that hang are ended, with their goroutines printed.
TEST_TIMEOUT ?= 20m
# What every fuzz target gets in `make fuzz`.
FUZZTIME ?= 10s
# How long `make stress` writes and kills: on the default server, and on each of the others.
STRESS ?= 5m
STRESS_MORE ?= 2m
# Which tests: `make test RUN=TestResume PKG=./sdk/...`.
RUN ?=
PKG ?= $(PACKAGES)
RUNFLAG := $(if $(RUN),-run '$(RUN)')

TOOLS := .cache/tools
GOLANGCI := $(CURDIR)/$(TOOLS)/golangci-lint
ACTIONLINT := $(CURDIR)/$(TOOLS)/actionlint

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -e 's/:.*## /\t/' | awk -F '\t' '{printf "  %-16s %s\n", $$1, $$2}'

# --- build and run ---

.PHONY: build
build: ## Build all binaries into bin/
	@mkdir -p bin
	@echo bin/sluice
	@$(call build,runtime,./runtime/cmd/sluice,bin/sluice)
	@for connector in $(CONNECTORS); do \
		echo "bin/$$connector"; \
		$(call build,$$connector,./$$connector,bin/$$connector); \
	done

.PHONY: demo
demo: build ## Capture one live Postgres into another and into Parquet files, crash on the way, compare (DEMO_KEEP=1: stay up)
	@scripts/services install default duckdb kafka
	@cd runtime && go run ./demo -bin "$(CURDIR)/bin"

.PHONY: services
services: ## Install what tests and the demo need: Postgres in several versions, MariaDB, MySQL
	@scripts/services install

.PHONY: services-up
services-up: ## Start a Postgres on loopback to play with
	@scripts/services up

.PHONY: services-down
services-down: ## Stop it and throw its data away
	@scripts/services down

.PHONY: images
images: ## Build the images of all connectors and of sluice, for amd64 and arm64, into bin/images
	@scripts/images $(CONNECTORS) sluice

# --- prove ---

.PHONY: test
test: services ## Run every test, those with real servers included
	go test -timeout $(TEST_TIMEOUT) $(RUNFLAG) $(PKG)
	cd tools && GOWORK=off go test ./...

.PHONY: test-images
test-images: build ## Build all images, run them in a container engine (its own if docker does not answer; needs root then) and drive them
	@scripts/services install default mariadb kafka s3 docker
	@ENGINE=none scripts/images $(CONNECTORS) sluice
	@SLUICE_IMAGES="$(CURDIR)/bin/images" SLUICE_BIN="$(CURDIR)/bin" scripts/engine \
		go test -count=1 -timeout $(TEST_TIMEOUT) -run '$(or $(RUN),^TestImage)' ./runtime/e2e

.PHONY: test-short
test-short: ## Run the tests that need no server
	go test -short -timeout $(TEST_TIMEOUT) $(RUNFLAG) $(PKG)

.PHONY: race
race: services ## Run every test under the race detector (several times slower)
	go test -race -timeout $(TEST_TIMEOUT) $(RUNFLAG) $(PKG)

.PHONY: stress
stress: services ## Stress captures, and a cluster, for STRESS (5m), then captures for STRESS_MORE (2m) on every other server version
	@scripts/stress $(STRESS) $(STRESS_MORE)

.PHONY: fuzz
fuzz: ## Fuzz every decoder for FUZZTIME (10s) each
	@scripts/fuzz $(FUZZTIME) $(MODULES)

.PHONY: bench
bench: build ## Measure against the machine's own limits and print the ratios
	@scripts/services install default duckdb kafka
	@scripts/bench

.PHONY: site
site: ## Build the documentation's site, and look at it in a browser
	@scripts/site

.PHONY: check
check: lint check-generated check-alone test ## What CI runs

.PHONY: check-alone
check-alone: ## Build every module by itself, as its users and its image do
	@for module in $(MODULES) tools; do \
		echo "GOWORK=off go build ./$$module/..."; \
		(cd "$$module" && GOWORK=off go build -o /dev/null ./... && GOWORK=off go mod verify >/dev/null); \
	done

# --- tidy ---

.PHONY: lint
lint: $(GOLANGCI) $(ACTIONLINT) ## Check the code against .golangci.yml, workflows with actionlint, scripts with shellcheck
	$(GOLANGCI) run $(PACKAGES)
	cd tools && GOWORK=off $(GOLANGCI) run ./...
	$(ACTIONLINT)
	@if command -v shellcheck >/dev/null; then \
		shellcheck .ci/run $$(grep -d skip -lE '^#!.*(bash|sh)$$' scripts/*); \
	else \
		echo "shellcheck is not here: scripts are not checked"; \
	fi

.PHONY: vulnerabilities
vulnerabilities: ## Look for known vulnerabilities that the code can reach (asks vuln.go.dev)
	@mkdir -p $(TOOLS)
	@cd tools && GOWORK=off go build -o ../$(TOOLS)/govulncheck golang.org/x/vuln/cmd/govulncheck
	@for module in $(MODULES); do \
		echo "govulncheck $$module"; \
		(cd "$$module" && GOWORK=off $(CURDIR)/$(TOOLS)/govulncheck ./...); \
	done

.PHONY: fmt
fmt: $(GOLANGCI) ## Format the code
	$(GOLANGCI) fmt $(PACKAGES)
	cd tools && GOWORK=off $(GOLANGCI) fmt ./...

.PHONY: generate
generate: ## Write generated files anew
	cd tools && GOWORK=off go run ./protogen -root ../protocol
	@for connector in $(CONNECTORS); do \
		go run ./$$connector spec | (cd tools && GOWORK=off go run ./configdoc $$connector) > docs/connectors/reference/$$connector.md; \
	done

.PHONY: check-generated
check-generated: generate ## Fail when generated files are not what `make generate` writes
	@git diff --exit-code --stat -- '*.pb.go' docs/connectors/reference || { echo "generated files are stale: run make generate and commit"; exit 1; }

.PHONY: tidy
tidy: ## Tidy every go.mod
	@for module in $(MODULES) tools; do (cd "$$module" && GOWORK=off go mod tidy); done

.PHONY: clean
clean: ## Remove what was built (fetched servers in .cache stay)
	rm -rf bin $(TOOLS)

# The linter is built once for each state of the tools' pinned versions.
$(GOLANGCI): tools/go.mod tools/go.sum
	@mkdir -p $(TOOLS)
	@echo "building golangci-lint from source (once, a minute or two)"
	@cd tools && GOWORK=off go build -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(ACTIONLINT): tools/go.mod tools/go.sum
	@mkdir -p $(TOOLS)
	@cd tools && GOWORK=off go build -o $@ github.com/rhysd/actionlint/cmd/actionlint
