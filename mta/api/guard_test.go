package api

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTCPGuard(t *testing.T) {
	t.Parallel()
	r := newRoom(t, func(o *Options) {
		o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("postrider_x 1\n")) })
	})
	token, err := os.ReadFile(filepath.Join(r.dir, TokenName))
	if err != nil {
		t.Fatal(err)
	}
	bearer := "Bearer " + strings.TrimSpace(string(token))
	_, port, _ := net.SplitHostPort(r.server.Addr().String())
	for name, c := range map[string]struct {
		path   string
		host   string
		header map[string]string
		want   int
	}{
		"health":                  {"/healthz", "", nil, 200},
		"ready":                   {"/readyz", "", nil, 200},
		"metrics":                 {"/metrics", "", nil, 200},
		"page":                    {"/", "", nil, 200},
		"script":                  {"/page/page.js", "", nil, 200},
		"no such file":            {"/page/secret", "", nil, 404},
		"queue without token":     {"/v1/queue", "", nil, 401},
		"unknown without token":   {"/v2/queue", "", nil, 401},
		"queue with token":        {"/v1/queue", "", map[string]string{"Authorization": bearer}, 200},
		"lower-case scheme":       {"/v1/queue", "", map[string]string{"Authorization": strings.Replace(bearer, "B", "b", 1)}, 200},
		"wrong token":             {"/v1/queue", "", map[string]string{"Authorization": bearer + "x"}, 401},
		"beginning of the token":  {"/v1/queue", "", map[string]string{"Authorization": bearer[:len(bearer)-1]}, 401},
		"empty token":             {"/v1/queue", "", map[string]string{"Authorization": "Bearer "}, 401},
		"another scheme":          {"/v1/queue", "", map[string]string{"Authorization": "Basic " + bearer[7:]}, 401},
		"localhost":               {"/healthz", "localhost:" + port, nil, 200},
		"localhost, no port":      {"/healthz", "localhost", nil, 200},
		"named in hosts":          {"/healthz", "mail.example.test", nil, 200},
		"named in hosts, case":    {"/healthz", "MAIL.example.test.:80", nil, 200},
		"rebound name":            {"/healthz", "evil.example.test", nil, 421},
		"rebound name, token":     {"/v1/queue", "evil.example.test:" + port, map[string]string{"Authorization": bearer}, 421},
		"another address":         {"/healthz", "192.0.2.1:" + port, nil, 421},
		"own origin":              {"/healthz", "localhost:" + port, map[string]string{"Origin": "http://localhost:" + port}, 200},
		"foreign origin":          {"/healthz", "", map[string]string{"Origin": "https://evil.example.test"}, 403},
		"foreign origin, token":   {"/v1/queue", "", map[string]string{"Origin": "https://evil.example.test", "Authorization": bearer}, 403},
		"null origin":             {"/healthz", "", map[string]string{"Origin": "null"}, 403},
		"same site, other origin": {"/healthz", "", map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		"cross site":              {"/healthz", "", map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		"typed by the user":       {"/healthz", "", map[string]string{"Sec-Fetch-Site": "none"}, 200},
		"own page":                {"/healthz", "", map[string]string{"Sec-Fetch-Site": "same-origin"}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			response, body := r.tcp("GET", c.path, "", func(request *http.Request) {
				if c.host != "" {
					request.Host = c.host
				}
				for name, value := range c.header {
					request.Header.Set(name, value)
				}
			})
			if response.StatusCode != c.want {
				t.Errorf("status %d, want %d: %s", response.StatusCode, c.want, body)
			}
			if got := response.Header.Get("Access-Control-Allow-Origin") + response.Header.Get("Set-Cookie"); got != "" {
				t.Errorf("a CORS header or a cookie: %q", got)
			}
			if response.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Error("nosniff is missing")
			}
			if strings.Contains(body, bearer[7:]) {
				t.Error("the token is in an answer")
			}
		})
	}
}

// A form of a foreign page can send three content types; none may do anything.
func TestFormsAreRefused(t *testing.T) {
	t.Parallel()
	r := newRoom(t, nil)
	for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"} {
		for _, path := range []string{"/v1/messages?sender=a@sender.test&recipient=b@shop.test", "/v1/queue/cancel"} {
			if status, body := r.socket(SocketName, "POST", path, kind, `{"all":true}`); status != http.StatusUnsupportedMediaType {
				t.Errorf("%s with %q: %d %s", path, kind, status, body)
			}
		}
	}
}

