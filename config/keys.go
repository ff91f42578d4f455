package config

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// Key is one setting. Checks, defaults, environment variables and all
// documentation come from the keys.
type Key struct {
	Path    string // "delivery.timeouts.connect"; in a list of tables "dkim.selector"
	Default string // in TOML; empty in a list of tables, where it is inherited or required
	Doc     string // sentences for the operator
	// Otherwise says in words what an empty or missing value becomes.
	Otherwise string

	at       binding
	required bool // in a list of tables
	isPath   bool // it starts at Config.Dir
	secret   bool // never printed
	isTable  bool // its lines may stand in a table of their own
}

// Table is a part of the file: [delivery], or, where Repeated, [[dkim]].
type Table struct {
	Path     string // empty: the top
	Doc      string
	Keys     []Key
	Repeated bool

	elements elements // of a repeated one
}

// hasTables reports whether elements of a list may have tables of their own.
func (t *Table) hasTables() bool {
	return slices.ContainsFunc(t.Keys, func(k Key) bool { return k.isTable })
}

// Name is the last part of the key's path.
func (k *Key) Name() string { return k.Path[strings.LastIndexByte(k.Path, '.')+1:] }

// Range says in words what may be written.
func (k *Key) Range() string { return k.at.field(k.at.blank()).wants() }

// Variable is the environment variable that sets the key; empty for a key of a
// list of tables.
func (k *Key) Variable() string {
	if k.Default == "" {
		return ""
	}
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(k.Path, ".", "_"))
}

// binding finds a key's field in a Config, or in an element of a list.
type binding struct {
	field func(root any) value
	blank func() any // a root without values
}

func on(field func(*Config) value) binding { return of(field) }

func of[T any](field func(*T) value) binding {
	return binding{
		field: func(root any) value { return field(root.(*T)) },
		blank: func() any { return new(T) },
	}
}

// rebind makes keys of a part of the Config into keys of the Config.
func rebind[T any](keys []Key, part func(*Config) *T) []Key {
	for i := range keys {
		field := keys[i].at.field
		keys[i].at = on(func(c *Config) value { return field(part(c)) })
		keys[i].required = false
	}
	return keys
}

// inherit makes keys of a table into those of a list of tables whose elements
// take what they do not say from that table.
func inherit[T, Element any](keys []Key, list string, part func(*Element) *T) []Key {
	for i := range keys {
		field, from := keys[i].at.field, keys[i].Path
		keys[i].Path = list + "." + keys[i].Name()
		keys[i].Default, keys[i].Otherwise = "", "that of `"+from+"`"
		keys[i].at = of(func(e *Element) value { return field(part(e)) })
	}
	return keys
}

// elements are the tables of one list in a Config.
type elements interface {
	// begin gives a pointer to an element with what it inherits; keep puts
	// it into the Config once its keys are set.
	begin(*Config) (element any, keep func())
	all(*Config) []any // pointers
}

type elementsOf[T any] struct {
	in        func(*Config) *[]T
	inherited func(*Config) T
}

func (e elementsOf[T]) begin(c *Config) (any, func()) {
	x := e.inherited(c)
	return &x, func() { *e.in(c) = append(*e.in(c), x) }
}

func (e elementsOf[T]) all(c *Config) []any {
	s := *e.in(c)
	pointers := make([]any, len(s))
	for i := range s {
		pointers[i] = &s[i]
	}
	return pointers
}

// Tables gives every table in the order of the documentation. It is not to be
// changed.
func Tables() []Table { return theSchema().tables }

// schema is what a file may hold.
type schema struct {
	tables  []Table
	keys    map[string]*Key   // by path
	repeats map[string]*Table // lists of tables, by path
	known   map[string]bool   // paths of tables, also of those without keys of their own
}

var theSchema = sync.OnceValue(func() *schema {
	return newSchema(slices.Concat(serverTables(), deliveryTables(), listTables()))
})

func newSchema(tables []Table) *schema {
	s := &schema{
		tables:  tables,
		keys:    map[string]*Key{},
		repeats: map[string]*Table{},
		known:   map[string]bool{},
	}
	for i := range s.tables {
		t := &s.tables[i]
		if t.Repeated {
			s.repeats[t.Path] = t
		} else {
			s.known[t.Path] = true
		}
		for j := range t.Keys {
			s.keys[t.Keys[j].Path] = &t.Keys[j]
			if t.Keys[j].isTable {
				s.known[t.Keys[j].Path] = true
			}
		}
	}
	return s
}

const (
	second = time.Second
	minute = time.Minute
	hour   = time.Hour
	day    = 24 * hour
	year   = 365 * day

	mega = 1_000_000
	giga = 1_000_000_000
	tera = 1_000_000_000_000
)
