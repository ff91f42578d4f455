package mtasts

import "fmt"

// Kind is why a policy could not be found or renewed.
type Kind uint8

const (
	DNSFailed          Kind = iota + 1 // the record could not be looked up
	RecordInvalid                      // there is a record, but not a proper one
	FetchFailed                        // the web server was not reached, or did not give the policy
	CertificateInvalid                 // the web server's certificate is not valid for mta-sts.<domain>
	PolicyInvalid                      // what it gave is not a policy
)

var kindWords = [...]string{
	DNSFailed:          "the record could not be looked up",
	RecordInvalid:      "the record is invalid",
	FetchFailed:        "the policy could not be fetched",
	CertificateInvalid: "the certificate of the policy's server is not valid",
	PolicyInvalid:      "the policy is invalid",
}

// ResultType is the kind in the words of TLS reports (RFC 8460, section 4.3.2.2);
// empty where reports have no word for it.
func (k Kind) ResultType() string {
	switch k {
	case FetchFailed:
		return "sts-policy-fetch-error"
	case CertificateInvalid:
		return "sts-webpki-invalid"
	case RecordInvalid, PolicyInvalid:
		return "sts-policy-invalid"
	}
	return ""
}

// Error says what went wrong on the way to a domain's policy.
type Error struct {
	Kind   Kind
	Domain string
	Err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("MTA-STS of %s: %s: %v", e.Domain, kindWords[e.Kind], e.Err)
}

// Unwrap gives what lies beneath.
func (e *Error) Unwrap() error { return e.Err }
