package tlsrpt

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"flag"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

var sender = Sender{Organization: "Sender Ltd", Domain: "s.test", Contact: "postmaster@s.test"}

func sampleTally() Tally {
	ta := newTally("d.test", time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), day)
	for range 5326 {
		ta.add(sts, nil, maxMemory)
	}
	ta.add(sts, expired, maxMemory)
	ta.add(sts, &Failure{Result: STSPolicyFetchError, Reason: "<b>\"quoted\" & ü</b>"}, maxMemory)
	ta.add(tlsa, nil, maxMemory)
	return ta.export()
}

func sampleReport(t *testing.T) *Report {
	t.Helper()
	r, err := NewReport(sampleTally(), sender)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// golden compares a text with a file, once what is random has been taken out.
func golden(t *testing.T, name, got string) {
	t.Helper()
	got = regexp.MustCompile(`[0-9a-f]{24,32}`).ReplaceAllString(got, "RANDOM")
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\n%s", path, got)
	}
}

func TestReportJSON(t *testing.T) {
	t.Parallel()
	r := sampleReport(t)
	golden(t, "report.json", string(r.JSON()))
	z, err := gzip.NewReader(bytes.NewReader(r.Gzip()))
	if err != nil {
		t.Fatal(err)
	}
	unpacked, err := io.ReadAll(z)
	if err != nil || !bytes.Equal(unpacked, r.JSON()) {
		t.Errorf("unpacked: %v\n%s", err, unpacked)
	}
	if again := sampleReport(t); again.ID == r.ID {
		t.Errorf("two reports have the ID %s", r.ID)
	}
}

// The names of all parts are those of RFC 8460, section 4.4 and appendix B.
func TestReportHasTheFieldsOfTheRFC(t *testing.T) {
	t.Parallel()
	var got map[string]any
	if err := json.Unmarshal(sampleReport(t).JSON(), &got); err != nil {
		t.Fatal(err)
	}
	path := func(v any, keys ...any) any {
		for _, k := range keys {
			switch k := k.(type) {
			case string:
				v = v.(map[string]any)[k]
			case int:
				v = v.([]any)[k]
			}
		}
		return v
	}
	for _, tt := range []struct {
		want any
		path []any
	}{
		{"Sender Ltd", []any{"organization-name"}},
		{"2026-01-01T00:00:00Z", []any{"date-range", "start-datetime"}},
		{"2026-01-01T23:59:59Z", []any{"date-range", "end-datetime"}},
		{"postmaster@s.test", []any{"contact-info"}},
		{"sts", []any{"policies", 0, "policy", "policy-type"}},
		{"mode: enforce", []any{"policies", 0, "policy", "policy-string", 1}},
		{"d.test", []any{"policies", 0, "policy", "policy-domain"}},
		{"*.d.test", []any{"policies", 0, "policy", "mx-host", 0}},
		{5326.0, []any{"policies", 0, "summary", "total-successful-session-count"}},
		{2.0, []any{"policies", 0, "summary", "total-failure-session-count"}},
		{"certificate-expired", []any{"policies", 0, "failure-details", 0, "result-type"}},
		{"192.0.2.1", []any{"policies", 0, "failure-details", 0, "sending-mta-ip"}},
		{"mx.d.test", []any{"policies", 0, "failure-details", 0, "receiving-mx-hostname"}},
		{"mx", []any{"policies", 0, "failure-details", 0, "receiving-mx-helo"}},
		{"2001:db8::1", []any{"policies", 0, "failure-details", 0, "receiving-ip"}},
		{1.0, []any{"policies", 0, "failure-details", 0, "failed-session-count"}},
		{"expired yesterday", []any{"policies", 0, "failure-details", 0, "failure-reason-code"}},
		{"tlsa", []any{"policies", 1, "policy", "policy-type"}},
	} {
		if v := path(got, tt.path...); !reflect.DeepEqual(v, tt.want) {
			t.Errorf("%v: %v, want %v", tt.path, v, tt.want)
		}
	}
}

func TestMessage(t *testing.T) {
	t.Parallel()
	r := sampleReport(t)
	raw, err := r.Message("postmaster@s.test", "reports@d.test", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(bytes.ReplaceAll(raw, []byte("\r\n"), nil), []byte("\n")) || bytes.Contains(bytes.ReplaceAll(raw, []byte("\r\n"), nil), []byte("\r")) {
		t.Error("a line does not end in CRLF")
	}
	for line := range strings.SplitSeq(string(raw), "\r\n") {
		if len(line) > 78 {
			t.Errorf("a line of %d characters: %s", len(line), line)
		}
	}
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"From": "<postmaster@s.test>", "To": "<reports@d.test>", "Date": "Fri, 02 Jan 2026 03:04:05 +0000",
		"Subject":           "Report Domain: d.test Submitter: s.test Report-ID: <" + r.ID + ">",
		"TLS-Report-Domain": "d.test", "TLS-Report-Submitter": "s.test", "TLS-Required": "No", "Auto-Submitted": "auto-generated", "MIME-Version": "1.0",
	} {
		if got := m.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	media, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || media != "multipart/report" || params["report-type"] != "tlsrpt" {
		t.Fatalf("%s, %v, %v", media, params, err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	text, err := parts.NextPart()
	if err != nil || !strings.HasPrefix(text.Header.Get("Content-Type"), "text/plain") {
		t.Fatal(text, err)
	}
	words, _ := io.ReadAll(text)
	if !strings.Contains(string(words), "_smtp._tls.d.test") {
		t.Errorf("the text does not say why it comes: %s", words)
	}
	report, err := parts.NextPart()
	if err != nil || report.Header.Get("Content-Type") != "application/tlsrpt+gzip" || report.FileName() != "s.test!d.test!1767225600!1767311999.json.gz" {
		t.Fatal(report, report.FileName(), err)
	}
	packed, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, report))
	if err != nil || !bytes.Equal(packed, r.Gzip()) {
		t.Errorf("the attachment is not the report: %v", err)
	}
	if _, err := parts.NextPart(); err != io.EOF {
		t.Error(err)
	}
}

func TestMessageRefusesWhatCouldEndAHeader(t *testing.T) {
	t.Parallel()
	r := sampleReport(t)
	for _, bad := range []string{"", "a\r\nBcc: x@y.test", "a b@c.test", "a>@b.test", "ü@b.test"} {
		if _, err := r.Message("p@s.test", bad, noon); err == nil {
			t.Errorf("%q stands in a header", bad)
		}
		if _, err := r.Message(bad, "r@d.test", noon); err == nil {
			t.Errorf("%q stands in a header", bad)
		}
	}
}
