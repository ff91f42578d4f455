package peers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// OpenSMTPD is one private instance of the Debian package, which need not be
// installed (it cannot be, beside Postfix): unpacked by dpkg -x is enough. Its
// paths are compiled in, so it runs in a mount namespace of its own, where
// private directories are laid over them.
type OpenSMTPD struct {
	Dir      string   // holds configuration, spool and log
	Listen   string   // host:port of its SMTP server
	Hostname string   // its own name
	Wrap     []string // words to put before the command: strace and its flags

	root string // where the package is: a directory, or /
}

// FindOpenSMTPD takes the first of these directories that holds the package,
// else the last; [OpenSMTPD.Missing] says what is not there.
func FindOpenSMTPD(roots ...string) *OpenSMTPD {
	o := &OpenSMTPD{}
	for _, root := range roots {
		o.root = root
		if _, err := os.Stat(o.program()); err == nil {
			break
		}
	}
	return o
}

func (o *OpenSMTPD) program() string         { return filepath.Join(o.root, "usr/sbin/smtpd") }
func (o *OpenSMTPD) path(name string) string { return filepath.Join(o.Dir, name) }

// Missing says what keeps OpenSMTPD from running here; nil: nothing.
func (o *OpenSMTPD) Missing() error {
	if os.Geteuid() != 0 {
		return errors.New("OpenSMTPD runs as its own users: needs root")
	}
	if _, err := os.Stat(o.program()); err != nil {
		return fmt.Errorf("%w (apt-get download opensmtpd; dpkg -x opensmtpd_*.deb bench-out/opensmtpd)", err)
	}
	if out, err := exec.Command(o.program(), "-h").CombinedOutput(); !strings.Contains(string(out), "version:") {
		return fmt.Errorf("%s -h: %w: %s", o.program(), err, out)
	}
	return nil
}

var openSMTPDVersion = regexp.MustCompile(`version: OpenSMTPD (\S+)`)

// Version as OpenSMTPD states it.
func (o *OpenSMTPD) Version() string {
	out, _ := exec.Command(o.program(), "-h").CombinedOutput() // -h answers with an error
	if m := openSMTPDVersion.FindSubmatch(out); m != nil {
		return string(m[1])
	}
	return "unknown"
}

// The users that the package's own scripts would make, under numbers that
// nobody else has here.
const (
	openSMTPDUser  = 64901
	openSMTPDQueue = 64902
)

// layOver are the private directories, and what they hide from the server.
var layOver = []struct{ private, over string }{
	{"etc/passwd", "/etc/passwd"},
	{"etc/group", "/etc/group"},
	{"spool", "/var/spool"},
	{"lib", "/var/lib"},
	{"run", "/run"},
}

// Start writes the configuration and runs smtpd in the foreground.
func (o *OpenSMTPD) Start(ctx context.Context) (*Process, error) {
	for _, d := range []string{"etc", "run", "lib/opensmtpd/empty"} {
		if err := os.MkdirAll(o.path(d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := o.makeSpool(); err != nil {
		return nil, err
	}
	if err := o.writeAccounts(); err != nil {
		return nil, err
	}
	host, port, ok := strings.Cut(o.Listen, ":")
	if !ok {
		return nil, fmt.Errorf("opensmtpd: %q is no host:port", o.Listen)
	}
	// By default it takes 100 messages of a session, and 452 then.
	conf := fmt.Sprintf("listen on %s port %s hostname %s\nsmtp max-message-size 50M\nsmtp limit max-mails 1000000\naction \"relay\" relay helo %s\nmatch from any for any action \"relay\"\n",
		host, port, o.Hostname, o.Hostname)
	if err := os.WriteFile(o.path("etc/smtpd.conf"), []byte(conf), 0o644); err != nil {
		return nil, err
	}
	var script strings.Builder
	script.WriteString("set -e\n")
	for _, l := range layOver {
		fmt.Fprintf(&script, "mount --bind '%s' '%s'\n", o.path(l.private), l.over)
	}
	script.WriteString("exec \"$@\"\n")
	words := slices.Concat(
		[]string{"unshare", "--mount", "--propagation", "private", "sh", "-c", script.String(), "smtpd"},
		o.Wrap, []string{o.program(), "-d", "-f", o.path("etc/smtpd.conf")})
	return Start(ctx, o.path("out.log"), words[0], words[1:]...)
}

// spoolMode are the directories below the spool, as smtpd demands them.
var spoolMode = []struct {
	name string
	mode os.FileMode
	user int
}{
	{"", 0o711, 0},
	{"queue", 0o700, openSMTPDQueue},
	{"corrupt", 0o700, openSMTPDQueue},
	{"incoming", 0o700, openSMTPDQueue},
	{"purge", 0o700, openSMTPDQueue},
	{"temporary", 0o700, openSMTPDQueue},
	{"offline", 0o770, 0},
}

func (o *OpenSMTPD) makeSpool() error {
	for _, d := range spoolMode {
		dir := filepath.Join(o.path("spool/smtpd"), d.name)
		group := 0
		if d.name == "offline" {
			group = openSMTPDQueue
		}
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, d.mode), os.Chown(dir, d.user, group)); err != nil {
			return err
		}
	}
	return nil
}

// writeAccounts copies the system's accounts and adds the package's two.
func (o *OpenSMTPD) writeAccounts() error {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return err
	}
	group, err := os.ReadFile("/etc/group")
	if err != nil {
		return err
	}
	for name, id := range map[string]int{"opensmtpd": openSMTPDUser, "opensmtpq": openSMTPDQueue} {
		passwd = fmt.Appendf(passwd, "%s:x:%d:%d::/var/lib/opensmtpd/empty:/usr/sbin/nologin\n", name, id, id)
		group = fmt.Appendf(group, "%s:x:%d:\n", name, id)
	}
	return errors.Join(
		os.WriteFile(o.path("etc/passwd"), passwd, 0o644),
		os.WriteFile(o.path("etc/group"), group, 0o644))
}

// Stop ends the server with all its children, and waits. Under strace it is
// the server that is asked, as strace, told to end, would leave it running.
func (o *OpenSMTPD) Stop(proc *Process) error {
	pid := proc.PID()
	for {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(name)) != "strace" {
			break
		}
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		if err != nil {
			return err
		}
		if _, err := fmt.Sscan(string(children), &pid); err != nil {
			return fmt.Errorf("strace without a child: %w", err)
		}
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	_ = proc.Wait() // it answers with the signal that ended it
	return nil
}
