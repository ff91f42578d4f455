package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"postrider/mta/bounce"
)

// reports counts what became of the duty to report to senders.
type reports struct {
	reported prometheus.Counter
	dropped  map[string]prometheus.Counter // by why
}

func newReports(r *registry) reports {
	return reports{
		reported: r.counter("recipients_reported_total", "Recipients whose fate was reported to the sender of their message."),
		dropped: r.counters("reports_dropped_total", "Recipients whose fate was not reported, though somebody wanted to know.", "why",
			[]string{"double_bounce", "storm", other}),
	}
}

// Reported is bounce.Observer's.
func (m *Metrics) Reported(recipients int) { m.reports.reported.Add(float64(recipients)) }

// Dropped is bounce.Observer's.
func (m *Metrics) Dropped(recipients int, why bounce.Drop) {
	label := other
	switch why {
	case bounce.DoubleBounce:
		label = "double_bounce"
	case bounce.Storm:
		label = "storm"
	}
	m.reports.dropped[label].Add(float64(recipients))
}
