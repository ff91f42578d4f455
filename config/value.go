package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// literal is a value as it was written, in the file or in the environment.
type literal struct {
	kind  kind
	text  string // of a scalar: what it says, without quotes
	items []literal
	at    place
}

type kind uint8

const (
	kindString kind = iota
	kindInteger
	kindBool
	kindArray
	kindOther // a float, a date, an inline table
	kindPlain // from the environment: whatever the key wants
	kindPair  // a line of a key that is a table: text = items[0]
)

func (k kind) String() string {
	return [...]string{"a string", "a whole number", "true or false", "a list", "something else", "text", "a line of a table"}[k]
}

// place is where something stands in the file; the zero value: nowhere.
type place struct{ line, column int }

// valueError is a complaint about one literal.
type valueError struct {
	at   place
	text string
}

func (e *valueError) Error() string { return e.text }

func wrong(l literal, format string, args ...any) error {
	return &valueError{at: l.at, text: fmt.Sprintf(format, args...)}
}

// value ties a field of a Config to its form in TOML.
type value interface {
	set(literal) error
	toml() string  // the value in TOML
	plain() any    // the value for JSON
	wants() string // what may be written: "a duration from 1s to 30d"
}

// scalar is a value with a form in text.
type scalar[T any] struct {
	to    *T
	read  func(string) (T, error)
	write func(T) string
	want  string
	// bare: written in TOML without quotes, as this kind.
	bare kind
}

func (v scalar[T]) set(l literal) error {
	if l.kind != kindPlain && l.kind != v.bare {
		return wrong(l, "%s, where %s is needed", l.kind, v.want)
	}
	x, err := v.read(l.text)
	if err != nil {
		return wrong(l, "%s", err)
	}
	*v.to = x
	return nil
}

func (v scalar[T]) toml() string {
	s := v.write(*v.to)
	if v.bare == kindString {
		return quote(s)
	}
	return s
}

func (v scalar[T]) plain() any {
	if v.bare == kindString {
		return v.write(*v.to)
	}
	return *v.to
}

func (v scalar[T]) wants() string { return v.want }

// list is an array of one kind of scalar.
type list[T any] struct {
	to   *[]T
	item func(*T) scalar[T]
	want string
	min  int
}

// maxItems bounds a list: none of those below has a use for more.
const maxItems = 1000

func (v list[T]) set(l literal) error {
	items := l.items
	switch l.kind {
	case kindPlain:
		if l.text != "" {
			for s := range strings.SplitSeq(l.text, ",") {
				items = append(items, literal{kind: kindPlain, text: strings.TrimSpace(s), at: l.at})
			}
		}
	case kindArray:
	default:
		return wrong(l, "%s, where a list is needed: put it in [ ]", l.kind)
	}
	if len(items) < v.min || len(items) > maxItems {
		return wrong(l, "a list of %d, where %s is needed", len(items), v.want)
	}
	got := make([]T, len(items))
	for i, it := range items {
		if err := v.item(&got[i]).set(it); err != nil {
			return err
		}
	}
	*v.to = got
	return nil
}

