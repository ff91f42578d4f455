package tlspolicy

import (
	"fmt"
	"strings"
	"testing"
)

// The columns: what the recipient's side publishes.
var columns = func() (all []Facts) {
	for _, dane := range []DANEState{DANENone, DANEUsable, DANEUnusable, DANEFailed} {
		for _, sts := range []Facts{
			{STS: STSNone},
			{STS: STSTesting, STSMatch: true},
			{STS: STSTesting},
			{STS: STSEnforce, STSMatch: true},
			{STS: STSEnforce},
		} {
			sts.DANE = dane
			all = append(all, sts)
		}
	}
	return all
}()

// TestJoin is the whole table. N none, E enable, R require, V verify, D dane; a
// w: watched (testing); a q: REQUIRETLS must be offered; x refused for now, X
// refused for good.
func TestJoin(t *testing.T) {
	t.Parallel()
	const (
		all20 = "* * * * *  * * * * *  * * * * *  * * * * *"
	)
	same := func(cell string) string { return strings.ReplaceAll(all20, "*", cell) }
	// STS:  none, testing (match, not), enforce (match, not)
	// DANE: none | usable | unusable | failed
	for _, row := range []struct {
		configured Level
		message    Message
		trusted    string // "yes", "no", "any"
		want       string
	}{
		{None, MessageDefault, "any", same("N")},
		{Enable, MessageDefault, "any", "E Ew Ew V x  D D D D D  R Rw Rw V x  x x x x x"},
		{Require, MessageDefault, "any", "R Rw Rw V x  D D D D D  R Rw Rw V x  x x x x x"},
		{Verify, MessageDefault, "any", "V Vw Vw V x  D D D D D  V Vw Vw V x  x x x x x"},

		{None, MessageTLSIgnored, "any", same("N")},
		{Enable, MessageTLSIgnored, "any", same("E")},
		{Require, MessageTLSIgnored, "any", same("R")},
		{Verify, MessageTLSIgnored, "any", same("V")},

		{None, MessageRequireTLS, "any", same("X")},
		{Enable, MessageRequireTLS, "no", "X Vwq X Vq x  Dq Dq Dq Dq Dq  X Vwq X Vq x  x x x x x"},
		{Require, MessageRequireTLS, "no", "X Vwq X Vq x  Dq Dq Dq Dq Dq  X Vwq X Vq x  x x x x x"},
		{Verify, MessageRequireTLS, "no", "X Vwq X Vq x  Dq Dq Dq Dq Dq  X Vwq X Vq x  x x x x x"},
		{Enable, MessageRequireTLS, "yes", "Vq Vwq Vwq Vq x  Dq Dq Dq Dq Dq  Vq Vwq Vwq Vq x  x x x x x"},
		{Require, MessageRequireTLS, "yes", "Vq Vwq Vwq Vq x  Dq Dq Dq Dq Dq  Vq Vwq Vwq Vq x  x x x x x"},
		{Verify, MessageRequireTLS, "yes", "Vq Vwq Vwq Vq x  Dq Dq Dq Dq Dq  Vq Vwq Vwq Vq x  x x x x x"},
	} {
		want := strings.Fields(row.want)
		if len(want) != len(columns) {
			t.Fatalf("%v/%v: %d cells", row.configured, row.message, len(want))
		}
		for i, facts := range columns {
			facts.Configured, facts.Message = row.configured, row.message
			for _, trusted := range []bool{false, true} {
				if row.trusted != "any" && trusted != (row.trusted == "yes") {
					continue
				}
				facts.HostTrusted = trusted
				if got := cell(Join(facts)); got != want[i] {
					t.Errorf("%+v: got %s, want %s", facts, got, want[i])
				}
			}
		}
	}
}

func cell(r Requirement) string {
	if r.Refused != nil {
		if r.Refused.Permanent() {
			return "X"
		}
		return "x"
	}
	s := string("NERVD"[r.Level])
	if r.STS == STSTesting {
		s += "w"
	}
	if r.RequireTLS {
		s += "q"
	}
	return s
}

func TestWhatDecided(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		facts Facts
		want  string
	}{
		{Facts{Configured: Enable}, "enable"},
		{Facts{Configured: Verify, STS: STSEnforce, STSMatch: true}, "verify"},
		{Facts{Configured: Enable, STS: STSEnforce, STSMatch: true}, "verify (MTA-STS)"},
		{Facts{Configured: Require, DANE: DANEUsable}, "dane (DANE)"},
		{Facts{Configured: Enable, DANE: DANEUnusable}, "require (DANE)"},
		{Facts{Configured: Enable, STS: STSTesting}, "enable (MTA-STS only testing)"},
		{Facts{Configured: Enable, DANE: DANEUnusable, STS: STSEnforce, STSMatch: true}, "verify (MTA-STS)"},
		{Facts{Configured: Enable, HostTrusted: true, Message: MessageRequireTLS}, "verify (message)"},
		{Facts{Configured: Enable, STS: STSEnforce, STSMatch: true, Message: MessageRequireTLS}, "verify (MTA-STS)"},
	} {
		if got := Join(tt.facts).String(); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.facts, got, tt.want)
		}
	}
}

