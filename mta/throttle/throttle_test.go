package throttle

import (
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time {
	return noon.Add(time.Duration(seconds * float64(time.Second)))
}

func TestRateSpreadsEvenly(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		perMinute int
		want      int // events in the first ten minutes, taken as soon as allowed
	}{
		{"one a minute", 1, 10},
		{"ten a minute", 10, 100},
		{"odd", 7, 70},
		{"burst of a second's worth", 600, 6009},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := New(Options{MessagesPerMinute: tt.perMinute})
			got, now, end := 0, noon, noon.Add(10*time.Minute)
			for now.Before(end) {
				h := l.Message(now)
				if h.Holds() {
					if h.Reason != MessageRate || !h.Until.After(now) {
						t.Fatalf("hold %v until %v at %v", h.Reason, h.Until, now)
					}
					now = h.Until
					continue
				}
				l.Send(now)
				got++
			}
			if got != tt.want {
				t.Errorf("sent %d, want %d", got, tt.want)
			}
		})
	}
}

func TestRateSavesNothingWhileIdle(t *testing.T) {
	t.Parallel()
	l := New(Options{MessagesPerMinute: 6})
	l.Send(noon)
	now := noon.Add(time.Hour)
	l.Send(now)
	if h := l.Message(now); h.Until != now.Add(10*time.Second) {
		t.Errorf("after an idle hour the second message may go at %v, want 10 s later", h.Until)
	}
}

func TestPutBackUndoesSend(t *testing.T) {
	t.Parallel()
	l := New(Options{MessagesPerMinute: 1})
	l.Send(noon)
	l.PutBack()
	if h := l.Message(noon); h.Holds() {
		t.Errorf("held: %v", h)
	}
}

func TestConnectionRate(t *testing.T) {
	t.Parallel()
	l := New(Options{Name: "site a.test", ConnectionsPerMinute: 2})
	l.Open(noon)
	h := l.Connection(noon)
	if h.Reason != ConnectionRate || h.Until != at(30) {
		t.Fatalf("got %v until %v", h.Reason, h.Until)
	}
	if got := h.String(); got != "site a.test: limited to 2 connections a minute" {
		t.Errorf("in words: %q", got)
	}
	if h := l.Connection(at(30)); h.Holds() {
		t.Errorf("still held after 30 s: %v", h)
	}
}

func TestWindowGrowsByOnePerWindowOfSuccesses(t *testing.T) {
	t.Parallel()
	l := New(Options{Connections: 20, Start: 5})
	for want := 5; want < 20; want++ {
		if l.Window() != want {
			t.Fatalf("window %d, want %d", l.Window(), want)
		}
		for range want {
			l.Succeeded(noon)
		}
	}
	for range 100 {
		l.Succeeded(noon)
	}
	if l.Window() != 20 {
		t.Errorf("window %d beyond its maximum", l.Window())
	}
}

func TestWindowIsHalvedOncePerWindowOfFailures(t *testing.T) {
	t.Parallel()
	l := New(Options{Connections: 20, Start: 16})
	for range 16 {
		l.Open(noon)
	}
	for range 16 { // the sixteen that were open tell the same news
		l.Narrow()
		l.Close(false)
	}
	if l.Window() != 8 {
		t.Fatalf("window %d, want 8", l.Window())
	}
	for range 10 {
		l.Open(noon)
		l.Narrow()
		l.Close(false)
	}
	if l.Window() != 1 {
		t.Errorf("window %d, want 1: never less", l.Window())
	}
}

func TestFixedWindowDoesNotMove(t *testing.T) {
	t.Parallel()
	l := New(Options{Name: "all connections", Connections: 2})
	l.Narrow()
	l.Open(noon)
	l.Open(noon)
	h := l.Connection(noon)
	if h.Reason != Full || !h.Until.IsZero() {
		t.Fatalf("got %v until %v", h.Reason, h.Until)
	}
	if got := h.String(); got != "all connections: all 2 connections are in use" {
		t.Errorf("in words: %q", got)
	}
	l.Close(false)
	if h := l.Connection(noon); h.Holds() {
		t.Errorf("held after one was given back: %v", h)
	}
}

func newMortal() *Limit {
	return New(Options{Name: "site a.test", Connections: 20, Start: 5, BackoffFirst: time.Minute, BackoffLongest: 10 * time.Minute})
}

