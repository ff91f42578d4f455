package delivery

import (
	"crypto/tls"

	"postrider/mta/tlspolicy"
)

// Reached is how well a connection is protected in the end, whatever was
// demanded.
type Reached uint8

const (
	ReachedNothing   Reached = iota // it did not become ready for mail
	ReachedClear                    // no TLS
	ReachedEncrypted                // TLS with whomever: the certificate was not judged
	ReachedVerified                 // TLS, and the certificate is valid for the host
	ReachedDANE                     // TLS, and the certificate matches a TLSA record
)

// The words are those of the log, the trace and the metrics.
var reachedWords = [...]string{"nothing", "clear", "unverified", "verified", "dane"}

func (r Reached) String() string { return reachedWords[r] }

// reached judges a connection that is ready for mail.
func reached(level tlspolicy.Level, state *tls.ConnectionState) Reached {
	switch {
	case state == nil:
		return ReachedClear
	case level == tlspolicy.DANE:
		return ReachedDANE
	case level == tlspolicy.Verify:
		return ReachedVerified
	default:
		return ReachedEncrypted
	}
}

// tlsText is for logs and reports: "TLS1.3 TLS_AES_128_GCM_SHA256 verified";
// empty in clear.
func tlsText(level tlspolicy.Level, state *tls.ConnectionState) string {
	if state == nil {
		return ""
	}
	version := tls.VersionName(state.Version)
	if len(version) > 4 && version[3] == ' ' {
		version = version[:3] + version[4:]
	}
	return version + " " + tls.CipherSuiteName(state.CipherSuite) + " " + reached(level, state).String()
}

// getsBy notes that a connection got by with less than TLS at its best, and
// why: "in clear: it does not offer STARTTLS".
func (t *try) getsBy(what, why string) {
	t.less = what + ": " + why
	t.remote.Demand = demandWords(&t.demand().Requirement, t.less)
}

// demandWords are a demand, and what it put up with: "enable; in clear: it does
// not offer STARTTLS".
func demandWords(d *tlspolicy.Requirement, less string) string {
	if less == "" {
		return d.String()
	}
	return oneLine(d.String() + "; " + less)
}

// whyRemembered stands for the reason of a weaker mode that an earlier
// connection has found out.
const whyRemembered = "TLS failed with it less than an hour ago"
