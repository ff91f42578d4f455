package demo

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/miekg/dns"
)

// dkimVerifier checks the signatures of a message as its receiver would, with
// the key that stands in DNS.
type dkimVerifier struct{ server string }

// verify counts the signatures; the first that does not hold is an error.
func (v dkimVerifier) verify(message []byte) (int, error) {
	results, err := dkim.VerifyWithOptions(bytes.NewReader(message), &dkim.VerifyOptions{
		LookupTXT:        v.lookupTXT,
		MaxVerifications: 5,
	})
	if err != nil {
		return 0, err
	}
	for _, r := range results {
		if r.Err != nil {
			return 0, fmt.Errorf("d=%s: %w", r.Domain, r.Err)
		}
	}
	return len(results), nil
}

func (v dkimVerifier) lookupTXT(name string) ([]string, error) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), dns.TypeTXT)
	client := dns.Client{Net: "tcp"}
	answer, _, err := client.Exchange(m, v.server)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, rr := range answer.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			all = append(all, strings.Join(txt.Txt, ""))
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no TXT record at " + name)
	}
	return all, nil
}
