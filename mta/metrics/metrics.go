// Package metrics counts what the rooms report, for Prometheus.
//
// Names begin with postrider_, units are seconds and bytes, labels come from
// closed sets: never an address, never a domain. Whatever a room reports that
// is not in its set is counted as "other", so that no peer can make series.
//
// Counting is cheap, because it is on the path of every message: a counter is
// found by an index, not by its labels, and what can be asked for (the depth
// of the queue, open connections) is asked for when Prometheus comes by.
//
// The rooms do not import this package. They declare what they report as small
// interfaces, which Metrics meets: intake.Observer, and Attempt for whoever
// settles claims.
package metrics

import (
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"postrider/dkim"
	"postrider/mta/intake"
	"postrider/queue"
)

// Options make a Metrics. Registerer is required.
type Options struct {
	Registerer prometheus.Registerer
	Version    string // of the build
	// Depth is asked at each scrape; nil: no figures of the queue.
	Depth func(now time.Time) queue.Depth
	// Connections answers the open outgoing connections; nil: not shown.
	Connections func() int
	// StoreError answers why no mail is taken at present; nil: not shown.
	StoreError func() error
}

// The closed sets of labels. What is beyond them is counted under the last
// word, "other".
var (
	vias     = []string{"smtp", "pickup", "http", "sendmail", "bounce", "tlsrpt", "other"}
	refusals = []string{"full", "closed", "size", "address", "recipients", "loop", "content", "policy", "signature", "other"}
	verdicts = []string{"untried", "delivered", "deferred", "failed"}
	stages   = []string{"none", "dns", "policy", "connect", "greeting", "ehlo", "starttls", "mail", "rcpt", "data", "body", "final", "queue"}
)

const other = "other"

// Metrics is safe for concurrent use.
type Metrics struct {
	accepted      map[string]prometheus.Counter // by via
	acceptedBytes prometheus.Counter
	acceptSeconds prometheus.Observer
	refused       map[string]map[string]prometheus.Counter // by via and reason
	attempts      [][]prometheus.Counter                   // by verdict and stage
	delivered     prometheus.Counter
	inDoubt       prometheus.Counter
	deferred      map[string]prometheus.Counter // by class
	bounced       map[string]prometheus.Counter // by class
	delivery      prometheus.Observer
	connect       prometheus.Observer
	transfer      prometheus.Observer
	connections   map[connection]prometheus.Counter
	tlsFailures   map[string]prometheus.Counter // by result
	unsigned      map[dkim.Reason]prometheus.Counter
	reports       reports
}

// New registers every series, at zero where it counts: a rate can be computed
// from the first event on.
func New(o Options) (*Metrics, error) {
	r := registry{to: o.Registerer}
	m := &Metrics{
		accepted:      r.counters("messages_accepted_total", "Messages that were put on stable storage.", "via", vias),
		acceptedBytes: r.counter("accepted_bytes_total", "Octets of the accepted messages, as they will be sent."),
		acceptSeconds: r.histogram("accept_seconds", "Time from the begin of a message to stable storage.", acceptBuckets),
		attempts:      r.attempts(),
		delivered:     r.counter("recipients_delivered_total", "Recipients whose mail server took the message."),
		inDoubt:       r.counter("recipients_in_doubt_total", "Attempts whose connection was lost after the whole content and before the reply."),
		delivery:      r.histogram("delivery_seconds", "Time from acceptance to delivery, for each recipient.", deliveryBuckets),
	}
	var classes []string
	for _, c := range queue.Classes() {
		classes = append(classes, string(c))
	}
	m.deferred = r.counters("recipients_deferred_total", "Attempts that were deferred, for each recipient.", "class", classes)
	m.bounced = r.counters("recipients_bounced_total", "Recipients that were given up: refused for good, expired, or failed by hand.", "class", classes)
	m.refused = r.refusals()
	phases := r.histograms("attempt_phase_seconds", "How the time of an attempt was spent; connect only where a connection was opened.", "phase", []string{"connect", "transfer"}, deliveryBuckets)
	m.connect, m.transfer = phases["connect"], phases["transfer"]
	m.connections = r.connections()
	m.tlsFailures = r.counters("tls_failures_total", "Outgoing connections on which TLS failed, also where that was put up with.", "result", tlsFailures)
	m.reports = newReports(&r)
	m.unsigned = newUnsigned(&r)
	r.info(o.Version)
	if o.Depth != nil {
		r.register(&queueCollector{depth: o.Depth, now: time.Now})
	}
	if o.Connections != nil {
		r.gauge("connections_open", "Outgoing connections that are open.", func() float64 { return float64(o.Connections()) })
	}
	if o.StoreError != nil {
		r.gauge("store_ok", "1 while the store takes mail, 0 while it does not.", func() float64 {
			if o.StoreError() != nil {
				return 0
			}
			return 1
		})
	}
	return m, r.err
}

// Accepted is intake.Observer's.
func (m *Metrics) Accepted(env *queue.Envelope, took time.Duration) {
	c, ok := m.accepted[env.Origin.Via]
	if !ok {
		c = m.accepted[other]
	}
	c.Inc()
	m.acceptedBytes.Add(float64(env.Size))
	m.acceptSeconds.Observe(took.Seconds())
}

