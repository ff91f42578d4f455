package smtpclient

import (
	"fmt"
	"unicode/utf8"
)

// maxPath is longer than any path of RFC 5321, section 4.5.3.1.3 (256 octets),
// by as much as servers are known to take.
const maxPath = 320

// maxParams is over what all extensions together add to a command line.
const maxParams = 1200

// check looks at all that is going to be written in commands. The caller has
// looked as well; this is the last place where a line end could pass.
func (tx *Transaction) check() error {
	if len(tx.Rcpts) == 0 {
		return ErrNoRecipient
	}
	if err := checkPath(tx.From); err != nil {
		return err
	}
	if err := checkParams(tx.Params); err != nil {
		return err
	}
	for i := range tx.Rcpts {
		r := &tx.Rcpts[i]
		if r.Address == "" {
			return fmt.Errorf("%w: empty recipient", ErrAddress)
		}
		if err := checkPath(r.Address); err != nil {
			return err
		}
		if err := checkParams(r.Params); err != nil {
			return err
		}
	}
	return nil
}

// checkPath refuses what would end a path or a line: control characters, and
// outside of quotes blanks and angle brackets.
func checkPath(address string) error {
	if len(address) > maxPath {
		return fmt.Errorf("%w: %q... has %d octets", ErrAddress, address[:40], len(address))
	}
	isQuoted, isASCII := false, true
	for i := 0; i < len(address); i++ {
		switch c := address[i]; {
		case c < ' ' || c == 0x7f:
			return fmt.Errorf("%w: control character in %q", ErrAddress, address)
		case c >= utf8.RuneSelf:
			isASCII = false
		case c == '"':
			isQuoted = !isQuoted
		case c == '\\' && isQuoted:
			// The next octet is quoted; it must still not be a control character.
			if i++; i == len(address) || address[i] < ' ' || address[i] >= 0x7f {
				return fmt.Errorf("%w: bad backslash in %q", ErrAddress, address)
			}
		case !isQuoted && (c == ' ' || c == '<' || c == '>'):
			return fmt.Errorf("%w: %q in %q", ErrAddress, c, address)
		}
	}
	if isQuoted {
		return fmt.Errorf("%w: quote without end in %q", ErrAddress, address)
	}
	if !isASCII && !utf8.ValidString(address) {
		return fmt.Errorf("%w: %q is not UTF-8", ErrAddress, address)
	}
	return nil
}

// checkParams refuses control characters, a blank at either end, and what is
// too long for a command line.
func checkParams(params string) error {
	if len(params) > maxParams {
		return fmt.Errorf("%w: %q... has %d octets", ErrParameter, params[:40], len(params))
	}
	for i := range len(params) {
		if c := params[i]; c < ' ' || c == 0x7f {
			return fmt.Errorf("%w: control character in %q", ErrParameter, params)
		}
	}
	if params != "" && (params[0] == ' ' || params[len(params)-1] == ' ') {
		return fmt.Errorf("%w: blank at the end of %q", ErrParameter, params)
	}
	if !utf8.ValidString(params) {
		return fmt.Errorf("%w: %q is not UTF-8", ErrParameter, params)
	}
	return nil
}

// checkLocalName refuses a HELO name that is no single word.
func checkLocalName(name string) error {
	if name == "" || len(name) > 255 {
		return fmt.Errorf("%w: %q", ErrLocalName, name)
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f {
			return fmt.Errorf("%w: %q", ErrLocalName, name)
		}
	}
	return nil
}
