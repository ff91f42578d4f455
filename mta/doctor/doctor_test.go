package doctor

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"postrider/dkim"
	"postrider/mta/api/wire"
	"postrider/mta/delivery"
	"postrider/resolver"
	"postrider/resolver/resolvertest"
)

// newDoctor makes a doctor whose DNS is a zone with these records, whose server
// does not run, and whose state directory is a new one. edit may change it.
func newDoctor(t *testing.T, records []string, edit func(*Options)) (*Doctor, *resolvertest.Zone) {
	t.Helper()
	zone := resolvertest.Start(t)
	zone.Add(records...)
	r, err := resolver.New(resolver.Options{Servers: []string{zone.Addr()}, Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		DNS: DNSOptions{Resolver: r, TrustAD: "auto", HELO: resolver.HELOOptions{Sources: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}},
		Way: WayOptions{
			Guard: &delivery.Guard{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
			Hosts: func(string) []string { return nil }, Port: func(string) int { return 25 },
		},
		State:   StateOptions{Dir: t.TempDir()},
		Running: &fakeServer{err: errors.New("away")},
	}
	if edit != nil {
		edit(&o)
	}
	d := New(o)
	d.share()
	return d, zone
}

type fakeServer struct {
	info  wire.Info
	stats wire.Stats
	err   error
}

func (f *fakeServer) Info(context.Context) (wire.Info, error)        { return f.info, f.err }
func (f *fakeServer) Stats(context.Context, int) (wire.Stats, error) { return f.stats, f.err }

// expect holds findings to a list of "check verdict part of what was found, or
// of the advice".
func expect(t *testing.T, got []Finding, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d findings, not %d:\n%+v", len(got), len(want), got)
		return
	}
	for i, w := range want {
		check, rest, _ := strings.Cut(w, " ")
		f := &got[i]
		part, ok := strings.CutPrefix(rest, string(f.Verdict)+" ")
		text := f.Subject + ": " + f.Found + " -> " + f.Advice
		if string(f.Check) != check || !ok || !strings.Contains(text, part) {
			t.Errorf("%s %s: %s\nwant %s", f.Check, f.Verdict, text, w)
		}
	}
}

func TestAllChecksAreDone(t *testing.T) {
	t.Parallel()
	d, _ := newDoctor(t, nil, func(o *Options) { o.Running = &fakeServer{} })
	r := d.Run(t.Context())
	var got []Check
	for _, f := range r.Findings {
		got = append(got, f.Check)
	}
	if distinct := slices.Compact(got); !slices.Equal(distinct, Checks()) {
		t.Errorf("%v\nwant %v", distinct, Checks())
	}
	count := NewReport(r.Findings)
	if r.Failed != count.Failed || r.Failed == 0 || r.NotDone == 0 {
		t.Errorf("%+v", r)
	}
}

// TestDoctorEndsWhenNothingAnswers: name servers, mail hosts and the server
// hang, and every check still says something in time.
func TestDoctorEndsWhenNothingAnswers(t *testing.T) {
	t.Parallel()
	d, zone := newDoctor(t, nil, func(o *Options) {
		o.Way.Domains = []ProbeDomain{{"example.test", "--probe"}}
		o.Senders.Keys = []dkim.Source{{Domain: "example.test", Selector: "s"}}
	})
	for _, name := range []string{".", "example.test", "1.2.0.192.in-addr.arpa"} {
		zone.Fail(name, resolvertest.Fault{Drop: true})
	}
	d.patience, d.grace = 300*time.Millisecond, 20*time.Second // the machine may be busy
	ended := make(chan Report)
	go func() { ended <- d.Run(t.Context()) }()
	select {
	case r := <-ended:
		expect(t, ofCheck(r.Findings, NameServers), "name_servers failed cannot be used")
		expect(t, ofCheck(r.Findings, Port), "port not done not found")
		expect(t, ofCheck(r.Findings, HELO), "helo not done did not answer in time")
		expect(t, ofCheck(r.Findings, SPF), "spf not done ")
	case <-time.After(30 * time.Second):
		t.Fatal("the doctor does not come to an end")
	}
}

// TestCheckThatHangs cannot be interrupted, as one on a dead file system.
func TestCheckThatHangs(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	defer close(hang)
	d, _ := newDoctor(t, nil, func(o *Options) { o.Running = hangingServer{hang} })
	d.patience, d.grace = 300*time.Millisecond, 50*time.Millisecond
	got := ofCheck(d.Run(t.Context()).Findings, Server)
	expect(t, got, "server failed has not come to its end in 300ms")
}

type hangingServer struct{ until chan struct{} }

func (h hangingServer) Info(context.Context) (i wire.Info, err error) { <-h.until; return i, err }

func (h hangingServer) Stats(context.Context, int) (s wire.Stats, err error) { return s, err }

func ofCheck(all []Finding, c Check) (of []Finding) {
	for _, f := range all {
		if f.Check == c {
			of = append(of, f)
		}
	}
	return of
}

func TestConfiguration(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		o    ConfigurationOptions
		want []string
	}{
		"none":     {ConfigurationOptions{}, []string{"configuration ok no file: the defaults"}},
		"valid":    {ConfigurationOptions{File: "/p.toml"}, []string{"configuration ok /p.toml: valid"}},
		"warnings": {ConfigurationOptions{File: "/p.toml", Warnings: []string{"a", "b"}}, []string{"configuration warning a", "configuration warning b"}},
		"errors":   {ConfigurationOptions{File: "/p.toml", Errors: []Problem{{"line 3", "do this"}}}, []string{"configuration failed line 3 -> do this"}},
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); expect(t, c.o.findings(), c.want...) })
	}
	r := Unconfigured(ConfigurationOptions{Errors: []Problem{{"line 3", ""}}})
	expect(t, r.Findings, "configuration failed line 3", "server not done dmarc")
}

// The manual tells about each check, under its name, and about no other.
func TestManualIsComplete(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	var got []Check
	for _, m := range regexp.MustCompile("(?m)^### `(\\w+)`$").FindAllStringSubmatch(string(text), -1) {
		got = append(got, Check(m[1]))
	}
	if !slices.Equal(got, Checks()) {
		t.Errorf("%v\nwant %v", got, Checks())
	}
}
