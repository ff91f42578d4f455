package sendmail

import (
	"fmt"
	"slices"
	"strings"
)

// Mode is what the command is asked to be.
type Mode string

const (
	ModeDeliver Mode = "m" // -bm: hand a message over
	ModeSMTP    Mode = "s" // -bs: SMTP on standard input
	ModeList    Mode = "p" // -bp: show the queue, as mailq does
	ModeNothing Mode = "i" // -bi, -q: rebuild aliases, run the queue: nothing to do here
)

// Args are the command line, read.
type Args struct {
	Mode       Mode
	Recipients []string // as given; header form
	FromHeader bool     // -t: also those of To, Cc and Bcc
	KeepDots   bool     // -i, -oi: a line with a dot alone does not end the message
	Sender     string   // -f, -r; "<>" is the null sender
	FullName   string   // -F, for a message without From
	Notify     []string // -N
	Ret        string   // -R: full, headers
	EnvID      string   // -V
	Verbose    bool     // -v
}

// UsageError says which argument is not understood.
type UsageError struct{ Text string }

func (e *UsageError) Error() string { return e.Text }

func usage(format string, args ...any) error { return &UsageError{fmt.Sprintf(format, args...)} }

// The options of all sendmails: those with a value, attached or following,
// and those whose value can only be attached.
const (
	withValue   = "ABCDFLNORVXbfhopr"
	withSuffix  = "dq"
	withoutAny  = "EGIUimnstvx"
	ignoredOnes = "ABCDEGLOUXdhmnopx"
)

// Parse reads the arguments behind the program's name.
func Parse(args []string) (Args, error) {
	a := Args{Mode: ModeDeliver}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			a.Recipients = append(a.Recipients, args...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			a.Recipients = append(a.Recipients, arg)
			continue
		}
		var err error
		if args, err = a.cluster(arg[1:], args); err != nil {
			return a, err
		}
	}
	switch {
	case a.Mode == ModeNothing && (len(a.Recipients) > 0 || a.FromHeader):
		a.Mode = ModeDeliver // a -q beside recipients only asked for haste
	case a.Mode == ModeDeliver && len(a.Recipients) == 0 && !a.FromHeader:
		return a, usage("no recipients: name them, or use -t to take them from the header")
	}
	return a, nil
}

// cluster reads options that stand behind one dash, as in -ti, and answers
// the arguments that are left.
func (a *Args) cluster(letters string, rest []string) ([]string, error) {
	for letters != "" {
		option := letters[0]
		letters = letters[1:]
		switch {
		case strings.IndexByte(withoutAny, option) >= 0:
			if err := a.set(option, ""); err != nil {
				return nil, err
			}
		case strings.IndexByte(withSuffix, option) >= 0:
			return rest, a.set(option, letters)
		case strings.IndexByte(withValue, option) >= 0:
			if letters == "" {
				if len(rest) == 0 {
					return nil, usage("option -%c needs a value", option)
				}
				letters, rest = rest[0], rest[1:]
			}
			return rest, a.set(option, letters)
		default:
			return nil, usage("option -%c is unknown", option)
		}
	}
	return rest, nil
}

func (a *Args) set(option byte, v string) error {
	switch option {
	case 't':
		a.FromHeader = true
	case 'i':
		a.KeepDots = true
	case 'v':
		a.Verbose = true
	case 's':
		a.Mode = ModeSMTP
	case 'I', 'q':
		a.Mode = ModeNothing
	case 'f', 'r':
		if v == "" {
			v = "<>"
		}
		a.Sender = v
	case 'F':
		a.FullName = v
	case 'V':
		const most = 100 // RFC 3461, section 5.4
		if len(v) > most || strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return usage("-V: an envelope ID has at most %d characters of printable ASCII, without blanks", most)
		}
		a.EnvID = v
	case 'N':
		return a.setNotify(v)
	case 'R':
		return a.setRet(v)
	case 'b':
		return a.setMode(v)
	case 'o':
		if v == "i" {
			a.KeepDots = true
		}
	default:
		if strings.IndexByte(ignoredOnes, option) < 0 {
			return usage("option -%c is unknown", option)
		}
	}
	return nil
}

func (a *Args) setMode(v string) error {
	switch v {
	case "m", "s", "p", "i":
		a.Mode = Mode(v)
		return nil
	case "d", "D":
		return usage("-b%s: the server is started with \"postrider serve\"", v)
	case "v", "t":
		return usage("-b%s: ask \"postrider explain ADDRESS\" where mail would go", v)
	}
	return usage("-b%s is not available", v)
}

func (a *Args) setNotify(v string) error {
	a.Notify = nil
	for word := range strings.SplitSeq(strings.ToLower(v), ",") {
		if !slices.Contains([]string{"never", "success", "failure", "delay"}, word) {
			return usage("-N %s: use never, or some of success,failure,delay", v)
		}
		a.Notify = append(a.Notify, word)
	}
	if len(a.Notify) > 1 && slices.Contains(a.Notify, "never") {
		return usage("-N %s: never cannot go with others", v)
	}
	return nil
}

func (a *Args) setRet(v string) error {
	switch strings.ToLower(v) {
	case "full":
		a.Ret = "full"
	case "hdrs":
		a.Ret = "headers"
	default:
		return usage("-R %s: use full or hdrs", v)
	}
	return nil
}
