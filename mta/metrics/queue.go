package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postrider/queue"
)

// queueCollector asks the queue for its depth once per scrape.
type queueCollector struct {
	depth func(now time.Time) queue.Depth
	now   func() time.Time
}

func gaugeDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "queue", name), help, labels, nil)
}

var (
	messagesDesc   = gaugeDesc("messages", "Messages with open recipients.")
	recipientsDesc = gaugeDesc("recipients", "Open recipients: waiting for their time, due now, being sent, held.", "state")
	oldestDesc     = gaugeDesc("oldest_age_seconds", "Age of the oldest open message; 0 where there is none.")
	noticesDesc    = gaugeDesc("unreported_notices", "Failures and delays whose report is not yet written.")
	bodyMemoryDesc = gaugeDesc("body_memory_bytes", "Octets of message content held in memory.")
)

func (q *queueCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{messagesDesc, recipientsDesc, oldestDesc, noticesDesc, bodyMemoryDesc} {
		out <- d
	}
}

func (q *queueCollector) Collect(out chan<- prometheus.Metric) {
	now := q.now()
	d := q.depth(now)
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	gauge(messagesDesc, float64(d.Messages))
	gauge(recipientsDesc, float64(d.Waiting), "waiting")
	gauge(recipientsDesc, float64(d.Due), "due")
	gauge(recipientsDesc, float64(d.Active), "active")
	gauge(recipientsDesc, float64(d.Held), "held")
	var age float64
	if !d.Oldest.IsZero() {
		age = max(0, now.Sub(d.Oldest).Seconds())
	}
	gauge(oldestDesc, age)
	gauge(noticesDesc, float64(d.UnreportedNotices))
	gauge(bodyMemoryDesc, float64(d.BodyMemory))
}
