package doctor

import (
	"context"
	"errors"
	"fmt"

	"postrider/dkim"
	"postrider/resolver"
)

// TXT lets dkim ask the resolver: that a name or record does not exist is no
// error there.
type TXT struct{ *resolver.Resolver }

// TXT implements dkim.TXT.
func (t TXT) TXT(ctx context.Context, name string) ([]string, error) {
	answer, err := t.Resolver.TXT(ctx, name)
	if isAbsent(err) {
		return nil, nil
	}
	return answer.Records, err
}

// Published is what DNS says of one key.
type Published struct {
	Name      string         `json:"name"`
	Algorithm dkim.Algorithm `json:"algorithm"`
	Published bool           `json:"published"` // as it is here: receivers can verify
	Problem   string         `json:"problem,omitempty"`
	Advice    string         `json:"advice,omitempty"`
	Notes     []string       `json:"notes,omitempty"`
}

// ComparePublished compares a key with its record in DNS. isKnown is false
// where DNS could not be asked.
func ComparePublished(ctx context.Context, dns dkim.TXT, s dkim.Source, key *dkim.PrivateKey) (p Published, isKnown bool) {
	notes, err := dkim.Check(ctx, dns, s.Domain, s.Selector, key)
	p = Published{Name: dkim.RecordName(s.Domain, s.Selector), Algorithm: key.Algorithm, Published: err == nil, Notes: notes}
	if err == nil {
		return p, true
	}
	p.Problem = err.Error()
	switch {
	case errors.Is(err, dkim.ErrNotPublished), errors.Is(err, dkim.ErrUnusable):
		p.Advice = fmt.Sprintf("publish what \"postrider dkim record --domain %s --selector %s\" prints", s.Domain, s.Selector)
	case errors.Is(err, dkim.ErrOtherKey):
		p.Advice = "configure the key that was published, or make a new one under a new selector"
	default:
		return p, false
	}
	return p, true
}
