package mta

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"postrider/config"
	"postrider/mta/api/wire"
	"postrider/mta/delivery"
	"postrider/mta/metrics"
	"postrider/mta/tlspolicy"
	"postrider/resolver"
	"postrider/resolver/resolvertest"
)

// What explain tells of TLS is told of the hosts that it names, also where there
// are more than are tried, of which each lookup draws others; and where the
// operator wrote the hosts.
func TestEveryHostThatIsExplainedHasItsDemand(t *testing.T) {
	t.Parallel()
	zone := resolvertest.Start(t)
	for i := range 30 {
		zone.Add(fmt.Sprintf("many.test. 0 IN MX 10 mx%d.many.test.", i), fmt.Sprintf("mx%d.many.test. 0 IN A 192.0.2.%d", i, i+1))
	}
	cfg, err := config.Parse("f", []byte("[[destination]]\ndomain = \"written.test\"\nhosts = [\"192.0.2.1\", \"192.0.2.2:2525\"]\ntls = \"require\"\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := resolver.New(resolver.Options{Servers: []string{zone.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	d := &destinations{&MTA{cfg: cfg, resolver: r, planner: &delivery.Planner{Resolver: r, Destination: destination(cfg)}}}
	for domain, want := range map[string]wire.Demand{
		"many.test":    {Level: "enable", Source: "configuration"},
		"written.test": {Level: "require", Source: "configuration"},
		"[192.0.2.1]":  {Level: "enable", Source: "configuration"},
	} {
		route, err := d.Route(t.Context(), domain)
		if err != nil {
			t.Fatal(err)
		}
		demands := d.Demands(t.Context(), domain, route)
		if len(demands) != len(route.Hosts) || domain == "many.test" && (len(demands) != 10 || len(route.Skipped) != 20) {
			t.Errorf("%s: %d demands on %d hosts, %d skipped", domain, len(demands), len(route.Hosts), len(route.Skipped))
		}
		for i := range demands {
			if demands[i] != want {
				t.Errorf("%s, %s: %+v, want %+v", domain, route.Hosts[i].Name, demands[i], want)
			}
		}
		for _, h := range route.Skipped {
			if h.Err == nil || h.Err.Error() != "at most 10 hosts are tried, and among equals each lookup draws others" {
				t.Errorf("%s is skipped: %v", h.Name, h.Err)
			}
		}
	}
}

// Each connection is counted once, by the demand of the domain that it was made
// for; that others share it makes it no second one.
func TestConnectionsAreCountedByWhatWasDemandedAndReached(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	m, err := metrics.New(metrics.Options{Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	counter := connectionCounter{m}
	for _, c := range []delivery.Connection{
		{Demand: tlspolicy.Requirement{Level: tlspolicy.Verify, Source: tlspolicy.FromSTS}, Reached: delivery.ReachedVerified, TLSResult: delivery.TLSOK},
		{Demand: tlspolicy.Requirement{Level: tlspolicy.Enable}, Reached: delivery.ReachedClear, TLSResult: delivery.TLSNotSupported},
		{Demand: tlspolicy.Requirement{Level: tlspolicy.Enable}, Reached: delivery.ReachedClear, TLSResult: delivery.TLSNotSupported, IsShared: true},
	} {
		counter.Connection(&c)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := make(map[string]float64)
	for _, f := range families {
		for _, one := range f.GetMetric() {
			var labels []string
			for _, l := range one.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			if n := one.GetCounter().GetValue(); n > 0 {
				counted[f.GetName()+" "+strings.Join(labels, " ")] = n
			}
		}
	}
	if want := map[string]float64{
		"postrider_connections_total verify verified MTA-STS":    1,
		"postrider_connections_total enable clear configuration": 1,
		"postrider_tls_failures_total starttls-not-supported":    1,
	}; !reflect.DeepEqual(counted, want) {
		t.Errorf("counted %v, want %v", counted, want)
	}
}
