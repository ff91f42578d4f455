package intake

import (
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// stamps gives the text of a time for a header field, made once per second.
type stamps struct{ last atomic.Pointer[stamp] }

type stamp struct {
	second int64
	offset int // two callers may use two zones
	text   string
}

func (s *stamps) text(now time.Time) string {
	second := now.Unix()
	_, offset := now.Zone()
	if last := s.last.Load(); last != nil && last.second == second && last.offset == offset {
		return last.text
	}
	fresh := &stamp{second, offset, now.Format("Mon, 2 Jan 2006 15:04:05 -0700")}
	s.last.Store(fresh)
	return fresh.text
}

// appendReceived appends the trace field (RFC 5321, section 4.4). It names the
// recipient only where there is one: others must not learn of each other.
func (r *Receiver) appendReceived(dst []byte, m *Message) []byte {
	env := m.env
	dst = append(dst, "Received: "...)
	if env.Origin.HELO != "" || env.Origin.Client.IsValid() {
		dst = append(dst, "from "...)
		dst = append(dst, heloForTrace(env.Origin.HELO)...)
		if ip := env.Origin.Client; ip.IsValid() {
			dst = append(dst, " ("...)
			dst = appendLiteral(dst, ip)
			dst = append(dst, ')')
		}
		dst = append(dst, "\r\n\t"...)
	}
	dst = append(dst, "by "...)
	dst = append(dst, r.opts.Hostname...)
	switch p := m.meta.Protocol; {
	case p == "":
	case strings.Contains(p, "SMTP") || p == "HTTP":
		dst = append(dst, " with "...)
		dst = append(dst, p...)
	default:
		dst = append(dst, " ("...)
		dst = append(dst, p...)
		dst = append(dst, ')')
	}
	dst = append(dst, " id "...)
	dst = append(dst, m.idText...)
	if len(env.Recipients) == 1 && isASCII(env.Recipients[0].Address) {
		dst = append(dst, "\r\n\tfor <"...)
		dst = append(dst, env.Recipients[0].Address...)
		dst = append(dst, '>')
	}
	dst = append(dst, ";\r\n\t"...)
	dst = append(dst, r.stamps.text(m.now)...)
	return append(dst, crlf...)
}

// appendLiteral appends an address in brackets (RFC 5321, section 4.1.3).
func appendLiteral(dst []byte, ip netip.Addr) []byte {
	ip = ip.Unmap().WithZone("")
	dst = append(dst, '[')
	if ip.Is6() {
		dst = append(dst, "IPv6:"...)
	}
	dst = ip.AppendTo(dst)
	return append(dst, ']')
}

// heloForTrace is the name a client gave, where it can be written into a
// header field as it is; it is the client's claim and may hold anything.
func heloForTrace(helo string) string {
	const most = 255
	if helo == "" || len(helo) > most {
		return "unknown"
	}
	for i := range len(helo) {
		c := helo[i]
		letterOrDigit := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letterOrDigit && !strings.ContainsRune("-_.:[]", rune(c)) {
			return "unknown"
		}
	}
	return helo
}
