package resolver

import (
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postrider/resolver/resolvertest"
)

func TestProbe(t *testing.T) {
	t.Parallel()
	const root, signed, bogus = ". IN SOA ns. host. 1 1 1 1 1", "signed.test. IN SOA ns. host. 1 1 1 1 1", "bogus.test. IN A 192.0.2.1"
	tests := []struct {
		name       string
		records    []string
		secure     []string
		fail       map[string]resolvertest.Fault
		options    Options
		probe      ProbeOptions
		validating bool
		trusted    bool
		reason     string
		again      bool // a probe is still needed
	}{
		{name: "validates", records: []string{root}, secure: []string{"."}, options: Options{AutoTrustAD: true}, validating: true, trusted: true},
		{name: "does not validate", records: []string{root}, options: Options{AutoTrustAD: true}, reason: "without the AD bit"},
		{name: "fails", fail: map[string]resolvertest.Fault{".": {Rcode: dns.RcodeServerFailure}}, options: Options{AutoTrustAD: true}, reason: "SERVFAIL", again: true},
		{name: "does not answer", fail: map[string]resolvertest.Fault{".": {Drop: true}}, options: Options{AutoTrustAD: true, Timeout: 20 * time.Millisecond}, reason: "reachable", again: true},
		{name: "validates, not asked for", records: []string{root}, secure: []string{"."}, validating: true, reason: "trust_ad"},
		{name: "trusted without a word", options: Options{TrustAD: true}, trusted: true, reason: "without the AD bit"},
		{name: "own signed name", records: []string{signed}, secure: []string{"signed.test"}, options: Options{AutoTrustAD: true}, probe: ProbeOptions{Signed: "signed.test"}, validating: true, trusted: true},
		{name: "own bogus name", records: []string{root}, secure: []string{"."}, fail: map[string]resolvertest.Fault{"bogus.test": resolvertest.Bogus()}, options: Options{AutoTrustAD: true}, probe: ProbeOptions{Bogus: "bogus.test"}, validating: true, trusted: true},
		{name: "gives the bogus name", records: []string{root, bogus}, secure: []string{"."}, options: Options{AutoTrustAD: true}, probe: ProbeOptions{Bogus: "bogus.test"}, reason: "broken"},
		{name: "bad signed name", options: Options{AutoTrustAD: true}, probe: ProbeOptions{Signed: "a b"}, reason: "signed name"},
		{name: "bad bogus name", records: []string{root}, secure: []string{"."}, options: Options{AutoTrustAD: true}, probe: ProbeOptions{Bogus: "a b"}, reason: "bogus name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, zone := newPair(t, tt.options)
			zone.Add(tt.records...)
			zone.Add("d.test. IN TXT a")
			zone.Secure("d.test")
			for _, n := range tt.secure {
				zone.Secure(n)
			}
			for n, f := range tt.fail {
				zone.Fail(n, f)
			}
			if r.NeedsProbe() != tt.options.AutoTrustAD {
				t.Error("before the probe: NeedsProbe", r.NeedsProbe())
			}
			got := r.Probe(t.Context(), tt.probe)
			if got.Validating != tt.validating || got.Trusted != tt.trusted || (got.Reason != nil) != (tt.reason != "") {
				t.Errorf("%+v", got)
			}
			if got.Reason != nil && !strings.Contains(got.Reason.Error(), tt.reason) {
				t.Errorf("%q does not say %q", got.Reason, tt.reason)
			}
			if a, err := r.TXT(t.Context(), "d.test"); err != nil || a.Secure != tt.trusted {
				t.Errorf("after the probe: %+v, %v", a, err)
			}
			if r.NeedsProbe() != tt.again {
				t.Error("after the probe: NeedsProbe", r.NeedsProbe())
			}
		})
	}
}

