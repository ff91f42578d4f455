package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"postrider/dkim"
)

// newUnsigned counts by reason, the words of which become labels.
func newUnsigned(r *registry) map[dkim.Reason]prometheus.Counter {
	words := []string{other}
	for _, reason := range dkim.Reasons() {
		words = append(words, unsignedLabel(reason))
	}
	by := r.counters("messages_unsigned_total", "Messages that went on without a DKIM signature.", "reason", words)
	found := map[dkim.Reason]prometheus.Counter{other: by[other]}
	for _, reason := range dkim.Reasons() {
		found[reason] = by[unsignedLabel(reason)]
	}
	return found
}

func unsignedLabel(r dkim.Reason) string {
	return strings.ReplaceAll(strings.ToLower(string(r)), " ", "_")
}

// Unsigned is for dkim.Options.
func (m *Metrics) Unsigned(r dkim.Reason) {
	c, ok := m.unsigned[r]
	if !ok {
		c = m.unsigned[other]
	}
	c.Inc()
}
