package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// udpSize is announced: what passes everywhere without fragments (DNS flag
	// day 2020). The buffer is larger, for servers that do not listen.
	udpSize   = 1232
	udpBuffer = 4096
	maxTCP    = 65535
)

var buffers = sync.Pool{New: func() any { return new([udpBuffer]byte) }}

// queryError is why one try at one server gave nothing to interpret.
type queryError struct {
	kind Kind
	err  error
}

func (e *queryError) Error() string { return e.err.Error() }

// query asks one server once: over UDP, over TCP when the answer is cut short,
// and without EDNS when the server does not understand it (RFC 6891, section
// 7). Each exchange has the time given.
func query(ctx context.Context, server netip.AddrPort, q question, timeout time.Duration) (*dns.Msg, *queryError) {
	ask := newQuery(q)
	m, err := exchange(ctx, "udp", server, ask, timeout)
	if err == nil && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented) && m.IsEdns0() == nil {
		ask = newQuery(q)
		ask.Extra = nil
		m, err = exchange(ctx, "udp", server, ask, timeout)
	}
	if err == nil && m.Truncated {
		m, err = exchange(ctx, "tcp", server, newQuery(q), timeout)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// newQuery has the AD bit set: that is how the AD bit of the answer is asked
// for without the signatures (RFC 6840, section 5.7).
func newQuery(q question) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(fqdn(q.name), q.qtype)
	m.AuthenticatedData = true
	m.SetEdns0(udpSize, false)
	return m
}

// exchange sends one message over a socket of its own, whose random port is
// half of the defence against forged answers (RFC 5452, section 4.5).
func exchange(ctx context.Context, network string, server netip.AddrPort, ask *dns.Msg, timeout time.Duration) (*dns.Msg, *queryError) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, server.String())
	if err != nil {
		return nil, networkError(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	buf := buffers.Get().(*[udpBuffer]byte)
	defer buffers.Put(buf)
	// Two octets stay free in front for the length that TCP wants.
	packed, err := ask.PackBuffer(buf[2:])
	if err != nil {
		return nil, &queryError{Malformed, fmt.Errorf("the question cannot be written: %w", err)}
	}
	if network == "udp" {
		return overUDP(conn, ask, packed, buf[:])
	}
	return overTCP(conn, ask, packed)
}

// overUDP passes over everything that is no answer to the question until the
// time is up: it may be forged, or late (RFC 5452, section 9.1).
func overUDP(conn net.Conn, ask *dns.Msg, packed, buf []byte) (*dns.Msg, *queryError) {
	if _, err := conn.Write(packed); err != nil {
		return nil, networkError(err)
	}
	var bad error
	for {
		n, err := conn.Read(buf)
		if err != nil {
			failed := networkError(err)
			if bad != nil && failed.kind == Timeout {
				return nil, &queryError{Malformed, bad}
			}
			return nil, failed
		}
		m, err := parse(ask, buf[:n])
		if err == nil {
			return m, nil
		}
		bad = err
	}
}

func overTCP(conn net.Conn, ask *dns.Msg, packed []byte) (*dns.Msg, *queryError) {
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(packed)), uint16(len(packed)))
	if _, err := conn.Write(append(framed, packed...)); err != nil {
		return nil, networkError(err)
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, networkError(err)
	}
	wire := make([]byte, binary.BigEndian.Uint16(size[:])) // at most maxTCP
	if _, err := io.ReadFull(conn, wire); err != nil {
		return nil, networkError(err)
	}
	m, err := parse(ask, wire)
	if err != nil {
		return nil, &queryError{Malformed, err}
	}
	if m.Truncated {
		return nil, &queryError{Malformed, errors.New("an answer that is cut short even over TCP")}
	}
	return m, nil
}

// parse reads a reply to ask. A datagram cut short may not be readable to its
// end; that it was cut is then all there is to know.
func parse(ask *dns.Msg, wire []byte) (*dns.Msg, error) {
	m := new(dns.Msg)
	err := m.Unpack(wire)
	if err != nil && !m.Truncated {
		return nil, fmt.Errorf("an answer that cannot be read: %w", err)
	}
	switch {
	case !m.Response || m.Id != ask.Id:
		return nil, errors.New("a message that is no answer to ours")
	case m.Opcode != dns.OpcodeQuery:
		return nil, errors.New("an answer to another operation")
	case len(m.Question) == 0 && m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		return m, nil // servers that did not understand the question do not repeat it
	case len(m.Question) != 1 || !sameQuestion(m.Question[0], ask.Question[0]):
		return nil, errors.New("an answer to another question")
	}
	return m, nil
}

func sameQuestion(a, b dns.Question) bool {
	return a.Qtype == b.Qtype && a.Qclass == b.Qclass && strings.EqualFold(a.Name, b.Name)
}

func networkError(err error) *queryError {
	var timeout net.Error
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		return &queryError{Timeout, errNoAnswer}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &queryError{ServerFailure, errors.New("the server closed the connection before its answer")}
	}
	return &queryError{ServerFailure, err}
}

var errNoAnswer = errors.New("is the server running, and reachable?")
