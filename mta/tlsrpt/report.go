package tlsrpt

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"
)

// Sender is who reports.
type Sender struct {
	Organization string // a name for people
	Domain       string // of the sender, in A-labels
	Contact      string // an address that answers questions
}

// Report is what a domain is sent.
type Report struct {
	ID     string // unique
	Domain string // that gets it
	Sender Sender
	Start  time.Time
	End    time.Time // the last second of the interval
	json   []byte
	gzip   []byte
}

// NewReport makes the report of a tally.
func NewReport(t Tally, s Sender) (*Report, error) {
	var random [12]byte
	rand.Read(random[:])
	r := &Report{
		ID:     fmt.Sprintf("%s.%s@%s", t.Start.UTC().Format("20060102T150405Z"), hex.EncodeToString(random[:]), s.Domain),
		Domain: t.Domain,
		Sender: s,
		Start:  t.Start.UTC(),
		End:    t.Start.Add(t.Interval).Add(-time.Second).UTC(),
	}
	var err error
	if r.json, err = json.MarshalIndent(r.document(t), "", "  "); err != nil {
		return nil, fmt.Errorf("writing the TLS report for %s: %w", t.Domain, err)
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	w.Write(r.json) // a bytes.Buffer takes all
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("packing the TLS report for %s: %w", t.Domain, err)
	}
	r.gzip = packed.Bytes()
	return r, nil
}

// JSON is the report in plain text (section 4.4).
func (r *Report) JSON() []byte { return r.json }

// Gzip is the report as it is sent.
func (r *Report) Gzip() []byte { return r.gzip }

// Filename is the name of the report as a file (section 5.1).
func (r *Report) Filename() string {
	return fmt.Sprintf("%s!%s!%d!%d.json.gz", r.Sender.Domain, r.Domain, r.Start.Unix(), r.End.Unix())
}

// The form of a report (section 4.4).
type (
	document struct {
		Organization string           `json:"organization-name"`
		DateRange    dateRange        `json:"date-range"`
		Contact      string           `json:"contact-info"`
		ID           string           `json:"report-id"`
		Policies     []policyDocument `json:"policies"`
	}
	dateRange struct {
		Start time.Time `json:"start-datetime"`
		End   time.Time `json:"end-datetime"`
	}
	policyDocument struct {
		Policy  policyDescription `json:"policy"`
		Summary summary           `json:"summary"`
		Details []failureDetail   `json:"failure-details,omitempty"`
	}
	policyDescription struct {
		Type    PolicyType `json:"policy-type"`
		Lines   []string   `json:"policy-string,omitempty"`
		Domain  string     `json:"policy-domain"`
		MXHosts []string   `json:"mx-host,omitempty"`
	}
	summary struct {
		Successes int64 `json:"total-successful-session-count"`
		Failures  int64 `json:"total-failure-session-count"`
	}
	failureDetail struct {
		Result      string `json:"result-type"`
		SendingIP   string `json:"sending-mta-ip,omitempty"`
		ReceivingMX string `json:"receiving-mx-hostname,omitempty"`
		HELO        string `json:"receiving-mx-helo,omitempty"`
		ReceivingIP string `json:"receiving-ip,omitempty"`
		Count       int64  `json:"failed-session-count"`
		Reason      string `json:"failure-reason-code,omitempty"`
	}
)

func (r *Report) document(t Tally) document {
	d := document{
		Organization: r.Sender.Organization,
		DateRange:    dateRange{r.Start, r.End},
		Contact:      r.Sender.Contact,
		ID:           r.ID,
		Policies:     []policyDocument{},
	}
	for _, p := range t.Policies {
		doc := policyDocument{
			Policy:  policyDescription{p.Policy.Type, p.Policy.Lines, p.Policy.Domain, p.Policy.MXHosts},
			Summary: summary{p.Successes, p.Failures},
		}
		for _, f := range p.Details {
			doc.Details = append(doc.Details, failureDetail{
				f.Result, ipText(f.SendingIP), f.ReceivingMX, f.HELO, ipText(f.ReceivingIP), f.Count, f.Reason,
			})
		}
		d.Policies = append(d.Policies, doc)
	}
	return d
}

func ipText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.Unmap().WithZone("").String()
}
