package delivery

import (
	"testing"

	"postrider/mta/smtptest"
)

func TestBrokenExtensionsAreNotUsed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		settings SessionSettings
		want     string // a command that is seen
		not      string // one that is not
	}{
		"as announced":  {SessionSettings{}, "BDAT", "DATA"},
		"no CHUNKING":   {SessionSettings{NoChunking: true}, "DATA", "BDAT"},
		"no PIPELINING": {SessionSettings{NoChunking: true, NoPipelining: true}, "DATA", "BDAT"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			mx := s.host("mx1.a.test", smtptest.Script{Extensions: []string{"PIPELINING", "CHUNKING"}})
			s.mx("a.test", "mx1.a.test")
			s.dest.Session = c.settings
			checkDelivered(t, s.one("r@a.test"))
			if !mx.WaitCommand(c.want, 0) || mx.WaitCommand(c.not, 0) {
				t.Errorf("want %s, and no %s", c.want, c.not)
			}
		})
	}
}

func TestSettingsPartConnections(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	mx := s.host("mx1.a.test", smtptest.Script{Extensions: []string{"PIPELINING", "CHUNKING"}})
	s.mx("a.test", "mx1.a.test")
	checkDelivered(t, s.one("r@a.test"))
	s.dest.Session.NoChunking = true
	checkDelivered(t, s.one("r@a.test"))
	if mx.Sessions() != 2 {
		t.Errorf("%d sessions: one made for other settings was used again", mx.Sessions())
	}
}
