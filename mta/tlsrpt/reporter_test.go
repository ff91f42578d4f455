package tlsrpt

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// outside is who is asked and who gets the reports.
type outside struct {
	mu      sync.Mutex
	txts    map[string][]string
	dnsErr  error
	mailErr error
	mails   []string // "to: subject line"
}

func (o *outside) LookupTXT(_ context.Context, name string) ([]string, time.Duration, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.txts[name], time.Minute, o.dnsErr
}

func (o *outside) SendReport(_ context.Context, from, to string, message []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mailErr != nil {
		return o.mailErr
	}
	_, subject, _ := bytes.Cut(message, []byte("Subject: "))
	subject, _, _ = bytes.Cut(subject, []byte("\r\n"))
	o.mails = append(o.mails, from+" > "+to+": "+string(subject))
	return nil
}

func (o *outside) sent() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.mails, "; ")
}

func newReporter(t *testing.T, interval time.Duration, o *outside, store Store) *Reporter {
	t.Helper()
	return &Reporter{
		Recorder: newRecorder(t, interval, store), DNS: o, Mailer: o, Poster: &Poster{},
		Sender: sender, From: "postmaster@s.test",
	}
}

// web is a server that takes reports, and a Poster that reaches it.
func web(t *testing.T, handler http.HandlerFunc) *Poster {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &Poster{RootCAs: pool, Dial: func(ctx context.Context, network, asked string) (net.Conn, error) {
		if asked != "example.com:443" { // the name in httptest's certificate
			return nil, fmt.Errorf("%s was to be dialled", asked)
		}
		return new(net.Dialer).DialContext(ctx, network, s.Listener.Addr().String())
	}}
}

func TestSendDue(t *testing.T) {
	t.Parallel()
	down := errors.New("down")
	const wish = "_smtp._tls.d.test"
	later := noon.Add(day)
	tests := []struct {
		name    string
		outside *outside
		post    int // status that the web server answers with; 0: it is not reached
		at      time.Time
		mails   string
		posts   int
		kept    bool // for another try
	}{
		{"by mail", &outside{txts: map[string][]string{wish: {"v=TLSRPTv1; rua=mailto:r@d.test"}}}, 0, later, "postmaster@s.test > r@d.test: Report Domain: d.test", 0, false},
		{"by HTTPS", &outside{txts: map[string][]string{wish: {"v=TLSRPTv1; rua=https://example.com/x"}}}, 201, later, "", 1, false},
		{"by both", &outside{txts: map[string][]string{wish: {"v=TLSRPTv1; rua=mailto:r@d.test,https://example.com/x"}}}, 200, later, "postmaster@s.test > r@d.test: Report Domain: d.test", 1, false},
		{"one of two fails", &outside{txts: map[string][]string{wish: {"v=TLSRPTv1; rua=https://example.com/x,mailto:r@d.test"}}}, 500, later, "postmaster@s.test > r@d.test: Report Domain: d.test", 1, false},
		{"nobody asks", &outside{}, 0, later, "", 0, false},
		{"a malformed wish", &outside{txts: map[string][]string{wish: {"v=TLSRPTv1; rua"}}}, 0, later, "", 0, false},
		{"too early", &outside{txts: map[string][]string{wish: {"v=TLSRPTv1; rua=mailto:r@d.test"}}}, 0, noon.Add(12*time.Hour - 1), "", 0, true},
		{"DNS fails", &outside{dnsErr: down}, 0, later, "", 0, true},
		{"the queue is full", &outside{txts: map[string][]string{wish: {"v=TLSRPTv1; rua=mailto:r@d.test"}}, mailErr: down}, 0, later, "", 0, true},
		{"the web server fails", &outside{txts: map[string][]string{wish: {"v=TLSRPTv1; rua=https://example.com/x"}}}, 500, later, "", 1, true},
		{"the web server redirects", &outside{txts: map[string][]string{wish: {"v=TLSRPTv1; rua=https://example.com/x"}}}, 307, later, "", 1, true},
		{"the web server is not reached", &outside{txts: map[string][]string{wish: {"v=TLSRPTv1; rua=https://other.test/x"}}}, 0, later, "", 0, true},
		{"in vain for a day", &outside{dnsErr: down}, 0, noon.Add(12*time.Hour + day), "", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			store := newMemory()
			r := newReporter(t, day, tt.outside, store)
			posts := 0
			r.Poster = web(t, func(w http.ResponseWriter, req *http.Request) {
				posts++
				body, _ := io.ReadAll(req.Body)
				if req.Method != http.MethodPost || req.URL.Path != "/x" || req.Header.Get("Content-Type") != "application/tlsrpt+gzip" || !bytes.HasPrefix(body, []byte{0x1f, 0x8b}) {
					t.Errorf("%s %s %s %x", req.Method, req.URL, req.Header, body[:2])
				}
				w.Header().Set("Location", "/y")
				w.WriteHeader(tt.post)
			})
			r.Recorder.Record(noon, "d.test", sts, nil)
			if err := r.Recorder.Save(); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time nothing may happen: it is sent, or not due yet
				r.SendDue(t.Context(), tt.at)
			}
			if tt.outside.sent() != tt.mails || posts != tt.posts {
				t.Errorf("mails %q, %d posts, want %q, %d", tt.outside.sent(), posts, tt.mails, tt.posts)
			}
			if kept := len(store.data) == 1; kept != tt.kept || kept != (len(r.Recorder.tallies) == 1) {
				t.Errorf("kept %v, want %v", kept, tt.kept)
			}
		})
	}
}

