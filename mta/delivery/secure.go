package delivery

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"postrider/mta/smtpclient"
	"postrider/mta/tlspolicy"
	"postrider/queue"
)

// tlsMode is how STARTTLS is gone about with one host.
type tlsMode uint8

const (
	tlsNow   tlsMode = iota // with the versions that the configuration allows
	tlsOld                  // from TLS 1.0 up, with ciphers of that time
	tlsNever                // in clear
)

// TLSResult is what TLS came to on a connection; a closed set, whose words are
// those of RFC 8460, section 4.3, where it has one.
type TLSResult uint8

const (
	TLSNotTried TLSResult = iota
	TLSOK
	TLSNotSupported // STARTTLS not offered, or refused
	TLSHostMismatch
	TLSExpired
	TLSNotTrusted
	TLSInvalid   // TLSA records that do not match
	TLSFailed    // the handshake
	TLSNotNamed  // not one of the MTA-STS policy's hosts
	TLSNotKnown  // the lookup of its TLSA records failed
	TLSNoRequire // REQUIRETLS not offered
)

var tlsResultWords = [...]string{
	"not-tried", "successful", "starttls-not-supported", "certificate-host-mismatch", "certificate-expired",
	"certificate-not-trusted", "tlsa-invalid", "validation-failure", "mx-not-in-sts-policy", "dnssec-invalid",
	"requiretls-not-supported",
}

func (r TLSResult) String() string { return tlsResultWords[r] }

// secure raises the session to its demand.
func (t *try) secure() error {
	d := t.demand()
	if t.mode == tlsNever {
		if d.Level == tlspolicy.Enable {
			t.getsBy("in clear", t.why)
			// Not trying again must not make the host look well in the reports
			// of RFC 8460: the session is one that failed.
			t.verdict = t.known
		}
		return nil
	}
	if !t.smtp.Extensions().StartTLS {
		t.verdict = verdict{TLSNotSupported, nil}
		if d.Level > tlspolicy.Enable {
			return &fault{stage: queue.StageSTARTTLS, status: "4.7.4",
				text: fmt.Sprintf("%s does not offer STARTTLS, and TLS is demanded: %v", hostLabel(t.host.Name, t.addr), d)}
		}
		t.getsBy("in clear", "it does not offer STARTTLS")
		return nil
	}
	if d.Level == tlspolicy.DANE && t.agent.o.VerifyDANE == nil {
		return &fault{stage: queue.StagePolicy, status: "4.7.5", text: fmt.Sprintf("%s has TLSA records, and nothing here can check them", t.host.Name)}
	}
	if err := t.smtp.StartTLS(t.ctx, t.tlsConfig()); err != nil {
		var e *smtpclient.Error
		if errors.As(err, &e) && (e.Stage == smtpclient.StageSTARTTLS || e.Stage == smtpclient.StageTLS) {
			t.tlsStage, t.verdict = e.Stage, verdict{judgeTLS(e), err}
		}
		return err
	}
	t.result = TLSOK
	state := t.smtp.TLS()
	t.remote.TLS = tlsText(d.Level, state)
	if t.mode == tlsOld {
		t.getsBy("from TLS 1.0 up", t.why)
	}
	t.verdict = t.agent.watch(&d.Requirement, t.host.Name, state)
	if d.RequireTLS && !t.smtp.Extensions().RequireTLS {
		t.result = TLSNoRequire
		// RFC 8689, section 4.2.1: another host may offer it; when none does,
		// the message goes back.
		return &fault{stage: queue.StagePolicy, status: "5.7.30", isPermanent: true, isOwn: true,
			text: fmt.Sprintf("%s does not offer REQUIRETLS, which the message demands", hostLabel(t.host.Name, t.addr))}
	}
	return nil
}

// tlsBroke reports whether the try failed for a reason that less TLS may mend.
func (t *try) tlsBroke() bool {
	var e *smtpclient.Error
	// Octets injected before the handshake are an attack, not weakness.
	return t.tlsStage != 0 && errors.As(t.err, &e) && e.Kind != smtpclient.KindAborted && !errors.Is(e, smtpclient.ErrInjected)
}

// fallback is the mode to try next.
func (t *try) fallback() tlsMode {
	if t.mode == tlsNow && t.tlsStage == smtpclient.StageTLS {
		return tlsOld
	}
	return tlsNever
}

// verdict is what TLS came to on a connection, with the cause of a failure.
type verdict struct {
	result TLSResult
	err    error
}

// watch judges TLS that works by what a policy in mode testing would demand, for
// the reports.
func (a *Agent) watch(d *tlspolicy.Requirement, host string, state *tls.ConnectionState) verdict {
	if d.STS != tlspolicy.STSTesting {
		return verdict{result: TLSOK}
	}
	if !d.STSMatch {
		return verdict{TLSNotNamed, errNotNamed}
	}
	if d.Level == tlspolicy.Verify {
		return verdict{result: TLSOK}
	}
	if err := verifyChain(state, host, a.o.Roots); err != nil {
		return verdict{judgeCertificate(err), err}
	}
	return verdict{result: TLSOK}
}

