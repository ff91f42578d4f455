package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"postrider/mta/api/client"
	"postrider/mta/api/wire"
	"postrider/queue"
	"postrider/resolver"
)

type fakeLanes struct{}

func (fakeLanes) Lane(now time.Time, domain string) (wire.Lane, bool) {
	if domain != "bank.test" {
		return wire.Lane{}, false
	}
	return wire.Lane{Site: "bigmail", Connections: 2, Window: 5, Waits: "rests after a failure", Until: now.Add(time.Minute), LastError: "451 come back later", LastErrorAt: start}, true
}

func (fakeLanes) SiteDomains(site string) []string {
	if site == "bigmail" {
		return []string{"bank.test", "school.test", "press.test"}
	}
	return nil
}

type fakeSuspensions struct {
	mu   sync.Mutex
	list []wire.Suspension
}

func (f *fakeSuspensions) Suspend(_ context.Context, _ time.Time, s wire.Suspension) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, s)
	return nil
}

func (f *fakeSuspensions) Resume(_ context.Context, _ time.Time, s wire.Suspension) (ended []wire.Suspension, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = slices.DeleteFunc(f.list, func(o wire.Suspension) bool {
		is := o.Domain == s.Domain && o.Site == s.Site && o.Sender == s.Sender && o.Tag == s.Tag
		if is {
			ended = append(ended, o)
		}
		return is
	})
	return ended, nil
}

func (f *fakeSuspensions) Suspensions(time.Time) []wire.Suspension {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.list)
}

