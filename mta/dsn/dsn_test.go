package dsn_test

import (
	"bufio"
	"bytes"
	"flag"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/textproto"

	"postrider/mta/dsn"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	cest    = time.FixedZone("", 2*60*60)
	arrived = time.Date(2026, 7, 4, 9, 30, 0, 0, cest)
	at      = arrived.Add(90 * time.Second)
)

const original = "DKIM-Signature: v=1; a=rsa-sha256; d=a.test\r\n" +
	"Received: from app.a.test by mx.a.test id 01jzabc; Sat, 4 Jul 2026 09:30:00 +0200\r\n" +
	"From: Ann <ann@a.test>\r\nTo: bob@b.test\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= and an\r\n invoice\r\n" +
	"Date: Sat, 4 Jul 2026 09:29:59 +0200\r\nMessage-ID:\r\n <1@a.test>\r\n\r\nHello,\r\n--=_01jzreport\r\nBye\r\n"

func report(recipients ...dsn.Recipient) *dsn.Report {
	return &dsn.Report{
		ID: "01jzreport", Date: at, Hostname: "mx.a.test", From: "MAILER-DAEMON@mx.a.test", To: "ann@a.test", Recipients: recipients,
		Message: dsn.Message{ID: "01jzabc", ArrivedAt: arrived, Content: []byte(original), Whole: true},
	}
}

func failed(address string) dsn.Recipient {
	return dsn.Recipient{
		Address: address, Action: dsn.Failed, Status: "5.1.1", Code: 550, Text: "5.1.1 <" + address + ">: user unknown",
		RemoteHost: "mx1.b.test", RemoteIP: netip.MustParseAddr("192.0.2.1"), Attempts: 1, At: at,
	}
}

var golden = map[string]func() *dsn.Report{
	"failed": func() *dsn.Report { return report(failed("bob@b.test")) },
	"failed-several": func() *dsn.Report {
		full := failed("carl@c.test")
		full.Status, full.Code, full.Text = "5.2.2", 552, "quota exceeded"
		nowhere := dsn.Recipient{Address: "dora@nowhere.test", Action: dsn.Failed, Status: "5.1.2", Text: "no such domain: nowhere.test", At: at}
		odd := failed("emil@e.test")
		odd.Status, odd.Text = "", "go away"
		r := report(failed("bob@b.test"), full, nowhere, odd)
		r.Message.Whole = false
		r.Message.EnvID = "invoice 7"
		return r
	},
	"expired": func() *dsn.Report {
		c := dsn.Recipient{Address: "bob@b.test", Action: dsn.Failed, Status: "4.4.1", Text: "given up after 5 days: connection refused", Attempts: 20, At: at}
		return report(c)
	},
	"delayed": func() *dsn.Report {
		c := dsn.Recipient{
			Address: "bob@b.test", Action: dsn.Delayed, Status: "4.2.2", Code: 452, Text: "4.2.2 mailbox full", RemoteHost: "mx1.b.test",
			Attempts: 5, At: at, RetryUntil: arrived.Add(5 * 24 * time.Hour),
		}
		return report(c)
	},
	"relayed": func() *dsn.Report {
		c := dsn.Recipient{Address: "bob@b.test", Action: dsn.Relayed, Status: "2.0.0", Code: 250, Text: "2.0.0 queued", RemoteHost: "mx1.b.test", At: at}
		return report(c)
	},
	"mixed": func() *dsn.Report {
		late := failed("carl@c.test")
		late.Action, late.Status, late.Code, late.Text, late.RetryUntil = dsn.Delayed, "4.7.1", 451, "4.7.1 greylisted", at.Add(time.Hour)
		fine := failed("dora@d.test")
		fine.Action, fine.Status, fine.Code, fine.Text = dsn.Relayed, "2.1.5", 250, "2.1.5 ok"
		return report(late, fine, failed("bob@b.test"))
	},
	"rewritten-recipient": func() *dsn.Report {
		c := failed("admin@b.test")
		c.ORcpt = "rfc822;root@mx.a.test"
		return report(c)
	},
	"utf8": func() *dsn.Report {
		c := failed("bücher@b.test")
		c.ORcpt = "utf-8;bücher@b.test"
		c.Text = "5.1.1 <bücher@b.test>: unbekannt"
		r := report(c)
		r.Message.Content = []byte("From: ann@a.test\r\nSubject: Grüße\r\nMessage-ID: <2@a.test>\r\n\r\nGrüße\r\n")
		return r
	},
	"utf8-header": func() *dsn.Report {
		r := report(failed("bob@b.test"))
		r.Message.Content = []byte("From: ann@a.test\r\nSubject: Grüße\r\n\r\n")
		r.Message.Whole = false
		return r
	},
	"nothing-returned": func() *dsn.Report {
		r := report(failed("bob@b.test"))
		r.Message.Content, r.Message.Whole = nil, false
		return r
	},
}

