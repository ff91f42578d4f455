package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"postrider/config"
)

// Exit codes. Only a success is 0; sendmail has those of sysexits.h beside
// these.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2 // the command line was wrong; nothing was done
)

// hinted is an error with lines that say what to do next.
type hinted struct {
	error
	hints []string
}

func (e *hinted) Unwrap() error { return e.error }

// withHint adds lines that say what to do next; nil stays nil.
func withHint(err error, hints ...string) error {
	if err == nil {
		return nil
	}
	return &hinted{err, hints}
}

// exit is an error with an exit code of its own. Without err all has been said
// already.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

// exitWith ends the program with a code. err may be nil: then all has been
// said already.
func exitWith(code int, err error) error { return &exit{code, err} }

// usageError is for what is wrong on the command line beyond what flags and
// arguments declare.
func usageError(format string, args ...any) error {
	return exitWith(exitUsage, fmt.Errorf(format, args...))
}

// noteBegin makes every command below root note that its work has begun. What
// fails before is the command line's fault.
func noteBegin(root *cobra.Command) (began func() bool) {
	did := false
	var wrap func(*cobra.Command)
	wrap = func(c *cobra.Command) {
		if work := c.RunE; work != nil {
			c.RunE = func(c *cobra.Command, args []string) error {
				did = true
				return work(c, args)
			}
		}
		for _, child := range c.Commands() {
			wrap(child)
		}
	}
	wrap(root)
	return func() bool { return did }
}

// report prints an error and gives its exit code.
func report(w io.Writer, err error, began bool) int {
	code := exitFailure
	var own *exit
	switch {
	case errors.As(err, &own):
		code = own.code
		if own.err == nil {
			return code
		}
	case !began:
		code = exitUsage
		err = withHint(err, "postrider --help lists the commands, postrider COMMAND --help tells about one")
	}
	var several config.Errors
	if errors.As(err, &several) {
		for _, one := range several {
			printError(w, one, nonEmpty(one.Hint))
		}
		return code
	}
	var h *hinted
	var hints []string
	if errors.As(err, &h) {
		hints = h.hints
	}
	printError(w, err, hints)
	return code
}

// printError prints one line for the error: joined ones have line ends.
func printError(w io.Writer, err error, hints []string) {
	fmt.Fprintf(w, "postrider: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
	for _, h := range hints {
		fmt.Fprintf(w, "postrider: hint: %s\n", h)
	}
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// warn prints what an operator should know, though the command goes on.
func warn(c *cobra.Command, format string, args ...any) {
	fmt.Fprintf(c.ErrOrStderr(), "postrider: warning: %s\n", fmt.Sprintf(format, args...))
}
