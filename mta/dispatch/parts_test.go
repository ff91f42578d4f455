package dispatch

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postrider/queue"
)

func TestRingTakesTurns(t *testing.T) {
	t.Parallel()
	var r ring[string]
	nodes := map[string]*node[string]{}
	for _, v := range []string{"a", "b", "c"} {
		nodes[v] = &node[string]{value: v}
		r.push(nodes[v])
		r.push(nodes[v]) // twice is once
	}
	got := ""
	for range 4 {
		v, _ := r.turn()
		got += v
	}
	nodes["b"].leave()
	nodes["b"].leave()
	for range 3 {
		v, _ := r.turn()
		got += v
	}
	r.push(nodes["b"])
	for range 3 {
		v, _ := r.turn()
		got += v
	}
	if got != "abca"+"cac"+"acb" {
		t.Errorf("turns: %s", got)
	}
	for _, n := range nodes {
		n.leave()
	}
	if v, ok := r.turn(); ok || r.count != 0 || r.first != nil {
		t.Errorf("not empty: %q, %+v", v, r)
	}
}

// Random changes against a sorted list.
func TestAlarmsRingInOrder(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	start := time.Unix(1_800_000_000, 0)
	var a alarms
	var all []*alarm
	want := map[*alarm]time.Time{}
	for range 50 {
		all = append(all, &alarm{})
	}
	for range 5000 {
		al := all[rnd.IntN(len(all))]
		if rnd.IntN(3) == 0 {
			a.set(al, time.Time{})
			delete(want, al)
		} else {
			at := start.Add(time.Duration(rnd.IntN(1000)) * time.Second)
			a.set(al, at)
			want[al] = at
		}
		if rnd.IntN(10) > 0 {
			continue
		}
		now := start.Add(time.Duration(rnd.IntN(300)) * time.Second)
		last := time.Time{}
		for got := a.due(now); got != nil; got = a.due(now) {
			if at, ok := want[got]; !ok || !at.Equal(got.at) || at.After(now) || at.Before(last) {
				t.Fatalf("rang %v, set for %v, at %v after %v", got.at, at, now, last)
			}
			last = got.at
			delete(want, got)
		}
		var next time.Time
		for _, at := range want {
			next = earliest(next, at)
			if !at.After(now) {
				t.Fatalf("an alarm for %v did not ring at %v", at, now)
			}
		}
		if !a.next().Equal(next) || len(a) != len(want) {
			t.Fatalf("next %v of %d, want %v of %d", a.next(), len(a), next, len(want))
		}
	}
}

func TestProvidersOfHosts(t *testing.T) {
	t.Parallel()
	sites := DefaultSites()
	for _, tt := range []struct {
		hosts []string
		want  string
	}{
		{[]string{"contoso-com.mail.protection.outlook.com"}, "outlook"},
		{[]string{"contoso-com.o-v1.mx.microsoft"}, "outlook"},
		{[]string{"aspmx.l.google.com", "alt1.aspmx.l.google.com"}, "google"},
		{[]string{"mta5.am0.yahoodns.net"}, "yahoo"},
		{[]string{"mxa-1.gslb.pphosted.com"}, "proofpoint"},
		{[]string{"eu-smtp-inbound-1.mimecast.com"}, "mimecast"},
		{[]string{"mx.notgoogle.com"}, "mx.notgoogle.com,"},
		{[]string{"mx1.a.test", "mx2.a.test"}, "mx1.a.test,mx2.a.test,"},
		{[]string{"contoso-com.mail.protection.outlook.com", "backup.a.test"}, "outlook"}, // the best host counts
		{[]string{"mx.a.test", "contoso-com.mail.protection.outlook.com"}, "mx.a.test,contoso-com.mail.protection.outlook.com,"},
	} {
		if got := sites.site(plan("a.test", tt.hosts...)); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.hosts, got, tt.want)
		}
	}
	equal := plan("a.test", "a.l.google.com", "mx.a.test")
	equal.Hosts[1].Preference = equal.Hosts[0].Preference
	if got := sites.site(equal); got != equal.Site {
		t.Errorf("two providers of equal preference: %q", got)
	}
	fixed := plan("a.test", "a.l.google.com")
	fixed.Fixed = true
	if got := sites.site(fixed); got != fixed.Site {
		t.Errorf("hosts that an operator wrote: %q", got)
	}
}

