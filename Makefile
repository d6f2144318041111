# make build   the programs, in bin/
# make engine  llama.cpp's libraries, into the user's data folder
# make demo    the programs, the libraries and a small real model, which answers a question
# make quick   vet and the unit tests, short: no network, no daemon, about half a minute on two cores
# make test    all tests, with the real engine on the built-in models
# make browser the page in a real Chromium, if there is one; a part of make test
# make test-clients  the SDKs of OpenAI, Anthropic and Ollama, pinned, offline; installs them once
# make test-clients-all  the libraries with clients, too, and the examples of docs/clients: half a gigabyte;
#              ARGS="-v -run TestStockClients/litellm"
# make test-agents   codex, opencode and Claude Code, which run a tool that the mock calls, and one that the real
#              engine calls; installs 1 GB
# make check   all checks that a change has to pass
# make test-templates  the public chat templates, rendered as Python's jinja2 renders them; needs npm and python3
# make test-models  a small real model calls tools, keeps a schema, refuses to think; needs python3 with pip;
#              TOOLS_MODEL=FILE.gguf adds a model with tools in its template
# make test-answers  4,000 answers of random weights under 100 schemas, cut anywhere, and 2,000 calls of 50 tools in
#              every dialect, all of which must validate: 15 minutes
# make soak    an engine under each disturbance that must not kill it, 2 minutes each; or SOAK=10m
# make bench   the figures that inferd promises, measured here
# make bench-peers  inferd beside llama.cpp's own programs; ARGS="--quick", ARGS="--rows a,c"
#              and beside an older build of it: ARGS="--before DIR", without llama.cpp --peers=false
# make bench-reference  short requests of inferd beside the published reference, which cargo builds;
#              ARGS="--rounds 3", ARGS="--before DIR"; skipped without cargo
# make stats   the size of the engine's code: files, functions, interfaces, tests; ARGS="FOLDER..."
# make bench-answers  answers of a warm engine beside those of a fresh one, bit for bit
# make bench-masks  the schemas and the masks of MaskBench and of the JSON Schema test suite, beside llguidance;
#              ARGS="--maskbench DIR --suite DIR --vocab FILE.gguf"
# make cross   the programs for other platforms, built and vetted
# make wine    the tests of Windows code, if wine is installed
# make clean   removes bin/

programs := inferd inferdctl inferd-http inferd-engine
tool     := go tool -modfile=tools/go.mod

# Prints the output of a command, and fails if there is any.
silent = out=$$($(1)) && if [ -n "$$out" ]; then echo "$$out"; exit 1; fi

.PHONY: build engine demo quick test browser test-agents test-answers test-clients test-clients-all test-models test-templates check soak format lint bench bench-peers bench-reference bench-answers bench-masks stats cross wine clean

build:
	CGO_ENABLED=0 go build -trimpath -o bin/ $(programs:%=./cmd/%)

engine:
	@sh scripts/engine.sh

demo: build
	@sh scripts/demo.sh

# Some packages wait more than they compute, so more of them run at once than there are cores; those that take longest
# begin first. Without cgo, as the programs are built, the test binaries link in an eighth less CPU time. GOGC is for
# the linker and the tests, whose heaps are small: at its default, the collector takes a tenth of their CPU time. The
# tests need no vet of their own: it would repeat a part of the checks of the first line.
slowest := ./cmd/inferd-engine/internal/engine ./internal/pull ./internal/store ./internal/bridge ./cmd/inferdctl

quick: export CGO_ENABLED := 0
quick: export GOGC := 400
quick:
	go vet ./...
	go test -short -vet=off -p 4 $(slowest) $$(go list ./... | grep -v /test$$)

test: engine
	go vet ./...
	go vet -tags wedge ./cmd/inferd-engine/...
	go test -timeout 25m ./...
	@$(MAKE) --no-print-directory browser

chromium := $(firstword $(foreach name,chromium chromium-browser google-chrome,$(shell command -v $(name))))

browser:
	$(if $(chromium),go -C test/browser test ./...,@echo "skipped: the page in a browser: there is no Chromium")

test-clients: engine
	INFERD_TEST_CLIENTS=sdk go test -count=1 -timeout 30m -parallel 4 -v -run TestStock ./test $(ARGS)

test-clients-all: engine
	INFERD_TEST_CLIENTS=all go test -count=1 -timeout 2h -parallel 2 -v -run TestStock ./test $(ARGS)

test-agents: engine
	INFERD_TEST_AGENTS=1 go test -count=1 -timeout 60m -v -run TestAgents ./test $(ARGS)

test-templates:
	@sh scripts/templates.sh $(ARGS)

test-models: engine
	@TOOLS_MODEL="$(TOOLS_MODEL)" sh scripts/models.sh $(ARGS)

check: format lint engine cross
	go test -race -shuffle=on ./...
	@$(call silent,$(tool) deadcode -test ./...)

SOAK := 2m

soak: engine
	INFERD_TEST_SOAK=$(SOAK) go test -count=1 -timeout 12h -v -run 'TestWatchdogSpares|TestEngineStops|TestEngineWedges' ./test

test-answers: engine
	INFERD_TEST_ANSWERS=20 INFERD_TEST_CALLS=2000 go test -count=1 -timeout 2h -run 'TestAnswersValidate|TestCallsValidate' ./cmd/inferd-engine/internal/engine

format:
	$(tool) golangci-lint fmt --diff ./...
	@$(call silent,go fix -diff ./...)

lint:
	$(tool) golangci-lint run ./...
	go vet -tags wedge ./cmd/inferd-engine/...

bench: build engine
	go run ./bench $(ARGS)
	$(if $(chromium),go -C test/browser test -run '^$$' -bench . -benchtime 11x,@echo "skipped: the page in a browser: there is no Chromium")

bench-peers: engine
	go run ./bench peers $(ARGS)

bench-reference:
	go run ./bench reference $(ARGS)

# With -calls finish it also counts the calls of the function that ends a sequence in the engine.
stats:
	@go run scripts/stats.go -calls finish $(or $(ARGS),cmd/inferd-engine)

bench-answers: engine
	go run ./bench answers $(ARGS)

bench-masks: engine
	go run ./cmd/inferd-engine/maskbench $(ARGS)

# The engine runs only on Linux so far; the other programs must build and vet on all platforms.
portable  := ./client ./cmd/inferd ./cmd/inferdctl ./cmd/inferd-http ./internal/...
platforms := darwin/amd64 darwin/arm64 windows/amd64 windows/arm64

cross: $(platforms:%=cross/%) cross/linux/amd64 cross/linux/arm64

cross/linux/%:
	GOOS=linux GOARCH=$* CGO_ENABLED=0 go build -o /dev/null $(programs:%=./cmd/%)
	GOOS=linux GOARCH=$* CGO_ENABLED=0 go vet ./...

cross/%:
	GOOS=$(*D) GOARCH=$(*F) CGO_ENABLED=0 go build -o /dev/null ./cmd/inferd ./cmd/inferdctl ./cmd/inferd-http
	GOOS=$(*D) GOARCH=$(*F) CGO_ENABLED=0 go vet $(portable)

wine:
	@sh scripts/wine.sh

clean:
	rm -rf bin