func verifyChain(state *tls.ConnectionState, name string, roots *x509.CertPool) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: between})
	return err
}

// tlsConfig is for one connection with the demand and mode of the try.
func (t *try) tlsConfig() *tls.Config {
	d, a := t.demand(), t.agent
	c := &tls.Config{
		ServerName:         t.host.Name, // empty for a literal: no SNI (RFC 6066, section 3)
		MinVersion:         cmp.Or(t.plan.Session.MinTLS, a.o.MinTLS),
		RootCAs:            a.o.Roots,
		ClientSessionCache: a.resumed[0],
	}
	switch d.Level {
	case tlspolicy.Verify:
		c.ClientSessionCache = a.resumed[1]
		if c.ServerName == "" {
			c.ServerName = t.addr.Addr().String() // judged by, and still not sent
		}
	case tlspolicy.DANE:
		c.ServerName = cmp.Or(d.TLSABase, t.host.Name) // RFC 7672, section 8.1
		c.InsecureSkipVerify = true
		c.ClientSessionCache = nil // the records may have changed since
		c.VerifyConnection = func(state tls.ConnectionState) error {
			if err := a.o.VerifyDANE(state, d.TLSA, t.daneNames()); err != nil {
				return &daneError{err}
			}
			return nil
		}
	default:
		c.InsecureSkipVerify = true
	}
	if t.mode == tlsOld {
		c.MinVersion = tls.VersionTLS10
		c.CipherSuites = oldCipherSuites()
	}
	return c
}

// errNotNamed is what an MTA-STS policy has against a host.
var errNotNamed = errors.New("the MTA-STS policy does not name this host")

// daneNames are the names that a certificate under TLSA usage 2 may have (RFC
// 7672, section 3.2.2): the one that has the records, the host's, and those of
// the domain, before and after aliases, whose MX answer is validated.
func (t *try) daneNames() []string {
	var names []string
	for _, n := range []string{t.demand().TLSABase, t.host.Name, t.plan.Domain, t.plan.canonical} {
		if n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

type daneError struct{ err error }

func (e *daneError) Error() string { return "no TLSA record matches: " + e.err.Error() }
func (e *daneError) Unwrap() error { return e.err }

// oldCipherSuites are all but RC4: what is left between a host of long ago and
// clear text.
func oldCipherSuites() []uint16 {
	var ids []uint16
	for _, s := range tls.CipherSuites() {
		ids = append(ids, s.ID)
	}
	for _, s := range tls.InsecureCipherSuites() {
		switch s.ID {
		case tls.TLS_RSA_WITH_RC4_128_SHA, tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA, tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA:
		default:
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// judgeTLS names why STARTTLS failed.
func judgeTLS(e *smtpclient.Error) TLSResult {
	var dane *daneError
	switch {
	case e.Stage == smtpclient.StageSTARTTLS:
		return TLSNotSupported
	case errors.As(e.Err, &dane):
		return judgeDANE(dane)
	default:
		return judgeCertificate(e.Err)
	}
}

// judgeDANE takes the word of RFC 8460 for what a certificate that had to match
// TLSA records lacks, where VerifyDANE knows one.
func judgeDANE(err error) TLSResult {
	var typed interface{ ResultType() string }
	if errors.As(err, &typed) {
		for _, r := range []TLSResult{TLSHostMismatch, TLSExpired, TLSNotTrusted} {
			if r.String() == typed.ResultType() {
				return r
			}
		}
	}
	return TLSInvalid
}

func judgeCertificate(err error) TLSResult {
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &host):
		return TLSHostMismatch
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return TLSExpired
	case errors.As(err, &invalid), errors.As(err, &unknown):
		return TLSNotTrusted
	default:
		return TLSFailed
	}
}

// tlsMemory remembers for a while which hosts need less TLS, so that not every
// message pays for failed handshakes. It is only asked where the demand allows
// clear text.
type tlsMemory struct {
	mu    sync.Mutex
	modes map[netip.AddrPort]remembered
}

type remembered struct {
	mode  tlsMode
	why   verdict // of the connection that found out
	until time.Time
}

const (
	rememberFor   = time.Hour
	maxRemembered = 10_000
)

func (m *tlsMemory) recall(addr netip.AddrPort, now time.Time) (tlsMode, verdict) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.modes[addr]
	if ok && !now.Before(r.until) {
		delete(m.modes, addr)
		ok = false
	}
	if !ok {
		return tlsNow, verdict{}
	}
	return r.mode, r.why
}

func (m *tlsMemory) remember(addr netip.AddrPort, mode tlsMode, why verdict, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.modes == nil {
		m.modes = make(map[netip.AddrPort]remembered)
	}
	if len(m.modes) >= maxRemembered {
		for old, r := range m.modes { // any that is over, else any
			delete(m.modes, old)
			if now.Before(r.until) {
				break
			}
		}
	}
	m.modes[addr] = remembered{mode, why, now.Add(rememberFor)}
}
