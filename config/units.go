package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

type unit struct {
	name string
	size int64
}

// Both largest first: the order in which durations are written, and in which
// the shortest form of a size is looked for.
var (
	sizeUnits = []unit{
		{"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
	}
	durationUnits = []unit{
		{"d", int64(24 * time.Hour)}, {"h", int64(time.Hour)}, {"m", int64(time.Minute)}, {"s", int64(time.Second)}, {"ms", int64(time.Millisecond)},
	}
)

const (
	durationExamples = `"30s", "5m", "1h30m" or "5d"`
	sizeExamples     = `"50MB" or "64MiB"`
)

// ParseDuration reads whole numbers with units, largest unit first: "30s",
// "1h30m", "5d". A day has 24 hours. A unit is never left out.
func ParseDuration(s string) (time.Duration, error) {
	if s == "" {
		return 0, fmt.Errorf("empty, where a duration is needed, like %s", durationExamples)
	}
	var total int64
	last := int64(math.MaxInt64)
	for rest := s; rest != ""; {
		n, u, tail, err := quantity(rest, durationUnits)
		if err != nil {
			return 0, fmt.Errorf("%q is not a duration, like %s: %w", s, durationExamples, err)
		}
		if u.size >= last {
			return 0, fmt.Errorf("%q is not a duration, like %s: write each unit once, the largest first", s, durationExamples)
		}
		if n > (math.MaxInt64-total)/u.size {
			return 0, fmt.Errorf("%q is longer than can be counted", s)
		}
		total, last, rest = total+n*u.size, u.size, tail
	}
	return time.Duration(total), nil
}

// ParseSize reads a whole number with a unit: "50MB" (millions), "64MiB"
// (2^20), "512B". The answer is in octets.
func ParseSize(s string) (int64, error) {
	if s == "" {
		return 0, fmt.Errorf("empty, where a size is needed, like %s", sizeExamples)
	}
	n, u, rest, err := quantity(s, sizeUnits)
	if err == nil && rest != "" {
		err = fmt.Errorf("%q is left over", rest)
	}
	if err != nil {
		return 0, fmt.Errorf("%q is not a size, like %s: %w", s, sizeExamples, err)
	}
	if n > math.MaxInt64/u.size {
		return 0, fmt.Errorf("%q is more than can be counted", s)
	}
	return n * u.size, nil
}

// quantity takes a number and its unit off the front of s.
func quantity(s string, units []unit) (n int64, u unit, rest string, err error) {
	digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
	if digits == 0 {
		return 0, u, "", errors.New("it needs a whole number before the unit")
	}
	if n, err = strconv.ParseInt(s[:digits], 10, 64); err != nil {
		return 0, u, "", errors.New("the number is too large")
	}
	name, rest := s[digits:], ""
	if next := strings.IndexAny(name, "0123456789"); next >= 0 {
		name, rest = name[:next], name[next:]
	}
	names := make([]string, len(units))
	for i, u := range units {
		if u.name == name {
			return n, u, rest, nil
		}
		names[i] = u.name
	}
	return 0, u, "", fmt.Errorf("the unit is one of %s", strings.Join(names, ", "))
}

// FormatDuration writes a duration as ParseDuration reads it: "1h30m", "7d".
// What is below a millisecond is dropped.
func FormatDuration(d time.Duration) string {
	if d < time.Millisecond {
		return "0s"
	}
	var b strings.Builder
	left := int64(d)
	for _, u := range durationUnits {
		if n := left / u.size; n > 0 {
			b.WriteString(strconv.FormatInt(n, 10) + u.name)
			left -= n * u.size
		}
	}
	return b.String()
}

// FormatSize writes octets as ParseSize reads them, without loss.
func FormatSize(n int64) string {
	best := sizeUnits[len(sizeUnits)-1]
	for _, u := range sizeUnits {
		if n%u.size == 0 && n/u.size < n/best.size {
			best = u
		}
	}
	return strconv.FormatInt(n/best.size, 10) + best.name
}
