package smtpclient

import (
	"math"
	"strconv"
	"strings"
)

// Extensions are what a server offered in its reply to EHLO.
type Extensions struct {
	Pipelining, Chunking, EightBitMIME, SMTPUTF8, DSN, StartTLS, RequireTLS, EnhancedStatus bool

	MTPriority bool // RFC 6710
	SizeKnown  bool
	Size       int64 // 0 with SizeKnown: no fixed limit
	// RcptMax and MailMax are of RFC 9422; 0: none stated.
	RcptMax, MailMax int
	Auth             []string
	Limits           map[string]string // all of LIMITS, names in upper case
	Name             string            // what the server calls itself
}

// parseEHLO reads the lines of the reply to EHLO (RFC 5321, section 4.1.1.1).
// Keywords come in any case; lines that are no keyword are passed over.
func parseEHLO(lines []string) Extensions {
	var e Extensions
	if len(lines) == 0 {
		return e
	}
	e.Name, _, _ = strings.Cut(lines[0], " ")
	for _, line := range lines[1:] {
		e.add(line)
	}
	return e
}

func (e *Extensions) add(line string) {
	keyword, params, _ := strings.Cut(line, " ")
	keyword = strings.ToUpper(keyword)
	switch keyword {
	case "PIPELINING":
		e.Pipelining = true
	case "CHUNKING":
		e.Chunking = true
	case "8BITMIME":
		e.EightBitMIME = true
	case "SMTPUTF8":
		e.SMTPUTF8 = true
	case "DSN":
		e.DSN = true
	case "STARTTLS":
		e.StartTLS = true
	case "REQUIRETLS":
		e.RequireTLS = true
	case "ENHANCEDSTATUSCODES":
		e.EnhancedStatus = true
	case "MT-PRIORITY":
		e.MTPriority = true
	case "SIZE":
		e.SizeKnown = true
		e.Size = parseSize(strings.TrimSpace(params))
	case "LIMITS":
		e.addLimits(params)
	case "AUTH":
		e.Auth = append(e.Auth, strings.Fields(strings.ToUpper(params))...)
	default:
		// "AUTH=LOGIN" is how it was written before RFC 2554.
		if methods, ok := strings.CutPrefix(keyword, "AUTH="); ok {
			e.Auth = append(e.Auth, strings.Fields(methods+" "+strings.ToUpper(params))...)
		}
	}
}

// parseSize reads the number of RFC 1870, section 4: none or 0 is no fixed
// limit, and so is what cannot be understood or is larger than any message.
func parseSize(s string) int64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > math.MaxInt64 {
		return 0
	}
	return int64(n)
}

// addLimits reads "RCPTMAX=100 MAILMAX=10" (RFC 9422, section 4).
func (e *Extensions) addLimits(params string) {
	for limit := range strings.FieldsSeq(params) {
		name, value, ok := strings.Cut(limit, "=")
		if !ok {
			continue
		}
		if e.Limits == nil {
			e.Limits = make(map[string]string)
		}
		name = strings.ToUpper(name)
		e.Limits[name] = value
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil || n == 0 || len(value) > 6 { // at most six digits, not 0
			continue
		}
		switch name {
		case "RCPTMAX":
			e.RcptMax = int(n)
		case "MAILMAX":
			e.MailMax = int(n)
		}
	}
}
