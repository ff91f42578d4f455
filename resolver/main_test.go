package resolver

import (
	"testing"

	"go.uber.org/goleak"
)

// No lookup outlives its callers, and the cache has no goroutine of its own.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