func TestSuspendAndResume(t *testing.T) {
	t.Parallel()
	f := &fakeSuspensions{}
	r, _ := fill(t, func(o *Options) { o.Suspensions = f })
	sel := wire.Selector{Domain: "SHOP.test"}
	dry, err := r.client.Act(t.Context(), "suspend", wire.Action{Selector: sel, DryRun: true})
	if err != nil || dry.Recipients != 3 || len(f.Suspensions(start)) != 0 {
		t.Errorf("dry run: %+v %v", dry, err)
	}
	got, err := r.client.Act(t.Context(), "suspend", wire.Action{Selector: sel, For: "2h", Reason: "they asked"})
	want := wire.Suspension{Domain: "shop.test", Since: start, Until: start.Add(2 * time.Hour), Reason: "they asked"}
	if err != nil || got.Recipients != 3 || len(got.Suspensions) != 1 || got.Suspensions[0] != want {
		t.Errorf("suspend: %+v %v", got, err)
	}
	stats, err := r.client.Stats(t.Context(), 0)
	if err != nil || len(stats.Suspensions) != 1 || stats.Suspensions[0] != want {
		t.Errorf("stats: %+v %v", stats.Suspensions, err)
	}
	ended, err := r.client.Act(t.Context(), "resume", wire.Action{Selector: sel})
	if err != nil || len(ended.Suspensions) != 1 || len(f.Suspensions(start)) != 0 {
		t.Errorf("resume: %+v %v", ended, err)
	}
	for name, a := range map[string]wire.Action{
		"by message":  {Selector: wire.Selector{IDs: []string{"0"}}},
		"by age":      {Selector: wire.Selector{OlderThan: "1h"}},
		"by status":   {Selector: wire.Selector{Status: []string{"held"}}},
		"by class":    {Selector: wire.Selector{Class: "policy"}},
		"pace":        {Selector: sel, Pace: 4},
		"for nothing": {Selector: sel, For: "soon"},
	} {
		if _, err := r.client.Act(t.Context(), "suspend", a); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := r.client.Act(t.Context(), "resume", wire.Action{Selector: sel, For: "1h"}); err == nil {
		t.Error("resume for an hour: no error")
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	r, _ := fill(t, func(o *Options) { o.Lanes, o.Mode = fakeLanes{}, "silent" })
	s, err := r.client.Stats(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if s.Recipients != 7 || s.Waiting != 1 || s.Due != 5 || s.Held != 1 || s.Mode != "silent" || s.Error != "" || !s.At.Equal(start) {
		t.Errorf("stats are %+v", s)
	}
	if len(s.Domains) != 2 || s.Domains[0].Domain != "shop.test" || s.Domains[0].Held != 1 || s.Domains[0].Ages[0] == 0 {
		t.Errorf("domains are %+v", s.Domains)
	}
	if sum := s.Ages[0] + s.Ages[6]; sum != 7 || s.Ages[6] != 2 || s.DomainCount != 5 {
		t.Errorf("%d destinations, ages %v: all of them count, not only those that are shown", s.DomainCount, s.Ages)
	}
	all, err := r.client.Stats(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all.Domains {
		if (d.Lane != nil) != (d.Domain == "bank.test") {
			t.Errorf("%s has lane %+v", d.Domain, d.Lane)
		}
		if d.Lane != nil && (d.Lane.Site != "bigmail" || d.Lane.Waits == "" || !d.Lane.Until.Equal(start.Add(time.Minute))) {
			t.Errorf("lane is %+v", d.Lane)
		}
	}
	var p wire.Problem
	if status := r.ask("GET", "/v1/stats?domains=0", "", &p); status != 400 {
		t.Errorf("domains=0: %d", status)
	}
}

type fakeDestinations struct{}

func (fakeDestinations) Route(_ context.Context, domain string) (*resolver.Route, error) {
	switch domain {
	case "null.test":
		return nil, &resolver.Error{Kind: resolver.NullMX, Name: domain, Type: "MX", Status: "5.1.10"}
	case "slow.test":
		return nil, &resolver.Error{Kind: resolver.Timeout, Name: domain, Type: "MX", Status: "4.4.3"}
	}
	return &resolver.Route{
		Domain: domain, Secure: true, Site: "mx.bank.test",
		Hosts: []resolver.Host{
			{Name: "mx1.bank.test", Preference: 10, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("127.0.0.1")}},
			{Name: "mx2.bank.test", Preference: 20, Port: 2525, Err: errors.New("no such name")},
		},
		Skipped: []resolver.Host{{Name: "own.bank.test", Preference: 30, Err: errors.New("this is ourselves")}},
	}, nil
}

func (fakeDestinations) Demands(_ context.Context, domain string, r *resolver.Route) []wire.Demand {
	var all []wire.Demand
	for _, h := range r.Hosts {
		all = append(all, wire.Demand{Level: "dane", Source: "TLSA of " + h.Name + " for " + domain})
	}
	return all
}

func (fakeDestinations) Dialable(a netip.AddrPort) error {
	if a.Addr().IsLoopback() {
		return fmt.Errorf("%s is loopback", a)
	}
	return nil
}

func (fakeDestinations) Settings(string) (wire.Settings, int) {
	return wire.Settings{Retry: []string{"5m", "10m"}, ExpireAfter: "5d", MaxConnections: 20}, 25
}

func (fakeDestinations) Local(domain string) bool { return domain == "mail.sender.test" }

func TestExplain(t *testing.T) {
	t.Parallel()
	f := &fakeSuspensions{list: []wire.Suspension{{Domain: "*.test"}, {Site: "bigmail"}, {Domain: "shop.test"}, {Tag: "week46"}, {Site: "other"}}}
	r := newRoom(t, func(o *Options) { o.Destinations, o.Lanes, o.Suspensions = fakeDestinations{}, fakeLanes{}, f })
	e, err := r.client.Explain(t.Context(), "Anna@BANK.test")
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.MarshalIndent(e, "", " ")
	if e.Address != "Anna@BANK.test" || e.Domain != "bank.test" || e.Route != "mx" || !e.DNSSEC || e.Site != "mx.bank.test" || e.Local || e.Permanent ||
		len(e.Hosts) != 2 || len(e.Hosts[0].Addresses) != 2 || e.Hosts[0].Addresses[0].Refused != "" || e.Hosts[0].Addresses[1].Refused == "" ||
		e.Hosts[0].Port != 25 || e.Hosts[1].Port != 2525 || e.Hosts[1].Error == "" || e.Hosts[0].TLS.Source != "TLSA of mx1.bank.test for bank.test" ||
		len(e.Skipped) != 1 || e.Skipped[0].TLS != (wire.Demand{Error: "nothing is asked of it: this is ourselves"}) || e.Settings.MaxConnections != 20 || e.Lane == nil {
		t.Errorf("%s", got)
	}
	if len(e.Suspensions) != 2 || e.Suspensions[0].Domain != "*.test" || e.Suspensions[1].Site != "bigmail" {
		t.Errorf("suspensions are %+v", e.Suspensions)
	}
	for address, check := range map[string]func(e *wire.Explanation) bool{
		"root":                  func(e *wire.Explanation) bool { return e.Local && e.Route == "none" },
		"root@mail.sender.test": func(e *wire.Explanation) bool { return e.Local },
		"a@null.test":           func(e *wire.Explanation) bool { return e.Permanent && e.RouteError != "" && e.Route == "none" },
		"a@slow.test":           func(e *wire.Explanation) bool { return !e.Permanent && e.RouteError != "" },
	} {
		if e, err := r.client.Explain(t.Context(), address); err != nil || !check(&e) {
			t.Errorf("%s: %+v %v", address, e, err)
		}
	}
	if _, err := r.client.Explain(t.Context(), "a@@b"); err == nil {
		t.Error("a@@b: no error")
	}
}

func TestExplainWithoutARoom(t *testing.T) {
	t.Parallel()
	r := newRoom(t, nil)
	_, err := r.client.Explain(t.Context(), "a@b.test")
	var refused *client.Refused
	if !errors.As(err, &refused) || refused.HTTP != http.StatusNotImplemented {
		t.Errorf("%v", err)
	}
}

func TestInfo(t *testing.T) {
	t.Parallel()
	r := newRoom(t, nil)
	if info, err := r.client.Info(t.Context()); err != nil || info != (wire.Info{Hostname: "mail.sender.test", Version: "1.2.3", Mode: "live", MaxMessageSize: 100_000}) {
		t.Errorf("%+v %v", info, err)
	}
}

// Every value of a closed set has its own word.
func TestWords(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		set   words
		first int
		last  uint8
	}{
		"status": {statusWords, 0, uint8(queue.StatusCancelled)}, "verdict": {verdictWords, 0, uint8(queue.Failed)},
		"scope": {scopeWords, 0, uint8(queue.ScopeLocal)}, "stage": {stageWords, 0, uint8(queue.StageQueue)},
		"priority": {priorityWords, 0, uint8(queue.PriorityUrgent)}, "event": {eventWords, 1, uint8(queue.EventDamaged)},
	} {
		if len(c.set) != int(c.last)+1 {
			t.Errorf("%s: %d words for %d values", name, len(c.set), c.last+1)
		}
		seen := make(map[string]bool)
		for _, w := range c.set[c.first:] {
			if w == "" || seen[w] {
				t.Errorf("%s: %q", name, w)
			}
			seen[w] = true
		}
		if got := word(c.set, uint8(200)); got != "200" {
			t.Errorf("%s: an unknown value is %q", name, got)
		}
	}
}
