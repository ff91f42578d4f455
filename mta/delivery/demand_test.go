package delivery

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
	"time"

	"postrider/mta/smtptest"
	"postrider/mta/tlspolicy"
	"postrider/queue"
	"postrider/resolver"
)

// factsOf answers for each domain by itself.
type factsOf map[string]facts

func (f factsOf) Facts(ctx context.Context, route *resolver.Route, port int) ([]tlspolicy.Facts, time.Time, error) {
	return f[route.Domain].Facts(ctx, route, port)
}

// TestConnectionOfALesserDemandIsNotTaken: an idle connection that was made for
// less, or against other records, stands in for none that is demanded; neither
// does the next message of the other domain ride along.
func TestConnectionOfALesserDemandIsNotTaken(t *testing.T) {
	t.Parallel()
	dane := func(data byte) facts {
		return facts{DANE: tlspolicy.DANEUsable, TLSABase: "mx1.a.test", TLSA: []tlspolicy.TLSA{{Usage: 3, Selector: 1, MatchingType: 1, Data: []byte{data}}}}
	}
	for name, tt := range map[string]struct {
		server     string
		levels     [2]tlspolicy.Level
		facts      [2]facts
		requireTLS bool // of the second message
		status     string
	}{
		"clear, require":         {"none", [2]tlspolicy.Level{tlspolicy.Enable, tlspolicy.Require}, [2]facts{}, false, "4.7.4"},
		"none, enable":           {"good", [2]tlspolicy.Level{tlspolicy.None, tlspolicy.Enable}, [2]facts{}, false, ""},
		"require, verify":        {"untrusted", [2]tlspolicy.Level{tlspolicy.Require, tlspolicy.Verify}, [2]facts{}, false, "4.7.5"},
		"require, MTA-STS":       {"untrusted", [2]tlspolicy.Level{tlspolicy.Require, tlspolicy.Enable}, [2]facts{{}, {STS: tlspolicy.STSEnforce, STSMatch: true}}, false, "4.7.5"},
		"verify, DANE":           {"good", [2]tlspolicy.Level{tlspolicy.Verify, tlspolicy.Enable}, [2]facts{{}, dane(2)}, false, "4.7.5"},
		"DANE, of other records": {"good", [2]tlspolicy.Level{tlspolicy.Enable, tlspolicy.Enable}, [2]facts{dane(1), dane(2)}, false, "4.7.5"},
		"verify, REQUIRETLS":     {"good", [2]tlspolicy.Level{tlspolicy.Verify, tlspolicy.Verify}, [2]facts{}, true, "5.7.30"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := must(smtptest.NewCA())(t)
			s := newScene(t)
			s.options.Roots = ca.Pool()
			s.options.VerifyDANE = func(_ tls.ConnectionState, records []tlspolicy.TLSA, _ []string) error {
				if records[0].Data[0] != 1 {
					return errBroken
				}
				return nil
			}
			s.zone.Secure(".")
			s.policy = factsOf{"a.test": tt.facts[0], "b.test": tt.facts[1]}
			mx := s.host("mx1.a.test", tlsKinds(t, ca, "mx1.a.test")[tt.server])
			s.mx("a.test", "mx1.a.test")
			s.mx("b.test", "mx1.a.test")
			s.dest.TLS = tt.levels[0]
			first := s.plan("a.test")
			checkDelivered(t, s.one("r@a.test"))
			s.dest.TLS = tt.levels[1]
			second := s.plan("b.test")
			m := mail("r@b.test")
			m.attempt.Envelope.RequireTLS = tt.requireTLS
			s.deliver(m)
			o := m.outcome(t)
			if isShared := first.Key == second.Key; isShared != tt.requireTLS {
				t.Errorf("the plans have one key: %v", isShared)
			}
			if tt.status == "" {
				checkDelivered(t, o)
			} else if o.Verdict == queue.Delivered || o.Status != tt.status {
				t.Errorf("got %s", show(o))
			}
			if n := mx.Sessions(); n != 2 {
				t.Errorf("%d connections, want one for each demand", n)
			}
		})
	}
}

// TestMinimumTLSVersion: the lowest version is a setting, of all destinations and
// of one; 1.2 where nothing is set.
func TestMinimumTLSVersion(t *testing.T) {
	t.Parallel()
	const v10, v12, v13 = tls.VersionTLS10, tls.VersionTLS12, tls.VersionTLS13
	for name, tt := range map[string]struct {
		agent, dest, newest uint16 // newest that the server knows
		want                string // version; empty: deferred
	}{
		"by default":                 {0, 0, v12, "TLS1.2"},
		"by default, too old":        {0, 0, v10, ""},
		"of all, too old":            {v13, 0, v12, ""},
		"of all":                     {v13, 0, v13, "TLS1.3"},
		"of all, lowered":            {v10, 0, v10, "TLS1.0"},
		"of one destination":         {v13, v12, v12, "TLS1.2"},
		"of one, lowered":            {v12, v10, v10, "TLS1.0"},
		"of one destination, raised": {v12, v13, v12, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := must(smtptest.NewCA())(t)
			s := newScene(t)
			config := must(ca.TLS("mx1.a.test"))(t)
			config.MinVersion, config.MaxVersion = v10, tt.newest
			s.host("mx1.a.test", smtptest.Script{Extensions: []string{"STARTTLS"}, TLS: config})
			s.mx("a.test", "mx1.a.test")
			s.dest.TLS, s.options.MinTLS, s.dest.Session.MinTLS = tlspolicy.Require, tt.agent, tt.dest
			o := s.one("r@a.test")
			if tt.want == "" {
				if o.Verdict != queue.Deferred || o.Status != "4.7.5" {
					t.Errorf("got %s", show(o))
				}
				return
			}
			checkDelivered(t, o)
			if !strings.HasPrefix(o.Remote.TLS, tt.want+" ") {
				t.Errorf("over %q, want %s", o.Remote.TLS, tt.want)
			}
		})
	}
}

// A host of long ago may know neither new versions nor new ciphers: the old ones
// are still more than clear text, where that is what would be left.
func TestOldCiphersBeforeClearText(t *testing.T) {
	t.Parallel()
	key := must(rsa.GenerateKey(rand.Reader, 2048))(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"mx1.a.test"}}
	der := must(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))(t)
	server := &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		MinVersion:   tls.VersionTLS10, MaxVersion: tls.VersionTLS11,
		CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}, // without forward secrecy
	}
	for level, want := range map[tlspolicy.Level]string{tlspolicy.Enable: "TLS1.1 TLS_RSA_WITH_AES_128_CBC_SHA unverified", tlspolicy.Require: ""} {
		s := newScene(t)
		s.host("mx1.a.test", smtptest.Script{Extensions: []string{"STARTTLS"}, TLS: server})
		s.mx("a.test", "mx1.a.test")
		s.dest.TLS = level
		o := s.one("r@a.test")
		if (o.Verdict == queue.Delivered) != (want != "") || o.Remote.TLS != want {
			t.Errorf("%v: over %q, want %q: %s", level, o.Remote.TLS, want, show(o))
		}
	}
}
