package smtpwire

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Bounds on a reply. RFC 5321, section 4.5.3.1.5, has 512 octets a line;
// longer ones with a URL for the postmaster are common.
const (
	MaxReplyLine  = 2000
	MaxReplyLines = 100
	MaxReplyBytes = 64 << 10
)

// Reply is a whole reply. Lines are raw, without code and line end. Replies
// may be copied and kept; their Lines are shared and must not be changed.
type Reply struct {
	Code     int
	Enhanced string // "5.1.1", from the text; empty where there was none
	Lines    []string
}

// What makes a reply unreadable. They end a session: nobody knows what the
// next line answers.
var (
	ErrReplyLine   = errors.New("reply line over 2,000 octets")
	ErrReplyLong   = errors.New("reply over 100 lines or 64 KB")
	ErrReplySyntax = errors.New("not an SMTP reply")
	ErrReplyCode   = errors.New("code changes within a reply")
	ErrReplyText   = errors.New("reply text with control characters or octets that are not UTF-8")
)

// ReplyError is a reply that cannot be read. It wraps one of the errors above,
// [ErrBareLF], [ErrBareCR] or [ErrNUL].
type ReplyError struct {
	Err  error
	Line string // the beginning of the line it was found in; as it came, so quote it
}

func (e *ReplyError) Error() string {
	if e.Line == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("%v: %q", e.Err, e.Line)
}

func (e *ReplyError) Unwrap() error { return e.Err }

func replyError(err error, line []byte) error {
	return &ReplyError{Err: err, Line: string(line[:min(len(line), 80)])}
}

// ParseReplyLine splits a line (without CRLF) into code and text, and tells
// whether more lines follow.
func ParseReplyLine(line []byte) (code int, text []byte, more bool, err error) {
	if len(line) < 3 {
		return 0, nil, false, replyError(ErrReplySyntax, line)
	}
	// RFC 5321, section 4.2, allows 0 to 5 in the middle; but 571 has been in
	// use for policy refusals for decades, and section 4.3.2 tells a client to
	// go by the first digit of a code that it does not know.
	a, b, c := line[0], line[1], line[2]
	if a < '2' || a > '5' || b < '0' || b > '9' || c < '0' || c > '9' {
		return 0, nil, false, replyError(ErrReplySyntax, line)
	}
	code = int(a-'0')*100 + int(b-'0')*10 + int(c-'0')
	if len(line) == 3 {
		return code, nil, false, nil
	}
	switch line[3] {
	case '-':
		more = true
	case ' ':
	default:
		return 0, nil, false, replyError(ErrReplySyntax, line)
	}
	text = line[4:]
	for _, c := range text {
		if c < ' ' && c != '\t' || c == 0x7f {
			return 0, nil, false, replyError(ErrReplyText, line)
		}
	}
	if !utf8.Valid(text) {
		return 0, nil, false, replyError(ErrReplyText, line)
	}
	return code, text, more, nil
}

// EnhancedStatus is the enhanced status code at the start of text (RFC 2034,
// section 4), if its class fits the reply code.
func EnhancedStatus(code int, text string) string {
	if len(text) < 5 || text[0] != byte('0'+code/100) || text[1] != '.' || code/100 == 3 {
		return ""
	}
	i := digits(text, 2)
	if i == 2 || i == len(text) || text[i] != '.' {
		return ""
	}
	j := digits(text, i+1)
	if j == i+1 || j < len(text) && text[j] != ' ' {
		return ""
	}
	return text[:j]
}

// digits returns the end of at most three digits at from (RFC 3463, section 2).
func digits(s string, from int) int {
	i := from
	for i < len(s) && i < from+3 && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return i
}

// AppendReply appends a reply with one or more lines, each with the enhanced
// status in front where there is one. Texts must not hold line ends.
func AppendReply(dst []byte, code int, enhanced string, lines ...string) []byte {
	for i, line := range lines {
		dst = strconv.AppendInt(dst, int64(code), 10)
		if i < len(lines)-1 {
			dst = append(dst, '-')
		} else {
			dst = append(dst, ' ')
		}
		if enhanced != "" {
			dst = append(dst, enhanced...)
			dst = append(dst, ' ')
		}
		dst = append(dst, line...)
		dst = append(dst, '\r', '\n')
	}
	return dst
}