func TestDeadPeerIsProbedByOneConnection(t *testing.T) {
	t.Parallel()
	l := newMortal()
	l.Open(noon)
	l.Failed(at(30), noon)
	l.Close(false)

	h := l.Connection(at(31))
	if h.Reason != Dead || h.Until.Before(at(30+54)) || h.Until.After(at(30+66)) {
		t.Fatalf("got %v until %v, want dead for about a minute", h.Reason, h.Until)
	}
	if !strings.Contains(h.String(), "no answer since 2026-03-01T12:00:30Z") {
		t.Errorf("in words: %q", h)
	}
	probeAt := h.Until
	if h := l.Connection(probeAt); h.Holds() {
		t.Fatalf("the probe is held: %v", h)
	}
	if !l.Open(probeAt) {
		t.Fatal("the first connection after the wait is not the probe")
	}
	if h := l.Connection(probeAt); h.Reason != Probing || !h.Until.IsZero() {
		t.Fatalf("beside the probe: %v until %v", h.Reason, h.Until)
	}
	if !l.Succeeded(probeAt) {
		t.Error("the probe's success does not revive")
	}
	l.Close(true)
	for range 5 {
		if h := l.Connection(probeAt); h.Holds() {
			t.Fatalf("held after the peer came back: %v", h)
		}
		l.Open(probeAt)
	}
	if l.Succeeded(probeAt) {
		t.Error("a later success revives again")
	}
}

func TestFailedProbesWaitLonger(t *testing.T) {
	t.Parallel()
	l := newMortal()
	l.Failed(noon, noon)
	now := noon
	for i, want := range []time.Duration{1, 2, 4, 8, 10, 10} {
		until := l.Connection(now).Until
		wait, minutes := until.Sub(now), want*time.Minute
		if wait < minutes*9/10 || wait > minutes*11/10 {
			t.Fatalf("wait %d is %v, want about %v", i, wait, minutes)
		}
		now = until
		probe := l.Open(now)
		l.Failed(now, now)
		l.Close(probe)
	}
}

func TestProbeWithoutVerdictFreesTheNext(t *testing.T) {
	t.Parallel()
	l := newMortal()
	l.Failed(noon, noon)
	now := l.Connection(noon).Until
	l.Close(l.Open(now))
	if h := l.Connection(now); h.Holds() {
		t.Errorf("held by a probe that is over: %v", h)
	}
}

func TestFailureIsNotBelievedWhereOthersGetThrough(t *testing.T) {
	t.Parallel()
	l := newMortal()
	l.Succeeded(at(20))
	l.Failed(at(30), at(10))
	if h := l.Connection(at(31)); h.Holds() {
		t.Errorf("held: %v", h)
	}
}

func TestOldNewsDoesNotLengthenTheWait(t *testing.T) {
	t.Parallel()
	l := newMortal()
	l.Failed(at(30), noon)
	until := l.Connection(at(31)).Until
	l.Failed(at(40), at(5))
	if got := l.Connection(at(41)).Until; got != until {
		t.Errorf("wait moved from %v to %v", until, got)
	}
}

func TestPauseHoldsConnectionsAndMessages(t *testing.T) {
	t.Parallel()
	l := New(Options{Name: "site a.test"})
	l.Pause(at(60), "the host says try later")
	l.Pause(at(30), "shorter")
	for what, h := range map[string]Hold{"connection": l.Connection(at(45)), "message": l.Message(at(45))} {
		if h.Reason != Paused || h.Until != at(60) || h.String() != "site a.test: paused: the host says try later" {
			t.Errorf("%s: %v %q until %v", what, h.Reason, h, h.Until)
		}
	}
	l.Wake()
	if h := l.Connection(at(45)); h.Holds() {
		t.Errorf("held after being woken: %v", h)
	}
}

func TestWakeProbesADeadPeerAtOnce(t *testing.T) {
	t.Parallel()
	l := newMortal()
	l.Failed(noon, noon)
	l.Wake()
	if h := l.Connection(at(1)); h.Holds() {
		t.Fatalf("held: %v", h)
	}
	if !l.Open(at(1)) {
		t.Error("not a probe")
	}
}

