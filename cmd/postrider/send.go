package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"postrider/config"
	"postrider/mta/api/client"
	"postrider/mta/api/wire"
	"postrider/mta/compose"
	"postrider/mta/mailaddr"
	"postrider/mta/sendmail"
)

// sendFlags are the options of postrider send.
type sendFlags struct {
	server                 serverFlags
	from, replyTo, subject string
	to, cc, bcc            []string
	html                   string
	attach, headers        []string
	zip                    string
	sender                 string
	tag, priority          string
	hold, requireTLS       bool
	holdFor                string
	notBefore, deliverBy   string
	notify                 []string
	wait                   string
	json                   *bool
}

func newSendCommand() *cobra.Command {
	var f sendFlags
	c := &cobra.Command{
		Use:   "send --to ADDRESS [flags] [TEXT]",
		Short: "Compose a message and queue it",
		Long: `Compose a message and queue it.

The text is the argument or, without one, what comes on standard input. The
command ends when the message is on the server's disk; with --wait it ends when
the fate of every recipient is known, and says so with its exit code:

   0  all delivered (or, without --wait, queued)
   1  refused, or some recipient will never get it
  75  not yet decided when the time was over`,
		Example: `  df -h | postrider send --to ops@example.com --subject "disks of $(hostname)"
  postrider send --to a@example.com --subject Report --attach report.pdf --wait "See the attachment."
  postrider send --to a@example.com --attach logs/ --zip=logs.zip --subject Logs "All of them."`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return f.run(c, args)
		},
	}
	f.add(c)
	return c
}

func (f *sendFlags) add(c *cobra.Command) {
	f.server = addServerFlags(c)
	s := c.Flags()
	s.StringVar(&f.from, "from", "", "`address` of the author (default: this user at the server's host name)")
	s.StringArrayVar(&f.to, "to", nil, "`address` of a recipient, with or without a name; may be repeated, or be a list with commas")
	s.StringArrayVar(&f.cc, "cc", nil, "`address` of a recipient of a copy")
	s.StringArrayVar(&f.bcc, "bcc", nil, "`address` of a recipient whom nobody sees")
	s.StringVar(&f.replyTo, "reply-to", "", "`address` for answers")
	s.StringVar(&f.subject, "subject", "", "the subject")
	s.StringVar(&f.html, "html", "", "`file` with an HTML part; \"-\" reads it from standard input")
	s.StringArrayVar(&f.attach, "attach", nil, "`file` to attach; with --zip also a directory; may be repeated")
	s.StringVar(&f.zip, "zip", "", "pack all attachments into one ZIP file of this `name`")
	s.Lookup("zip").NoOptDefVal = "attachments.zip"
	s.StringArrayVar(&f.headers, "header", nil, "a further header field, \"`Name: value`\"; may be repeated")
	s.StringVar(&f.sender, "sender", "", "`address` that reports go to (default: the one of --from); \"<>\": nobody gets one")
	s.StringVar(&f.tag, "tag", "", "a label to find and count the message by")
	s.StringVar(&f.priority, "priority", "", "normal, bulk or urgent")
	s.BoolVar(&f.hold, "hold", false, "queue it, but wait for \"postrider queue release\"")
	s.StringVar(&f.holdFor, "hold-for", "", "how `long` \"postrider queue cancel\" can still call it back, like 10m or 0s (default: as configured)")
	s.StringVar(&f.notBefore, "not-before", "", "`when` to send: a time like 2026-12-24T18:00:00+01:00, or a span like 2h")
	s.StringVar(&f.deliverBy, "deliver-by", "", "`when` to give up, in the same form")
	s.StringSliceVar(&f.notify, "notify", nil, "`when` to report: never, or some of success,failure,delay")
	s.BoolVar(&f.requireTLS, "require-tls", false, "only to servers that pass it on over verified TLS (REQUIRETLS)")
	s.StringVar(&f.wait, "wait", "", "wait for the fate of every recipient, at most this `long`")
	s.Lookup("wait").NoOptDefVal = "1m"
	f.json = jsonFlag(c)
}

func (f *sendFlags) run(c *cobra.Command, args []string) error {
	env, err := f.envelope(time.Now())
	if err != nil {
		return err
	}
	m, err := f.message(c.InOrStdin(), c.ErrOrStderr(), args)
	if err != nil {
		return err
	}
	cfg, err := clientConfig(c, *f.server.config)
	if err != nil {
		return err
	}
	var in wire.Injected
	err = submit(submission(*f.server.socket, cfg), func(server *client.Client) error {
		in, err = post(c.Context(), server, env, m)
		return err
	})
	if err != nil {
		return exitWith(exitOf(err), err)
	}
	return f.report(c.OutOrStdout(), &in)
}

