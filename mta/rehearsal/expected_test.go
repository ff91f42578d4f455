package rehearsal

import (
	"bufio"
	"bytes"
	"maps"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const spoolDir = "../../testdata/spool"

func loadSpool(t *testing.T) *Expected {
	t.Helper()
	e, err := LoadExpected(filepath.Join(spoolDir, ExpectedFile))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestExpectedNamesEveryFile(t *testing.T) {
	t.Parallel()
	var listed []string
	for _, m := range loadSpool(t).Messages {
		listed = append(listed, m.File)
	}
	slices.Sort(listed)
	found, err := filepath.Glob(filepath.Join(spoolDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var present []string
	for _, path := range found {
		if name := filepath.Base(path); name != ExpectedFile {
			present = append(present, name)
		}
	}
	if !slices.Equal(listed, present) {
		t.Errorf("table and directory differ\nlisted  %q\npresent %q", listed, present)
	}
	if len(listed) < 28 {
		t.Errorf("only %d messages", len(listed))
	}
}

// The table must say what is in the files; they are read here in a way of
// its own, so that it cannot inherit a fault of the pickup.
func TestExpectedAgreesWithFiles(t *testing.T) {
	t.Parallel()
	for _, m := range loadSpool(t).Messages {
		t.Run(m.File, func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(filepath.Join(spoolDir, m.File))
			if err != nil {
				t.Fatal(err)
			}
			if got := lineEndsOf(raw); got != m.LineEnds {
				t.Errorf("line ends are %s, the table says %s", got, m.LineEnds)
			}
			if got := bytes.ContainsFunc(raw, func(r rune) bool { return r > 127 }); got != m.EightBit {
				t.Errorf("eight_bit is %v, the table says %v", got, m.EightBit)
			}
			if longest := longestLine(raw); longest > 998 {
				t.Errorf("a line of %d octets", longest)
			}
			envelope := readEnvelope(t, raw)
			if (envelope.form == "x-headers") != (m.Form == "x-headers") {
				t.Errorf("the envelope is in the %s, the table says %s", envelope.form, m.Form)
			}
			if m.Rejected != "" {
				return
			}
			if envelope.sender != m.Sender {
				t.Errorf("sender is <%s>, the table says <%s>", envelope.sender, m.Sender)
			}
			compareRecipients(t, envelope.recipients, m.Recipients())
		})
	}
}

func compareRecipients(t *testing.T, inFile, inTable []string) {
	t.Helper()
	keys := func(list []string) []string {
		set := make(map[string]bool)
		for _, a := range list {
			set[KeyOf("", a).Recipient] = true
		}
		return slices.Sorted(maps.Keys(set))
	}
	if got, want := keys(inFile), keys(inTable); !slices.Equal(got, want) {
		t.Errorf("recipients differ\nfile  %q\ntable %q", got, want)
	}
	if len(keys(inTable)) != len(inTable) {
		t.Errorf("the table names a recipient twice: %q", inTable)
	}
}

func TestExpectedDomainsAreServed(t *testing.T) {
	t.Parallel()
	e := loadSpool(t)
	manner := make(map[string]string)
	for name, domains := range e.Servers {
		for _, d := range domains {
			if other := manner[d]; other != "" {
				t.Errorf("%s is served by %s and %s", d, other, name)
			}
			manner[d] = name
		}
	}
	used := make(map[string]bool)
	for key, c := range e.Fates() {
		domain := key.Recipient[strings.LastIndexByte(key.Recipient, '@')+1:]
		used[manner[domain]] = true
		switch got := manner[domain]; {
		case got == "":
			t.Errorf("%s: nobody serves %s", c.Message.File, domain)
		case (got == "greylist") != (c.Fate == FateDeferred):
			t.Errorf("%s: <%s> at %s is expected to be %s", c.Message.File, key.Recipient, got, c.Fate)
		case (key.Recipient == "nobody@strict.test") != (c.Fate == FateBounced):
			t.Errorf("%s: <%s> is expected to be %s", c.Message.File, key.Recipient, c.Fate)
		}
		if c.Message.Sender != "" && !strings.HasSuffix(c.Message.Sender, "@sender.test") {
			t.Errorf("%s: a report to <%s> would go nowhere", c.Message.File, c.Message.Sender)
		}
	}
	for name := range e.Servers {
		if name != "sender" && !used[name] {
			t.Errorf("no message goes to %s", name)
		}
	}
}

func TestLoadExpectedRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":      {"[[message]]\nfile='a'\nsendr='x'\ndelivered=['a@b.test']", "sendr"},
		"no fate":          {"[[message]]\nfile='a'\nsender='x@y.test'", "either rejected or"},
		"two fates":        {"[[message]]\nfile='a'\nrejected='x'\ndelivered=['a@b.test']", "either rejected or"},
		"same file twice":  {"[[message]]\nfile='a'\nrejected='x'\n[[message]]\nfile='a'\nrejected='x'", "listed twice"},
		"same envelope":    {"[[message]]\nfile='a'\ndelivered=['a@b.test']\n[[message]]\nfile='c'\nbounced=['a@B.test']", "both go from"},
		"U and A the same": {"[[message]]\nfile='a'\ndelivered=['a@bücher.test', 'a@xn--bcher-kva.test']", "both go from"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), ExpectedFile)
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := LoadExpected(path)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want an error that names the file and %q", err, c.want)
			}
		})
	}
}

