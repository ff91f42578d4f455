//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"postrider/mta/rehearsal/peers"
	"postrider/resolver/resolvertest"
)

// eximUser is compiled into Debian's Exim, which runs as it here: no part of
// this Exim has more rights.
const eximUser = "Debian-exim"

// eximPath is E2E_EXIM where that is set: the package conflicts with Postfix's,
// so on a machine that has both it is unpacked into a directory of its own.
func eximPath(t *testing.T) string {
	t.Helper()
	path := os.Getenv("E2E_EXIM")
	if path == "" {
		path = "/usr/sbin/exim4"
	}
	if os.Geteuid() != 0 {
		needs(t, errors.New("Exim is started as its own user: needs root"))
	}
	needsProgram(t, path, "exim4-daemon-light, or unpack it and set E2E_EXIM")
	if out, err := exec.Command(path, "-C", "/dev/null", "-bV").CombinedOutput(); err != nil {
		needs(t, fmt.Errorf("%s -bV: %w: %s", path, err, out))
	}
	return path
}

// startExim runs a private Exim that puts all mail for a domain, but for
// refused@, into one Maildir.
func startExim(t *testing.T, domain, settings string) *receiver {
	t.Helper()
	program := eximPath(t)
	needsProgram(t, "/usr/bin/openssl", "openssl")
	dir, err := os.MkdirTemp("", "postrider-e2e-exim-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"spool", "log", "mail"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	selfSigned(t, dir, "mx."+domain)
	listen := freeAddr(t, eximHost)
	_, port, _ := net.SplitHostPort(listen)
	config := filepath.Join(dir, "exim.conf")
	text := fmt.Sprintf(eximConfig, dir, domain, eximHost, port, eximUser, settings, program)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("chown", "-R", eximUser, dir).CombinedOutput(); err != nil {
		t.Fatalf("chown: %v: %s", err, out)
	}
	proc, err := peers.Start(context.Background(), filepath.Join(t.TempDir(), "exim.out"),
		"setpriv", "--reuid="+eximUser, "--regid="+eximUser, "--clear-groups", program, "-C", config, "-bdf")
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{t: t, mail: filepath.Join(dir, "mail"), log: filepath.Join(dir, "log", "mainlog")}
	t.Cleanup(func() {
		if err := proc.Terminate(); err != nil && t.Failed() {
			t.Log(err)
		}
		r.showLog()
	})
	if r.port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	if err := proc.Greets(context.Background(), listen); err != nil {
		t.Fatal(err)
	}
	return r
}

const eximHost = "127.0.0.22"

const eximConfig = `primary_hostname = mx.%[2]s
spool_directory = %[1]s/spool
log_file_path = %[1]s/log/%%slog
pid_file_path = %[1]s/spool/exim.pid
local_interfaces = %[3]s
daemon_smtp_ports = %[4]s
exim_user = %[5]s
exim_path = %[7]s
deliver_drop_privilege
never_users =
keep_environment =
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
tls_advertise_hosts = *
tls_certificate = %[1]s/cert.pem
tls_privatekey = %[1]s/key.pem
acl_smtp_rcpt = rcpt
%[6]s
begin acl
rcpt:
  deny local_parts = refused
       message = no such person here
  accept domains = %[2]s
begin routers
all:
  driver = accept
  transport = maildir
begin transports
maildir:
  driver = appendfile
  directory = %[1]s/mail/everybody
  maildir_format
  create_directory
  user = %[5]s
`

// TestDeliversToExim: over GnuTLS, with CHUNKING and without, to two recipients
// of which one is refused, and with the report that was asked for.
func TestDeliversToExim(t *testing.T) {
	for name, tt := range map[string]struct {
		settings string
		chunking bool
	}{
		"CHUNKING":    {"", true},
		"no CHUNKING": {"chunking_advertise_hosts =\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const domain = "exim.test"
			r := startExim(t, domain, tt.settings)
			z := resolvertest.Start(t)
			z.Add(domain+". 300 IN MX 10 mx."+domain+".", "mx."+domain+". 300 IN A "+eximHost)
			p := newPostrider(t, z.Addr(), r.port, "")
			publishKeys(t, p, z, "sender.test")
			p.start()
			submit(t, p, letter{from: "writer@" + domain, to: "ops@" + domain, and: "refused@" + domain, subject: "eight",
				body: "Grüße\r\n.\r\n", envID: "env-1", notify: smtp.DSNNotifySuccess})
			submit(t, p, letter{from: "writer@" + domain, to: "jürgen@" + domain, subject: "Grüße", body: strings.Repeat("x\r\n", 50_000), isUTF8: true})

			eight := r.find("Subject: eight\n")
			if !bytes.HasSuffix(eight, []byte("\n\nGrüße\n.\n")) {
				t.Errorf("the octets are not those that were sent:\n%s", eight)
			}
			verifyWithPython(t, z, signedPart(t, bytes.ReplaceAll(eight, []byte("\n"), []byte("\r\n"))))
			large := r.find("Subject: Grüße\n")
			if !bytes.HasSuffix(large, bytes.Repeat([]byte("x\n"), 50_000)) {
				t.Errorf("the large message has %d octets", len(large))
			}
			r.find("no such person here")
			if report := r.find("Action: delivered\n"); !bytes.Contains(report, []byte("env-1\n")) {
				t.Errorf("a report of success without the envelope's ID:\n%s", report)
			}
			// Exim's log has K for a message that came by CHUNKING.
			for _, sender := range []string{"P=esmtps X=TLS1.3", "P=utf8esmtps X=TLS1.3"} {
				line := regexp.MustCompile(`<= writer@` + regexp.QuoteMeta(domain) + ` .*` + sender + `.*`).FindString(r.readLog())
				if line == "" || strings.Contains(line, " K ") != tt.chunking {
					t.Errorf("%s: %q in\n%s", sender, line, r.readLog())
				}
			}
		})
	}
}
