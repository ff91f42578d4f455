package metrics

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"postrider/dkim"
	"postrider/mta/bounce"
	"postrider/mta/intake"
	"postrider/queue"
)

func newMetrics(t testing.TB, o Options) (*Metrics, *prometheus.Registry) {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	o.Registerer = r
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return m, r
}

// scrape answers what Prometheus would get, without the comments.
func scrape(t *testing.T, g prometheus.Gatherer) (text string, series map[string]bool) {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(g, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	series = make(map[string]bool)
	for line := range strings.Lines(w.Body.String()) {
		if !strings.HasPrefix(line, "#") {
			series[strings.TrimSpace(line)] = true
		}
	}
	return w.Body.String(), series
}

func expect(t *testing.T, g prometheus.Gatherer, want ...string) {
	t.Helper()
	text, series := scrape(t, g)
	for _, line := range want {
		if !series[line] {
			t.Errorf("%q is missing in\n%s", line, text)
		}
	}
}

func TestAcceptedAndRefused(t *testing.T) {
	t.Parallel()
	m, r := newMetrics(t, Options{})
	for _, via := range []string{"smtp", "smtp", "pickup", "telex"} {
		m.Accepted(&queue.Envelope{Origin: queue.Origin{Via: via}, Size: 1000}, time.Millisecond)
	}
	m.Refused("http", &intake.Error{Code: 552, Status: "5.3.4"})
	m.Refused("telex", &intake.Error{Code: 552, Status: "odd"})
	expect(t, r,
		`postrider_messages_accepted_total{via="bounce"} 0`,
		`postrider_messages_accepted_total{via="http"} 0`,
		`postrider_messages_accepted_total{via="other"} 1`,
		`postrider_messages_accepted_total{via="pickup"} 1`,
		`postrider_messages_accepted_total{via="sendmail"} 0`,
		`postrider_messages_accepted_total{via="smtp"} 2`,
		`postrider_messages_accepted_total{via="tlsrpt"} 0`,
		`postrider_accepted_bytes_total 4000`,
	)
	expect(t, r,
		`postrider_messages_refused_total{reason="size",via="http"} 1`,
		`postrider_messages_refused_total{reason="other",via="other"} 1`,
	)
}

func TestReasons(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]string{
		"4.3.1": "full", "5.3.4": "size", "4.3.2": "closed", "5.1.3": "address", "5.5.3": "recipients",
		"5.4.6": "loop", "5.6.0": "content", "5.7.1": "policy", "4.3.5": "signature", "": "other", "5": "other", "5.": "other", "5.11.0": "other",
	} {
		if got := reason(status); got != want {
			t.Errorf("%q: %s, want %s", status, got, want)
		}
	}
}

func TestUnsigned(t *testing.T) {
	t.Parallel()
	m, r := newMetrics(t, Options{})
	for i, reason := range append(dkim.Reasons(), "a new one") {
		for range i {
			m.Unsigned(reason)
		}
	}
	expect(t, r,
		`postrider_messages_unsigned_total{reason="no_key"} 0`,
		`postrider_messages_unsigned_total{reason="no_author"} 1`,
		`postrider_messages_unsigned_total{reason="several_from_fields"} 2`,
		`postrider_messages_unsigned_total{reason="authors_of_several_domains"} 3`,
		`postrider_messages_unsigned_total{reason="too_many_repeated_fields"} 4`,
		`postrider_messages_unsigned_total{reason="other"} 5`,
	)
}

func TestAttempts(t *testing.T) {
	t.Parallel()
	m, r := newMetrics(t, Options{})
	delivered := queue.Outcome{Verdict: queue.Delivered, Stage: queue.StageFinal}
	m.Attempt([]queue.Outcome{delivered, delivered, {Verdict: queue.Deferred, Stage: queue.StageRCPT, Class: "mailbox-full"}},
		queue.Timing{Connect: time.Second, Transfer: time.Second}, 3*time.Second)
	m.Attempt([]queue.Outcome{{Verdict: queue.Failed, Stage: queue.StageRCPT, Class: "never heard of"}}, queue.Timing{}, 0)
	m.Attempt([]queue.Outcome{{Verdict: queue.Deferred, Stage: queue.StageFinal, InDoubt: true}}, queue.Timing{}, 0)
	m.GivenUp(&queue.Outcome{Verdict: queue.Failed, Class: queue.ClassExpired})
	m.Attempt([]queue.Outcome{{Verdict: queue.Untried}, {Verdict: 200, Stage: 200}}, queue.Timing{}, 0)
	expect(t, r,
		`postrider_recipients_bounced_total{class="expired"} 1`,
		`postrider_recipients_bounced_total{class="mailbox-full"} 0`,
		`postrider_recipients_bounced_total{class="other"} 1`,
		`postrider_recipients_bounced_total{class="policy"} 0`,
		`postrider_recipients_deferred_total{class="mailbox-full"} 1`,
		`postrider_recipients_deferred_total{class="other"} 1`,
		`postrider_recipients_deferred_total{class="policy"} 0`,
		`postrider_recipients_delivered_total 2`,
		`postrider_recipients_in_doubt_total 1`,
	)
	expect(t, r,
		`postrider_attempts_total{result="delivered",stage="final"} 2`,
		`postrider_attempts_total{result="failed",stage="rcpt"} 1`,
		`postrider_attempts_total{result="failed",stage="final"} 0`,
		`postrider_attempts_total{result="untried",stage="none"} 1`,
		`postrider_delivery_seconds_count 2`,
		`postrider_delivery_seconds_bucket{le="2.5"} 0`,
		`postrider_delivery_seconds_bucket{le="5"} 2`,
		`postrider_attempt_phase_seconds_count{phase="connect"} 1`,
		`postrider_attempt_phase_seconds_count{phase="transfer"} 1`,
	)
}

