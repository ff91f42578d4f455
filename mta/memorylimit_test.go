package mta

import (
	"testing"

	"postrider/config"
)

func TestConnectionsWithinMemory(t *testing.T) {
	t.Parallel()
	var cfg config.Config
	cfg.Submission.MaxConnections, cfg.Delivery.MaxConnections = 1000, 500
	for _, c := range []struct {
		limit   int64
		in, out int
	}{{0, 1000, 500}, {96_000_000, 96, 48}, {10_000_000, 20, 20}, {16_000_000_000, 1000, 500}} {
		got := withinMemory(&cfg, c.limit)
		if got.Submission.MaxConnections != c.in || got.Delivery.MaxConnections != c.out {
			t.Errorf("%d octets: %d in, %d out", c.limit, got.Submission.MaxConnections, got.Delivery.MaxConnections)
		}
	}
	if cfg.Submission.MaxConnections != 1000 || cfg.Delivery.MaxConnections != 500 {
		t.Error("the caller's configuration was changed")
	}
}
