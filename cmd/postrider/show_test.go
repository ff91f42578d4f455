package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postrider/mta/api/wire"
)

var updateGolden = flag.Bool("update", false, "write the golden files")

// golden compares output with a file of testdata/golden.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name+".txt")
	if *updateGolden {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

var (
	goldenNow = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	arrived   = goldenNow.Add(-3 * time.Hour)
)

func sampleOutcomes() (delivered, greylisted, refused *wire.Outcome) {
	return &wire.Outcome{Verdict: "delivered", Scope: "recipient", Stage: "final", Code: 250, Status: "2.0.0", Text: "queued as 17",
			MX: "mx.shop.test", IP: "192.0.2.25", TLS: "TLS1.3 TLS_AES_128_GCM_SHA256 unverified", Demand: "enable"},
		&wire.Outcome{Verdict: "deferred", Scope: "recipient", Stage: "rcpt", Code: 451, Status: "4.7.1", Text: "come back later", Class: "greylisted", MX: "mx.bank.test", IP: "2001:db8::1"},
		// A host that tries to steer the terminal of whoever looks.
		&wire.Outcome{Verdict: "failed", Scope: "recipient", Stage: "rcpt", Code: 550, Status: "5.1.1", Text: "no such user\x1b[2J\u202e", MX: "mx.city.test"}
}

func sampleMessages() []wire.Message {
	delivered, greylisted, refused := sampleOutcomes()
	return []wire.Message{
		{
			ID: "01m81j18g00000000000000001", Sender: "orders@sender.test", MessageID: "<1@sender.test>", Size: 48_213, ArrivedAt: arrived,
			Priority: "urgent", Tag: "week47", RequireTLS: true, Origin: wire.Origin{Via: "smtp", Client: "127.0.0.1", HELO: "web1", User: "shop", TLS: true},
			Recipients: []wire.Recipient{
				{Address: "anna@bank.test", Domain: "bank.test", Status: "waiting", Attempts: 3, DueAt: goldenNow.Add(17 * time.Minute), Last: greylisted, LastAt: goldenNow.Add(-23 * time.Minute)},
				{Address: "ben@city.test", Domain: "city.test", Status: "failed", Attempts: 1, Last: refused, LastAt: arrived.Add(time.Second)},
				{Address: "carla@shop.test", Domain: "shop.test", Status: "delivered", Attempts: 1, Last: delivered, LastAt: arrived.Add(time.Second)},
			},
			RecipientCount: 25,
		},
		{
			ID: "01m81j18g00000000000000002", Sender: "", Size: 812, ArrivedAt: goldenNow.Add(-12 * time.Second), Priority: "normal", Origin: wire.Origin{Via: "bounce"},
			Recipients:     []wire.Recipient{{Address: "dora@sender.test", Domain: "sender.test", Status: "held"}},
			RecipientCount: 1, NotBefore: goldenNow.Add(time.Hour), DeliverBy: goldenNow.Add(48 * time.Hour),
		},
	}
}

func TestGoldenOutput(t *testing.T) {
	t.Parallel()
	delivered, greylisted, refused := sampleOutcomes()
	messages := sampleMessages()
	lane := &wire.Lane{Site: "bigmail", Connections: 1, Window: 5, Waits: "at most 60 messages a minute", Until: goldenNow.Add(20 * time.Second), LastError: "421 too many", LastErrorAt: goldenNow.Add(-3 * time.Minute)}
	for name, show := range map[string]func(w io.Writer){
		"queue_list":  func(w io.Writer) { showList(w, messages, goldenNow) },
		"queue_show":  func(w io.Writer) { showMessage(w, &messages[0], goldenNow, time.UTC) },
		"queue_show2": func(w io.Writer) { showMessage(w, &messages[1], goldenNow, time.UTC) },
		"queue_stats": func(w io.Writer) {
			showStats(w, &wire.Stats{
				At: goldenNow, Mode: "silent", Error: "no room: 1 % of the disk is free", Messages: 2, Recipients: 12_345, Waiting: 12_000, Due: 300, Active: 44, Held: 1, Oldest: arrived,
				Ages: [10]int64{300, 46, 0, 0, 0, 0, 12_000}, DomainCount: 3,
				Domains: []wire.Domain{
					{Domain: "bank.test", Waiting: 12_000, Due: 300, Next: goldenNow.Add(-time.Minute), Ages: [10]int64{300, 0, 0, 0, 0, 0, 12_000}, Lane: lane},
					{Domain: "a-much-longer-name.shop.test", Active: 44, Held: 1, Ages: [10]int64{0, 45}},
				},
				Suspensions: []wire.Suspension{{Domain: "*.shop.test", Tag: "week46", Until: goldenNow.Add(2 * time.Hour), Reason: "they asked"}, {Site: "bigmail"}},
			})
		},
		"queue_stats_empty": func(w io.Writer) { showStats(w, &wire.Stats{At: goldenNow, Mode: "live"}) },
		"trace": func(w io.Writer) {
			showHistory(w, &wire.History{ID: messages[0].ID, Message: &messages[0], Events: []wire.Event{
				{At: arrived, Kind: "accepted"},
				{At: arrived.Add(1200 * time.Millisecond), Kind: "delivered", Recipient: "carla@shop.test", Attempt: 1, Outcome: delivered, DelaySeconds: 1.2, ConnectSeconds: .03, TransferSeconds: .012},
				{At: arrived.Add(1300 * time.Millisecond), Kind: "failed", Recipient: "ben@city.test", Attempt: 1, Outcome: refused, DelaySeconds: 1.3},
				{At: arrived.Add(2 * time.Second), Kind: "deferred", Recipient: "anna@bank.test", Attempt: 1, Outcome: greylisted, DelaySeconds: 2, TransferSeconds: .2, Next: arrived.Add(5 * time.Minute)},
				{At: arrived.Add(4 * time.Second), Kind: "reported", Text: "01m81j18g0000000000000000z"},
				{At: arrived.Add(time.Hour), Kind: "held", Recipient: "anna@bank.test", Text: "looks odd"},
				{At: arrived.Add(2 * time.Hour), Kind: "released", Recipient: "anna@bank.test"},
				{At: arrived.Add(2 * time.Hour), Kind: "retried", Recipient: "anna@bank.test"},
				{At: arrived.Add(2*time.Hour + 37*time.Minute), Kind: "deferred", Recipient: "anna@bank.test", Attempt: 3, Outcome: &wire.Outcome{Verdict: "deferred", Stage: "final", Status: "4.4.2", Text: "connection lost", MX: "mx.bank.test", InDoubt: true}, Next: goldenNow.Add(17 * time.Minute)},
			}}, goldenNow, time.UTC)
		},
		"trace_cut": func(w io.Writer) {
			showHistory(w, &wire.History{ID: messages[0].ID, Events: []wire.Event{{At: arrived, Kind: "cancelled", Recipient: "anna@bank.test", Text: "duplicate"}}}, goldenNow, time.UTC)
		},
		"explain": func(w io.Writer) {
			showExplanation(w, &wire.Explanation{
				Address: "anna@bank.test", Domain: "bank.test", Site: "bigmail", Route: "mx", DNSSEC: true,
				Hosts: []wire.Host{
					{Name: "mx1.bank.test", Preference: 10, Port: 25, Addresses: []wire.HostAddress{{IP: "2001:db8::1"}, {IP: "10.0.0.1", Refused: "it is a private address"}}, TLS: wire.Demand{Level: "dane", Source: "DANE"}},
					{Name: "mx2.bank.test", Preference: 20, Port: 25, Error: "no such name", TLS: wire.Demand{Error: "the TLSA records could not be looked up"}},
					{Name: "mx3.bank.test", Preference: 20, Port: 25, Addresses: []wire.HostAddress{{IP: "192.0.2.3"}}, TLS: wire.Demand{Level: "enable", Source: "MTA-STS", Error: "it is not a mail host that the domain's MTA-STS policy names"}},
				},
				Skipped:     []wire.Host{{Name: "mail.sender.test", Preference: 30, Error: "this is ourselves"}},
				Settings:    wire.Settings{Retry: []string{"5m", "10m"}, ExpireAfter: "5d", MaxConnections: 20, MaxMessagesPerMinute: 60},
				Lane:        lane,
				Suspensions: []wire.Suspension{{Domain: "bank.test", Reason: "migration"}},
			}, goldenNow)
		},
		"explain_fixed": func(w io.Writer) {
			showExplanation(w, &wire.Explanation{
				Address: "anna@intranet", Domain: "intranet", Site: "192.0.2.7:2526", Route: "fixed", DNSSEC: true,
				Hosts: []wire.Host{{Port: 2526, Addresses: []wire.HostAddress{{IP: "192.0.2.7"}}, TLS: wire.Demand{Level: "require", Source: "configuration"}}},
			}, goldenNow)
		},
		"explain_bounce": func(w io.Writer) {
			showExplanation(w, &wire.Explanation{Address: "a@null.test", Domain: "null.test", Route: "none", Permanent: true, RouteError: "null.test takes no mail (null MX)"}, goldenNow)
		},
		"explain_local": func(w io.Writer) { showExplanation(w, &wire.Explanation{Address: "root", Local: true}, goldenNow) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			show(&b)
			golden(t, name, b.Bytes())
			if strings.ContainsAny(b.String(), "\x1b\u202e") {
				t.Error("a stranger's control characters reach the terminal")
			}
		})
	}
}