func TestLogLines(t *testing.T) {
	t.Parallel()
	arrived := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	remote := &queue.Remote{Host: "mx.a.test", IP: netip.MustParseAddr("192.0.2.1"), TLS: "TLS1.3 X", Demand: "enable"}
	c := Claim{
		Envelope:   &queue.Envelope{Sender: "s@from.test", ArrivedAt: arrived},
		Recipients: []queue.Recipient{{Address: "a@a.test", Domain: "a.test"}, {Address: "b@a.test", Domain: "a.test"}, {Address: "c@a.test", Domain: "a.test"}},
		Attempts:   2,
		DueAt:      arrived.Add(5 * time.Minute),
		Handle:     nothing{},
	}
	outcomes := []queue.Outcome{
		{Verdict: queue.Delivered, Code: 250, Status: "2.0.0", Text: "2.0.0 ok\" x=y", Remote: remote},
		{Verdict: queue.Deferred, Status: "4.4.2", Text: "connection lost", Remote: remote, InDoubt: true, Class: queue.ClassNetwork},
		{},
	}
	var log bytes.Buffer
	quiet := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	d := New(Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: quiet}))})
	began := c.DueAt.Add(12 * time.Second)
	d.settle(c, outcomes, queue.Timing{Connect: 40 * time.Millisecond, Transfer: 1300 * time.Millisecond}, began, began.Add(1340*time.Millisecond))
	const common = ` from=s@from.test to=%@a.test domain=a.test attempt=3 `
	const end = ` mx=mx.a.test ip=192.0.2.1 tls="TLS1.3 X" demand=enable delay=5m13.34s delays=300/12/0.040/1.3`
	want := `level=INFO msg=delivered id=` + c.Envelope.ID.String() + strings.ReplaceAll(common, "%", "a") + `status=2.0.0 reply="250 2.0.0 ok\" x=y"` + end + "\n" +
		`level=INFO msg=deferred id=` + c.Envelope.ID.String() + strings.ReplaceAll(common, "%", "b") + `status=4.4.2 reply="connection lost" class=network` + end + " in_doubt=true\n"
	if got := log.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

type nothing struct{}

func (nothing) Content() (*queue.Content, error)                { return nil, nil }
func (nothing) Settle(time.Time, []queue.Outcome, queue.Timing) {}
func (nothing) Release(time.Time)                               {}
func (nothing) Postpone(_, _ time.Time, _ bool)                 {}

func TestObserverIsToldOfEachAttempt(t *testing.T) {
	t.Parallel()
	var got []Attempt
	run(t, func(o *Options, w *world) { o.Observer = observer(func(a *Attempt) { got = append(got, *a) }) }, func(w *world) {
		w.queue.submit("a.test", 2)
		pass(time.Second)
	})
	if len(got) != 1 || got[0].Number != 1 || len(got[0].Outcomes) != 2 || got[0].At.IsZero() {
		t.Errorf("told: %+v", got)
	}
}

type observer func(*Attempt)

func (o observer) Attempt(a *Attempt) { o(a) }

func TestSnapshots(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) {
		o.Connections = 5
		w.deliver.takes = time.Minute
	}, func(w *world) {
		for range 10 {
			w.queue.submit("a.test", 1)
		}
		pass(time.Second)
		w.queue.submit("b.test", 1)
		pass(time.Second)
		now := time.Now()
		lanes := w.Lanes(now)
		if len(lanes) != 2 || lanes[0].Domain != "a.test" || lanes[0].Connections != 5 || lanes[0].State != "ready" ||
			lanes[0].Site != "mx.a.test," || len(lanes[0].Hosts) != 1 || lanes[0].Hosts[0] != "mx.a.test" {
			t.Errorf("lanes: %+v", lanes)
		}
		if b := lanes[1]; b.State != "ready" || b.Why != "all destinations: all 5 connections are in use" || b.Connections != 0 {
			t.Errorf("the lane that waits: %+v", b)
		}
		sites := w.AllSites(now)
		if len(sites) != 2 || sites[0].Connections != 5 || sites[0].Window != 5 || sites[0].Domains != 1 {
			t.Errorf("sites: %+v", sites)
		}
		if f := w.Figures(); f.Connections != 5 || f.Lanes != 2 || f.Ready != 2 || f.Sites != 2 {
			t.Errorf("figures: %+v", f)
		}
		if _, ok := w.Lane("c.test", now); ok {
			t.Error("a lane that never was")
		}
		w.Wake("c.test")
		pass(5 * time.Minute)
		if n := w.queue.count("b.test", queue.Delivered); n != 1 {
			t.Error("b.test was not delivered in the end")
		}
	})
}