// Refused is intake.Observer's.
func (m *Metrics) Refused(via string, err *intake.Error) {
	byReason, ok := m.refused[via]
	if !ok {
		byReason = m.refused[other]
	}
	byReason[reason(err.Status)].Inc()
}

// reason sorts a refusal by its enhanced status (RFC 3463), whatever the
// class: 4.3.1 and 5.3.1 are the same trouble.
func reason(status string) string {
	if len(status) < 2 {
		return other
	}
	switch detail := status[2:]; {
	case detail == "3.1":
		return "full"
	case detail == "3.2":
		return "closed"
	case detail == "3.5":
		return "signature"
	case detail == "3.4" || detail == "2.3":
		return "size"
	case strings.HasPrefix(detail, "1."):
		return "address"
	case detail == "5.1" || detail == "5.3":
		return "recipients"
	case detail == "4.6":
		return "loop"
	case strings.HasPrefix(detail, "6."):
		return "content"
	case strings.HasPrefix(detail, "7."):
		return "policy"
	}
	return other
}

// Attempt counts what an attempt came to, for each of its recipients.
// SinceArrival is the time since the message was accepted.
func (m *Metrics) Attempt(outcomes []queue.Outcome, t queue.Timing, sinceArrival time.Duration) {
	for i := range outcomes {
		m.outcome(&outcomes[i], sinceArrival)
	}
	if t.Connect > 0 {
		m.connect.Observe(t.Connect.Seconds())
	}
	if t.Transfer > 0 {
		m.transfer.Observe(t.Transfer.Seconds())
	}
}

func (m *Metrics) outcome(o *queue.Outcome, sinceArrival time.Duration) {
	if int(o.Verdict) < len(m.attempts) && int(o.Stage) < len(stages) {
		m.attempts[o.Verdict][o.Stage].Inc()
	}
	switch o.Verdict {
	case queue.Delivered:
		m.delivered.Inc()
		m.delivery.Observe(sinceArrival.Seconds())
	case queue.Deferred:
		count(m.deferred, string(o.Class))
	case queue.Failed:
		count(m.bounced, string(o.Class))
	}
	if o.InDoubt {
		m.inDoubt.Inc()
	}
}

// GivenUp counts a recipient that failed in the queue and not in an attempt.
func (m *Metrics) GivenUp(o *queue.Outcome) { count(m.bounced, string(o.Class)) }

func count(by map[string]prometheus.Counter, word string) {
	c, ok := by[word]
	if !ok {
		c = by[other]
	}
	c.Inc()
}

// From a memory copy to a disk in trouble.
var acceptBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}

// From a delivery on an open connection to the fifth day.
var deliveryBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400, 432000}

// registry registers series and keeps the first error.
type registry struct {
	to  prometheus.Registerer
	err error
}

const namespace = "postrider"

func (r *registry) register(c prometheus.Collector) {
	if err := r.to.Register(c); err != nil && r.err == nil {
		r.err = err
	}
}

func (r *registry) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
	r.register(c)
	return c
}

func (r *registry) counters(name, help, label string, values []string) map[string]prometheus.Counter {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, []string{label})
	r.register(vec)
	by := make(map[string]prometheus.Counter, len(values))
	for _, v := range values {
		by[v] = vec.WithLabelValues(v)
	}
	return by
}

func (r *registry) attempts() [][]prometheus.Counter {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "attempts_total",
		Help: "Attempts to deliver, one for each recipient, by what they came to and the step that decided.",
	}, []string{"result", "stage"})
	r.register(vec)
	by := make([][]prometheus.Counter, len(verdicts))
	for i, v := range verdicts {
		for _, s := range stages {
			by[i] = append(by[i], vec.WithLabelValues(v, s))
		}
	}
	return by
}

func (r *registry) refusals() map[string]map[string]prometheus.Counter {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "messages_refused_total", Help: "Messages that were not taken.",
	}, []string{"via", "reason"})
	r.register(vec)
	by := make(map[string]map[string]prometheus.Counter, len(vias))
	for _, v := range vias {
		by[v] = make(map[string]prometheus.Counter, len(refusals))
		for _, reason := range refusals {
			by[v][reason] = vec.WithLabelValues(v, reason)
		}
	}
	return by
}

func (r *registry) histogram(name, help string, buckets []float64) prometheus.Observer {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets})
	r.register(h)
	return h
}

func (r *registry) histograms(name, help, label string, values []string, buckets []float64) map[string]prometheus.Observer {
	vec := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, []string{label})
	r.register(vec)
	by := make(map[string]prometheus.Observer, len(values))
	for _, v := range values {
		by[v] = vec.WithLabelValues(v)
	}
	return by
}

func (r *registry) gauge(name, help string, value func() float64) {
	r.register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, value))
}

func (r *registry) info(version string) {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: "build_info", Help: "1, with the version in the labels."}, []string{"version", "goversion"})
	r.register(g)
	g.WithLabelValues(version, runtime.Version()).Set(1)
}