func TestSpan(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0 us", 250 * time.Microsecond: "250 us", 15 * time.Millisecond: "15 ms", 1500 * time.Millisecond: "1.5 s", 42 * time.Second: "42 s",
		119 * time.Second: "119 s", 291 * time.Second: "5 min", 119 * time.Minute: "119 min", 3 * time.Hour: "3 h", 72 * time.Hour: "3 d", -5 * time.Minute: "5 min",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

// scripted answers on a control socket what it is told to.
type scripted struct {
	socket  string
	mu      sync.Mutex
	asked   []string // method, path and query, body
	answers map[string][]any
}

func newScripted(t *testing.T) *scripted {
	t.Helper()
	dir, err := os.MkdirTemp("", "cli")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &scripted{socket: filepath.Join(dir, "s"), answers: make(map[string][]any)}
	l, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return s
}

func (s *scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Method, r.URL.RequestURI(), body)))
	next := s.answers[r.URL.Path]
	if len(next) == 0 {
		w.WriteHeader(http.StatusInternalServerError)
		json.NewEncoder(w).Encode(wire.Problem{Text: "not in the script"})
		return
	}
	s.answers[r.URL.Path] = next[1:]
	json.NewEncoder(w).Encode(next[0])
}

// command runs a command line against the script.
func (s *scripted) command(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	root := newRootCommand()
	var out, errs bytes.Buffer
	root.SetArgs(append(slices.Clone(args), "--socket", s.socket))
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&errs)
	began := noteBegin(root)
	if err := root.ExecuteContext(t.Context()); err != nil {
		code = report(&errs, err, began())
	}
	return code, out.String(), errs.String()
}

