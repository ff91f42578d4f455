package mtasts

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// record is a policy as it is remembered.
type record struct {
	Policy    Policy
	FetchedAt time.Time
	UsedAt    time.Time // when mail last asked for it
}

func (r record) endsAt() time.Time {
	if r.FetchedAt.IsZero() {
		return time.Time{}
	}
	return r.FetchedAt.Add(max(r.Policy.MaxAge, shortestLife))
}

func (r record) valid(now time.Time) bool {
	return !r.FetchedAt.IsZero() && now.Before(r.endsAt())
}

func (r record) renewDue(now time.Time) bool {
	return now.Sub(r.FetchedAt) >= min(renewAfter, max(r.Policy.MaxAge, shortestLife)/2)
}

// stored is the form of a record in the store. Its version changes when an
// older reader would misread it.
type stored struct {
	Version   int      `json:"version"`
	Domain    string   `json:"domain"`
	ID        string   `json:"id"`
	Mode      Mode     `json:"mode"`
	MX        []string `json:"mx"`
	MaxAge    int64    `json:"max_age"` // seconds
	FetchedAt int64    `json:"fetched_at"`
	UsedAt    int64    `json:"used_at"`
}

const storedVersion = 1

func encodeRecord(domain string, r record) ([]byte, error) {
	return json.Marshal(stored{
		storedVersion, domain, r.Policy.ID, r.Policy.Mode, r.Policy.MX,
		int64(r.Policy.MaxAge / time.Second), r.FetchedAt.Unix(), r.UsedAt.Unix(),
	})
}

// decodeRecord reads what the store has for a domain, and holds it against the
// same rules as a policy that was just fetched.
func decodeRecord(domain string, data []byte) (record, error) {
	if len(data) > 4*maxPolicy {
		return record{}, fmt.Errorf("%d octets are too many for a policy", len(data))
	}
	var s stored
	if err := json.Unmarshal(data, &s); err != nil {
		return record{}, err
	}
	p := Policy{ID: s.ID}
	switch {
	case s.Version != storedVersion:
		return record{}, fmt.Errorf("version %d of the record is not known", s.Version)
	case s.Domain != domain:
		return record{}, fmt.Errorf("the record is that of %q", s.Domain)
	case s.MaxAge < 0 || s.MaxAge > maxMaxAge:
		return record{}, fmt.Errorf("max_age %d is out of bounds", s.MaxAge)
	case len(s.MX) == 0 && s.Mode != None:
		return record{}, errors.New("the policy has no mx")
	}
	if err := p.set("mode", string(s.Mode)); err != nil {
		return record{}, err
	}
	for _, mx := range s.MX {
		if err := p.set("mx", mx); err != nil {
			return record{}, err
		}
	}
	p.MaxAge = time.Duration(s.MaxAge) * time.Second
	return record{p, time.Unix(s.FetchedAt, 0), time.Unix(s.UsedAt, 0)}, nil
}

// read gives what the store remembers of a domain; the zero record where that
// is nothing.
func (s *Policies) read(domain string) (record, error) {
	data, err := s.store.Get(domain)
	if err != nil || data == nil {
		return record{}, err
	}
	return decodeRecord(domain, data)
}

// save remembers a policy. Where that fails it still holds in memory.
func (s *Policies) save(domain string, r record) {
	data, err := encodeRecord(domain, r)
	if err == nil {
		err = s.store.Put(domain, data)
	}
	if err != nil {
		s.log.Warn("an MTA-STS policy cannot be stored; a restart will forget it", "domain", domain, "error", err)
	}
}

func (s *Policies) delete(domain string) {
	if err := s.store.Delete(domain); err != nil {
		s.log.Warn("an MTA-STS policy that has ended cannot be removed", "domain", domain, "error", err)
	}
}
