//go:build e2e

package e2e

import (
	"crypto"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// signedZone is a zone with its DNSSEC signatures, as a file that a name server
// loads, and the key that a resolver has to trust.
type signedZone struct {
	Name   string
	File   string
	Anchor string
}

// signZone signs the records of a zone (RFC 4034, 4035), with NSEC records
// that prove what is not there. A spoiled zone's key is not the one that its
// anchor names, so nothing in it validates.
func signZone(t *testing.T, name string, spoiled bool, records ...string) signedZone {
	t.Helper()
	records = append(records,
		name+". 300 IN SOA ns."+name+". host."+name+". 1 3600 600 86400 60",
		name+". 300 IN NS ns."+name+".", "ns."+name+". 300 IN A 127.0.0.1")
	key, private := zoneKey(t, name)
	sets := map[string]map[uint16][]dns.RR{}
	add := func(rr dns.RR) {
		h := rr.Header()
		owner := strings.ToLower(h.Name)
		if sets[owner] == nil {
			sets[owner] = map[uint16][]dns.RR{}
		}
		sets[owner][h.Rrtype] = append(sets[owner][h.Rrtype], rr)
	}
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		add(rr)
	}
	add(key)
	owners := make([]string, 0, len(sets))
	for owner := range sets {
		owners = append(owners, owner)
	}
	slices.SortFunc(owners, func(a, b string) int { return slices.Compare(canonicalLabels(a), canonicalLabels(b)) })
	for i, owner := range owners {
		types := []uint16{dns.TypeNSEC, dns.TypeRRSIG}
		for rrtype := range sets[owner] {
			types = append(types, rrtype)
		}
		slices.Sort(types)
		add(&dns.NSEC{
			Hdr:        dns.RR_Header{Name: owner, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 60},
			NextDomain: owners[(i+1)%len(owners)], TypeBitMap: types,
		})
	}
	var text strings.Builder
	for _, owner := range owners {
		for _, set := range sets[owner] {
			sig := &dns.RRSIG{
				Algorithm: key.Algorithm, KeyTag: key.KeyTag(), SignerName: name + ".",
				Inception: uint32(time.Now().Add(-time.Hour).Unix()), Expiration: uint32(time.Now().Add(24 * time.Hour).Unix()),
			}
			if err := sig.Sign(private, set); err != nil {
				t.Fatal(err)
			}
			for _, rr := range append(set, sig) {
				fmt.Fprintln(&text, rr)
			}
		}
	}
	z := signedZone{Name: name, File: filepath.Join(t.TempDir(), name+".zone"), Anchor: key.String()}
	if spoiled {
		other, _ := zoneKey(t, name)
		z.Anchor = other.String()
	}
	if err := os.WriteFile(z.File, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return z
}

func zoneKey(t *testing.T, name string) (*dns.DNSKEY, crypto.Signer) {
	t.Helper()
	key := &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: name + ".", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 300},
		Flags: dns.ZONE | dns.SEP, Protocol: 3, Algorithm: dns.ECDSAP256SHA256,
	}
	private, err := key.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	return key, private.(crypto.Signer)
}

// canonicalLabels orders names as RFC 4034, section 6.1, does: by their labels
// from the right.
func canonicalLabels(name string) []string {
	labels := dns.SplitDomainName(name)
	slices.Reverse(labels)
	return labels
}