func TestListGetsAllParts(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	messages := sampleMessages()
	s.answers["/v1/queue"] = []any{
		wire.MessageList{Messages: messages[:1], Next: messages[0].ID},
		wire.MessageList{Messages: messages[1:]},
	}
	code, stdout, _ := s.command(t, "", "queue", "list", "--limit", "0", "--sender", "@sender.test", "--status", "waiting,held", "--older-than", "1h", "01m8")
	if code != 0 || !strings.Contains(stdout, messages[0].ID) || !strings.Contains(stdout, messages[1].ID) || !strings.Contains(stdout, "-- 2 messages\n") {
		t.Errorf("%d %s", code, stdout)
	}
	const selector = "id=01m8&limit=1000&older_than=1h&sender=%40sender.test&status=waiting&status=held"
	want := []string{"GET /v1/queue?" + selector, "GET /v1/queue?after=" + messages[0].ID + "&" + selector}
	if !slices.Equal(s.asked, want) {
		t.Errorf("asked %q, want %q", s.asked, want)
	}
}

func TestListStopsAtItsLimit(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	messages := sampleMessages()
	s.answers["/v1/queue"] = []any{wire.MessageList{Messages: messages[:1], Next: messages[0].ID}}
	code, stdout, _ := s.command(t, "", "queue", "list", "--limit", "1")
	if code != 0 || !strings.Contains(stdout, "--limit 0 lists all") || len(s.asked) != 1 {
		t.Errorf("%d %s %q", code, stdout, s.asked)
	}
}