func TestProbeIsRepeated(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{AutoTrustAD: true, MinTTL: time.Second, MaxTTL: time.Second})
	clock := newClock(r)
	zone.Add(". IN SOA ns. host. 1 1 1 1 1", "d.test. IN TXT a")
	zone.Secure(".")
	secure := func() bool {
		t.Helper()
		clock.advance(maxFailureTTL)
		a, err := r.TXT(t.Context(), "d.test")
		if err != nil {
			t.Fatal(err)
		}
		return a.Secure
	}
	zone.Fail(".", resolvertest.Fault{Rcode: dns.RcodeServerFailure})
	if got := r.Probe(t.Context(), ProbeOptions{}); got.Trusted || !r.NeedsProbe() || secure() {
		t.Errorf("without an answer: %+v", got)
	}
	zone.Mend(".")
	if got := r.Probe(t.Context(), ProbeOptions{}); !got.Trusted || r.NeedsProbe() || !secure() {
		t.Errorf("with an answer: %+v", got)
	}
	clock.advance(probeHolds)
	zone.Fail(".", resolvertest.Fault{Rcode: dns.RcodeServerFailure})
	if !r.NeedsProbe() {
		t.Error("after an hour: no probe is needed")
	}
	if got := r.Probe(t.Context(), ProbeOptions{}); !got.Trusted || got.Reason == nil || !r.NeedsProbe() || !secure() {
		t.Errorf("again without an answer, which is no reason to trust less: %+v", got)
	}
	zone.Mend(".")
	zone.Insecure(".")
	if got := r.Probe(t.Context(), ProbeOptions{}); got.Trusted || r.NeedsProbe() || secure() {
		t.Errorf("when it no longer validates: %+v", got)
	}
}

func TestBeforeTheProbeNothingIsTrusted(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{AutoTrustAD: true})
	zone.Add("d.test. IN TXT a")
	zone.Secure(".")
	if a, err := r.TXT(t.Context(), "d.test"); err != nil || a.Secure {
		t.Errorf("%+v, %v", a, err)
	}
}

// What was asked before the probe has no verdict, and is not believed to be
// unsigned for the rest of its life.
func TestProbeForgetsAnswersWithoutVerdict(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{AutoTrustAD: true})
	zone.Add(". IN SOA ns. host. 1 1 1 1 1", "d.test. 3600 IN TXT a")
	zone.Secure(".")
	for _, want := range []bool{false, true} {
		if a, err := r.TXT(t.Context(), "d.test"); err != nil || a.Secure != want {
			t.Errorf("%+v, %v, want secure %v", a, err, want)
		}
		r.Probe(t.Context(), ProbeOptions{})
	}
	if n := zone.Queries("d.test", dns.TypeTXT); n != 2 {
		t.Errorf("%d queries: the cache is to be forgotten once", n)
	}
}

// The list as a whole is trusted or not: what the local server validates, the
// other could undo whenever it is asked instead.
func TestOneServerElsewhereSpoilsTheList(t *testing.T) {
	t.Parallel()
	local, forwarder := resolvertest.Start(t), resolvertest.New()
	if err := forwarder.Listen("127.0.0.11:0"); err != nil {
		t.Skipf("127.0.0.11 cannot be listened on here: %v", err)
	}
	t.Cleanup(forwarder.Close)
	for _, z := range []*resolvertest.Zone{local, forwarder} {
		z.Add("d.test. IN TXT a", ". IN SOA ns. host. 1 1 1 1 1")
		z.Secure(".")
	}
	r, err := New(Options{Servers: []string{local.Addr(), forwarder.Addr()}, AutoTrustAD: true})
	if err != nil {
		t.Fatal(err)
	}
	got := r.Probe(t.Context(), ProbeOptions{})
	if !got.Validating || got.Trusted || got.Reason == nil || !strings.Contains(got.Reason.Error(), "not on this host") {
		t.Errorf("%+v", got)
	}
	forwarder.Fail("d.test", resolvertest.Fault{Rcode: dns.RcodeServerFailure})
	if a, err := r.TXT(t.Context(), "d.test"); err != nil || a.Secure {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestOnlyServersOnThisHostAreTrustedByThemselves(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "127.0.0.53": true, "[::1]": true, "::ffff:127.0.0.1": true,
		"127.0.0.11": false, "192.0.2.1": false, "10.0.0.1": false, "::ffff:127.0.0.11": false,
	} {
		ap, err := parseServer(addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := onThisHost(ap.Addr()); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
}
