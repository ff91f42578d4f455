package dkim

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	verifier "github.com/emersion/go-msgauth/dkim"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is keys on disk and the records that DNS would have for them.
type fixture struct {
	keys    *Keys
	sources []Source
	records map[string]string
	reasons []Reason
	log     bytes.Buffer
}

// newFixture makes a key for each "domain selector algorithm".
func newFixture(t testing.TB, keys ...string) *fixture {
	t.Helper()
	f := &fixture{records: map[string]string{}}
	dir := t.TempDir()
	for _, k := range keys {
		var domain, selector string
		var algorithm Algorithm
		if _, err := fmt.Sscan(k, &domain, &selector, &algorithm); err != nil {
			t.Fatal(err)
		}
		key, err := GenerateKey(algorithm)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, domain+"."+selector+".pem")
		if err := WriteKeyFile(path, key); err != nil {
			t.Fatal(err)
		}
		record, err := key.Record()
		if err != nil {
			t.Fatal(err)
		}
		f.sources = append(f.sources, Source{domain, selector, path})
		f.records[RecordName(domain, selector)] = record.Text()
	}
	var err error
	f.keys, err = NewKeys(Options{Sources: f.sources, Logger: slog.New(slog.NewTextHandler(&f.log, nil)), Unsigned: func(r Reason) { f.reasons = append(f.reasons, r) }})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// sign gives the whole signed message; unsigned ones come back as they are.
func (f *fixture) sign(t testing.TB, header, body string) string {
	t.Helper()
	s, err := f.keys.Signer([]byte(header))
	if err != nil {
		t.Fatal(err)
	}
	if s == nil {
		return header + body
	}
	// In pieces of a size that no line or buffer has.
	for rest := []byte(body); len(rest) > 0; {
		n := min(len(rest), 777)
		if _, err := s.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	fields, err := s.Sign()
	if err != nil {
		t.Fatal(err)
	}
	return string(fields) + header + body
}

// verify gives the domains whose signatures are valid, or what is wrong with one.
func (f *fixture) verify(message string) (domains []string, err error) {
	all, err := verifier.VerifyWithOptions(strings.NewReader(message), &verifier.VerifyOptions{
		LookupTXT: func(name string) ([]string, error) {
			if r, ok := f.records[strings.TrimSuffix(name, ".")]; ok {
				return []string{r}, nil
			}
			return nil, errors.New("no such record: " + name)
		},
	})
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		if v.Err != nil {
			return nil, v.Err
		}
		domains = append(domains, v.Domain)
	}
	return domains, nil
}

func (f *fixture) mustVerify(t *testing.T, message string, want int) {
	t.Helper()
	if got, err := f.verify(message); err != nil || len(got) != want {
		t.Errorf("%d signatures, not %d: %v in\n%.2000s", len(got), want, err, message)
	}
}

const header = "Received: from a by b;\r\n\tSun, 22 Nov 2026 16:00:00 +0000\r\nFrom: Ann <ann@example.test>\r\nTo: b@other.test,\r\n\tc@other.test\r\n" +
	"Subject:  a   subject \r\nDate: Sun, 22 Nov 2026 16:00:00 +0000\r\nMessage-ID: <1@example.test>\r\nList-Unsubscribe: <https://example.test/u>\r\n\r\n"

// bodies are what canonicalization may stumble over.
var bodies = map[string]string{
	"text":             "Hello\r\nthere\r\n",
	"empty":            "",
	"no final newline": "Hello",
	"blank lines":      "\r\n\r\n\r\n",
	"blanks":           "   \r\n\t\r\n",
	"trailing":         "a  \t b \t\r\n\r\n \r\n\r\n",
	"8-bit":            "J\xfcrgen \xc3\xbc\r\n",
	"dots":             ".\r\n..\r\n",
	"form feed":        "a\f b\v\r\n",
	"long line":        strings.Repeat("x", 998) + "\r\n",
	"large":            strings.Repeat("a line of text  with blanks \r\n", 10000),
}

func TestSignaturesVerify(t *testing.T) {
	t.Parallel()
	for name, keys := range map[string][]string{
		"rsa":     {"example.test s rsa"},
		"ed25519": {"example.test s ed25519"},
		"both":    {"example.test r rsa", "example.test e ed25519"},
	} {
		f := newFixture(t, keys...)
		for what, body := range bodies {
			t.Run(name+"/"+what, func(t *testing.T) {
				f.mustVerify(t, f.sign(t, header, body), len(keys))
			})
		}
	}
}