// The question comes after the count and before the deed.
func TestQuestionBeforeDestroying(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer   string
		terminal bool
		args     []string
		deeds    int // requests that are no dry run
		code     int
		text     string
	}{
		"yes":            {"y\n", true, nil, 1, 0, ""},
		"no":             {"n\n", true, nil, 0, exitFailure, "nothing was done"},
		"just enter":     {"\n", true, nil, 0, exitFailure, "nothing was done"},
		"end of file":    {"", true, nil, 0, exitFailure, "nothing was done"},
		"nobody to ask":  {"y\n", false, nil, 0, exitUsage, "repeat it with --yes"},
		"not asked":      {"", false, []string{"--yes"}, 1, 0, ""},
		"only a dry run": {"", false, []string{"--dry-run"}, 0, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			counted := wire.ActionResult{Action: "cancel", Recipients: 12, Messages: 3, DryRun: true}
			s.answers["/v1/queue/cancel"] = []any{counted, wire.ActionResult{Action: "cancel", Recipients: 12}}
			if slices.Contains(c.args, "--yes") {
				s.answers["/v1/queue/cancel"] = s.answers["/v1/queue/cancel"][1:]
			}
			var out, errs bytes.Buffer
			a := queueActions[slices.IndexFunc(queueActions, func(a queueAction) bool { return a.name == "cancel" })]
			f := actionFlags{Action: wire.Action{Selector: wire.Selector{Tag: "x"}, DryRun: slices.Contains(c.args, "--dry-run")}, yes: slices.Contains(c.args, "--yes")}
			cmd := newRootCommand()
			cmd.SetContext(t.Context())
			cmd.SetOut(&out)
			socket, none := s.socket, ""
			server, err := serverFlags{&none, &socket}.connect(cmd)
			if err != nil {
				t.Fatal(err)
			}
			code := 0
			if err := runAction(cmd, server, a, f, question{strings.NewReader(c.answer), &errs, c.terminal}); err != nil {
				code = report(&errs, err, true)
			}
			deeds := 0
			for _, asked := range s.asked {
				if !strings.Contains(asked, `"dry_run":true`) {
					deeds++
				}
			}
			if code != c.code || deeds != c.deeds || !strings.Contains(errs.String(), c.text) {
				t.Errorf("exit code %d, %d deeds, %q, want %d, %d and %q", code, deeds, errs.String(), c.code, c.deeds, c.text)
			}
			if c.terminal && !strings.Contains(errs.String(), "cancel 12 recipients of 3 messages? [y/N]") {
				t.Errorf("asked %q", errs.String())
			}
		})
	}
}

func TestActionsSayWhatTheyAsk(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args       []string
		path, body string
		result     wire.ActionResult
		stdout     string
	}{
		"paced retry": {
			[]string{"queue", "retry", "--site", "bigmail", "--pace", "50"}, "retry", `{"selector":{"site":"bigmail"},"pace":50}`,
			wire.ActionResult{Recipients: 9000, Messages: 8000, Paced: true}, "due now, little by little: 9000 recipients of 8000 messages\n",
		},
		"suspend": {
			[]string{"queue", "suspend", "--domain", "shop.test", "--for", "2h", "--reason", "they asked"}, "suspend", `{"selector":{"domain":"shop.test"},"reason":"they asked","for":"2h"}`,
			wire.ActionResult{Recipients: 5, Suspensions: []wire.Suspension{{Domain: "shop.test", Reason: "they asked"}}}, "suspended: domain shop.test: they asked\n5 recipients in the queue now\n",
		},
		"resume all": {
			[]string{"queue", "resume", "--all"}, "resume", `{"selector":{},"all":true}`,
			wire.ActionResult{}, "nothing in the queue matches\n",
		},
		"hold": {
			[]string{"queue", "hold", "01m8", "--id", "02"}, "hold", `{"selector":{"ids":["02","01m8"]}}`,
			wire.ActionResult{Recipients: 1}, "held: 1 recipient\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScripted(t)
			s.answers["/v1/queue/"+c.path] = []any{c.result}
			code, stdout, stderr := s.command(t, "", c.args...)
			if code != 0 || stdout != c.stdout {
				t.Errorf("%d %q %q, want %q", code, stdout, stderr, c.stdout)
			}
			if want := "POST /v1/queue/" + c.path + " " + c.body; len(s.asked) != 1 || s.asked[0] != want {
				t.Errorf("asked %q, want %q", s.asked, want)
			}
		})
	}
}