// The reports of RFC 8460 need to know which policy a connection was held to,
// also where it asked for no more than the operator.
func TestPolicyThatAConnectionIsHeldTo(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		facts Facts
		sts   STSMode
	}{
		{Facts{Configured: Enable, STS: STSTesting}, STSTesting},
		{Facts{Configured: Enable, STS: STSTesting, STSMatch: true}, STSTesting},
		{Facts{Configured: Verify, STS: STSEnforce, STSMatch: true}, STSEnforce},
		{Facts{Configured: Enable, STS: STSEnforce}, STSEnforce}, // refused
		{Facts{Configured: Enable, STS: STSEnforce, STSMatch: true, DANE: DANEUnusable}, STSEnforce},
		{Facts{Configured: Enable, STS: STSEnforce, STSMatch: true, DANE: DANEUsable}, STSNone},
		{Facts{Configured: Enable, STS: STSEnforce, STSMatch: true, DANE: DANEFailed}, STSNone},
		{Facts{Configured: None, STS: STSEnforce, STSMatch: true}, STSNone},
		{Facts{Configured: Enable, STS: STSEnforce, STSMatch: true, Message: MessageTLSIgnored}, STSNone},
	} {
		r := Join(tt.facts)
		if r.STS != tt.sts || r.STS != STSNone && r.STSMatch != tt.facts.STSMatch {
			t.Errorf("%+v: %+v", tt.facts, r)
		}
	}
	if r := Join(Facts{Configured: Enable, DANE: DANEUsable, TLSABase: "real.test"}); r.TLSABase != "real.test" {
		t.Errorf("the name that has the records is lost: %+v", r)
	}
}

func TestRefusalsNameTheReason(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		facts        Facts
		status, text string
	}{
		{Facts{Configured: Enable, DANE: DANEFailed}, "4.4.3", "TLSA"},
		{Facts{Configured: Enable, STS: STSEnforce}, "4.7.0", "MTA-STS"},
		{Facts{Configured: None, Message: MessageRequireTLS}, "5.7.30", "tls = none"},
		{Facts{Configured: Enable, Message: MessageRequireTLS}, "5.7.30", "neither DNSSEC nor MTA-STS"},
	} {
		r := Join(tt.facts).Refused
		if r == nil || r.Status != tt.status || !strings.Contains(r.Text, tt.text) {
			t.Errorf("%+v: %+v", tt.facts, r)
		}
	}
}

// Two demands share a key only where a connection made for one is good enough,
// and no better than wanted, for the other.
func TestKeysTellDemandsApart(t *testing.T) {
	t.Parallel()
	a, b := TLSA{3, 1, 1, []byte{1}}, TLSA{3, 1, 1, []byte{2}}
	seen := map[string]string{}
	for i, r := range []Requirement{
		{Level: None}, {Level: Enable}, {Level: Require}, {Level: Verify},
		{Level: DANE, TLSA: []TLSA{a}}, {Level: DANE, TLSA: []TLSA{b}}, {Level: DANE, TLSA: []TLSA{a, b}},
		{Level: Verify, RequireTLS: true}, {Level: DANE, TLSA: []TLSA{a}, RequireTLS: true},
	} {
		what := fmt.Sprintf("%d %v", i, r)
		if other, ok := seen[r.Key()]; ok {
			t.Errorf("%s and %s share the key %q", what, other, r.Key())
		}
		seen[r.Key()] = what
	}
	enable, watched := Requirement{Level: Enable}, Requirement{Level: Enable, STS: STSTesting, Source: FromMessage}
	if enable.Key() != watched.Key() {
		t.Error("who decided and what is watched must not part connections")
	}
}

func TestParseLevel(t *testing.T) {
	t.Parallel()
	for l := None; l <= Verify; l++ {
		if got, err := ParseLevel(l.String()); err != nil || got != l {
			t.Errorf("%v: %v, %v", l, got, err)
		}
	}
	for _, bad := range []string{"", "dane", "Enable", "yes"} {
		if _, err := ParseLevel(bad); err == nil || !strings.Contains(err.Error(), "none, enable, require or verify") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
