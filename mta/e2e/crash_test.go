//go:build e2e

package e2e

import (
	"os"
	"testing"

	"postrider/mta/rehearsal/crash"
)

// TestKillDuringTwoThousandMessages: what was answered with 250 arrives,
// however often the server is killed meanwhile.
func TestKillDuringTwoThousandMessages(t *testing.T) {
	report, err := crash.Run(t.Context(), crash.Options{
		Binary: binary(t), Dir: t.TempDir(), Cycles: 10, Messages: 2000, Seed: 1, Out: os.Stdout,
	})
	t.Log(report)
	if err != nil {
		t.Fatalf("%v; lost: %v", err, report.Lost)
	}
	if report.Accepted < 2000 || report.Kills != 10 {
		t.Errorf("%d messages accepted and %d kills: not the run that was asked for", report.Accepted, report.Kills)
	}
}
