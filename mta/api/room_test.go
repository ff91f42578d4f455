package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postrider/mta/api/client"
	"postrider/mta/intake"
	"postrider/mta/mailaddr"
	"postrider/queue"
)

// start is when the tests happen.
var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// room is a server over a real queue, with a plain door in place of intake.
type room struct {
	t      *testing.T
	dir    string
	q      *queue.Queue
	server *Server
	client *client.Client
	stop   context.CancelFunc // of the server; called at the end anyway

	mu    sync.Mutex
	now   time.Time
	metas []intake.Meta
	full  *intake.Error // what the door answers
}

func (r *room) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *room) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

// newRoom opens everything; edit may change the options.
func newRoom(t *testing.T, edit func(*Options)) *room {
	t.Helper()
	// The path of a socket has to be short; t.TempDir's grows with the test's name.
	dir, err := os.MkdirTemp("", "api")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &room{t: t, dir: dir, now: start}
	if r.q, err = queue.Open(queue.Options{Dir: filepath.Join(dir, "queue"), MinFree: 1}); err != nil {
		t.Fatal(err)
	}
	opts := Options{
		StateDir: dir, Listen: "127.0.0.1:0", Hosts: []string{"mail.example.test"}, LocalSubmission: true,
		Hostname: "mail.sender.test", Version: "1.2.3", MaxMessageSize: 100_000,
		Queue: r.q, Begin: r.begin, Now: r.clock,
	}
	if edit != nil {
		edit(&opts)
	}
	if r.server, err = New(opts); err != nil {
		t.Fatal(err)
	}
	if err := r.server.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.q.Run(ctx); err != nil {
			t.Errorf("queue: %v", err)
		}
	})
	serving, stopServing := context.WithCancel(context.Background())
	r.stop = stopServing
	served := make(chan error, 1)
	go func() { served <- r.server.Run(serving) }()
	r.client = client.New(filepath.Join(dir, SocketName))
	t.Cleanup(func() {
		r.client.Close()
		stopServing()
		if err := <-served; err != nil {
			t.Errorf("server: %v", err)
		}
		stop()
		wg.Wait()
		if err := r.q.Close(); err != nil {
			t.Errorf("queue: %v", err)
		}
	})
	return r
}

// draft writes into the queue what it is given.
type draft struct {
	r    *room
	meta intake.Meta
	body *queue.Body
}

func (r *room) begin(now time.Time, m intake.Meta) (Draft, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full != nil {
		return nil, r.full
	}
	r.metas = append(r.metas, m)
	env := m.Envelope
	for i := range env.Recipients {
		a, err := mailaddr.Parse(env.Recipients[i].Address)
		if err != nil {
			return nil, &intake.Error{Code: 553, Status: "5.1.3", Text: err.Error()}
		}
		env.Recipients[i].Domain = a.ASCIIDomain()
	}
	if m.SenderFromHeader {
		env.Sender = "reports@sender.test"
	}
	if m.RecipientsFromHeader {
		env.Recipients = []queue.Recipient{{Address: "header@shop.test", Domain: "shop.test"}}
	}
	env.ID, env.ArrivedAt = r.q.NewID(now), now
	return &draft{r: r, meta: m, body: r.q.NewBody()}, nil
}

func (d *draft) Write(p []byte) (int, error) {
	if d.body.Size()+int64(len(p)) > 100_000 {
		return 0, &intake.Error{Code: 552, Status: "5.3.4", Text: "the message is larger than 100000 octets"}
	}
	return d.body.Write(p)
}

func (d *draft) Commit(ctx context.Context) (queue.ID, error) {
	return d.meta.Envelope.ID, d.r.q.Submit(ctx, queue.Submission{Envelope: d.meta.Envelope, Prefix: []byte("Received: here\r\n"), Body: d.body})
}

func (d *draft) Abort() { d.body.Discard() }

func (r *room) lastMeta() intake.Meta {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.metas) == 0 {
		r.t.Fatal("no message came to the door")
	}
	return r.metas[len(r.metas)-1]
}

// put queues a message directly.
func (r *room) put(env queue.Envelope, recipients ...string) queue.ID {
	r.t.Helper()
	if env.ArrivedAt.IsZero() {
		env.ArrivedAt = r.clock()
	}
	env.ID = r.q.NewID(env.ArrivedAt)
	if env.Sender == "" {
		env.Sender = "a@sender.test"
	}
	if env.Sender == "<>" {
		env.Sender = ""
	}
	for _, a := range recipients {
		env.Recipients = append(env.Recipients, queue.Recipient{Address: a, Domain: strings.ToLower(a[strings.IndexByte(a, '@')+1:])})
	}
	body := r.q.NewBody()
	fmt.Fprintf(body, "Subject: x\r\n\r\nhello\r\n")
	if err := r.q.Submit(r.t.Context(), queue.Submission{Envelope: &env, Prefix: []byte("Received: here\r\n"), Body: body}); err != nil {
		r.t.Fatal(err)
	}
	return env.ID
}

// settle takes the next claim of a domain and ends it with one outcome for
// each of its recipients.
func (r *room) settle(domain string, o queue.Outcome) {
	r.t.Helper()
	r.q.Due(r.clock(), nil)
	c, ok := r.q.Take(r.clock(), domain, 100)
	if !ok {
		r.t.Fatalf("nothing is due at %s", domain)
	}
	outcomes := make([]queue.Outcome, len(c.Recipients))
	for i := range outcomes {
		outcomes[i] = o
	}
	c.Settle(r.clock(), outcomes, queue.Timing{Connect: 3 * time.Millisecond, Transfer: 5 * time.Millisecond})
}

var (
	deliveredOutcome = queue.Outcome{Verdict: queue.Delivered, Stage: queue.StageFinal, Code: 250, Status: "2.0.0", Text: "queued as 17",
		Remote: &queue.Remote{Host: "mx.shop.test", IP: netip.MustParseAddr("192.0.2.25"), TLS: "TLS1.3", Demand: "enable", HELO: "mail.sender.test"}}
	greylistedOutcome = queue.Outcome{Verdict: queue.Deferred, Stage: queue.StageRCPT, Code: 451, Status: "4.7.1", Text: "come back later", Class: "greylisted",
		Remote: &queue.Remote{Host: "mx.bank.test", IP: netip.MustParseAddr("192.0.2.26")}}
	refusedOutcome = queue.Outcome{Verdict: queue.Failed, Stage: queue.StageRCPT, Code: 550, Status: "5.1.1", Text: "no such user", Class: "invalid-recipient",
		Remote: &queue.Remote{Host: "mx.city.test"}}
)

// tcp asks the TCP listener; edit may change the request.
func (r *room) tcp(method, path, body string, edit func(*http.Request)) (*http.Response, string) {
	r.t.Helper()
	request, err := http.NewRequest(method, "http://"+r.server.Addr().String()+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if edit != nil {
		edit(request)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return response, string(text)
}

// socket asks one of the Unix sockets.
func (r *room) socket(name, method, path, kind, body string) (int, string) {
	r.t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(r.dir, name))
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(text)
}

// ask is socket for the control socket, with JSON both ways.
func (r *room) ask(method, path, body string, into any) int {
	r.t.Helper()
	kind := ""
	if body != "" {
		kind = typeJSON
	}
	status, text := r.socket(SocketName, method, path, kind, body)
	if into != nil {
		dec := json.NewDecoder(bytes.NewReader([]byte(text)))
		dec.DisallowUnknownFields()
		if err := dec.Decode(into); err != nil {
			r.t.Fatalf("%s %s: %v in %s", method, path, err, text)
		}
	}
	return status
}