func write(t testing.TB, r *dsn.Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for name, newReport := range golden {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := write(t, newReport())
			file := filepath.Join("testdata", name+".eml")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s differs (-update writes it anew):\n%s", file, got)
			}
			checkForm(t, newReport(), got)
		})
	}
}

// checkForm holds what every report has to be, as an independent reader sees it.
func checkForm(t *testing.T, r *dsn.Report, text string) {
	t.Helper()
	for i, line := range strings.Split(text, "\r\n") {
		if len(line) > 998 || strings.ContainsAny(line, "\r\n\x00") {
			t.Errorf("line %d is no line of a message: %q", i+1, line)
		}
	}
	e, err := message.Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if n := e.Header.Len(); n < 8 || n > 10 {
		t.Errorf("the header has %d fields:\n%s", n, text)
	}
	if got := e.Header.Get("Auto-Submitted"); got != "auto-replied" {
		t.Errorf("Auto-Submitted: %q", got)
	}
	mediaType, params, err := e.Header.ContentType()
	if err != nil || mediaType != "multipart/report" {
		t.Fatalf("Content-Type: %q, %v", mediaType, err)
	}
	parts := readParts(t, e)
	want := 2
	if len(r.Message.Content) > 0 {
		want = 3
	}
	if len(parts) != want {
		t.Fatalf("%d parts; want %d\n%s", len(parts), want, text)
	}
	if parts[0].mediaType != "text/plain" || parts[1].mediaType != "message/"+params["report-type"] {
		t.Errorf("types %q and %q, report-type %q", parts[0].mediaType, parts[1].mediaType, params["report-type"])
	}
	if want == 3 && r.Message.Whole && parts[2].body != string(r.Message.Content) {
		t.Errorf("returned %q; want %q", parts[2].body, r.Message.Content)
	}
	checkStatus(t, r, parts[1].body)
}

type part struct{ mediaType, body string }

