package config

import "strconv"

// Origin says where a value comes from. The zero value: it is the default.
type Origin struct {
	File         string
	Line, Column int
	Variable     string
}

// String gives "default", "FILE:LINE" or the variable's name.
func (o Origin) String() string {
	switch {
	case o.Variable != "":
		return o.Variable
	case o.File != "":
		return o.File + ":" + strconv.Itoa(o.Line)
	}
	return "default"
}

// Origin tells where the value of a key outside lists of tables comes from,
// like "delivery.tls".
func (c *Config) Origin(key string) Origin { return c.origins[key] }

func (c *Config) isSet(key string) bool { return c.origins[key] != Origin{} }

// complain makes an Error about a key's value, with the place it comes from.
func (c *Config) complain(key, text, hint string) *Error {
	o := c.origins[key]
	return &Error{File: o.File, Line: o.Line, Column: o.Column, Variable: o.Variable, Key: withoutIndex(key), Text: text, Hint: hint}
}
