package peers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Postfix is one private instance.
type Postfix struct {
	Dir    string            // holds configuration, spool and log; readable by the postfix user
	Listen string            // host:port of its SMTP server
	Main   map[string]string // parameters of main.cf beside those that the place demands
	Wrap   []string          // words to put before the command: strace and its flags
}

const (
	postfixCommand   = "/usr/sbin/postfix"
	postfixMasterCf  = "/usr/share/postfix/master.cf.dist"
	postfixDaemonDir = "/usr/lib/postfix/sbin"
)

// PostfixMissing says what keeps Postfix from running here; nil: nothing.
func PostfixMissing() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("Postfix runs as its own user: needs root")
	}
	for _, f := range []string{postfixCommand, postfixMasterCf} {
		if _, err := os.Stat(f); err != nil {
			return fmt.Errorf("%w (apt-get install postfix)", err)
		}
	}
	return nil
}

// PostfixVersion as Postfix states it.
func PostfixVersion() string {
	out, err := exec.Command("/usr/sbin/postconf", "-d", "-h", "mail_version").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// Start writes the configuration and runs master in the foreground.
func (p *Postfix) Start(ctx context.Context) (*Process, error) {
	for _, d := range []string{p.etc(), p.path("spool"), p.path("lib")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	u, err := user.Lookup("postfix")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return nil, err
	}
	if err := os.Chown(p.path("lib"), uid, -1); err != nil {
		return nil, err
	}
	if err := p.writeMaster(); err != nil {
		return nil, err
	}
	if err := p.writeMain(); err != nil {
		return nil, err
	}
	words := append(slices.Clone(p.Wrap), postfixCommand, "-c", p.etc(), "start-fg")
	return Start(ctx, p.path("out.log"), words[0], words[1:]...)
}

// Stop asks master to end with all its children, and waits.
func (p *Postfix) Stop(proc *Process) error {
	out, err := exec.Command(postfixCommand, "-c", p.etc(), "stop").CombinedOutput()
	if err != nil {
		return fmt.Errorf("postfix stop: %w: %s", err, out)
	}
	_ = proc.Wait() // start-fg answers with the signal that ended it
	return nil
}

// Log is where Postfix writes its own log.
func (p *Postfix) Log() string { return p.path("mail.log") }

func (p *Postfix) path(name string) string { return filepath.Join(p.Dir, name) }
func (p *Postfix) etc() string             { return p.path("etc") }

var (
	// Debian runs its services in a chroot that lacks what a private instance needs.
	postfixChroot = regexp.MustCompile(`(?m)^(\S+\s+(?:inet|unix|fifo|pass)\s+\S+\s+\S+\s+)y(\s)`)
	postfixListen = regexp.MustCompile(`(?m)^smtp(\s+inet)`)
)

func (p *Postfix) writeMaster() error {
	master, err := os.ReadFile(postfixMasterCf)
	if err != nil {
		return err
	}
	text := postfixChroot.ReplaceAllString(string(master), "${1}n${2}")
	text = postfixListen.ReplaceAllString(text, p.Listen+"$1")
	return os.WriteFile(filepath.Join(p.etc(), "master.cf"), []byte(text), 0o644)
}

func (p *Postfix) writeMain() error {
	settings := map[string]string{
		"compatibility_level": "3.6",
		"queue_directory":     p.path("spool"),
		"data_directory":      p.path("lib"),
		"command_directory":   "/usr/sbin",
		"daemon_directory":    postfixDaemonDir,
		"mail_owner":          "postfix",
		"setgid_group":        "postdrop",
		// It must be the address of an interface, as other loopback addresses are
		// not; where to listen says master.cf.
		"inet_interfaces":       "127.0.0.1",
		"inet_protocols":        "ipv4",
		"mynetworks":            "127.0.0.0/8",
		"mydestination":         "",
		"alias_maps":            "",
		"alias_database":        "",
		"local_recipient_maps":  "",
		"maillog_file_prefixes": p.Dir,
		"maillog_file":          p.Log(),
	}
	for k, v := range p.Main {
		settings[k] = v
	}
	lines := make([]string, 0, len(settings))
	for k, v := range settings {
		lines = append(lines, k+" = "+v)
	}
	sort.Strings(lines)
	return os.WriteFile(filepath.Join(p.etc(), "main.cf"), []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}
