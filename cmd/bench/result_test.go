package main

import (
	"bytes"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// sample is a report of a few rounds whose medians are easy to tell.
func sample() *report {
	r := &report{Machine: machine{CPUs: 2, Servers: []string{"Postrider 1", "Postfix 3"}}}
	add := func(scenario, server, variant string, rates ...float64) {
		for i, rate := range rates {
			r.Rounds = append(r.Rounds, result{
				Scenario: scenario, Server: server, Variant: variant, Round: i + 1, Rate: rate,
				CPU: time.Duration(1e9 / rate), DeliverP99: time.Millisecond, PeakRSS: int64(rate) * 1e6, Lost: i, AcceptP99: time.Duration(rate) * time.Millisecond,
			})
		}
	}
	add("K", postriderName, "unsigned", 2000, 1000, 4000)
	add("K", postriderName, "rsa2048", 500)
	add("A", postriderName, "", 5000, 1000, 3000)
	add("A", postfixName, "", 200, 300)
	return r
}

func TestMedians(t *testing.T) {
	t.Parallel()
	r := sample()
	r.finish()
	var got []string
	for _, m := range r.Medians {
		got = append(got, m.Scenario+" "+label(m.Server, m.Variant))
	}
	want := []string{"A postrider", "A postfix", "K postrider, unsigned", "K postrider, rsa2048"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	a := r.Medians[0]
	if a.Rate != 3000 || a.CPU != 333333 || a.PeakRSS != 3000e6 || a.Lost != 3 || a.Round != 0 || a.AcceptP99 != 3*time.Second {
		t.Errorf("%+v", a)
	}
	if r.Medians[1].Rate != 200 {
		t.Errorf("of two rounds %v, want the lower one", r.Medians[1].Rate)
	}
}

func TestComparison(t *testing.T) {
	t.Parallel()
	r := sample()
	r.finish()
	for i, want := range []string{"15.0 x Postfix", "", "", "25 % of unsigned"} {
		if got := r.compared(r.Medians[i]); got != want {
			t.Errorf("%s: %q, want %q", label(r.Medians[i].Server, r.Medians[i].Variant), got, want)
		}
	}
}

func TestTables(t *testing.T) {
	t.Parallel()
	r := sample()
	r.Signatures = []signatureCost{{Algorithm: "rsa", Operation: time.Millisecond, Whole: 1100 * time.Microsecond}}
	r.Rounds[4].Syncs, r.Rounds[4].Proven, r.Rounds[4].Unsynced = 0.25, 199, 1
	r.Rounds = append(r.Rounds, result{Scenario: "I", Server: postriderName, StartRSS: 28e6, WakeUps: 1.25, DeliverP50: 3 * time.Millisecond})
	r.finish()
	var out bytes.Buffer
	r.print(&out)
	for _, want := range []string{
		"15.0 x Postfix", "0.333 ms", "28 MB", "1.2", "3.0 ms", "0.0 ms", "199 after a sync, 1 without",
		"the server took 1.500 ms more than unsigned: 1.50 times hash and key; 2.000 ms in all: 1.33 times unsigned and signature together",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}

func TestReportIsReadBack(t *testing.T) {
	t.Parallel()
	r := sample()
	r.finish()
	file := filepath.Join(t.TempDir(), "results.json")
	if err := r.write(file); err != nil {
		t.Fatal(err)
	}
	if back, err := readReport(file); err != nil || !reflect.DeepEqual(back, r) {
		t.Errorf("%+v, %v", back, err)
	}
}

func TestGrouped(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 123456: "123,456", 1000000: "1,000,000"} {
		if got := grouped(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	all := scenarios(0.001)
	if chosen, err := choose(all, "a,K"); err != nil || keysOf(chosen) != "A, K" || chosen[0].messages != 100 {
		t.Errorf("%v, %v", chosen, err)
	}
	if _, err := choose(all, "A,Z"); err == nil || !strings.Contains(err.Error(), `"Z"`) {
		t.Errorf("%v", err)
	}
	if chosen, err := choose(all, "all"); err != nil || len(chosen) != len(all) {
		t.Errorf("%v, %v", chosen, err)
	}
	if _, err := selectServers(contestants("/nonexistent"), "postrider"); err == nil {
		t.Error("a server that is not there was taken")
	}
	if _, err := selectServers(contestants(""), "sendmail"); err == nil || !strings.Contains(err.Error(), "straight") {
		t.Errorf("%v", err)
	}
}
