package dane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// identity is a certificate with its key.
type identity struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// issue makes a certificate; a nil issuer makes it self-signed.
func issue(t testing.TB, issuer *identity, change func(*x509.Certificate)) *identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.Unix()), Subject: pkix.Name{CommonName: "mx.test"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		BasicConstraintsValid: true,
	}
	if change != nil {
		change(template)
	}
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.Certificate, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &identity{cert, key}
}

func ca(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.KeyUsage = name, true, x509.KeyUsageCertSign
	}
}

func named(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = names }
}

// record makes the record that matches a certificate.
func record(usage, selector, matching uint8, c *identity) Record {
	data := c.Raw
	if selector == PublicKey {
		data = c.RawSubjectPublicKeyInfo
	}
	switch matching {
	case SHA256:
		sum := sha256.Sum256(data)
		data = sum[:]
	case SHA512:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return Record{usage, selector, matching, data}
}

func chain(all ...*identity) *tls.ConnectionState {
	cs := &tls.ConnectionState{}
	for _, c := range all {
		cs.PeerCertificates = append(cs.PeerCertificates, c.Certificate)
	}
	return cs
}

func TestVerifyEveryRecordType(t *testing.T) {
	t.Parallel()
	root := issue(t, nil, ca("root"))
	middle := issue(t, root, ca("middle"))
	leaf := issue(t, middle, named("mx.test"))
	other := issue(t, nil, ca("root"))
	shown := chain(leaf, middle, root)
	for selector := range uint8(2) {
		for matching := range uint8(3) {
			t.Run(fmt.Sprintf("%d %d", selector, matching), func(t *testing.T) {
				t.Parallel()
				check := func(r Record, want bool) {
					t.Helper()
					if err := r.Check(); err != nil {
						t.Errorf("%v is not usable: %v", r, err)
					}
					got, err := Verify(shown, []Record{r}, []string{"mx.test"}, now)
					if (err == nil) != want || want && !reflect.DeepEqual(got, r) {
						t.Errorf("%v: %v", r, err)
					}
					var e *Error
					if err != nil && (!errors.As(err, &e) || e.Kind != NoMatch && e.Kind != NotTrusted) {
						t.Errorf("%v: %v", r, err)
					}
				}
				check(record(DANEEE, selector, matching, leaf), true)
				check(record(DANEEE, selector, matching, middle), false) // an authority is no end entity
				check(record(DANEEE, selector, matching, other), false)
				check(record(DANETA, selector, matching, root), true)
				check(record(DANETA, selector, matching, middle), true)
				check(record(DANETA, selector, matching, leaf), false) // an end entity is no authority
				check(record(DANETA, selector, matching, other), false)
			})
		}
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	root := issue(t, nil, ca("root"))
	middle := issue(t, root, ca("middle"))
	leaf := issue(t, middle, named("mx.test"))
	expired := func(c *x509.Certificate) {
		c.NotAfter = now.Add(-time.Minute)
		c.DNSNames = []string{"mx.test"}
	}
	with := func(f ...func(*x509.Certificate)) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			for _, g := range f {
				g(c)
			}
		}
	}
	self := issue(t, nil, named("elsewhere.test"))
	selfNamed := issue(t, nil, named("mx.test"))
	selfExpired := issue(t, nil, expired)
	expiredLeaf := issue(t, middle, expired)
	early := issue(t, middle, with(named("mx.test"), func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }))
	expiredMiddle := issue(t, root, with(ca("middle"), func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }))
	belowExpired := issue(t, expiredMiddle, named("mx.test"))
	wrong := issue(t, middle, named("a.test", "b.test", "c.test", "d.test", "e.test", "f.test"))
	wildcard := issue(t, middle, named("*.test"))
	common := issue(t, middle, nil)
	commonOverruled := issue(t, middle, named("a.test"))
	noAuthority := issue(t, root, named("mx.test")) // may not sign
	belowNone := issue(t, noAuthority, named("mx.test"))
	forClients := issue(t, middle, with(named("mx.test"), func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }))
	imposter := issue(t, nil, ca("middle"))
	belowImposter := issue(t, imposter, named("mx.test"))
	other := issue(t, nil, ca("other"))

	mx := []string{"mx.test"}
	tests := []struct {
		name    string
		shown   *tls.ConnectionState
		records []Record
		names   []string
		kind    Kind
		result  string
	}{
		{name: "3: neither names nor chain", shown: chain(self), records: []Record{record(3, 1, 1, self)}, names: mx},
		{name: "3: no dates", shown: chain(selfExpired), records: []Record{record(3, 1, 1, selfExpired)}, names: mx},
		{name: "3: no names at all", shown: chain(self), records: []Record{record(3, 1, 1, self)}},
		{name: "3: another host's", shown: chain(self), records: []Record{record(3, 1, 1, leaf)}, names: mx, kind: NoMatch, result: "tlsa-invalid"},
		{name: "3: only the first certificate counts", shown: chain(self, leaf), records: []Record{record(3, 1, 1, leaf)}, names: mx, kind: NoMatch, result: "tlsa-invalid"},
		{name: "3: one of several", shown: chain(leaf, middle), records: []Record{record(3, 1, 1, self), record(3, 0, 2, leaf)}, names: mx},
		{name: "2: whole chain", shown: chain(leaf, middle, root), records: []Record{record(2, 0, 1, root)}, names: mx},
		{name: "2: up to the authority named", shown: chain(leaf, middle), records: []Record{record(2, 0, 1, middle)}, names: mx},
		{name: "2: in any order", shown: chain(leaf, root, middle), records: []Record{record(2, 0, 1, root)}, names: mx},
		{name: "2: others in between", shown: chain(leaf, other, middle, root), records: []Record{record(2, 0, 1, root)}, names: mx},
		{name: "2: second name", shown: chain(leaf, middle), records: []Record{record(2, 1, 1, middle)}, names: []string{"d.test", "mx.test."}},
		{name: "2: name in upper case", shown: chain(leaf, middle), records: []Record{record(2, 1, 1, middle)}, names: []string{"MX.Test"}},
		{name: "2: wildcard", shown: chain(wildcard, middle), records: []Record{record(2, 1, 1, middle)}, names: mx},
		{name: "2: wildcard is one label", shown: chain(wildcard, middle), records: []Record{record(2, 1, 1, middle)}, names: []string{"a.mx.test"}, kind: WrongName, result: "certificate-host-mismatch"},
		{name: "2: common name", shown: chain(common, middle), records: []Record{record(2, 1, 1, middle)}, names: mx},
		{name: "2: common name beside others", shown: chain(commonOverruled, middle), records: []Record{record(2, 1, 1, middle)}, names: mx, kind: WrongName, result: "certificate-host-mismatch"},
		{name: "2: wrong names", shown: chain(wrong, middle), records: []Record{record(2, 1, 1, middle)}, names: mx, kind: WrongName, result: "certificate-host-mismatch"},
		{name: "2: no names looked for", shown: chain(leaf, middle), records: []Record{record(2, 1, 1, middle)}, names: []string{""}, kind: WrongName, result: "certificate-host-mismatch"},
		{name: "2: expired", shown: chain(expiredLeaf, middle), records: []Record{record(2, 1, 1, middle)}, names: mx, kind: Expired, result: "certificate-expired"},
		{name: "2: not yet valid", shown: chain(early, middle), records: []Record{record(2, 1, 1, middle)}, names: mx, kind: Expired, result: "certificate-expired"},
		{name: "2: expired on the way", shown: chain(belowExpired, expiredMiddle, root), records: []Record{record(2, 1, 1, root)}, names: mx, kind: Expired, result: "certificate-expired"},
		{name: "2: no authority on the way", shown: chain(belowNone, noAuthority, root), records: []Record{record(2, 1, 1, root)}, names: mx, kind: NotTrusted, result: "certificate-not-trusted"},
		{name: "2: missing link", shown: chain(leaf, root), records: []Record{record(2, 1, 1, root)}, names: mx, kind: NotTrusted, result: "certificate-not-trusted"},
		{name: "2: certificate for clients", shown: chain(forClients, middle), records: []Record{record(2, 1, 1, middle)}, names: mx, kind: NotTrusted, result: "certificate-not-trusted"},
		{name: "2: authority shown, not the issuer", shown: chain(self, middle, root), records: []Record{record(2, 1, 1, root)}, names: mx, kind: NotTrusted, result: "certificate-not-trusted"},
		{name: "2: an issuer of the same name", shown: chain(belowImposter, middle, root), records: []Record{record(2, 1, 1, root)}, names: mx, kind: NotTrusted, result: "certificate-not-trusted"},
		{name: "2: authority not shown", shown: chain(leaf), records: []Record{record(2, 1, 1, middle)}, names: mx, kind: NoMatch, result: "tlsa-invalid"},
		{name: "2: authority in the record", shown: chain(leaf), records: []Record{record(2, 0, 0, middle)}, names: mx},
		{name: "2: root in the record", shown: chain(leaf, middle), records: []Record{record(2, 0, 0, root)}, names: mx},
		{name: "2: authority's key in the record", shown: chain(leaf), records: []Record{record(2, 1, 0, middle)}, names: mx},
		{name: "2: root's key in the record", shown: chain(leaf, middle), records: []Record{record(2, 1, 0, root)}, names: mx},
		{name: "2: another's key in the record", shown: chain(leaf, middle), records: []Record{record(2, 1, 0, other)}, names: mx, kind: NoMatch, result: "tlsa-invalid"},
		{name: "2: key in the record, wrong names", shown: chain(wrong), records: []Record{record(2, 1, 0, middle)}, names: mx, kind: WrongName, result: "certificate-host-mismatch"},
		{name: "2: key in the record, expired", shown: chain(expiredLeaf), records: []Record{record(2, 1, 0, middle)}, names: mx, kind: Expired, result: "certificate-expired"},
		{name: "2: own key in the record", shown: chain(selfNamed), records: []Record{record(2, 1, 0, selfNamed)}, names: mx, kind: NoMatch, result: "tlsa-invalid"},
		{name: "2 fails, 3 matches", shown: chain(wrong, middle), records: []Record{record(2, 1, 1, middle), record(3, 1, 1, wrong)}, names: mx},
		{name: "3 fails, 2 matches", shown: chain(leaf, middle), records: []Record{record(3, 1, 1, self), record(2, 1, 1, middle)}, names: mx},
		{name: "the failure that came furthest", shown: chain(wrong, middle), records: []Record{record(2, 1, 1, middle), record(2, 1, 1, other), record(3, 1, 1, other)}, names: mx, kind: WrongName, result: "certificate-host-mismatch"},
		{name: "no certificate", shown: chain(), records: []Record{record(3, 1, 1, self)}, names: mx, kind: NoCertificate, result: "tlsa-invalid"},
		{name: "no record", shown: chain(leaf), names: mx, kind: NoMatch, result: "tlsa-invalid"},
		{name: "unusable records never match", shown: chain(leaf, middle), records: []Record{record(1, 1, 1, leaf), record(0, 1, 1, middle)}, names: mx, kind: NoMatch, result: "tlsa-invalid"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Verify(tt.shown, tt.records, tt.names, now)
			if tt.kind == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var e *Error
			if !errors.As(err, &e) || e.Kind != tt.kind || e.ResultType() != tt.result {
				t.Errorf("%v, want kind %d, %s", err, tt.kind, tt.result)
			}
			if len(err.Error()) > 1000 || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error is not fit for a log: %q", err)
			}
		})
	}
}