// exitOf lets a script tell what may be tried again from what may not.
func exitOf(err error) int {
	var refused *client.Refused
	var away *client.Unreachable
	if errors.As(err, &away) || errors.As(err, &refused) && refused.Temporary() {
		return sendmail.ExitTempFail
	}
	return exitFailure
}

// post streams a message to the server.
func post(ctx context.Context, server *client.Client, env client.Envelope, m *compose.Message) (wire.Injected, error) {
	r, w := io.Pipe()
	composed := make(chan error, 1)
	go func() {
		_, err := m.WriteTo(w)
		w.CloseWithError(err)
		composed <- err
	}()
	in, err := server.Submit(ctx, env, r)
	r.Close()
	var part *compose.Error
	if fault := <-composed; errors.As(fault, &part) {
		return in, fault // what broke the request off
	}
	return in, err
}

// envelope reads what does not concern the content.
func (f *sendFlags) envelope(now time.Time) (env client.Envelope, err error) {
	f.from = cmp.Or(f.from, sendmail.CurrentUser())
	author, err := addressesOf("--from", []string{f.from})
	if err != nil {
		return env, err
	}
	if len(author) != 1 {
		return env, fmt.Errorf("--from %q: one address is wanted", f.from)
	}
	if env.Sender, err = f.senderOr(author[0]); err != nil {
		return env, err
	}
	for _, list := range []struct {
		flag   string
		values []string
	}{{"--to", f.to}, {"--cc", f.cc}, {"--bcc", f.bcc}} {
		addresses, err := addressesOf(list.flag, list.values)
		if err != nil {
			return env, err
		}
		env.Recipients = append(env.Recipients, addresses...)
	}
	if len(env.Recipients) == 0 {
		return env, errors.New("no recipient: name one with --to, --cc or --bcc")
	}
	env.Options = wire.NewMessage{Tag: f.tag, Priority: f.priority, Hold: f.hold, HoldFor: f.holdFor, RequireTLS: f.requireTLS, Notify: f.notify}
	if env.Options.NotBefore, err = whenOf("--not-before", f.notBefore, now); err != nil {
		return env, err
	}
	if env.Options.DeliverBy, err = whenOf("--deliver-by", f.deliverBy, now); err != nil {
		return env, err
	}
	if f.wait != "" {
		if env.Wait, err = config.ParseDuration(f.wait); err != nil {
			return env, fmt.Errorf("--wait: %w", err)
		}
	}
	return env, nil
}

// senderOr is the reverse-path: --sender, or the author.
func (f *sendFlags) senderOr(author string) (string, error) {
	switch f.sender {
	case "":
		return author, nil
	case "<>":
		return "", nil
	}
	sender, err := addressesOf("--sender", []string{f.sender})
	if err == nil && len(sender) != 1 {
		err = fmt.Errorf("--sender %q: one address is wanted, or <>", f.sender)
	}
	if err != nil {
		return "", err
	}
	return sender[0], nil
}

func addressesOf(flag string, values []string) ([]string, error) {
	var out []string
	for _, v := range values {
		for box, err := range mailaddr.List(v) {
			if err != nil {
				return nil, fmt.Errorf("%s: %w", flag, err)
			}
			out = append(out, box.Address.String())
		}
	}
	return out, nil
}

// whenOf reads a time, or a span from now on.
func whenOf(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := config.ParseDuration(text); err == nil {
		return now.Add(d), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("%s: %q is neither a time like 2026-12-24T18:00:00+01:00 nor a span like 2h", flag, text)
	}
	return t, nil
}

// maxText bounds what is read into memory for text and HTML.
const maxText = 64 << 20

// message reads text, HTML and the names of the attachments.
func (f *sendFlags) message(stdin io.Reader, stderr io.Writer, args []string) (*compose.Message, error) {
	m := &compose.Message{From: f.from, ReplyTo: f.replyTo, To: f.to, Cc: f.cc, Subject: f.subject}
	var err error
	switch {
	case len(args) > 0 && args[0] != "-":
		m.Text = args[0]
	case f.html != "" && len(args) == 0:
	default:
		if m.Text, err = readText(stdin, stderr, "standard input"); err != nil {
			return nil, err
		}
	}
	if f.html == "-" {
		m.HTML, err = readText(stdin, stderr, "standard input")
	} else if f.html != "" {
		m.HTML, err = readFile(f.html)
	}
	if err != nil {
		return nil, err
	}
	for _, text := range f.headers {
		name, value, ok := strings.Cut(text, ":")
		if !ok {
			return nil, fmt.Errorf("--header %q: write it as \"Name: value\"", text)
		}
		m.Headers = append(m.Headers, compose.Field{Name: name, Value: strings.TrimSpace(value)})
	}
	m.Attachments, err = f.attachments()
	return m, err
}

