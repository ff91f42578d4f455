package delivery

import (
	"context"
	"testing"
	"time"

	"postrider/mta/smtptest"
	"postrider/queue"
)

func TestStopBeforeAConnection(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	mx := s.host("mx1.a.test", smtptest.Script{On: map[string][]smtptest.Step{"EHLO": smtptest.Do(smtptest.Step{Then: smtptest.Hang})}})
	s.mx("a.test", "mx1.a.test")
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		mx.WaitCommand("EHLO", 10*time.Second)
		cancel()
	}()
	m := mail("r@a.test")
	s.deliverCtx(ctx, m)
	if o := m.outcome(t); o.Verdict != queue.Untried || m.report.Site != SiteUnknown {
		t.Errorf("our own stop became %s, site %v", show(o), m.report.Site)
	}
}

func TestStopFinishesWhatIsOnTheWire(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	mx := s.host("mx1.a.test", smtptest.Script{Extensions: []string{"PIPELINING"}, On: map[string][]smtptest.Step{smtptest.OnEnd: smtptest.Do(smtptest.Step{Wait: 50 * time.Millisecond, Reply: "250 2.0.0 ok"})}})
	s.mx("a.test", "mx1.a.test")
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		mx.WaitCommand("DATA", 10*time.Second)
		cancel()
	}()
	m := mail("r@a.test")
	s.deliverCtx(ctx, m)
	checkDelivered(t, m.outcome(t))
}

func TestCloseEndsAttemptsOnTheWire(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		hangAt  string
		inDoubt bool
	}{
		"before the content": {"RCPT", false},
		"after the content":  {smtptest.OnEnd, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			mx := s.host("mx1.a.test", smtptest.Script{On: map[string][]smtptest.Step{tt.hangAt: smtptest.Do(smtptest.Step{Then: smtptest.Hang})}})
			s.mx("a.test", "mx1.a.test")
			s.start()
			go func() {
				mx.WaitCommand("RCPT", 10*time.Second)
				if tt.inDoubt {
					mx.WaitTransactions(1, 10*time.Second)
				}
				s.agent.Close()
			}()
			m := mail("r@a.test")
			s.deliver(m)
			o := m.outcome(t)
			if o.InDoubt != tt.inDoubt || tt.inDoubt != (o.Verdict == queue.Deferred) || !tt.inDoubt && o.Verdict != queue.Untried {
				t.Errorf("got %s", show(o))
			}
		})
	}
}
