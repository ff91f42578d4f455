package metrics

import "github.com/prometheus/client_golang/prometheus"

// The closed sets of TLS: who demands what of a connection, and what it reached.
// Not every source makes every demand; for a host that is refused it is that of
// the configuration which the source made stricter.
var (
	demands = map[string][]string{
		"configuration": {"none", "enable", "require", "verify"},
		"MTA-STS":       {"enable", "require", "verify"},
		"DANE":          {"enable", "require", "verify", "dane"},
		"message":       {"none", "enable", "require", "verify"},
		other:           {other},
	}
	// reached is what each demand allows for.
	reached = map[string][]string{
		"none":    {"nothing", "clear"},
		"enable":  {"nothing", "clear", "unverified"},
		"require": {"nothing", "unverified"},
		"verify":  {"nothing", "verified"},
		"dane":    {"nothing", "dane"},
		other:     {"nothing"},
	}
	// tlsFailures are those of RFC 8460, section 4.3, and two that it has no
	// word for.
	tlsFailures = []string{
		"starttls-not-supported", "certificate-host-mismatch", "certificate-expired", "certificate-not-trusted",
		"tlsa-invalid", "dnssec-invalid", "validation-failure", "mx-not-in-sts-policy", "requiretls-not-supported", other,
	}
)

// connection is what a connection is counted by.
type connection struct{ demand, source, reached string }

func (r *registry) connections() map[connection]prometheus.Counter {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: namespace, Name: "connections_total",
		Help: "Outgoing connections, by the TLS that was demanded, who demanded it, and what was reached.",
	}, []string{"demand", "source", "reached"})
	r.register(vec)
	by := make(map[connection]prometheus.Counter)
	for source, levels := range demands {
		for _, demand := range levels {
			for _, to := range reached[demand] {
				by[connection{demand, source, to}] = vec.WithLabelValues(demand, source, to)
			}
		}
	}
	return by
}

// Connection counts an outgoing connection: what TLS was demanded of it and by
// whom, and what it reached.
func (m *Metrics) Connection(demand, source, reached string) {
	c, ok := m.connections[connection{demand, source, reached}]
	if !ok {
		c = m.connections[connection{other, other, "nothing"}]
	}
	c.Inc()
}

// TLSFailed counts a connection on which TLS failed, by the result type.
func (m *Metrics) TLSFailed(result string) { count(m.tlsFailures, result) }
