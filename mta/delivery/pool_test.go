package delivery

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"postrider/mta/smtpclient"
	"postrider/mta/smtptest"
)

// Random gets, puts and expiries against what a list of idle sessions would do.
func TestPoolGivesTheLastOneOfAKey(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(3, 4))
	p := newPool(0, 0, time.Hour)
	var idle, busy []*session
	now := time.Now()
	for range 5000 {
		key := poolKey{demand: fmt.Sprint(rnd.IntN(5))}
		switch rnd.IntN(3) {
		case 0:
			s := p.get(key)
			var want *session
			for i := len(idle) - 1; i >= 0 && want == nil; i-- {
				if idle[i].key == key {
					want = idle[i]
					idle = append(idle[:i], idle[i+1:]...)
				}
			}
			if s != want {
				t.Fatalf("got %p, want %p", s, want)
			}
			if s != nil {
				busy = append(busy, s)
			}
		case 1:
			s := &session{key: key, pool: p, smtp: newPipeSession()}
			if !p.opened(s) {
				t.Fatal("closed")
			}
			busy = append(busy, s)
		case 2:
			if len(busy) == 0 {
				continue
			}
			i := rnd.IntN(len(busy))
			s := busy[i]
			busy = append(busy[:i], busy[i+1:]...)
			if rnd.IntN(4) == 0 {
				s.drop()
				continue
			}
			now = now.Add(time.Millisecond)
			p.put(s, now)
			idle = append(idle, s)
		}
		if open, n := p.counts(); open != len(idle)+len(busy) || n != len(idle) {
			t.Fatalf("%d open and %d idle, want %d and %d", open, n, len(idle)+len(busy), len(idle))
		}
	}
	p.close()
	if p.put(&session{}, now) || p.opened(&session{}) {
		t.Error("a closed pool takes more")
	}
	if len(p.idle) != 0 || p.oldest != nil || p.newest != nil {
		t.Error("idle sessions are left after close")
	}
}

func newPipeSession() *smtpclient.Session {
	client, server := net.Pipe()
	server.Close()
	return smtpclient.New(client, smtpclient.Options{})
}

func TestPoolMakesRoomAtOneAddress(t *testing.T) {
	t.Parallel()
	p := newPool(0, 2, time.Hour)
	addr := netip.MustParseAddrPort("192.0.2.1:25")
	var all []*session
	for i := range 4 {
		key := poolKey{addr: addr, demand: fmt.Sprint(i)}
		if i == 1 {
			key.addr = netip.MustParseAddrPort("192.0.2.2:25")
		}
		p.makeRoom(key.addr.Addr())
		s := &session{key: key, pool: p, smtp: newPipeSession()}
		p.opened(s)
		p.put(s, time.Now())
		all = append(all, s)
	}
	for i, want := range []bool{false, true, true, true} { // the oldest there had to go
		if got := p.get(all[i].key) != nil; got != want {
			t.Errorf("session %d idle: %v", i, got)
		}
	}
	if n := p.byAddr[addr.Addr()]; n != 2 {
		t.Errorf("%d open to the address", n)
	}
	p.close()
}

// A connection from one of our addresses never stands in for one from another:
// a receiver may have said yes to the one only.
func TestSourceAddressesAreKeptApart(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	one, two := netip.MustParseAddr("127.77.255.3"), netip.MustParseAddr("127.77.255.4")
	s.options.Sources = []netip.Addr{one, two}
	s.host("mx1.a.test", smtptest.Script{Extensions: modern})
	s.mx("a.test", "mx1.a.test")
	checkDelivered(t, s.one("r@a.test"))
	idle := s.agent.pool.oldest
	if idle == nil || idle.key.source != idle.local {
		t.Fatalf("idle: %+v", idle)
	}
	key := idle.key
	if key.source = one; idle.local == one {
		key.source = two
	}
	if got := s.agent.pool.get(key); got != nil {
		t.Errorf("the connection from %v was taken for one from %v", got.local, key.source)
	}
	key.source = idle.local
	got := s.agent.pool.get(key)
	if got == nil {
		t.Fatal("the connection is not there for its own address")
	}
	got.quit()
}