func TestPageHasNoOpenDoors(t *testing.T) {
	t.Parallel()
	r := newRoom(t, nil)
	response, body := r.tcp("GET", "/", "", nil)
	policy := response.Header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy is %q", policy)
	}
	if strings.Contains(body, "<script>") || strings.Contains(body, "style=") || strings.Contains(body, "http") {
		t.Errorf("the page holds what its policy forbids, or points elsewhere:\n%s", body)
	}
	_, script := r.tcp("GET", "/page/page.js", "", nil)
	if strings.Contains(script, "innerHTML") {
		t.Error("the script writes markup")
	}
}

func TestNotReady(t *testing.T) {
	t.Parallel()
	failing := os.ErrDeadlineExceeded
	r := newRoom(t, func(o *Options) { o.Ready = func() error { return failing } })
	response, body := r.tcp("GET", "/readyz", "", nil)
	if response.StatusCode != 503 || strings.Contains(body, failing.Error()) {
		t.Errorf("%d %q", response.StatusCode, body)
	}
	if response, _ := r.tcp("GET", "/healthz", "", nil); response.StatusCode != 200 {
		t.Errorf("healthz: %d", response.StatusCode)
	}
}

func TestSocketPermissions(t *testing.T) {
	t.Parallel()
	r := newRoom(t, nil)
	for name, want := range map[string]os.FileMode{SocketName: 0o660, SubmitSocketName: 0o666, TokenName: 0o600} {
		info, err := os.Stat(filepath.Join(r.dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want %v", name, info.Mode(), err, want)
		}
	}
}

func TestSubmitSocketTakesMessagesOnly(t *testing.T) {
	t.Parallel()
	r := newRoom(t, nil)
	id := r.put(queue1(), "b@shop.test").String()
	for _, c := range [][2]string{{"GET", "/v1/queue"}, {"GET", "/v1/messages/" + id}, {"GET", "/v1/stats"}, {"POST", "/v1/queue/cancel"}, {"GET", "/v1/explain?address=a@b.test"}, {"PUT", "/v1/messages"}} {
		if status, _ := r.socket(SubmitSocketName, c[0], c[1], typeJSON, `{"all":true}`); status != http.StatusForbidden {
			t.Errorf("%s %s: %d", c[0], c[1], status)
		}
	}
	status, body := r.socket(SubmitSocketName, "POST", "/v1/messages?sender=a@sender.test&recipient=b@shop.test&via=sendmail", typeMessage, "Subject: x\n\n")
	if status != http.StatusCreated {
		t.Errorf("%d %s", status, body)
	}
	if origin := r.lastMeta().Envelope.Origin; origin.Via != "sendmail" || origin.User == "" {
		t.Errorf("origin is %+v", origin)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "api")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := listenSocket(path, 0o660)
	if err != nil {
		t.Fatalf("a dead socket: %v", err)
	}
	if _, err := listenSocket(path, 0o660); err == nil || !strings.Contains(err.Error(), "another postrider") {
		t.Errorf("a live socket: %v", err)
	}
	l.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenSocket(path, 0o660); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file: %v", err)
	}
	if _, err := listenSocket(filepath.Join(dir, strings.Repeat("x", 120)), 0o660); err == nil || !strings.Contains(err.Error(), "shorter state_dir") {
		t.Errorf("a long path: %v", err)
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), TokenName)
	first, err := loadToken(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := loadToken(path)
	if err != nil || again != first || len(first) < 20 {
		t.Errorf("%q, then %q (%v)", first, again, err)
	}
	if other, _ := loadToken(filepath.Join(t.TempDir(), TokenName)); other == first {
		t.Error("two servers drew the same token")
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := loadToken(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("readable by the group: %v", err)
	}
	short := filepath.Join(t.TempDir(), TokenName)
	if err := os.WriteFile(short, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadToken(short); err == nil || !strings.Contains(err.Error(), "6 characters") {
		t.Errorf("short: %v", err)
	}
	if _, err := loadToken(t.TempDir()); err == nil {
		t.Error("a directory passes for a token")
	}
}