func TestQueueDepth(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(&queueCollector{
		now: func() time.Time { return now },
		depth: func(at time.Time) queue.Depth {
			return queue.Depth{Messages: 7, Recipients: 12, Waiting: 5, Due: 4, Active: 2, Held: 1, Oldest: at.Add(-90 * time.Second), UnreportedNotices: 3, BodyMemory: 4096}
		},
	})
	expect(t, r,
		`postrider_queue_body_memory_bytes 4096`,
		`postrider_queue_messages 7`,
		`postrider_queue_oldest_age_seconds 90`,
		`postrider_queue_recipients{state="active"} 2`,
		`postrider_queue_recipients{state="due"} 4`,
		`postrider_queue_recipients{state="held"} 1`,
		`postrider_queue_recipients{state="waiting"} 5`,
		`postrider_queue_unreported_notices 3`,
	)
}

func TestNamesFollowTheRules(t *testing.T) {
	t.Parallel()
	_, r := newMetrics(t, Options{
		Version: "1.0", Depth: func(time.Time) queue.Depth { return queue.Depth{} },
		Connections: func() int { return 3 }, StoreError: func() error { return queue.ErrFull },
	})
	text, series := scrape(t, r)
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for line := range series {
		if !strings.HasPrefix(line, "postrider_") {
			t.Errorf("%s does not begin with postrider_", line)
		}
	}
	if len(series) > 400 {
		t.Errorf("%d series", len(series))
	}
	expect(t, r,
		`postrider_connections_open 3`,
		`postrider_store_ok 0`,
	)
}

func TestRegisteredTwiceIsAnError(t *testing.T) {
	t.Parallel()
	_, r := newMetrics(t, Options{})
	if _, err := New(Options{Registerer: r}); err == nil {
		t.Error("no error")
	}
}

func BenchmarkAttempt(b *testing.B) {
	m, _ := newMetrics(b, Options{})
	o := []queue.Outcome{{Verdict: queue.Delivered, Stage: queue.StageFinal}}
	b.ReportAllocs()
	for b.Loop() {
		m.Attempt(o, queue.Timing{Transfer: time.Millisecond}, 5*time.Millisecond)
	}
}

func BenchmarkAccepted(b *testing.B) {
	m, _ := newMetrics(b, Options{})
	env := &queue.Envelope{Origin: queue.Origin{Via: "smtp"}, Size: 4096}
	b.ReportAllocs()
	for b.Loop() {
		m.Accepted(env, time.Millisecond)
	}
}

func TestReports(t *testing.T) {
	t.Parallel()
	m, g := newMetrics(t, Options{})
	m.Reported(3)
	m.Dropped(1, bounce.DoubleBounce)
	m.Dropped(2, bounce.Storm)
	expect(t, g, `postrider_recipients_reported_total 3`,
		`postrider_reports_dropped_total{why="double_bounce"} 1`,
		`postrider_reports_dropped_total{why="storm"} 2`,
		`postrider_reports_dropped_total{why="other"} 0`)
}

func TestConnectionsByTLS(t *testing.T) {
	t.Parallel()
	m, r := newMetrics(t, Options{})
	m.Connection("enable", "configuration", "clear")
	m.Connection("verify", "MTA-STS", "verified")
	m.Connection("dane", "MTA-STS", "dane") // there is no such demand
	m.TLSFailed("starttls-not-supported")
	m.TLSFailed("of a new kind")
	expect(t, r,
		`postrider_connections_total{demand="enable",reached="clear",source="configuration"} 1`,
		`postrider_connections_total{demand="verify",reached="verified",source="MTA-STS"} 1`,
		`postrider_connections_total{demand="other",reached="nothing",source="other"} 1`,
		`postrider_connections_total{demand="dane",reached="dane",source="DANE"} 0`,
		`postrider_tls_failures_total{result="starttls-not-supported"} 1`,
		`postrider_tls_failures_total{result="other"} 1`,
	)
}