func (v list[T]) toml() string {
	parts := make([]string, len(*v.to))
	for i := range *v.to {
		parts[i] = v.item(&(*v.to)[i]).toml()
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func (v list[T]) plain() any {
	parts := make([]any, len(*v.to))
	for i := range *v.to {
		parts[i] = v.item(&(*v.to)[i]).plain()
	}
	return parts
}

func (v list[T]) wants() string { return v.want }

// quote writes a TOML basic string.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, "\\u%04X", r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// The kinds of values. Each says its range once, for the check and for the
// documentation.

func text(to *string, want string, check func(string) (string, error)) scalar[string] {
	return scalar[string]{to: to, read: check, write: func(s string) string { return s }, want: want}
}

// optional lets the empty string pass.
func optional(v scalar[string]) scalar[string] {
	check := v.read
	v.read = func(s string) (string, error) {
		if s == "" {
			return "", nil
		}
		return check(s)
	}
	v.want += ", or empty"
	return v
}

func word[T ~string](to *T, words ...T) scalar[T] {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(string(w))
	}
	want := strings.Join(quoted[:len(quoted)-1], ", ") + " or " + quoted[len(quoted)-1]
	read := func(s string) (T, error) {
		for _, w := range words {
			if s == string(w) {
				return w, nil
			}
		}
		return "", fmt.Errorf("%q is not %s", s, want)
	}
	return scalar[T]{to: to, read: read, write: func(w T) string { return string(w) }, want: want}
}

func number(to *int, from, upTo int) scalar[int] {
	want := fmt.Sprintf("a whole number from %d to %d", from, upTo)
	read := func(s string) (int, error) {
		n, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 0, 64)
		if err != nil || n < int64(from) || n > int64(upTo) {
			return 0, fmt.Errorf("%s, where %s is needed", s, want)
		}
		return int(n), nil
	}
	return scalar[int]{to: to, read: read, write: strconv.Itoa, want: want, bare: kindInteger}
}

func boolean(to *bool) scalar[bool] {
	read := func(s string) (bool, error) {
		if s != "true" && s != "false" {
			return false, fmt.Errorf("%q is not true or false", s)
		}
		return s == "true", nil
	}
	return scalar[bool]{to: to, read: read, write: strconv.FormatBool, want: "true or false", bare: kindBool}
}

func duration(to *time.Duration, from, upTo time.Duration) scalar[time.Duration] {
	want := fmt.Sprintf("a duration from %s to %s", FormatDuration(from), FormatDuration(upTo))
	read := func(s string) (time.Duration, error) {
		d, err := ParseDuration(s)
		if err == nil && (d < from || d > upTo) {
			err = fmt.Errorf("%q, where %s is needed", s, want)
		}
		return d, err
	}
	return scalar[time.Duration]{to: to, read: read, write: FormatDuration, want: want}
}

func size(to *int64, from, upTo int64) scalar[int64] {
	want := fmt.Sprintf("a size from %s to %s", FormatSize(from), FormatSize(upTo))
	read := func(s string) (int64, error) {
		n, err := ParseSize(s)
		if err == nil && (n < from || n > upTo) {
			err = fmt.Errorf("%q, where %s is needed", s, want)
		}
		return n, err
	}
	return scalar[int64]{to: to, read: read, write: FormatSize, want: want}
}

func texts(to *[]string, want string, check func(string) (string, error)) list[string] {
	item := func(s *string) scalar[string] { return text(s, want, check) }
	return list[string]{to: to, item: item, want: "a list of " + want}
}

func networks(to *[]netip.Prefix) list[netip.Prefix] {
	item := func(p *netip.Prefix) scalar[netip.Prefix] {
		return scalar[netip.Prefix]{to: p, read: parseNetwork, write: netip.Prefix.String, want: `a network, like "10.0.0.0/8"`}
	}
	return list[netip.Prefix]{to: to, item: item, want: `a list of networks, like "10.0.0.0/8", or addresses`}
}

func addresses(to *[]netip.Addr) list[netip.Addr] {
	item := func(a *netip.Addr) scalar[netip.Addr] {
		return scalar[netip.Addr]{to: a, read: parseAddress, write: netip.Addr.String, want: "an IP address"}
	}
	return list[netip.Addr]{to: to, item: item, want: "a list of IP addresses"}
}

func durations(to *[]time.Duration, from, upTo time.Duration) list[time.Duration] {
	item := func(d *time.Duration) scalar[time.Duration] { return duration(d, from, upTo) }
	want := fmt.Sprintf("a list of at least one duration, each from %s to %s", FormatDuration(from), FormatDuration(upTo))
	return list[time.Duration]{to: to, item: item, want: want, min: 1}
}
