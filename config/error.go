package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one complaint about a setting, or about the text around it.
type Error struct {
	File     string // empty for a variable or a default
	Line     int    // from 1; 0 where there is no place in a file
	Column   int    // from 1, in octets
	Key      string // "delivery.tls"; empty for a fault of syntax
	Variable string // the environment variable that set the value
	Text     string // what is wrong
	Hint     string // what to do next; may be empty
}

// Error gives place, key and text on one line, without the hint.
func (e *Error) Error() string {
	var b strings.Builder
	switch {
	case e.Variable != "":
		fmt.Fprintf(&b, "%s: ", e.Variable)
	case e.Line > 0:
		fmt.Fprintf(&b, "%s:%d:%d: ", e.File, e.Line, e.Column)
	case e.File != "":
		fmt.Fprintf(&b, "%s: ", e.File)
	}
	if e.Key != "" {
		fmt.Fprintf(&b, "%s: ", e.Key)
	}
	b.WriteString(e.Text)
	return b.String()
}

// Errors are all complaints about one configuration, in the order of the file,
// then of the environment. It is never empty where it is returned as an error.
type Errors []*Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap makes each of them visible to errors.As.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

// maxErrors bounds what one bad file can say; more help nobody.
const maxErrors = 20

// add keeps a complaint, once: what a listener inherits from [submission] is
// looked at for each of them.
func (e *Errors) add(err *Error) {
	if len(*e) == maxErrors || slices.ContainsFunc(*e, func(had *Error) bool { return *had == *err }) {
		return
	}
	*e = append(*e, err)
}

// result gives the complaints in their order, nil for none.
func (e Errors) result() error {
	if len(e) == 0 {
		return nil
	}
	slices.SortStableFunc(e, func(a, b *Error) int {
		return cmp.Or(strings.Compare(a.Variable, b.Variable), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return e
}
