# The commands of this repository. `make help` lists them.

GO        ?= go
BIN       := bin/postrider
PREFIX    ?= /usr/local
DESTDIR   ?=
ARGS      ?=
# The binary is static: no C library, no cgo, the same on every Linux.
export CGO_ENABLED ?= 0

.DEFAULT_GOAL := build
.PHONY: help build test check race e2e crash fuzz bench demo run install clean

help: ## list these commands
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

build: ## build bin/postrider, one static binary
	$(GO) build -trimpath -o $(BIN) ./cmd/postrider

test: ## all tests that need no root and no network
	$(GO) test ./...

check: ## gofmt, vet, staticcheck, go.mod tidy
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt wants:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags e2e ./mta/e2e
	$(GO) tool staticcheck ./...
	$(GO) mod tidy -diff

race: ## the tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race ./...

e2e: build ## the built binary against real peers (Postfix, Exim, unbound, swaks, python3-dkim); says what is missing
	$(GO) test -tags e2e -count=1 -v ./mta/e2e $(ARGS)

crash: build ## kill -9 the real binary again and again while it works: ARGS="-cycles 200"
	$(GO) run ./cmd/bench crash $(ARGS)

bench: build ## Postrider beside its peers in a private network namespace: ARGS="-scenarios all -servers postrider,postfix"
	$(GO) run ./cmd/bench compare $(ARGS)

fuzz: ## every fuzz target for a short while: ARGS=30s
	@for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzzminimizetime 20x -fuzztime $(or $(ARGS),10s) $$p || exit 1; \
	  done; \
	done

demo: build ## the main job, seen working: a rehearsal internet on loopback (ARGS=--keep leaves it running)
	$(BIN) demo $(ARGS)

run: build ## the daemon with ./postrider.toml or defaults
	$(BIN) serve $(ARGS)

install: build ## binary, sendmail link and systemd files under PREFIX (DESTDIR for packages)
	install -Dm755 $(BIN) $(DESTDIR)$(PREFIX)/bin/postrider
	install -d $(DESTDIR)$(PREFIX)/sbin
	ln -sf ../bin/postrider $(DESTDIR)$(PREFIX)/sbin/sendmail
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|/usr/local/bin/postrider|$(PREFIX)/bin/postrider|' deploy/postrider.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/postrider.service
	chmod 644 $(DESTDIR)$(PREFIX)/lib/systemd/system/postrider.service
	install -Dm644 deploy/postrider.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/postrider.conf
	install -Dm644 deploy/postrider.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/postrider.conf

clean: ## remove what build made
	rm -rf bin