// The whole thing over a real handshake.
func TestVerifyAfterAHandshake(t *testing.T) {
	t.Parallel()
	root := issue(t, nil, ca("root"))
	leaf := issue(t, root, named("mx.test"))
	c, s := net.Pipe()
	defer c.Close()
	defer s.Close()
	server := tls.Server(s, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw, root.Raw}, PrivateKey: leaf.key}}})
	done := make(chan error)
	go func() { done <- server.Handshake() }()
	client := tls.Client(c, &tls.Config{ServerName: "mx.test", InsecureSkipVerify: true})
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	cs := client.ConnectionState()
	for _, r := range []Record{record(3, 1, 1, leaf), record(2, 0, 1, root)} {
		if _, err := Verify(&cs, []Record{r}, []string{"mx.test"}, now); err != nil {
			t.Errorf("%v: %v", r, err)
		}
	}
}

func TestUsable(t *testing.T) {
	t.Parallel()
	c := issue(t, nil, nil)
	d256, d512 := make([]byte, 32), make([]byte, 64)
	r := func(u, s, m uint8, data []byte) Record { return Record{u, s, m, data} }
	tests := []struct {
		name string
		in   []Record
		want []Record
	}{
		{"none", nil, nil},
		{"each that can be", []Record{r(3, 1, 1, d256), r(3, 0, 1, d256), r(2, 1, 2, d512), r(2, 0, 2, d512)}, []Record{r(3, 1, 1, d256), r(3, 0, 1, d256), r(2, 1, 2, d512), r(2, 0, 2, d512)}},
		{"whole certificate and key", []Record{record(3, 0, 0, c), record(3, 1, 0, c)}, []Record{record(3, 0, 0, c), record(3, 1, 0, c)}},
		{"public authorities", []Record{r(0, 1, 1, d256), r(1, 1, 1, d256)}, nil},
		{"unknown usage", []Record{r(4, 1, 1, d256), r(255, 1, 1, d256)}, nil},
		{"unknown selector", []Record{r(3, 2, 1, d256)}, nil},
		{"unknown matching type", []Record{r(3, 1, 3, d256), r(3, 1, 255, d256)}, nil},
		{"digest of the wrong length", []Record{r(3, 1, 1, d512), r(3, 1, 2, d256), r(3, 1, 1, d256[:31]), r(3, 1, 1, nil)}, nil},
		{"data that is no certificate", []Record{r(3, 0, 0, d256), r(3, 1, 0, d256), r(3, 0, 0, nil)}, nil},
		{"key where a certificate is due", []Record{r(3, 0, 0, c.RawSubjectPublicKeyInfo), r(3, 1, 0, c.Raw)}, nil},
		{"too large", []Record{r(3, 0, 0, make([]byte, maxData+1))}, nil},
		{"some of them", []Record{r(1, 1, 1, d256), r(3, 1, 1, d256)}, []Record{r(3, 1, 1, d256)}},
		{"the strongest digest", []Record{r(3, 1, 1, d256), r(3, 1, 2, d512), r(3, 0, 1, d256), record(3, 1, 0, c)}, []Record{r(3, 1, 2, d512), r(3, 0, 1, d256), record(3, 1, 0, c)}},
		{"a strong digest that is broken does not count", []Record{r(3, 1, 1, d256), r(3, 1, 2, d256)}, []Record{r(3, 1, 1, d256)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := Usable(tt.in); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestParseRecord(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want string // empty: an error
	}{
		{"3 1 1 00FF", "3 1 1 00ff"},
		{" 2\t0 2 00ff 0a0b\t0c ", "2 0 2 00ff0a0b0c"},
		{"255 255 255 00", "255 255 255 00"},
		{"", ""},
		{"3 1 1", ""},
		{"3 1 256 00", ""},
		{"-1 1 1 00", ""},
		{"3 1 1 0", ""},
		{"3 1 1 zz", ""},
		{"DANE-EE SPKI SHA2-256 00", ""},
		{"3 1 1 " + strings.Repeat("00", 2*maxData), ""},
	}
	for _, tt := range tests {
		r, err := ParseRecord(tt.in)
		if (err == nil) != (tt.want != "") || err == nil && r.String() != tt.want {
			t.Errorf("%.40q: %v, %v, want %q", tt.in, r, err, tt.want)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	for _, s := range []string{"3 1 1 00ff", "2 0 0 30 82", "0 0 0 zz", "3 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRecord(s)
		if err != nil {
			return
		}
		if again, err := ParseRecord(r.String()); err != nil || !reflect.DeepEqual(r, again) {
			t.Fatalf("%v became %v, %v", r, again, err)
		}
	})
}

// FuzzVerify takes records of any content against a fixed chain. None may
// crash, and what passes must be usable and truly about the chain.
func FuzzVerify(f *testing.F) {
	root := issue(f, nil, ca("root"))
	leaf := issue(f, root, named("mx.test"))
	shown := chain(leaf, root)
	for u := range uint8(4) {
		for s := range uint8(2) {
			for m := range uint8(3) {
				f.Add(u, s, m, record(u, s, m, leaf).Data)
				f.Add(u, s, m, record(u, s, m, root).Data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, u, s, m uint8, data []byte) {
		r := Record{u, s, m, data}
		usable := Usable([]Record{r})
		if _, err := Verify(shown, usable, []string{"mx.test"}, now); err != nil {
			return
		}
		if len(usable) != 1 || !r.matches(leaf.Certificate) && !r.matches(root.Certificate) {
			t.Fatalf("%v passed", r)
		}
	})
}
