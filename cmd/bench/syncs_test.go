package main

import (
	"strings"
	"testing"
)

func TestCountedCalls(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text string
		want int
	}{
		"both kinds": {`% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 90.00    1.000000        1000      1000           fdatasync
 10.00    0.100000         100        20           fsync
------ ----------- ----------- --------- --------- ----------------
100.00    1.100000                  1020           total
`, 1020},
		"failed ones are none": {" 90.00    1.000000        1000      1000        13 fsync\n", 987},
		"other calls":          {" 90.00    1.000000        1000      1000           futex\n", 0},
		"nothing":              {"", 0},
	}
	for name, test := range tests {
		if got, err := countedCalls(test.text); err != nil || got != test.want {
			t.Errorf("%s: %d, %v, want %d", name, got, err, test.want)
		}
	}
	if _, err := countedCalls(" 90.00 1.0 1000 many fsync\n"); err == nil {
		t.Error("no error for a count that is none")
	}
}

// The way of one message through a server, as strace tells it.
const (
	goAheadLine = `7 write(9<TCP:[127.0.0.1:2525->127.0.0.1:40818]>, "250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go ahead\r\n", 42) = 42`
	readLine    = `7 read(9<TCP:[127.0.0.1:2525->127.0.0.1:40818]>, "From: <load@sender.test>"..., 65536) = 4101`
	syncLine    = `8 fdatasync(12</q/000004.log>)     = 0`
	takenLine   = `7 write(9<TCP:[127.0.0.1:2525->127.0.0.1:40818]>, "250 2.0.0 taken\r\n", 17) = 17`
)

func TestSyncProof(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		lines          []string
		after, without int
	}{
		"synced":             {[]string{goAheadLine, readLine, syncLine, takenLine}, 1, 0},
		"not synced":         {[]string{goAheadLine, readLine, takenLine}, 0, 1},
		"synced too early":   {[]string{goAheadLine, syncLine, readLine, takenLine}, 0, 1},
		"synced too late":    {[]string{goAheadLine, readLine, takenLine, syncLine}, 0, 1},
		"the sync failed":    {[]string{goAheadLine, readLine, `8 fdatasync(12</q/000004.log>) = -1 EIO (Input/output error)`, takenLine}, 0, 1},
		"each needs its own": {[]string{goAheadLine, readLine, syncLine, takenLine, goAheadLine, readLine, takenLine}, 1, 1},
		"refused":            {[]string{goAheadLine, readLine, strings.Replace(takenLine, "250 2.0.0 taken", "452 4.3.1 full", 1)}, 0, 0},
		"no content":         {[]string{readLine, takenLine}, 0, 0},
		"of another socket":  {[]string{strings.ReplaceAll(goAheadLine, "2525->", "25->"), readLine, takenLine}, 0, 0},
		"replies one by one": {[]string{strings.Replace(goAheadLine, `250 2.1.0 ok\r\n250 2.1.5 ok\r\n`, "", 1), readLine, syncLine, takenLine}, 1, 0},
		"nothing more to read": {[]string{
			goAheadLine, readLine, syncLine,
			`7 read(9<TCP:[127.0.0.1:2525->127.0.0.1:40818]>, 0xc0, 65536) = -1 EAGAIN (Resource temporarily unavailable)`, takenLine,
		}, 1, 0},
		"calls side by side": {[]string{
			goAheadLine, readLine,
			`8 fdatasync(12</q/000004.log> <unfinished ...>`,
			`9 read(5<pipe:[77]>, "x", 1) = 1`,
			`8 <... fdatasync resumed>)          = 0`,
			`7 write(9<TCP:[127.0.0.1:2525->127.0.0.1:40818]>, "250 2.0.0 taken\r\n", 17 <unfinished ...>`,
			`7 <... write resumed>)              = 17`,
		}, 1, 0},
		"the sync began before the content was read": {[]string{
			goAheadLine,
			`8 fdatasync(12</q/000004.log> <unfinished ...>`,
			readLine,
			`8 <... fdatasync resumed>)          = 0`,
			takenLine,
		}, 0, 1},
		"the reply did not wait for the sync": {[]string{
			goAheadLine, readLine,
			`8 fdatasync(12</q/000004.log> <unfinished ...>`,
			takenLine,
			`8 <... fdatasync resumed>)          = 0`,
		}, 0, 1},
		"the content ends in a read that resumed": {[]string{
			goAheadLine,
			`7 read(9<TCP:[127.0.0.1:2525->127.0.0.1:40818]>,  <unfinished ...>`,
			syncLine,
			`7 <... read resumed>"From: <load@sender.test>"..., 65536) = 4101`,
			takenLine,
		}, 0, 1},
	}
	for name, test := range tests {
		p := newSyncProof("127.0.0.1:2525")
		for _, line := range test.lines {
			p.line(line)
		}
		if p.after != test.after || p.without != test.without {
			t.Errorf("%s: %d after a sync and %d without, want %d and %d", name, p.after, p.without, test.after, test.without)
		}
	}
}
