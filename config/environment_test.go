package config

import (
	"errors"
	"slices"
	"testing"
)

func TestEnvironmentGoesBeforeTheFile(t *testing.T) {
	t.Parallel()
	c := mustParse(t, "mode = 'silent'\nhostname = 'file.test'\n[submission]\nlisten = ['127.0.0.1:1']\n",
		"PATH=/bin", "POSTRIDER_HOSTNAME=mail.test", "POSTRIDER_SUBMISSION_LISTEN=127.0.0.1:25, [::1]:25", "POSTRIDER_DELIVERY_PORT=2525",
		"POSTRIDER_TLSRPT_ENABLED=false", "POSTRIDER_DELIVERY_RETRY=1s,2s", "POSTRIDER_DELIVERY_TIMEOUTS_TLS=3s", "POSTRIDER_RESOLVER_SERVERS=", "POSTRIDER_BODY_MEMORY=1MiB",
		"POSTRIDER_DELIVERY_ALLOW_NETWORKS=10.0.0.0/8")
	if c.Hostname != "mail.test" || !slices.Equal(c.Submission.Listen, []string{"127.0.0.1:25", "[::1]:25"}) || c.Delivery.Port != 2525 || c.TLSRPT.Enabled ||
		len(c.Delivery.Retry) != 2 || c.Delivery.Timeouts.TLS != 3*second || len(c.Resolver.Servers) != 0 || c.BodyMemory != 1<<20 || len(c.Delivery.AllowNetworks) != 1 {
		t.Errorf("%+v", c)
	}
	for key, want := range map[string]string{
		"hostname": "POSTRIDER_HOSTNAME", "mode": "postrider.toml:1", "submission.listen": "POSTRIDER_SUBMISSION_LISTEN", "delivery.tls": "default", "delivery.timeouts.tls": "POSTRIDER_DELIVERY_TIMEOUTS_TLS",
	} {
		if got := c.Origin(key).String(); got != want {
			t.Errorf("%s comes from %q, not %q", key, got, want)
		}
	}
}

func TestEnvironmentComplaints(t *testing.T) {
	t.Parallel()
	tests := map[string][2]string{
		"POSTRIDER_SUBMISION_LISTEN=x":          {"POSTRIDER_SUBMISION_LISTEN: there is no such key", "did you mean POSTRIDER_SUBMISSION_LISTEN?"},
		"POSTRIDER_QQQQQQQQQQQQQQQQ=x":          {"POSTRIDER_QQQQQQQQQQQQQQQQ: there is no such key", "every variable that begins with POSTRIDER_ has to name a key"},
		"POSTRIDER_DELIVERY_PORT=x":             {"POSTRIDER_DELIVERY_PORT: delivery.port: x, where a whole number from 1 to 65535 is needed", ""},
		"POSTRIDER_DELIVERY_RETRY=":             {"POSTRIDER_DELIVERY_RETRY: delivery.retry: a list of 0, where a list of at least one duration, each from 100ms to 7d is needed", ""},
		"POSTRIDER_SUBMISSION_LISTEN=0.0.0.0:1": {"POSTRIDER_SUBMISSION_LISTEN: submission.listen: 0.0.0.0:1 is reached from beyond this host, and nobody there may submit", "name the networks that may in trusted_networks, or add a [[user]] with tls_cert_file and tls_key_file"},
		"POSTRIDER_DKIM_DOMAIN=a.test":          {"POSTRIDER_DKIM_DOMAIN: there is no such key", "every variable that begins with POSTRIDER_ has to name a key"},
	}
	for variable, want := range tests {
		_, err := Parse("", nil, []string{variable})
		var e *Error
		if !errors.As(err, &e) || e.Error() != want[0] || e.Hint != want[1] {
			t.Errorf("%s: %v; hint %q", variable, err, e.Hint)
		}
	}
}

func TestVariablesAreDistinct(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, table := range Tables() {
		for _, k := range table.Keys {
			if v := k.Variable(); v != "" && seen[v] != "" {
				t.Errorf("%s sets %s and %s", v, seen[v], k.Path)
			} else {
				seen[v] = k.Path
			}
		}
	}
}
