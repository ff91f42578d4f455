package dkim

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// TXT looks up the texts of a name. None, without an error: there is no such
// record, as a fact.
type TXT interface {
	TXT(ctx context.Context, name string) ([]string, error)
}

// The findings of Check that callers decide by. Anything else means that DNS
// could not be asked.
var (
	ErrNotPublished = errors.New("not published")
	ErrOtherKey     = errors.New("another key is published")
	ErrUnusable     = errors.New("the record cannot be used")
)

// Check compares the record that DNS has with the key. Without an error
// receivers can verify; the notes say what is still worth changing.
func Check(ctx context.Context, dns TXT, domain, selector string, key *PrivateKey) (notes []string, err error) {
	want, err := key.Record()
	if err != nil {
		return nil, err
	}
	name := RecordName(domain, selector)
	texts, err := dns.TXT(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", name, err)
	}
	switch len(texts) {
	case 0:
		return nil, fmt.Errorf("%s: %w", name, ErrNotPublished)
	case 1:
	default:
		// RFC 6376, section 3.6.2.2: with several the outcome is undefined.
		return nil, fmt.Errorf("%s has %d TXT records: %w", name, len(texts), ErrUnusable)
	}
	got, err := ParseRecord(texts[0])
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %w", name, ErrUnusable, err)
	case len(got.PublicKey) == 0:
		return nil, fmt.Errorf("%s: %w: it revokes the key (p= is empty)", name, ErrUnusable)
	case !got.same(want):
		return nil, fmt.Errorf("%s: %w", name, ErrOtherKey)
	case len(got.Hashes) > 0 && !slices.Contains(got.Hashes, "sha256"):
		return nil, fmt.Errorf("%s: %w: h= does not allow sha256", name, ErrUnusable)
	case len(got.Services) > 0 && !slices.Contains(got.Services, "*") && !slices.Contains(got.Services, "email"):
		return nil, fmt.Errorf("%s: %w: s= does not allow email", name, ErrUnusable)
	}
	if slices.Contains(got.Flags, "y") {
		notes = append(notes, "the record says that it is a test (t=y): receivers treat the mail as if it were not signed")
	}
	return notes, nil
}