func TestWhatIsSignedCannotBeChanged(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "example.test s ed25519")
	signed := f.sign(t, header, bodies["text"])
	f.mustVerify(t, "Received: from b by c; now\r\nX-Spam: no\r\n"+signed, 1)
	for name, changed := range map[string]string{
		"body":              strings.Replace(signed, "there", "where", 1),
		"subject":           strings.Replace(signed, "a   subject", "another subject", 1),
		"second subject":    "Subject: first\r\n" + signed,
		"second from":       "From: evil@other.test\r\n" + signed,
		"second to":         strings.Replace(signed, "To: b@", "To: x@other.test\r\nTo: b@", 1),
		"cc added":          strings.Replace(signed, "Subject:", "Cc: x@other.test\r\nSubject:", 1),
		"content type":      "Content-Type: text/html\r\n" + signed,
		"reply-to":          "Reply-To: x@other.test\r\n" + signed,
		"unsubscribe":       strings.Replace(signed, "test/u>", "test/v>", 1),
		"date":              strings.Replace(signed, "Date: Sun", "Date: Mon", 1),
		"attached to body":  signed + "more\r\n",
		"signature removed": signed[strings.Index(signed, "Received:"):],
	} {
		if got, err := f.verify(changed); err == nil && len(got) > 0 {
			t.Errorf("%s: still valid", name)
		}
	}
}

func TestLinesStayBelow998(t *testing.T) {
	t.Parallel()
	f := newFixture(t, strings.Repeat("a-very-long-label.", 10)+"test "+strings.Repeat("s", 60)+" rsa")
	from := "From: a@" + f.sources[0].Domain + "\r\n"
	signed := f.sign(t, from+strings.Repeat("To: a@b.test\r\n", 20)+strings.Repeat("Content-Transfer-Encoding: 7bit\r\n", 10)+"\r\n", "x\r\n")
	f.mustVerify(t, signed, 1)
	for line := range strings.Lines(signed) {
		if len(line) > 998 {
			t.Errorf("a line of %d octets: %s", len(line), line)
		}
	}
	if got := f.sign(t, from+strings.Repeat("Content-Transfer-Encoding: 7bit\r\n", 100)+"\r\n", "x\r\n"); strings.Contains(got, "DKIM-Signature") || len(f.reasons) != 1 || f.reasons[0] != RepeatedFields {
		t.Errorf("a hundred repeated fields: %v\n%s", f.reasons, got)
	}
}

func TestWhichKeySigns(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "example.test r rsa", "example.test e ed25519", "sub.example.test s ed25519", "xn--bcher-kva.test s ed25519")
	for from, want := range map[string]string{
		"a@example.test":                           "example.test example.test",
		"Ann <a@EXAMPLE.Test>":                     "example.test example.test",
		"a@sub.example.test":                       "sub.example.test",
		"a@other.example.test":                     "example.test example.test",
		"a@deep.sub.example.test":                  "sub.example.test",
		"a@bücher.test":                            "xn--bcher-kva.test",
		"a@xn--bcher-kva.test":                     "xn--bcher-kva.test",
		"a@notexample.test":                        "",
		"a@test":                                   "",
		"a@example.test.evil.test":                 "",
		"a@sub.example.test, b@example.test":       "",
		"a@sub.example.test, b@x.sub.example.test": "sub.example.test",
		"a@example.test, b@other.test":             "",
		"a@[192.0.2.1]":                            "",
	} {
		got, err := f.verify(f.sign(t, "From: "+from+"\r\n\r\n", "x\r\n"))
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("From: %s is signed by %q, not %q: %v", from, got, want, err)
		}
	}
}

func TestUnsignedHasAReason(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		header string
		want   Reason
	}{
		"none":            {"To: a@b.test\r\n\r\n", NoAuthor},
		"empty":           {"From: \r\n\r\n", NoAuthor},
		"no address":      {"From: root\r\n\r\n", NoAuthor},
		"several":         {"From: a@example.test\r\nSubject: x\r\nfrom : b@example.test\r\n\r\n", SeveralFrom},
		"several authors": {"From: a@example.test, b@other.test\r\n\r\n", SeveralAuthors},
		"foreign":         {"From: a@other.test\r\n\r\n", NoKey},
		"foreign authors": {"From: a@other.test, b@third.test\r\n\r\n", NoKey},
		"own":             {"From: a@example.test\r\n\r\n", ""},
	} {
		f := newFixture(t, "example.test s ed25519")
		signed := f.sign(t, "Message-ID: <7@x.test>\r\n"+tt.header, "x\r\n")
		if want := name == "own"; strings.Contains(signed, "DKIM-Signature") != want {
			t.Errorf("%s: signed: %v", name, !want)
		}
		if tt.want == "" {
			if len(f.reasons) != 0 || f.log.Len() != 0 {
				t.Errorf("%s: %v %s", name, f.reasons, f.log.String())
			}
			continue
		}
		// That a domain has no key may be meant so: each of its messages is no line in the log.
		if len(f.reasons) != 1 || f.reasons[0] != tt.want || strings.Contains(f.log.String(), "<7@x.test>") == (tt.want == NoKey) {
			t.Errorf("%s: %v %s", name, f.reasons, f.log.String())
		}
	}
}

