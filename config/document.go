package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxFile bounds a configuration file: tens of thousands of destinations fit.
const maxFile = 4 << 20

// entry is one key with its value, as it stands in the file.
type entry struct {
	key     *Key
	element int // of a list of tables, from 0; -1: none
	value   literal
	at      place // of the key
}

// document is a file taken apart, with every key known.
type document struct {
	file     string
	entries  []entry
	elements map[string][]place // of each list of tables, where each begins
}

// readDocument takes a file apart. It goes on after an unknown key; after a
// fault of syntax it cannot.
func readDocument(file string, data []byte, s *schema, errs *Errors) *document {
	d := &document{file: file, elements: map[string][]place{}}
	if len(data) > maxFile {
		errs.add(&Error{File: file, Text: fmt.Sprintf("larger than %s", FormatSize(maxFile))})
		return d
	}
	// The rules about what may be defined twice are the decoder's.
	var whole map[string]any
	if err := toml.Unmarshal(data, &whole); err != nil {
		errs.add(syntaxError(file, err))
		return d
	}
	r := &reader{document: d, schema: s, errs: errs}
	r.parser.Reset(data)
	r.read()
	return d
}

func syntaxError(file string, err error) *Error {
	e := &Error{File: file, Text: strings.TrimPrefix(err.Error(), "toml: ")}
	var de *toml.DecodeError
	if errors.As(err, &de) {
		e.Line, e.Column = de.Position()
		e.Key = strings.Join(de.Key(), ".")
	}
	return e
}

// reader walks the syntax tree, which keeps the place of every key.
type reader struct {
	*document
	parser unstable.Parser
	schema *schema
	errs   *Errors
}

// scope is the table that keys belong to.
type scope struct {
	path    string
	element int
	ok      bool // false below a table that is not known: complained about once
}

func (r *reader) read() {
	in := scope{element: -1, ok: true}
	for r.parser.NextExpression() {
		switch node := r.parser.Expression(); node.Kind {
		case unstable.Table:
			in = r.header(node, false)
		case unstable.ArrayTable:
			in = r.header(node, true)
		case unstable.KeyValue:
			r.keyValue(node, in)
		}
	}
}

// header reads [a.b] or [[a.b]].
func (r *reader) header(node *unstable.Node, list bool) scope {
	in := scope{element: -1, ok: true}
	for it := node.Key(); in.ok && it.Next(); {
		part := it.Node()
		path := join(in.path, string(part.Data))
		if n := len(r.elements[path]); n > 0 && !it.IsLast() && r.schema.repeats[path].hasTables() {
			in.path, in.element = path, n-1 // a table of the last element
			continue
		}
		if list && it.IsLast() && r.schema.repeats[path] != nil {
			return r.begin(path, r.place(part))
		}
		in = r.descend(in, path, r.place(part))
		if list && it.IsLast() && in.ok {
			r.fault(r.place(part), path, fmt.Sprintf("is no list of tables: write [%s]", path), "")
			in.ok = false
		}
	}
	return in
}

// begin starts an element of a list of tables.
func (r *reader) begin(path string, at place) scope {
	r.elements[path] = append(r.elements[path], at)
	return scope{path: path, element: len(r.elements[path]) - 1, ok: true}
}

// descend goes into the table at path, or complains.
func (r *reader) descend(in scope, path string, at place) scope {
	in.path = path
	switch {
	case r.schema.known[path]:
		return in
	case r.schema.repeats[path] != nil:
		r.fault(at, path, fmt.Sprintf("is a list of tables: write [[%s]]", path), "")
	case r.schema.keys[path] != nil:
		r.fault(at, path, "is a single setting, not a table", "")
	default:
		r.fault(at, path, "there is no such table", r.suggest(path, false))
	}
	in.ok = false
	return in
}

