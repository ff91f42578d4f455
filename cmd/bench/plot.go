package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// bar is one of a plot.
type bar struct {
	label string
	value float64
	text  string // the value as it is written beside the bar
	ours  bool
}

// barGroup is a group of bars under a title.
type barGroup struct {
	title string
	bars  []bar
}

// plots are the figures of docs/performance.md: which file shows what of which
// scenarios.
var plots = []struct {
	file, title string
	scenarios   []string
	value       func(result) (float64, string)
}{
	{"rate.svg", "messages per second", []string{"A", "B", "C", "D"}, func(m result) (float64, string) {
		return m.Rate, grouped(int(m.Rate + 0.5))
	}},
	{"cpu.svg", "CPU per message, ms", []string{"A", "B", "C", "D"}, func(m result) (float64, string) {
		return ms(m.CPU), fmt.Sprintf("%.2f", ms(m.CPU))
	}},
	{"latency.svg", "the slowest hundredth under load (p99): from the last octet to the 250, ms", []string{"A", "B", "C", "D"}, func(m result) (float64, string) {
		return ms(m.AcceptP99), fmt.Sprintf("%.1f", ms(m.AcceptP99))
	}},
	{"burdens.svg", "messages per second under a burden", []string{"F", "G", "K"}, func(m result) (float64, string) {
		return m.Rate, grouped(int(m.Rate + 0.5))
	}},
}

// writePlots draws what the report has figures for, and answers the files.
func writePlots(dir string, r *report) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var written []string
	for _, p := range plots {
		groups := r.barGroups(p.scenarios, p.value)
		if len(groups) == 0 {
			continue
		}
		file := filepath.Join(dir, p.file)
		if err := os.WriteFile(file, []byte(drawBars(p.title, groups)), 0o644); err != nil {
			return written, err
		}
		written = append(written, file)
	}
	return written, nil
}

// barGroups are the medians of scenarios, a group for each.
func (r *report) barGroups(keys []string, value func(result) (float64, string)) []barGroup {
	var groups []barGroup
	for _, key := range keys {
		g := barGroup{title: key}
		for _, s := range scenarios(1) {
			if s.key == key {
				g.title = key + ": " + s.title
			}
		}
		for _, m := range r.Medians {
			v, text := value(m)
			if m.Scenario != key || v <= 0 || m.Server == straightName {
				continue
			}
			name := m.Server
			if m.Variant != "" {
				name = m.Variant
			}
			g.bars = append(g.bars, bar{name, v, text, m.Server == postriderName})
		}
		if len(g.bars) > 0 {
			groups = append(groups, g)
		}
	}
	return groups
}

// Measures of a plot, in pixels.
const (
	plotWidth  = 640
	plotMargin = 16
	labelWidth = 170
	valueWidth = 70
	barHeight  = 16
	barStep    = 22
	titleStep  = 26
	groupGap   = 10
)

// plotStyle follows the reader's colours, light or dark.
const plotStyle = `<style>
text{font:12px system-ui,sans-serif;fill:#24292f}
.title{font-weight:600;font-size:14px}.group{fill:#57606a}
.ours{fill:#0969da}.peer{fill:#afb8c1}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.group{fill:#9198a1}.ours{fill:#4493f8}.peer{fill:#59636e}}
</style>`

// drawBars draws horizontal bars as SVG. Each group has a scale of its own.
func drawBars(title string, groups []barGroup) string {
	var b strings.Builder
	y := plotMargin + 14
	text := func(x, y int, class, anchor, s string) {
		fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\" class=\"%s\" text-anchor=\"%s\">%s</text>\n", x, y, class, anchor, escapeXML(s))
	}
	text(plotMargin, y, "title", "start", title)
	const room = plotWidth - 2*plotMargin - labelWidth - valueWidth
	for _, g := range groups {
		y += titleStep
		text(plotMargin, y, "group", "start", g.title)
		y += groupGap
		most := slices.MaxFunc(g.bars, func(a, b bar) int {
			if a.value < b.value {
				return -1
			}
			return 1
		}).value
		for _, bar := range g.bars {
			width, class := max(1, int(bar.value/most*room)), "peer"
			if bar.ours {
				class = "ours"
			}
			text(plotMargin+labelWidth-8, y+barHeight-4, "label", "end", bar.label)
			fmt.Fprintf(&b, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"2\" class=\"%s\"/>\n", plotMargin+labelWidth, y, width, barHeight, class)
			text(plotMargin+labelWidth+width+6, y+barHeight-4, "value", "start", bar.text)
			y += barStep
		}
	}
	return fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" role=\"img\" aria-label=\"%s\">\n%s\n%s</svg>\n",
		plotWidth, y+plotMargin, plotWidth, escapeXML(title), plotStyle, b.String())
}

var xmlEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;")

func escapeXML(s string) string { return xmlEscaper.Replace(s) }
