package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"

	"postrider/resolver/resolvertest"
)

// The scripts run this binary, as "postrider" and as "sendmail".
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"postrider": main, "sendmail": main})
}

// TestScripts runs the command line as a user would. Each script has a zone of
// its own at $DNS, which is empty until "publish FILE" adds the lines of a zone
// file to it. Nobody listens on $FREE, whose port is $FREEPORT, $FREEDNS and
// $SUBMISSION. The sample messages are in $SPOOL.
func TestScripts(t *testing.T) {
	t.Parallel()
	type zoneKey struct{}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			zone := resolvertest.Start(t)
			e.Setenv("DNS", zone.Addr())
			free := freeAddress(t)
			_, port, err := net.SplitHostPort(free)
			if err != nil {
				return err
			}
			e.Setenv("FREE", free)
			e.Setenv("FREEPORT", port)
			e.Setenv("FREEDNS", freeAddress(t))
			e.Setenv("SUBMISSION", freeAddress(t))
			spool, err := filepath.Abs("../../testdata/spool")
			if err != nil {
				return err
			}
			e.Setenv("SPOOL", spool)
			e.Values[zoneKey{}] = zone
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"publish": func(ts *testscript.TestScript, neg bool, args []string) {
				zone := ts.Value(zoneKey{}).(*resolvertest.Zone)
				p := dns.NewZoneParser(strings.NewReader(ts.ReadFile(args[0])), "", args[0])
				p.SetDefaultTTL(60)
				for rr, ok := p.Next(); ok; rr, ok = p.Next() {
					zone.Add(rr.String())
				}
				ts.Check(p.Err())
			},
			// "status CODE PROGRAM ARGUMENTS" is exec that looks at the exit code.
			"status": func(ts *testscript.TestScript, neg bool, args []string) {
				code := 0
				var failed *exec.ExitError
				if err := ts.Exec(args[1], args[2:]...); errors.As(err, &failed) {
					code = failed.ExitCode()
				} else {
					ts.Check(err)
				}
				if strconv.Itoa(code) != args[0] {
					ts.Fatalf("exit code %d, not %s", code, args[0])
				}
			},
			// "answers ADDRESS" waits until a server listens there: on a path or
			// a port.
			"answers": func(ts *testscript.TestScript, neg bool, args []string) {
				network, address := "tcp", args[0]
				if _, _, err := net.SplitHostPort(address); err != nil {
					network, address = "unix", ts.MkAbs(address)
				}
				var err error
				if !eventually(func() bool {
					var conn net.Conn
					if conn, err = net.Dial(network, address); err == nil {
						conn.Close()
					}
					return err == nil
				}) {
					ts.Fatalf("nobody answers: %v", err)
				}
			},
			// "becomes PATTERN PROGRAM ARGUMENTS" runs a program until what it
			// prints matches.
			"becomes": func(ts *testscript.TestScript, neg bool, args []string) {
				pattern := regexp.MustCompile("(?m)" + args[0])
				if !eventually(func() bool {
					return ts.Exec(args[1], args[2:]...) == nil && pattern.MatchString(ts.ReadFile("stdout"))
				}) {
					ts.Fatalf("never printed %q", args[0])
				}
			},
			// "remember NAME PATTERN" sets a variable to what the group of the
			// pattern matches in the last output.
			"remember": func(ts *testscript.TestScript, neg bool, args []string) {
				m := regexp.MustCompile("(?m)" + args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
				if len(m) != 2 {
					ts.Fatalf("no %q in the output", args[1])
				}
				ts.Setenv(args[0], m[1])
			},
			"mode": func(ts *testscript.TestScript, neg bool, args []string) {
				info, err := os.Stat(ts.MkAbs(args[1]))
				ts.Check(err)
				if got := info.Mode().Perm().String(); got != args[0] {
					ts.Fatalf("%s has the mode %s, not %s", args[1], got, args[0])
				}
			},
		},
	})
}

// eventually tries until it is so, for half a minute at most.
func eventually(so func() bool) bool {
	deadline := time.After(30 * time.Second)
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for !so() {
		select {
		case <-again.C:
		case <-deadline:
			return false
		}
	}
	return true
}

// freeAddress is one that a server of a script may take. Connections of the
// tests begin at 127.0.0.1, so that none of them takes its port meanwhile.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