func (r *reader) keyValue(node *unstable.Node, in scope) {
	if !in.ok {
		return
	}
	it := node.Key()
	for it.Next() && !it.IsLast() {
		if in = r.descend(in, join(in.path, string(it.Node().Data)), r.place(it.Node())); !in.ok {
			return
		}
	}
	path, at := join(in.path, string(it.Node().Data)), r.place(it.Node())
	value := node.Value()
	switch {
	case r.schema.keys[in.path] != nil: // a key that is a table
		line := literal{kind: kindPair, text: string(it.Node().Data), items: []literal{r.literal(value, at)}, at: at}
		r.entries = append(r.entries, entry{key: r.schema.keys[in.path], element: in.element, value: line, at: at})
	case r.schema.keys[path] != nil && r.schema.keys[path].isTable && value.Kind == unstable.InlineTable:
		r.inline(value, scope{path: path, element: in.element, ok: true})
	case r.schema.keys[path] != nil:
		r.entries = append(r.entries, entry{key: r.schema.keys[path], element: in.element, value: r.literal(value, at), at: at})
	case r.schema.known[path] && value.Kind == unstable.InlineTable:
		r.inline(value, scope{path: path, element: -1, ok: true})
	case r.schema.known[path]:
		r.fault(at, path, fmt.Sprintf("is a table: write [%s]", path), "")
	case r.schema.repeats[path] != nil:
		r.inlineList(value, path, at)
	default:
		r.fault(at, path, "there is no such key", r.suggest(path, true))
	}
}

func (r *reader) inline(table *unstable.Node, in scope) {
	for it := table.Children(); it.Next(); {
		r.keyValue(it.Node(), in)
	}
}

// inlineList reads dkim = [{...}, {...}].
func (r *reader) inlineList(list *unstable.Node, path string, at place) {
	if list.Kind != unstable.Array {
		r.fault(at, path, fmt.Sprintf("is a list of tables: write [[%s]]", path), "")
		return
	}
	for it := list.Children(); it.Next(); {
		if it.Node().Kind != unstable.InlineTable {
			r.fault(r.placeOr(it.Node(), at), path, fmt.Sprintf("is a list of tables: write [[%s]]", path), "")
			return
		}
		r.inline(it.Node(), r.begin(path, r.placeOr(it.Node(), at)))
	}
}

func (r *reader) literal(node *unstable.Node, key place) literal {
	l := literal{kind: kindOther, text: string(node.Data), at: r.placeOr(node, key)}
	switch node.Kind {
	case unstable.String:
		l.kind = kindString
	case unstable.Integer:
		l.kind = kindInteger
	case unstable.Bool:
		l.kind = kindBool
	case unstable.Array:
		l.kind = kindArray
		for it := node.Children(); it.Next(); {
			l.items = append(l.items, r.literal(it.Node(), l.at))
		}
	}
	return l
}

func (r *reader) place(node *unstable.Node) place {
	start := r.parser.Shape(node.Raw).Start
	return place{line: start.Line, column: start.Column}
}

// placeOr is for nodes that the parser may give no range, as it does for arrays.
func (r *reader) placeOr(node *unstable.Node, otherwise place) place {
	if node.Raw.Length == 0 {
		return otherwise
	}
	return r.place(node)
}

func (r *reader) fault(at place, key, text, hint string) {
	r.errs.add(&Error{File: r.file, Line: at.line, Column: at.column, Key: key, Text: text, Hint: hint})
}

// suggest names what was perhaps meant.
func (r *reader) suggest(path string, key bool) string {
	var names []string
	for _, t := range r.schema.tables {
		if !key {
			names = append(names, t.Path)
			continue
		}
		for _, k := range t.Keys {
			names = append(names, k.Path)
		}
	}
	if near := nearest(path, names); near != "" {
		return fmt.Sprintf("did you mean %s?", near)
	}
	return ""
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// indexed is how the origins name a key of an element of a list of tables.
func indexed(path string, element int) string {
	if element < 0 {
		return path
	}
	return path + "#" + strconv.Itoa(element)
}

func withoutIndex(key string) string {
	path, _, _ := strings.Cut(key, "#")
	return path
}
