// Package e2e holds the end-to-end tests: the built binary against real peers
// (Postfix, Exim, unbound, swaks, python3-dkim). They are behind the build tag
// e2e, because they need root and Debian packages: `make e2e` runs them and says what is
// missing; with E2E_ALL=1, as in CI, what is missing is a failure.
package e2e