func TestReportIsTriedAgain(t *testing.T) {
	t.Parallel()
	o := &outside{dnsErr: errors.New("down")}
	r := newReporter(t, day, o, newMemory())
	r.Recorder.Record(noon, "d.test", sts, nil)
	at := noon.Add(day)
	r.SendDue(t.Context(), at)
	o.dnsErr, o.txts = nil, map[string][]string{"_smtp._tls.d.test": {"v=TLSRPTv1; rua=mailto:r@d.test"}}
	r.SendDue(t.Context(), at.Add(time.Hour-1))
	if o.sent() != "" {
		t.Errorf("tried before an hour is over: %s", o.sent())
	}
	r.SendDue(t.Context(), at.Add(time.Hour))
	if o.sent() == "" {
		t.Error("not tried again")
	}
}

func TestEndedContextKeepsTheReport(t *testing.T) {
	t.Parallel()
	o := &outside{txts: map[string][]string{"_smtp._tls.d.test": {"v=TLSRPTv1; rua=https://example.com/x"}}}
	r := newReporter(t, day, o, newMemory())
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	r.Poster = web(t, func(http.ResponseWriter, *http.Request) {
		cancel()
		<-release
	})
	defer close(release) // before the server closes, which waits for its handlers
	r.Recorder.Record(noon, "d.test", sts, nil)
	r.SendDue(ctx, noon.Add(day))
	if n := len(r.Recorder.Due(noon.Add(day))); n != 1 {
		t.Errorf("%d tallies are due, want that which was not sent", n)
	}
}

func TestCertificateOfTheWebServer(t *testing.T) {
	t.Parallel()
	p := web(t, func(w http.ResponseWriter, r *http.Request) {
		t.Error("a report reached a server that nobody vouches for")
	})
	p.RootCAs = x509.NewCertPool()
	if err := p.Post(t.Context(), "https://example.com/x", sampleReport(t)); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Error(err)
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &outside{txts: map[string][]string{"_smtp._tls.d.test": {"v=TLSRPTv1; rua=mailto:r@d.test"}}}
		store := newMemory()
		r := newReporter(t, day, o, store)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		r.Recorder.Record(time.Now(), "d.test", sts, nil)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if store.count() != 1 {
			t.Error("the tally is not saved within minutes")
		}
		time.Sleep(day + 4*time.Hour)
		synctest.Wait()
		if o.sent() != "postmaster@s.test > r@d.test: Report Domain: d.test" || store.count() != 0 {
			t.Errorf("sent %q, %d in the store", o.sent(), store.count())
		}
		r.Recorder.Record(time.Now(), "d.test", sts, nil)
		cancel()
		if err := <-done; err != nil || store.count() != 1 {
			t.Errorf("%v, %d in the store: the last minute is lost", err, store.count())
		}
	})
}
