package dkim

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// The key of RFC 8463, appendix A.
func rfcKey(t *testing.T) *PrivateKey {
	t.Helper()
	seed, err := base64.StdEncoding.DecodeString("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
	if err != nil {
		t.Fatal(err)
	}
	return &PrivateKey{Ed25519, ed25519.NewKeyFromSeed(seed)}
}

const rfcRecord = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="

func TestTheRecordOfRFC8463(t *testing.T) {
	t.Parallel()
	r, err := rfcKey(t).Record()
	if err != nil {
		t.Fatal(err)
	}
	if r.Text() != rfcRecord {
		t.Errorf("%s", r.Text())
	}
	if got := r.ZoneLine("s._domainkey.a.test"); got != `s._domainkey.a.test. IN TXT "`+rfcRecord+`"` {
		t.Errorf("%s", got)
	}
}

// TestZoneLines reads what we print with a parser of zone files.
func TestZoneLines(t *testing.T) {
	t.Parallel()
	for _, bits := range []int{1024, 2048, 4096} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		r, err := (&PrivateKey{RSA, key}).Record()
		if err != nil {
			t.Fatal(err)
		}
		rr, err := dns.NewRR(r.ZoneLine("s._domainkey.a.test"))
		if err != nil {
			t.Fatal(err)
		}
		txt := rr.(*dns.TXT)
		for _, s := range txt.Txt {
			if len(s) > 255 {
				t.Errorf("a string of %d octets", len(s))
			}
		}
		back, err := ParseRecord(strings.Join(txt.Txt, ""))
		if err != nil || !back.same(r) || txt.Hdr.Name != "s._domainkey.a.test." {
			t.Errorf("%v %v", rr, err)
		}
	}
}

func TestParseRecord(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		rfcRecord: rfcRecord,
		"p=QUJD":  "v=DKIM1; k=rsa; p=QUJD",
		"v=DKIM1;h=sha1 : sha256;t=y:s; n=a note; x=1; p = QU\r\n JD ;": "v=DKIM1; k=rsa; p=QUJD",
		"v=DKIM1; p=": "v=DKIM1; k=rsa; p=",
	} {
		if r, err := ParseRecord(text); err != nil || r.Text() != want {
			t.Errorf("%q: %q %v", text, r.Text(), err)
		}
	}
	for _, text := range []string{"", "v=DKIM1", "v=DKIM2; p=QUJD", "k=rsa; v=DKIM1; p=QUJD", "p=QUJD; p=QUJE", "p=!!", "hello", strings.Repeat("n=1;", 2000) + "p=QUJD", "v=spf1 -all"} {
		if r, err := ParseRecord(text); err == nil {
			t.Errorf("%.40q was read as %+v", text, r)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add(rfcRecord)
	f.Add("v=DKIM1;h=sha1 : sha256;t=y:s; n=a note; x=1; p = QU\r\n JD ;")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRecord(text)
		if err != nil || strings.ContainsAny(string(r.Algorithm), ";=") {
			return
		}
		if again, err := ParseRecord(r.Text()); err != nil || !again.same(r) {
			t.Fatalf("%q became %q: %v", text, r.Text(), err)
		}
	})
}

// zone answers for one name.
type zone struct {
	texts []string
	err   error
}

func (z zone) TXT(_ context.Context, name string) ([]string, error) {
	if name != "s._domainkey.a.test" {
		return nil, errors.New("asked for " + name)
	}
	return z.texts, z.err
}

func TestCheck(t *testing.T) {
	t.Parallel()
	broken := errors.New("server failure")
	for name, tt := range map[string]struct {
		zone  zone
		want  error
		notes int
	}{
		"published":       {zone{texts: []string{rfcRecord}}, nil, 0},
		"testing":         {zone{texts: []string{rfcRecord + "; t=s:y"}}, nil, 1},
		"allowed":         {zone{texts: []string{rfcRecord + "; h=sha1:sha256; s=email"}}, nil, 0},
		"nothing":         {zone{}, ErrNotPublished, 0},
		"two":             {zone{texts: []string{rfcRecord, rfcRecord}}, ErrUnusable, 0},
		"revoked":         {zone{texts: []string{"v=DKIM1; k=ed25519; p="}}, ErrUnusable, 0},
		"another":         {zone{texts: []string{strings.Replace(rfcRecord, "p=1", "p=2", 1)}}, ErrOtherKey, 0},
		"other algorithm": {zone{texts: []string{strings.Replace(rfcRecord, "ed25519", "rsa", 1)}}, ErrOtherKey, 0},
		"garbage":         {zone{texts: []string{"v=spf1 -all"}}, ErrUnusable, 0},
		"sha1 only":       {zone{texts: []string{rfcRecord + "; h=sha1"}}, ErrUnusable, 0},
		"no mail":         {zone{texts: []string{rfcRecord + "; s=tlsrpt"}}, ErrUnusable, 0},
		"failure":         {zone{err: broken}, broken, 0},
	} {
		notes, err := Check(t.Context(), tt.zone, "a.test", "s", rfcKey(t))
		if !errors.Is(err, tt.want) || len(notes) != tt.notes || err != nil && !strings.Contains(err.Error(), "s._domainkey.a.test") {
			t.Errorf("%s: %v, %q", name, err, notes)
		}
	}
}