func TestSendAsksForWhatItIsTold(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	s.answers["/v1/messages"] = []any{wire.Injected{ID: "01x"}}
	code, stdout, stderr := s.command(t, "Grüße\n", "send", "--from", "Größe <a@sender.test>", "--sender", "<>", "--to", "b@shop.test, c@shop.test", "--cc", "d@shop.test", "--bcc", "e@shop.test",
		"--subject", "Prüfung", "--notify", "failure,delay", "--require-tls", "--priority", "bulk", "--tag", "t1", "--not-before", "2026-12-24T18:00:00+01:00", "--header", "X-Job: 7")
	if code != 0 || stdout != "queued as 01x\n" || stderr != "" {
		t.Fatalf("%d %q %q", code, stdout, stderr)
	}
	head, content, _ := strings.Cut(s.asked[0], " From: ")
	if head != "POST /v1/messages?not_before=2026-12-24T18%3A00%3A00%2B01%3A00&notify=failure&notify=delay&priority=bulk&recipient=b%40shop.test&recipient=c%40shop.test&recipient=d%40shop.test&recipient=e%40shop.test&require_tls=true&sender=&tag=t1" {
		t.Errorf("asked %s", head)
	}
	for _, want := range []string{"To: b@shop.test, c@shop.test\r\n", "Cc: d@shop.test\r\n", "Subject: =?utf-8?q?Pr=C3=BCfung?=\r\n", "X-Job: 7\r\n", base64.StdEncoding.EncodeToString([]byte("Grüße\r\n"))} {
		if !strings.Contains(content, want) {
			t.Errorf("%q is missing in %s", want, content)
		}
	}
	if strings.Contains(content, "e@shop.test") {
		t.Error("the blind copy is in the content")
	}
}

func TestSendTellsTheVerdict(t *testing.T) {
	t.Parallel()
	delivered, _, refused := sampleOutcomes()
	one := func(status string, last *wire.Outcome, ended bool) *wire.Message {
		return &wire.Message{Ended: ended, Recipients: []wire.Recipient{{Address: "a@shop.test", Status: "delivered", Last: delivered}, {Address: "b@shop.test", Status: status, Last: last}}}
	}
	for name, c := range map[string]struct {
		message *wire.Message
		want    int
	}{
		"delivered":      {one("delivered", delivered, true), 0},
		"failed":         {one("failed", refused, true), 1},
		"failed, open":   {one("failed", refused, false), 1},
		"cancelled":      {one("cancelled", nil, true), 1},
		"not yet":        {one("waiting", nil, false), 75},
		"nobody can say": {nil, 75},
	} {
		s := newScripted(t)
		s.answers["/v1/messages"] = []any{wire.Injected{ID: "01x", Message: c.message}}
		if code, stdout, _ := s.command(t, "", "send", "--to", "a@shop.test", "--wait", "text"); code != c.want || !strings.Contains(stdout, "queued as 01x") {
			t.Errorf("%s: exit code %d, want %d\n%s", name, code, c.want, stdout)
		}
	}
}

func TestJSONIsWhatTheServerSaid(t *testing.T) {
	t.Parallel()
	s := newScripted(t)
	m := sampleMessages()[0]
	s.answers["/v1/messages/01m8"] = []any{m}
	s.answers["/v1/messages/01m8/history"] = []any{wire.History{ID: m.ID}}
	s.answers["/v1/stats"] = []any{wire.Stats{Messages: 7}}
	s.answers["/v1/explain"] = []any{wire.Explanation{Address: "a@b.test", Permanent: true}}
	for _, args := range [][]string{{"queue", "show", "01m8"}, {"trace", "01m8"}, {"queue", "stats"}, {"explain", "a@b.test"}} {
		code, stdout, stderr := s.command(t, "", append(args, "--json")...)
		if want := map[bool]int{true: exitFailure}[args[0] == "explain"]; code != want || !json.Valid([]byte(stdout)) {
			t.Errorf("%v: %d %q %q", args, code, stdout, stderr)
		}
	}
}
