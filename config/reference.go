package config

import (
	"fmt"
	"strings"
)

// Reference is docs/configuration.md: every key with its default, range and
// meaning.
func Reference() string {
	var b strings.Builder
	b.WriteString(referenceHead)
	for _, t := range Tables() {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", t.heading(), t.Doc)
		for i := range t.Keys {
			t.Keys[i].document(&b)
		}
	}
	return b.String()
}

func (t *Table) heading() string {
	switch {
	case t.Path == "":
		return "The server"
	case t.Repeated:
		return "`[[" + t.Path + "]]`"
	}
	return "`[" + t.Path + "]`"
}

func (k *Key) document(b *strings.Builder) {
	fmt.Fprintf(b, "\n### `%s`\n\n%s\n\n", k.Path, k.Doc)
	fmt.Fprintf(b, "- Value: %s\n", k.Range())
	fmt.Fprintf(b, "- Default: %s\n", k.fallback())
	if k.isPath {
		b.WriteString("- A relative path starts at the directory of the configuration file\n")
	}
	if v := k.Variable(); v != "" {
		fmt.Fprintf(b, "- Variable: `%s`\n", v)
	}
}

// fallback says what holds where the key is not set.
func (k *Key) fallback() string {
	switch {
	case k.required:
		return "none: it has to be set"
	case k.Default == "":
		return k.Otherwise
	case k.Otherwise != "":
		return "`" + k.Default + "` (" + k.Otherwise + ")"
	}
	return "`" + k.Default + "`"
}

const referenceHead = `# The configuration

Postrider runs without a configuration file: every key has a default. This page is made from the keys that the program knows;
` + "`postrider check --defaults`" + ` prints the same as a file to start from.

**Where the file is.** ` + "`--config FILE`" + `; else, for ` + "`serve`" + ` and ` + "`check`" + ` and never for root, ` + "`./postrider.toml`" + ` in a directory of one's own;
else ` + "`/etc/postrider/postrider.toml`" + `; else there is none. ` + "`postrider check`" + ` says which one was read, checks it, and prints every value in force
with the line, variable or default that it comes from.

**How it is read.** The file is TOML. It is read strictly: an unknown key, a value out of its range and settings that contradict each other are
errors that name file, line and column, and the server does not start.

**While it runs.** SIGHUP (` + "`systemctl reload postrider`" + `) reads DKIM keys, ` + "`delivery.rules_file`" + ` and the certificates of listeners again. A fault in
them is logged, and what was read before stays in use. All else, this file among it, is read at a restart alone.

**Units.** A duration is whole numbers with units, ` + "`ms s m h d`" + `, the largest first: ` + "`\"30s\"`, `\"1h30m\"`, `\"5d\"`" + `. A size is a whole number with a
unit: ` + "`kB MB GB`" + ` are powers of 1,000, ` + "`KiB MiB GiB`" + ` of 1,024, ` + "`B`" + ` is an octet: ` + "`\"50MB\"`, `\"64MiB\"`" + `.

**Paths.** A relative path starts at the directory of the configuration file, or at the working directory where there is no file.

**Environment.** Every key outside the lists of tables (` + "`[[...]]`" + `) can be set by a variable, which goes before the file:
` + "`POSTRIDER_HOSTNAME=mail.example.com`, `POSTRIDER_SUBMISSION_LISTEN=127.0.0.1:25,[::1]:25`" + `. A list is separated by commas. A variable that begins
with ` + "`POSTRIDER_`" + ` and names no key is an error.
`

// Example is a file to start from: every key at its default, with its meaning;
// the lists of tables as comments.
func Example() string {
	var b strings.Builder
	b.WriteString("# The configuration of Postrider, with every key at its default.\n# Delete what is not changed: a default may improve with the next version.\n")
	for _, t := range Tables() {
		b.WriteString("\n")
		comment(&b, t.Doc)
		switch {
		case t.Repeated:
			fmt.Fprintf(&b, "#[[%s]]\n", t.Path)
		case t.Path != "":
			fmt.Fprintf(&b, "[%s]\n", t.Path)
		}
		for i := range t.Keys {
			t.Keys[i].example(&b, t.Repeated)
		}
	}
	return b.String()
}

func (k *Key) example(b *strings.Builder, repeated bool) {
	b.WriteString("\n")
	comment(b, k.Doc)
	comment(b, "Value: "+k.Range()+".")
	if repeated {
		comment(b, "Default: "+k.fallback()+".")
		fmt.Fprintf(b, "#%s =\n", k.Name())
		return
	}
	if k.Otherwise != "" {
		comment(b, "Default: "+k.fallback()+".")
	}
	fmt.Fprintf(b, "%s = %s\n", k.Name(), k.Default)
}

// comment writes text as comment lines of at most 100 octets.
func comment(b *strings.Builder, text string) {
	line := "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 100 && line != "#" {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}
