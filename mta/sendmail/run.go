package sendmail

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"

	"postrider/mta/api/client"
	"postrider/mta/api/wire"
	"postrider/mta/mailaddr"
)

// Command is one call of sendmail.
type Command struct {
	// Sockets are tried in order; the first that answers is taken.
	Sockets []string
	Pickup  string // directory; empty: none
	User    string // who calls: the sender where -f names none
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
}

// Run does what the arguments ask for and answers the exit code.
func (c *Command) Run(ctx context.Context, args Args) int {
	var err error
	switch args.Mode {
	case ModeNothing:
		if args.Verbose {
			fmt.Fprintln(c.Stdout, "nothing to do: the server runs its queue by itself and keeps no aliases")
		}
	case ModeSMTP:
		err = c.smtp(ctx)
	default:
		err = c.deliver(ctx, args)
	}
	if err == nil {
		return ExitOK
	}
	fmt.Fprintf(c.Stderr, "sendmail: %v\n", err)
	return ExitCode(err)
}

// ExitCode sorts an error for the caller. What is not known to be at fault
// for good is to be tried again.
func ExitCode(err error) int {
	var wrong *UsageError
	var refused *client.Refused
	var address *mailaddr.Error
	var input *inputError
	switch {
	case errors.As(err, &wrong):
		return ExitUsage
	case errors.As(err, &address):
		return ExitDataErr
	case errors.As(err, &input):
		return ExitIOErr
	case errors.As(err, &refused) && !refused.Temporary():
		if refused.Status == "5.1.1" {
			return ExitNoUser
		}
		return ExitDataErr
	}
	return ExitTempFail
}

// inputError: the message could not be read.
type inputError struct{ err error }

func (e *inputError) Error() string { return "standard input: " + e.err.Error() }
func (e *inputError) Unwrap() error { return e.err }

// input marks the errors of standard input, and whether any of it was taken.
type input struct {
	r     io.Reader
	taken bool
	err   error
}

func (i *input) Read(p []byte) (int, error) {
	i.taken = true
	n, err := i.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		i.err = &inputError{err}
		return n, i.err
	}
	return n, err
}

func (c *Command) deliver(ctx context.Context, args Args) error {
	sender, err := args.senderOr(c.User)
	if err != nil {
		return err
	}
	var source io.Reader = c.Stdin
	if !args.KeepDots {
		source = &untilDot{r: bufio.NewReader(c.Stdin)}
	}
	buffered := bufio.NewReaderSize(source, maxHeader)
	h, err := readHeader(buffered)
	if err != nil {
		return &inputError{err}
	}
	recipients, err := args.recipients(&h)
	if err != nil {
		return err
	}
	content, err := args.withName(&h, sender, buffered)
	if err != nil {
		return err
	}
	env := client.Envelope{
		Sender: sender, Recipients: recipients, Via: "sendmail",
		Options: wire.NewMessage{Notify: args.Notify, Ret: args.Ret, EnvID: args.EnvID},
	}
	id, err := c.handOver(ctx, env, content, !h.envelope)
	if err == nil && args.Verbose {
		fmt.Fprintln(c.Stdout, id)
	}
	return err
}

// handOver gives a message to the server or, where its content is safe there,
// to the pickup directory.
func (c *Command) handOver(ctx context.Context, env client.Envelope, content io.Reader, mayDrop bool) (string, error) {
	in := &input{r: content}
	var faults []error
	for _, socket := range c.Sockets {
		answer, err := c.submit(ctx, socket, env, in)
		if err == nil {
			return "queued as " + answer.ID, nil
		}
		var away *client.Unreachable
		switch {
		case in.err != nil:
			return "", in.err
		case !errors.As(err, &away) || in.taken:
			return "", err
		}
		faults = append(faults, err)
	}
	if c.Pickup == "" || !mayDrop || !droppable(&env) {
		return "", errors.Join(faults...)
	}
	err := drop(c.Pickup, &env, in)
	switch {
	case err == nil:
		return "left in " + c.Pickup + ", to be sent when the server is back", nil
	case in.err != nil:
		return "", in.err
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission):
		faults = append(faults, fmt.Errorf("pickup directory: %w", err))
	}
	return "", errors.Join(faults...)
}

func (c *Command) submit(ctx context.Context, socket string, env client.Envelope, content io.Reader) (wire.Injected, error) {
	server := client.New(socket)
	defer server.Close()
	return server.Submit(ctx, env, content)
}

// CurrentUser names the user who calls.
func CurrentUser() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return fmt.Sprintf("uid-%d", os.Getuid())
}
