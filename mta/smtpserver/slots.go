package smtpserver

import (
	"net/netip"
	"sync"
)

// Slots bounds connections, in all and for each client. Servers that share one
// share its bounds.
type Slots struct {
	max, perClient int

	mu      sync.Mutex
	open    int
	clients map[netip.Addr]int
}

// NewSlots makes room for max connections, and for perClient (0: no such limit)
// from one client: an IPv4 address or an IPv6 /64. Programs of this host, on
// loopback, are no one client.
func NewSlots(max, perClient int) *Slots {
	return &Slots{max: max, perClient: perClient, clients: map[netip.Addr]int{}}
}

// Open is how many connections there are.
func (s *Slots) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// take takes a slot, or tells why there is none.
func (s *Slots) take(addr netip.Addr) *Reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open >= s.max {
		return replyBusy
	}
	if client, counts := s.client(addr); counts {
		if s.clients[client] >= s.perClient {
			return replyBusyClient
		}
		s.clients[client]++
	}
	s.open++
	return nil
}

// give gives a slot back.
func (s *Slots) give(addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	if client, counts := s.client(addr); counts {
		if s.clients[client]--; s.clients[client] == 0 {
			delete(s.clients, client)
		}
	}
}

func (s *Slots) client(addr netip.Addr) (netip.Addr, bool) {
	if s.perClient == 0 || !addr.IsValid() || addr.IsLoopback() {
		return netip.Addr{}, false
	}
	if addr.Is6() { // one customer has at least a /64
		p, _ := addr.Prefix(64)
		addr = p.Addr()
	}
	return addr, true
}