func TestGroupNamesTheFirstThatHolds(t *testing.T) {
	t.Parallel()
	small := New(Options{Name: "example.test", Connections: 1, MessagesPerMinute: 60})
	large := New(Options{Name: "all", Connections: 1, MessagesPerMinute: 6})
	g := Group{small, large}
	g.Close(g.Open(noon))
	g.Open(noon)
	if h := g.Connection(noon); h.Limit != small {
		t.Errorf("named %v", h)
	}
	small.Close(false)
	if h := g.Connection(noon); h.Limit != large {
		t.Errorf("named %v", h)
	}
	large.Close(false)
	if h := g.Connection(noon); h.Holds() {
		t.Errorf("held: %v", h)
	}
	g.Send(noon)
	if h := g.Message(at(2)); h.Limit != large || h.Until != at(10) {
		t.Errorf("named %v until %v", h, h.Until)
	}
	g.PutBack()
	if h := g.Message(noon); h.Holds() {
		t.Errorf("held: %v", h)
	}
}

func TestTightenKeepsTheSmallest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		has, gets    Options
		window       int
		next         time.Time // of the second message
		holdsSeconds float64   // the second connection, after the first
	}{
		{"less", Options{Connections: 20, MessagesPerMinute: 60}, Options{Connections: 3, MessagesPerMinute: 6}, 3, at(10), 0},
		{"more", Options{Connections: 3, MessagesPerMinute: 6}, Options{Connections: 20, MessagesPerMinute: 60}, 3, at(10), 0},
		{"none had", Options{}, Options{Connections: 3, MessagesPerMinute: 6, ConnectionsPerMinute: 2}, 3, at(10), 30},
		{"none given", Options{Connections: 3, MessagesPerMinute: 6, ConnectionsPerMinute: 2}, Options{}, 3, at(10), 30},
		{"adaptive", Options{Connections: 20, Start: 5, MessagesPerMinute: 6}, Options{Connections: 3}, 3, at(10), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := New(tt.has)
			l.Tighten(tt.gets)
			if l.Window() != tt.window {
				t.Errorf("window %d, want %d", l.Window(), tt.window)
			}
			l.Send(noon)
			if got := l.Message(noon).Until; !got.Equal(tt.next) {
				t.Errorf("next message at %v, want %v", got, tt.next)
			}
			l.Open(noon)
			h := l.Connection(noon)
			if got := h.Until.Sub(noon).Seconds(); h.Holds() && got != tt.holdsSeconds || h.Holds() != (tt.holdsSeconds > 0) {
				t.Errorf("connection held for %v s, want %v", got, tt.holdsSeconds)
			}
			for range 100 {
				l.Succeeded(noon)
			}
			if l.Window() != tt.window {
				t.Errorf("window grew to %d beyond %d", l.Window(), tt.window)
			}
		})
	}
}

func TestIdle(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		use  func(*Limit)
		want bool
	}{
		{"fresh", func(*Limit) {}, true},
		{"open", func(l *Limit) { l.Open(noon) }, false},
		{"dead", func(l *Limit) { l.Failed(noon, noon) }, false},
		{"paused", func(l *Limit) { l.Pause(at(1), "x") }, false},
		{"pause over", func(l *Limit) { l.Pause(noon, "x") }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newMortal()
			tt.use(l)
			if got := l.Idle(noon); got != tt.want {
				t.Errorf("Idle = %v", got)
			}
		})
	}
}

func BenchmarkMessage(b *testing.B) {
	g := Group{newMortal(), New(Options{Connections: 1000, MessagesPerMinute: 1 << 30})}
	now := noon
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Microsecond)
		if !g.Message(now).Holds() {
			g.Send(now)
		}
		for _, l := range g {
			l.Succeeded(now)
		}
	}
}

func TestRestartWidensAndNeverNarrows(t *testing.T) {
	t.Parallel()
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	l := New(Options{Connections: 20, Start: 5})
	for range 5 {
		l.Narrow()
	}
	if l.Restart(); l.Window() != 5 {
		t.Errorf("room for %d connections after failures, want 5", l.Window())
	}
	for range 5 {
		l.Succeeded(now)
	}
	if l.Restart(); l.Window() != 6 {
		t.Errorf("room for %d connections after successes, want 6", l.Window())
	}
}
