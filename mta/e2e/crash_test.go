//go:build e2e

package e2e

import (
	"os"
	"testing"

	"postrider/mta/rehearsal/crash"
)

// TestKillDuringTwoThousandMessages: what was answered with 250 arrives,
// however often the server is killed meanwhile; nothing comes twice whose
// delivery was on record, and the store is sound after each kill.
func TestKillDuringTwoThousandMessages(t *testing.T) {
	report, err := crash.Run(t.Context(), crash.Options{
		Binary: binary(t), Dir: t.TempDir(), Cycles: 10, Messages: 2000, Seed: 1, Out: os.Stdout,
	})
	t.Log(report)
	if err != nil {
		t.Fatalf("%v; lost %v, corrupt %v, repeated %v", err, report.Lost, report.Corrupt, report.Repeated)
	}
	if report.Accepted < 2000 || report.Kills != 10 || report.Checks != 21 || report.InFlight == 0 {
		t.Errorf("%d accepted, %d kills, %d checks, %d in flight: not the run that was asked for",
			report.Accepted, report.Kills, report.Checks, report.InFlight)
	}
}
