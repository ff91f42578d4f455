package config

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseDuration(t *testing.T) {
	t.Parallel()
	good := map[string]time.Duration{
		"0s": 0, "30s": 30 * time.Second, "250ms": 250 * time.Millisecond, "5m": 5 * time.Minute, "1h30m": 90 * time.Minute,
		"5d": 120 * time.Hour, "1d12h": 36 * time.Hour, "90m": 90 * time.Minute, "007s": 7 * time.Second,
	}
	for s, want := range good {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "5", "m", "5 m", "-5m", "1.5h", "5M", "30m1h", "5m5m", "5mx", "5min", "106752d", "99999999999999999999s", "１s"} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("%q was read as %v", s, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	good := map[string]int64{
		"0B": 0, "512B": 512, "50MB": 50_000_000, "64MiB": 64 << 20, "1GB": 1_000_000_000, "1GiB": 1 << 30, "2kB": 2000, "2KB": 2000, "2KiB": 2048,
	}
	for s, want := range good {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "50", "MB", "50 MB", "-1MB", "1.5MB", "50mb", "50M", "1MB1B", "9223372037GB", "99999999999999999999B"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("%q was read as %v", s, got)
		}
	}
}

func TestUnitsAreReadAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, math.MaxInt64).Draw(t, "octets")
		if got, err := ParseSize(FormatSize(n)); err != nil || got != n {
			t.Fatalf("%d became %q became %d, %v", n, FormatSize(n), got, err)
		}
		d := time.Duration(rapid.Int64Range(0, math.MaxInt64/int64(time.Millisecond)).Draw(t, "ms")) * time.Millisecond
		if got, err := ParseDuration(FormatDuration(d)); err != nil || got != d {
			t.Fatalf("%d became %q became %d, %v", d, FormatDuration(d), got, err)
		}
	})
}

func TestUnitsAreShort(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]time.Duration{"0s": 0, "7d": 168 * time.Hour, "1h30m": 90 * time.Minute, "1s500ms": 1500 * time.Millisecond} {
		if got := FormatDuration(d); got != want {
			t.Errorf("%v was written as %q, not %q", d, got, want)
		}
	}
	for want, n := range map[string]int64{"0B": 0, "50MB": 50_000_000, "64MiB": 64 << 20, "1GB": 1_000_000_000, "1234B": 1234, "2kB": 2000} {
		if got := FormatSize(n); got != want {
			t.Errorf("%d was written as %q, not %q", n, got, want)
		}
	}
}