func lineEndsOf(raw []byte) string {
	lf, crlf := bytes.Count(raw, []byte("\n")), bytes.Count(raw, []byte("\r\n"))
	switch {
	case crlf == lf:
		return "crlf"
	case crlf == 0:
		return "lf"
	}
	return "mixed"
}

func longestLine(raw []byte) int {
	longest := 0
	for line := range bytes.Lines(raw) {
		longest = max(longest, len(bytes.TrimRight(line, "\r\n")))
	}
	return longest
}

type fileEnvelope struct {
	form, sender string
	recipients   []string
}

func readEnvelope(t *testing.T, raw []byte) fileEnvelope {
	t.Helper()
	fields := make(map[string][]string)
	var last string
	scanner := bufio.NewScanner(bytes.NewReader(raw))
	for scanner.Scan() && scanner.Text() != "" {
		line := scanner.Text()
		if line[0] == ' ' || line[0] == '\t' {
			fields[last][len(fields[last])-1] += line
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		last = strings.ToLower(name)
		fields[last] = append(fields[last], value)
	}
	if len(fields["x-receiver"]) > 0 {
		e := fileEnvelope{form: "x-headers", sender: bare(fields["x-sender"][0])}
		for _, v := range fields["x-receiver"] {
			e.recipients = append(e.recipients, bare(v))
		}
		return e
	}
	e := fileEnvelope{form: "header"}
	// The display names are of no concern here, and net/mail knows neither
	// raw 8-bit nor every charset.
	parser := mail.AddressParser{}
	list := func(name string) []*mail.Address {
		var all []*mail.Address
		for _, v := range fields[name] {
			v = strings.ToValidUTF8(v, "?")
			if got, err := parser.ParseList(withoutEncodedWords(v)); err == nil {
				all = append(all, got...)
			} else if !strings.Contains(v, "undisclosed-recipients:;") {
				t.Errorf("%s: %v", name, err)
			}
		}
		return all
	}
	if from := list("from"); len(from) > 0 {
		e.sender = from[0].Address
	}
	for _, name := range []string{"to", "cc", "bcc"} {
		for _, a := range list(name) {
			e.recipients = append(e.recipients, a.Address)
		}
	}
	return e
}

func withoutEncodedWords(v string) string { return strings.NewReplacer("=?", "", "?=", "").Replace(v) }

func bare(v string) string { return strings.Trim(strings.TrimSpace(v), "<>") }