func readParts(t *testing.T, e *message.Entity) []part {
	t.Helper()
	var parts []part
	mr := e.MultipartReader()
	for {
		p, err := mr.NextPart()
		if err == io.EOF {
			return parts
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(p.Body)
		if err != nil {
			t.Fatal(err)
		}
		mediaType, _, _ := p.Header.ContentType()
		parts = append(parts, part{mediaType, string(body)})
	}
}

// checkStatus reads the part for programs: a group of fields for the message,
// and one for each recipient.
func checkStatus(t *testing.T, r *dsn.Report, status string) {
	t.Helper()
	groups := strings.Split(strings.TrimSuffix(status, "\r\n"), "\r\n\r\n")
	if len(groups) != len(r.Recipients)+1 {
		t.Fatalf("%d groups of fields for %d recipients:\n%s", len(groups), len(r.Recipients), status)
	}
	for i, c := range r.Recipients {
		g := groups[i+1]
		if !strings.Contains(g, "Action: "+c.Action.String()+"\r\n") {
			t.Errorf("recipient %d: no action %s in\n%s", i, c.Action, g)
		}
		class := map[dsn.Action]string{dsn.Failed: "5", dsn.Delayed: "4", dsn.Relayed: "2"}[c.Action]
		if !strings.Contains(g, "\r\nStatus: "+class+".") {
			t.Errorf("recipient %d: no status of class %s in\n%s", i, class, g)
		}
		h, err := textproto.ReadHeader(newReader(g + "\r\n\r\n"))
		if err != nil || !strings.HasSuffix(h.Get("Final-Recipient"), c.Address) && !strings.ContainsAny(c.Address, "\x00\r\n\t ") {
			t.Errorf("recipient %d: %q, %v", i, h.Get("Final-Recipient"), err)
		}
	}
}

func TestNoRecipients(t *testing.T) {
	t.Parallel()
	if err := report().Write(io.Discard); err == nil {
		t.Error("a report about nobody was written")
	}
}

func TestManyRecipients(t *testing.T) {
	t.Parallel()
	var all []dsn.Recipient
	for range 2000 {
		all = append(all, failed("bob@b.test"))
	}
	text := write(t, report(all...))
	checkForm(t, report(all...), text)
	if n := strings.Count(text, "user unknown\r\nWhat") + strings.Count(text, "There is no such mailbox."); n != 50 {
		t.Errorf("the text names %d recipients", n)
	}
	if !strings.Contains(text, "and 1950 more") || !strings.Contains(text, "and 1999 others") {
		t.Error("the text does not say how many more there are")
	}
}

func TestLargeHeaderIsCut(t *testing.T) {
	t.Parallel()
	r := report(failed("bob@b.test"))
	r.Message.Content = []byte(strings.Repeat("X: "+strings.Repeat("y", 900)+"\r\n", 200) + "\r\n")
	r.Message.Whole = false
	text := write(t, r)
	if len(text) > dsn.MaxReturned+5000 {
		t.Errorf("a report of %d octets", len(text))
	}
	checkForm(t, r, text)
}

// FuzzWrite lets strangers choose every text: none leaves its place.
func FuzzWrite(f *testing.F) {
	f.Add("5.1.1", "user unknown", "mx.b.test", "rfc822;a@b.test", "envid", "<x@y>", "Subject")
	f.Add("5.1", "a\r\nAction: delivered\r\n\r\nb", "mx\r\n\r\n--=_01jzreport--", "x\n", "\x00\r\n", "<a\r\n b@c>", "=?utf-8?q?=0d=0a=0d=0aX?=")
	f.Add("2.0.0", strings.Repeat("x", 3000), strings.Repeat("y ", 600), "utf-8;ü", "\xff", "<>", "\u202eabc\u2028d")
	f.Fuzz(func(t *testing.T, status, text, host, orcpt, envid, id, subject string) {
		c := failed("bob@b.test")
		c.Status, c.Text, c.RemoteHost, c.ORcpt = status, text, host, orcpt
		r := report(c)
		r.Message.EnvID, r.Message.ID = envid, id
		line := func(s string) string {
			return strings.NewReplacer("\r", "", "\n", "", "\x00", "").Replace(s)
		}
		h := "Message-ID: " + line(id) + "\r\nSubject: " + line(subject) + "\r\n\r\nbody\r\n"
		if len(line(id)) > 900 || len(line(subject)) > 900 || line(host) == "" || strings.TrimSpace(line(host)) == "" {
			return
		}
		r.Message.Content = []byte(h)
		out := write(t, r)
		checkForm(t, r, out)
		for _, field := range []string{"Action", "Final-Recipient", "Status", "Reporting-MTA"} {
			if n := strings.Count(out, "\r\n"+field+":"); n != 1 {
				t.Errorf("%d fields %s", n, field)
			}
		}
	})
}

func newReader(s string) *bufio.Reader { return bufio.NewReader(strings.NewReader(s)) }
