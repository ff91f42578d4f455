package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A plot is well-formed, and its bars are as long as their values.
func TestDrawBars(t *testing.T) {
	t.Parallel()
	svg := drawBars("a < b", []barGroup{
		{title: "A & B", bars: []bar{{"ours", 1000, "1,000", true}, {"peer", 250, "250", false}}},
		{title: "C", bars: []bar{{"tiny", 0.001, "0.001", false}}},
	})
	var widths, classes []string
	decoder := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			for _, a := range e.Attr {
				switch a.Name.Local {
				case "width":
					widths = append(widths, a.Value)
				case "class":
					classes = append(classes, a.Value)
				}
			}
		}
	}
	if !slices.Equal(widths, []string{"368", "92", "368"}) || !slices.Equal(classes, []string{"ours", "peer", "peer"}) {
		t.Errorf("%v, %v", widths, classes)
	}
	for _, want := range []string{"prefers-color-scheme:dark", "A &amp; B", "1,000", "a &lt; b"} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %q", want)
		}
	}
}

// Only what was measured is drawn.
func TestWritePlots(t *testing.T) {
	t.Parallel()
	r := sample()
	r.finish()
	dir := filepath.Join(t.TempDir(), "img")
	written, err := writePlots(dir, r)
	if err != nil || len(written) != 4 {
		t.Fatalf("%v, %v", written, err)
	}
	rate, err := os.ReadFile(filepath.Join(dir, "rate.svg"))
	if err != nil || !strings.Contains(string(rate), "A: 4 KB, 100 domains") || !strings.Contains(string(rate), ">3,000<") || strings.Contains(string(rate), "unsigned") {
		t.Errorf("%v\n%s", err, rate)
	}
	if written, err := writePlots(t.TempDir(), &report{}); err != nil || len(written) != 0 {
		t.Errorf("of nothing: %v, %v", written, err)
	}
}