func readText(r io.Reader, stderr io.Writer, name string) (string, error) {
	if file, ok := r.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		fmt.Fprintln(stderr, "Type the text; a line with Ctrl-D alone ends it.")
	}
	text, err := io.ReadAll(io.LimitReader(r, maxText+1))
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	if len(text) > maxText {
		return "", fmt.Errorf("%s: more than %d octets: attach it instead", name, maxText)
	}
	return string(text), nil
}

func readFile(name string) (string, error) {
	r, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer r.Close()
	return readText(r, io.Discard, name)
}

// attachments finds the files, and packs them where that is wanted.
func (f *sendFlags) attachments() ([]compose.Attachment, error) {
	if f.zip != "" && len(f.attach) == 0 {
		return nil, errors.New("--zip needs something to pack: name it with --attach")
	}
	var files []compose.Attachment
	for _, name := range f.attach {
		info, err := os.Stat(name)
		if err != nil {
			return nil, fmt.Errorf("--attach: %w", err)
		}
		switch {
		case info.Mode().IsRegular():
			files = append(files, attachment(name, filepath.Base(name)))
		case info.IsDir() && f.zip != "":
			inside, err := filesIn(name)
			if err != nil {
				return nil, fmt.Errorf("--attach: %w", err)
			}
			files = append(files, inside...)
		case info.IsDir():
			return nil, fmt.Errorf("--attach %s: a directory can be attached with --zip", name)
		default:
			return nil, fmt.Errorf("--attach %s: this is no regular file", name)
		}
	}
	if f.zip == "" {
		return files, nil
	}
	return []compose.Attachment{compose.Zip(f.zip, files, time.Now())}, nil
}

func attachment(path, name string) compose.Attachment {
	return compose.Attachment{Name: name, Open: func() (io.ReadCloser, error) { return os.Open(path) }}
}

// filesIn names the regular files under a directory, without following links.
func filesIn(dir string) ([]compose.Attachment, error) {
	var files []compose.Attachment
	parent := filepath.Dir(filepath.Clean(dir))
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(parent, path)
		files = append(files, attachment(path, filepath.ToSlash(name)))
		return err
	})
	return files, err
}

// report tells what became of the message.
func (f *sendFlags) report(w io.Writer, in *wire.Injected) error {
	if *f.json {
		if err := printJSON(w, in); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(w, "queued as %s\n", in.ID)
	}
	if f.wait == "" {
		return nil
	}
	if in.Message == nil {
		return exitWith(sendmail.ExitTempFail, fmt.Errorf("queued as %s, but the server cannot tell what became of it: see \"postrider trace %s\"", in.ID, in.ID))
	}
	if !*f.json {
		var t table
		for _, r := range in.Message.Recipients {
			t.add(r.Status, plain(r.Address), stateWords(&r, time.Now()))
		}
		t.write(w)
	}
	return verdictOf(in.Message)
}

// verdictOf turns the fate of a message into an exit code.
func verdictOf(m *wire.Message) error {
	switch {
	case slices.ContainsFunc(m.Recipients, func(r wire.Recipient) bool { return r.Status == "failed" || r.Status == "cancelled" }):
		return exitWith(exitFailure, nil)
	case !m.Ended:
		return exitWith(sendmail.ExitTempFail, nil)
	}
	return nil
}

// lastWords is what an outcome said, who said it, and of which class that is.
func lastWords(o *wire.Outcome) string {
	if o == nil {
		return "not yet tried"
	}
	text := replyWords(o)
	var about []string
	for _, s := range []string{o.MX, o.Class} {
		if s != "" {
			about = append(about, plain(s))
		}
	}
	if len(about) > 0 {
		text += " (" + strings.Join(about, ", ") + ")"
	}
	if o.InDoubt {
		text += ", in doubt: the connection was lost after the whole message"
	}
	return strings.TrimSpace(text)
}

// replyWords is a reply, or our own words. Most servers begin theirs with the
// enhanced status (RFC 2034, section 4): once is enough.
func replyWords(o *wire.Outcome) string {
	var b strings.Builder
	if o.Code != 0 {
		fmt.Fprintf(&b, "%d ", o.Code)
	}
	if o.Status != "" && o.Text != o.Status && !strings.HasPrefix(o.Text, o.Status+" ") {
		b.WriteString(o.Status + " ")
	}
	b.WriteString(plain(o.Text))
	return b.String()
}
