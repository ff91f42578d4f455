package dkim

import (
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// Source names a key and the file that holds it.
type Source struct {
	Domain   string // d=
	Selector string // s=
	KeyFile  string
}

// Options configure Keys.
type Options struct {
	Sources []Source
	Logger  *slog.Logger // nil: nothing is logged
	// Unsigned is told of every message that gets no signature. It may be nil,
	// must not block, and is called by many goroutines.
	Unsigned func(Reason)
}

// Reason says why a message is not signed. It is a closed set of short words.
type Reason string

const (
	NoKey          Reason = "no key"    // for the author's domain and those above it, or at all
	NoAuthor       Reason = "no author" // no From, or none with a domain
	SeveralFrom    Reason = "several From fields"
	SeveralAuthors Reason = "authors of several domains"
	RepeatedFields Reason = "too many repeated fields"
)

// Reasons is the whole set.
func Reasons() []Reason {
	return []Reason{NoKey, NoAuthor, SeveralFrom, SeveralAuthors, RepeatedFields}
}

// Keys holds the signing keys by domain. It is safe for concurrent use.
type Keys struct {
	byDomain atomic.Pointer[map[string][]signingKey]
	logger   *slog.Logger
	unsigned func(Reason)
	rsa      chan struct{} // a place for each RSA operation under way
	desks    sync.Pool     // of *desk
}

type signingKey struct {
	domain, selector string
	key              *PrivateKey
}

// NewKeys reads the keys. A file that others can read is refused.
func NewKeys(o Options) (*Keys, error) {
	k := &Keys{logger: o.Logger, unsigned: o.Unsigned, rsa: make(chan struct{}, runtime.GOMAXPROCS(0))}
	k.desks.New = func() any { return newDesk() }
	if k.logger == nil {
		k.logger = slog.New(slog.DiscardHandler)
	}
	if k.unsigned == nil {
		k.unsigned = func(Reason) {}
	}
	if err := k.Reload(o.Sources); err != nil {
		return nil, err
	}
	return k, nil
}

// Reload reads the keys anew and takes them all, or, with an error, none: then
// those in use stay. Signers under way keep the keys that they began with.
func (k *Keys) Reload(sources []Source) error {
	byDomain := map[string][]signingKey{}
	for _, s := range sources {
		domain, err := normalize(s.Domain)
		if err != nil || domain == "" || s.Selector == "" {
			return fmt.Errorf("dkim: domain %q, selector %q: not names", s.Domain, s.Selector)
		}
		for _, had := range byDomain[domain] {
			if had.selector == s.Selector {
				return fmt.Errorf("dkim: %s has two keys of the selector %s", domain, s.Selector)
			}
		}
		key, err := ReadKeyFile(s.KeyFile)
		if err != nil {
			return fmt.Errorf("dkim: %s._domainkey.%s: %w", s.Selector, domain, err)
		}
		byDomain[domain] = append(byDomain[domain], signingKey{domain: domain, selector: s.Selector, key: key})
	}
	k.byDomain.Store(&byDomain)
	return nil
}

// Signer begins the signatures of a message. It answers nil when no key fits
// the From field's domain, and also when the author cannot be told (RFC 5322,
// section 3.6.2), which is logged; both are given to Options.Unsigned. header is
// the whole header section with CRLF line ends and the blank line; it is not
// kept.
func (k *Keys) Signer(header []byte) (*Signer, error) {
	byDomain := *k.byDomain.Load()
	if len(byDomain) == 0 {
		k.unsigned(NoKey)
		return nil, nil
	}
	d := k.desks.Get().(*desk)
	d.survey.look(header)
	keys, reason := choose(byDomain, &d.survey)
	if len(keys) > 0 && reason == "" {
		var ok bool
		if d.names, ok = d.survey.appendNames(d.names); !ok {
			reason = RepeatedFields
		}
	}
	switch {
	case reason != "":
		k.logger.Warn("message not signed", "reason", string(reason), "message_id", string(d.survey.messageID))
	case len(keys) == 0:
		reason = NoKey
	}
	if reason != "" {
		k.unsigned(reason)
		k.clear(d)
		return nil, nil
	}
	return k.begin(keys, d, header)
}

// choose finds the keys for the authors.
func choose(byDomain map[string][]signingKey, s *survey) ([]signingKey, Reason) {
	switch n := s.counts[numberOfFrom]; {
	case n == 0:
		return nil, NoAuthor
	case n > 1:
		return nil, SeveralFrom
	}
	domains := authorDomains(string(s.from))
	if len(domains) == 0 {
		return nil, NoAuthor
	}
	keys := lookup(byDomain, domains[0])
	for _, d := range domains[1:] {
		if also := lookup(byDomain, d); len(also) != len(keys) || len(keys) > 0 && also[0].domain != keys[0].domain {
			return nil, SeveralAuthors
		}
	}
	return keys, ""
}

// lookup finds the keys of a domain, or of its nearest parent that has any.
func lookup(byDomain map[string][]signingKey, domain string) []signingKey {
	name, err := normalize(domain)
	for err == nil && name != "" {
		if keys := byDomain[name]; keys != nil {
			return keys
		}
		_, name, _ = strings.Cut(name, ".")
	}
	return nil
}
