package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"
)

// columns aligns cells that are told apart by tabs.
func columns(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) }

// table aligns cells in columns. A row may have a line of its own below it,
// which is as long as it likes.
type table struct {
	right int // cells from this one on hold numbers; 0: none does
	rows  []row
}

type row struct {
	cells []string
	below string
}

func (t *table) add(cells ...string) *row {
	t.rows = append(t.rows, row{cells: cells})
	return &t.rows[len(t.rows)-1]
}

func (t *table) write(w io.Writer) {
	var widths []int
	for _, r := range t.rows {
		for i, c := range r.cells {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	for _, r := range t.rows {
		var b strings.Builder
		for i, c := range r.cells {
			blanks := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if t.right > 0 && i >= t.right {
				b.WriteString(blanks + c + "  ")
			} else {
				b.WriteString(c + blanks + "  ")
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
		if r.below != "" {
			fmt.Fprintf(w, "    %s\n", r.below)
		}
	}
}

// span writes a length of time for people, rounded to one unit.
func span(d time.Duration) string {
	switch d = d.Abs(); {
	case d < time.Millisecond:
		return fmt.Sprintf("%d us", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	}
	return fmt.Sprintf("%.0f d", d.Hours()/24)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// in tells when something will be.
func in(at, now time.Time) string {
	switch {
	case at.IsZero():
		return ""
	case at.After(now):
		return "in " + span(at.Sub(now))
	}
	return "now"
}

// octets writes a size for people.
func octets(n int64) string {
	switch f := float64(n); {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1e6:
		return fmt.Sprintf("%.1f kB", f/1e3)
	case n < 1e9:
		return fmt.Sprintf("%.1f MB", f/1e6)
	default:
		return fmt.Sprintf("%.1f GB", f/1e9)
	}
}

// plain keeps what a stranger wrote from steering the terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// angle writes an envelope address.
func angle(address string) string { return "<" + plain(address) + ">" }

// count writes a number with its noun.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
