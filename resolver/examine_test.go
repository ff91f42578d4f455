package resolver

import (
	"testing"
	"time"

	"github.com/miekg/dns"

	"postrider/resolver/resolvertest"
)

func TestExamine(t *testing.T) {
	t.Parallel()
	const soa = "signed.test. IN SOA ns.signed.test. admin.signed.test. 1 2 3 4 5"
	good, old, refusing, silent := resolvertest.Start(t), resolvertest.Start(t), resolvertest.Start(t), resolvertest.Start(t)
	for _, z := range []*resolvertest.Zone{good, old, refusing, silent} {
		z.Add(soa)
	}
	good.Secure("signed.test")
	old.WithoutEDNS()
	refusing.Fail("signed.test", resolvertest.Fault{Rcode: dns.RcodeRefused})
	silent.Fail("signed.test", resolvertest.Fault{Drop: true})
	r, err := New(Options{Servers: []string{good.Addr(), old.Addr(), refusing.Addr(), silent.Addr()}, Timeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Examine(t.Context(), "signed.test")
	if err != nil || len(got) != 4 {
		t.Fatalf("%+v %v", got, err)
	}
	for i, want := range []ServerReport{{EDNS: true, AD: true}, {}, {}, {}} {
		if got[i].EDNS != want.EDNS || got[i].AD != want.AD || (got[i].Err != nil) != (i >= 2) || got[i].Addr.String() == "" {
			t.Errorf("%d: %+v", i, got[i])
		}
	}
	if got, err := r.Examine(t.Context(), "none.test"); err != nil || got[0].Err != nil || !got[0].EDNS {
		t.Errorf("a name that there is not: %+v %v", got, err)
	}
	if good.Total() != 2 { // one for each Examine
		t.Errorf("%d queries at one server", good.Total())
	}
	if _, err := r.Examine(t.Context(), "a b"); err == nil {
		t.Error("a name that cannot be asked for")
	}
}
