package rehearsal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"postrider/mta/smtpserver"
)

// Manners are how a sink behaves to those who deliver to it.
type Manners struct {
	// RoundTrip is the distance of the sink: what a client sends is read, and
	// so answered, this much later. The greeting takes two: TCP's own handshake
	// is one. Many octets may be on their way at once.
	RoundTrip time.Duration
	// Delay is how long the sink thinks about MAIL, each RCPT and the content.
	Delay time.Duration
	// Greylist tells an unknown pair of sender and recipient to come back
	// after this time (450 4.7.1).
	Greylist time.Duration
	// Refuse are the recipients that are refused; the first that applies counts.
	Refuse []Refusal
}

// pause is the sink thinking.
func (m *Manners) pause(ctx context.Context) error {
	if m.Delay <= 0 {
		return nil
	}
	timer := time.NewTimer(m.Delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return &smtpserver.Reply{Code: 421, Status: "4.3.2", Text: "shutting down"}
	}
}

// Refusal is a share of the recipients that match, and what they are told.
type Refusal struct {
	Match string  // an address, "@domain", or "*"; letters of either case
	Share float64 // of those that match, by chance: over 0, to 1; 0 means all
	Reply smtpserver.Reply
}

// ParseRefusal reads MATCH[:SHARE%]=CODE [STATUS] [TEXT], as in
// "nobody@example.test=550 5.1.1 no such user" or "*:5%=450 4.2.0 come back".
func ParseRefusal(s string) (Refusal, error) {
	fail := func(reason string) (Refusal, error) {
		return Refusal{}, fmt.Errorf(`refusal %q: %s; write it like "*:5%%=450 4.2.0 come back" or "nobody@example.test=550 5.1.1 no such user"`, s, reason)
	}
	match, reply, ok := strings.Cut(s, "=")
	if !ok {
		return fail("no = with a reply behind it")
	}
	var r Refusal
	r.Match = match
	if address, share, ok := strings.Cut(match, ":"); ok {
		percent, err := strconv.ParseFloat(strings.TrimSuffix(share, "%"), 64)
		if err != nil || !strings.HasSuffix(share, "%") || !(percent > 0 && percent <= 100) {
			return fail("a share is over 0 % and at most 100%")
		}
		r.Match, r.Share = address, percent/100
	}
	if r.Match != "*" && !strings.Contains(r.Match, "@") {
		return fail("neither an address, nor @domain, nor *")
	}
	code, text, _ := strings.Cut(reply, " ")
	n, err := strconv.Atoi(code)
	if err != nil || n < 400 || n > 599 {
		return fail("a reply begins with a code from 400 to 599")
	}
	r.Reply = smtpserver.Reply{Code: n, Text: text}
	if status, rest, _ := strings.Cut(text, " "); strings.Count(status, ".") == 2 && status[0] == code[0] {
		r.Reply.Status, r.Reply.Text = status, rest
	}
	if r.Reply.Text == "" {
		r.Reply.Text = "refused by the rehearsal"
	}
	return r, nil
}

// refusal is a Refusal made ready.
type refusal struct {
	Refusal
	match []byte // in lower case
}

func compile(all []Refusal) ([]refusal, error) {
	ready := make([]refusal, len(all))
	for i, r := range all {
		if r.Share < 0 || r.Share > 1 || r.Match == "" {
			return nil, errors.New("a refusal needs a match and a share from 0 to 1")
		}
		ready[i] = refusal{r, []byte(strings.ToLower(r.Match))}
	}
	return ready, nil
}

func (r *refusal) applies(to []byte) bool {
	switch {
	case string(r.match) == "*":
	case r.match[0] == '@':
		if i := bytes.LastIndexByte(to, '@'); i < 0 || !bytes.EqualFold(to[i:], r.match) {
			return false
		}
	case !bytes.EqualFold(to, r.match):
		return false
	}
	return r.Share == 0 || r.Share == 1 || rand.Float64() < r.Share
}

var replyGreylisted = &smtpserver.Reply{Code: 450, Status: "4.7.1", Text: "greylisted, please come back later"}

// maxGreylist bounds the pairs that are remembered; when there are more, all
// are forgotten.
const maxGreylist = 1_000_000

// greylist knows when a pair of sender and recipient came first.
type greylist struct {
	after time.Duration
	mu    sync.Mutex
	seed  maphash.Seed
	first map[uint64]time.Time
}

func (g *greylist) isEarly(from, to []byte, now time.Time) bool {
	if g.after <= 0 {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.first == nil || len(g.first) >= maxGreylist {
		g.seed, g.first = maphash.MakeSeed(), map[uint64]time.Time{}
	}
	pair := mix(maphash.Bytes(g.seed, from), maphash.Bytes(g.seed, to))
	first, ok := g.first[pair]
	if !ok {
		g.first[pair] = now
		return true
	}
	return now.Sub(first) < g.after
}

// mix makes one hash of two, whose order counts.
func mix(a, b uint64) uint64 {
	const odd = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio
	h := (a ^ b>>29) * odd
	return (h ^ h>>32 ^ b) * odd
}
