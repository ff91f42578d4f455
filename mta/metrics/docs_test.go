package metrics

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"postrider/queue"
)

// The manual has to name every metric with its type, every label and every
// word of its closed set.
func TestManualIsComplete(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `(postrider_\\w+)` \\|.*$").FindAllStringSubmatch(string(text), -1) {
		rows[row[1]] = row[0]
	}
	_, r := newMetrics(t, Options{
		Version: "1.0", Depth: func(time.Time) queue.Depth { return queue.Depth{} },
		Connections: func() int { return 0 }, StoreError: func() error { return nil },
	})
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		row, ok := rows[f.GetName()]
		delete(rows, f.GetName())
		if !ok {
			t.Errorf("%s is not in the manual", f.GetName())
			continue
		}
		if kind := strings.ToLower(f.GetType().String()); !strings.Contains(row, "| "+kind+" |") {
			t.Errorf("%s is a %s: %s", f.GetName(), kind, row)
		}
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if !strings.Contains(row, "`"+l.GetName()+"`") {
					t.Errorf("%s: the label %s is not in %s", f.GetName(), l.GetName(), row)
				}
				free := []string{"version", "goversion"}
				words := strings.FieldsFunc(row, func(r rune) bool { return strings.ContainsRune(" ,;:|`", r) })
				if f.GetName() == "postrider_messages_refused_total" {
					free = append(free, "via") // said one row above
				}
				if f.GetName() == "postrider_recipients_bounced_total" {
					free = append(free, "class") // likewise
				}
				if !slices.Contains(free, l.GetName()) && !slices.Contains(words, l.GetValue()) {
					t.Errorf("%s: %s=%q is not in %s", f.GetName(), l.GetName(), l.GetValue(), row)
				}
			}
		}
	}
	for name := range rows {
		t.Errorf("the manual names %s, which there is not", name)
	}
}
