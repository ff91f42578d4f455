// Command postrider is the mail server that only sends, and every tool that
// belongs to it. It turns arguments, signals and exit codes into calls; what
// the commands do is in the packages below package mta.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	// The first signal asks for an orderly end; the next one ends at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args)
	stop()
	os.Exit(code)
}

// run runs the command that args (with the program's name) ask for, and gives
// the exit code.
func run(ctx context.Context, args []string) int {
	root := newRootCommand()
	root.SetArgs(arguments(args))
	began := noteBegin(root)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	return report(os.Stderr, err, began())
}

// arguments makes a call as "sendmail", the name that programs know, into one
// of our own command of that name.
func arguments(args []string) []string {
	if filepath.Base(args[0]) == "sendmail" {
		return append([]string{"sendmail"}, args[1:]...)
	}
	return args[1:]
}