func TestWithoutKeysNothingIsLogged(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if s, err := f.keys.Signer([]byte("\r\n")); s != nil || err != nil || !slices.Equal(f.reasons, []Reason{NoKey}) || f.log.Len() != 0 {
		t.Errorf("%v %v %v %s", s, err, f.reasons, f.log.String())
	}
}

func TestGivenUpSignersEnd(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "example.test r rsa", "example.test e ed25519")
	for _, written := range []string{"", "a part", strings.Repeat("x", 100_000)} {
		s, err := f.keys.Signer([]byte(header))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte(written)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close again: %v", err)
		}
		if fields, err := s.Sign(); err == nil {
			t.Errorf("signed after the end: %s", fields)
		}
		if _, err := s.Write([]byte("x")); err == nil {
			t.Error("written after the end")
		}
	}
	s, err := f.keys.Signer([]byte(header))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sign(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close after the signature: %v", err)
	}
}

func TestAHeaderWithoutEndIsAnError(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "example.test s ed25519")
	for _, header := range []string{"From: a@example.test\r\n", "From: a@example.test\n\n", "From: a@example.test"} {
		if s, err := f.keys.Signer([]byte(header)); err == nil {
			t.Errorf("%q: %v", header, s)
		}
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	f, g := newFixture(t, "example.test s ed25519"), newFixture(t, "other.test s ed25519")
	s, err := f.keys.Signer([]byte(header))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.keys.Reload(g.sources); err != nil {
		t.Fatal(err)
	}
	fields, err := s.Sign()
	if err != nil {
		t.Fatal(err)
	}
	f.mustVerify(t, string(fields)+header, 1)
	if signed := f.sign(t, header, ""); strings.Contains(signed, "DKIM-Signature") {
		t.Error("the former key still signs")
	}
	bad := []Source{f.sources[0], {"bad.test", "s", "/nowhere.pem"}}
	if err := f.keys.Reload(bad); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "s._domainkey.bad.test") {
		t.Errorf("%v", err)
	}
	if signed := f.sign(t, header, ""); strings.Contains(signed, "DKIM-Signature") {
		t.Error("a failed reload took a part of the keys")
	}
	g.mustVerify(t, f.sign(t, "From: a@other.test\r\n\r\n", ""), 1)
}

func TestSourcesThatAreRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "example.test s ed25519")
	good := f.sources[0]
	for name, sources := range map[string][]Source{
		"twice":       {good, {"EXAMPLE.test.", "s", good.KeyFile}},
		"no domain":   {{"", "s", good.KeyFile}},
		"no selector": {{"a.test", "", good.KeyFile}},
		"directory":   {{"a.test", "s", filepath.Dir(good.KeyFile)}},
	} {
		if err := f.keys.Reload(sources); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620} {
		if err := os.Chmod(good.KeyFile, mode); err != nil {
			t.Fatal(err)
		}
		if err := f.keys.Reload(f.sources); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("%04o: %v", mode, err)
		}
	}
}

func FuzzSigner(f *testing.F) {
	f.Add(header, "body\r\n")
	f.Add("From: a@example.test\r\n\r\n", "")
	f.Add("from\t:\r\n a@example.test\r\nSubject\r\n: x\r\n\r\n", " \r\n")
	f.Add("From: a@example.test\r\nno colon\r\n\r\n", "\r\r\n\n")
	x := newFixture(f, "example.test s ed25519")
	f.Fuzz(func(t *testing.T, header, body string) {
		s, err := x.keys.Signer([]byte(header))
		if err != nil || s == nil {
			return
		}
		defer s.Close()
		if _, err := s.Write([]byte(body)); err != nil {
			return
		}
		fields, err := s.Sign()
		if err != nil {
			return
		}
		for line := range strings.Lines(string(fields)) {
			if len(line) > 1000 || !strings.HasSuffix(line, "\r\n") {
				t.Fatalf("%q", line)
			}
		}
	})
}
