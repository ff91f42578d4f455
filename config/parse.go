package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

const variablePrefix = "POSTRIDER_"

// Parse makes a Config of the text of a file (its name is for complaints) and
// of environment variables ("NAME=value"; those that do not begin with
// POSTRIDER_ are not looked at). Either may be empty. Paths are left as they
// were written, and no file is looked at. The error is of type Errors.
func Parse(file string, data []byte, environ []string) (*Config, error) {
	c, errs := parse(file, data, environ)
	if err := errs.result(); err != nil {
		return nil, err
	}
	return c, nil
}

// Default is the configuration that an empty file makes.
func Default() *Config {
	c, err := Parse("", nil, nil)
	if err != nil {
		panic(err) // a test reads every default
	}
	return c
}

func parse(file string, data []byte, environ []string) (*Config, Errors) {
	var errs Errors
	c := &Config{File: file, origins: map[string]Origin{}}
	c.setDefaults()
	doc := readDocument(file, data, theSchema(), &errs)
	for _, e := range doc.entries {
		if e.element < 0 {
			c.setEntry(doc, e, c, &errs)
		}
	}
	c.setEnvironment(environ, &errs)
	// Elements inherit from tables, which may stand below them in the file
	// and be changed by the environment: so they come last.
	for i := range theSchema().tables {
		if t := &theSchema().tables[i]; t.Repeated {
			c.setElements(doc, t, &errs)
		}
	}
	c.validate(&errs)
	return c, errs
}

func (c *Config) setDefaults() {
	c.Rules.Builtin = true
	for _, t := range Tables() {
		for i := range t.Keys {
			if k := &t.Keys[i]; k.Default != "" {
				if err := k.at.field(c).set(parseLiteral(k.Default)); err != nil {
					panic(fmt.Sprintf("config: default of %s: %v", k.Path, err)) // a test reads every default
				}
			}
		}
	}
}

// parseLiteral reads one value in TOML.
func parseLiteral(text string) literal {
	r := reader{document: &document{}}
	r.parser.Reset([]byte("x = " + text))
	if !r.parser.NextExpression() || r.parser.Expression().Kind != unstable.KeyValue {
		return literal{kind: kindOther, text: text}
	}
	return r.literal(r.parser.Expression().Value(), place{})
}

// setEntry sets a key of root, which is c or an element of a list.
func (c *Config) setEntry(doc *document, e entry, root any, errs *Errors) {
	origin := Origin{File: doc.file, Line: e.at.line, Column: e.at.column}
	c.origins[indexed(e.key.Path, e.element)] = origin
	if err := e.key.at.field(root).set(e.value); err != nil {
		at := e.at
		var ve *valueError
		if errors.As(err, &ve) && ve.at != (place{}) {
			at = ve.at
		}
		errs.add(&Error{File: doc.file, Line: at.line, Column: at.column, Key: e.key.Path, Text: err.Error()})
	}
}

func (c *Config) setElements(doc *document, t *Table, errs *Errors) {
	starts := doc.elements[t.Path]
	byElement := make([][]entry, len(starts))
	for _, e := range doc.entries {
		if e.element >= 0 && strings.TrimSuffix(e.key.Path, "."+e.key.Name()) == t.Path {
			byElement[e.element] = append(byElement[e.element], e)
		}
	}
	for i, start := range starts {
		element, keep := t.elements.begin(c)
		given := map[string]bool{}
		for _, e := range byElement[i] {
			given[e.key.Path] = true
			c.setEntry(doc, e, element, errs)
		}
		for _, k := range t.Keys {
			if k.required && !given[k.Path] {
				errs.add(&Error{File: doc.file, Line: start.line, Column: start.column, Key: t.Path, Text: fmt.Sprintf("%q is missing", k.Name())})
			}
		}
		keep()
	}
}

func (c *Config) setEnvironment(environ []string, errs *Errors) {
	keys := map[string]*Key{}
	var names []string
	for _, t := range Tables() {
		for i := range t.Keys {
			if k := &t.Keys[i]; k.Variable() != "" {
				keys[k.Variable()] = k
				names = append(names, k.Variable())
			}
		}
	}
	for _, v := range environ {
		name, text, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, variablePrefix) {
			continue
		}
		k := keys[name]
		if k == nil {
			hint := "every variable that begins with " + variablePrefix + " has to name a key"
			if near := nearest(name, names); near != "" {
				hint = fmt.Sprintf("did you mean %s?", near)
			}
			errs.add(&Error{Variable: name, Text: "there is no such key", Hint: hint})
			continue
		}
		c.origins[k.Path] = Origin{Variable: name}
		if err := k.at.field(c).set(literal{kind: kindPlain, text: text}); err != nil {
			errs.add(&Error{Variable: name, Key: k.Path, Text: err.Error()})
		}
	}
}
