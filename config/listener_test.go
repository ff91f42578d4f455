package config

import "testing"

const (
	aUser = "[[user]]\nname='a'\npassword_hash='$2b$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234'\n"
	aCert = "tls_cert_file='c'\ntls_key_file='k'\n"
)

// TestOpenListeners is the whole table of what may be reached from beyond this
// host.
func TestOpenListeners(t *testing.T) {
	t.Parallel()
	const (
		nobody  = "f:2:1: submission.listen: 0.0.0.0:25 is reached from beyond this host, and nobody there may submit"
		noClear = "f:2:1: submission.listen: 0.0.0.0:25 is reached from beyond this host, where AUTH is not offered in clear"
	)
	open := "[submission]\nlisten=['0.0.0.0:25']\n"
	tests := []struct {
		name, text, want string
	}{
		{"loopback", "[submission]\nlisten=['127.0.0.2:25', '[::1]:25', 'localhost:25']\n", ""},
		{"nothing named", open, nobody},
		{"networks named", open + "trusted_networks=['10.0.0.0/8']\n", ""},
		{"networks named empty", open + "trusted_networks=[]\n", nobody},
		{"user without a certificate", open + aUser, noClear},
		{"user with a certificate", open + aCert + aUser, ""},
		{"user, but AUTH off", open + "auth='none'\n" + aCert + aUser, nobody},
		{"required, networks named, no certificate", open + "auth='required'\ntrusted_networks=['10.0.0.0/8']\n" + aUser, noClear},
		{"optional, networks named, no certificate", open + "trusted_networks=['10.0.0.0/8']\n" + aUser, ""},
		{"required without users", "[submission]\nauth='required'\n", "f:2:1: submission.auth: AUTH is required, and there is no [[user]] who could pass"},
		{"all interfaces", "[submission]\nlisten=[':25']\n", "f:2:1: submission.listen: :25 is reached from beyond this host, and nobody there may submit"},
		{"all IPv6", "[submission]\nlisten=['[::]:25']\n", "f:2:1: submission.listen: [::]:25 is reached from beyond this host, and nobody there may submit"},
		{"the whole internet", "[submission]\ntrusted_networks=['0.0.0.0/0']\n", "f:2:1: submission.trusted_networks: 0.0.0.0/0 is a good part of the internet: that would be an open relay"},
		{"half of it", "[submission]\ntrusted_networks=['127.0.0.0/8', '128.0.0.0/1']\n", "f:2:1: submission.trusted_networks: 128.0.0.0/1 is a good part of the internet: that would be an open relay"},
		{"the whole IPv6 internet", "[submission]\ntrusted_networks=['2000::/3']\n", "f:2:1: submission.trusted_networks: 2000::/3 is a good part of the internet: that would be an open relay"},
		{"key alone", "[submission]\ntls_key_file='k'\n", "f:2:1: submission.tls_key_file: a key without its certificate"},
		{"certificate alone", "[submission]\ntls_cert_file='k'\n", "f:2:1: submission.tls_cert_file: a certificate without its key"},
		{"implicit TLS alone", "[submission]\nimplicit_tls=true\n", "f:2:1: submission.implicit_tls: TLS needs a certificate"},
		{"further one", "[[submission.listener]]\nlisten=['0.0.0.0:25']\n", "f:2:1: submission.listener.listen: 0.0.0.0:25 is reached from beyond this host, and nobody there may submit"},
		{"further one, networks inherited", "[submission]\ntrusted_networks=['10.0.0.0/8']\n[[submission.listener]]\nlisten=['0.0.0.0:25']\n", ""},
		{"fault inherited, said once", "[submission]\nimplicit_tls=true\n[[submission.listener]]\nlisten=['127.0.0.1:26']\n", "f:2:1: submission.implicit_tls: TLS needs a certificate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.want == "" {
				mustParse(t, tt.text)
				return
			}
			expectComplaints(t, tt.text, nil, []string{tt.want})
		})
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"[http]\nlisten='0.0.0.0:8025'":                      "http.listen: 0.0.0.0:8025 is reached from beyond this host: /metrics is open to all who reach it, and tokens travel in clear",
		"mode='silent'":                                      `mode: "silent": no mail leaves this host`,
		"[delivery]\ntls='require'\ntls_min_version='1.1'\n": "delivery.tls_min_version: a TLS below 1.2 is accepted where TLS is required",
	} {
		if c := mustParse(t, text); len(c.Warnings) != 1 || c.Warnings[0] != want {
			t.Errorf("%q warns %q", text, c.Warnings)
		}
	}
}

func TestPasswordHash(t *testing.T) {
	t.Parallel()
	const argon = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b7dWRWJTmaaJObG"
	for _, s := range []string{argon, "$2b$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234", "$2y$05$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234"} {
		if _, err := parsePasswordHash(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{
		"", "secret", "$1$abc", "$2b$10$short", "$2b$31$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234",
		"$argon2id$v=16$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub", "$argon2id$v=19$m=99999999,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub",
		"$argon2id$v=19$m=65536$c29tZXNhbHQ$RdescudvJCsgt3ub", "$argon2id$v=19$m=65536,t=3,p=4$c29t$RdescudvJCsgt3ub", "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$!!",
		"$argon2i$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub", argon + "$more",
	} {
		if _, err := parsePasswordHash(s); err == nil {
			t.Errorf("%s was taken", s)
		}
	}
}
