package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"postrider/config"
	"postrider/mta"
)

func newServeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Run the server until it gets SIGTERM or SIGINT.

Without a configuration file it works with its defaults: mail is taken on
127.0.0.1:2525, from files moved into the pickup directory, and by the commands
of this program. It then stops taking mail, lets deliveries that are under way
finish within shutdown_grace, and ends. A second signal ends it at once; nothing
that was accepted is lost. SIGHUP reads DKIM keys, delivery.rules_file and the
certificates of listeners again, and nothing else.`,
		Example: `  postrider serve
  postrider serve --config /etc/postrider/postrider.toml`,
		Args: cobra.NoArgs,
	}
	file := configFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := serverConfig(c, *file)
		if err != nil {
			return err
		}
		return serve(c.Context(), cfg, c.ErrOrStderr())
	}
	return c
}

func serve(ctx context.Context, cfg *config.Config, logTo io.Writer) error {
	// Whatever a room makes is for the server's user alone, but for what it
	// gives to the group by name.
	syscall.Umask(0o077)
	log, flush := newLogger(cfg.Log, logTo)
	defer flush()
	// The first signal asks to stop; the second has its default effect.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, stop)

	// Before the start is complete it would end us: it waits here.
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGHUP)
	defer signal.Stop(again)

	m, err := mta.New(ctx, cfg, mta.Options{Logger: log, Version: buildVersion(), Ready: notifyReady})
	if err != nil {
		return err
	}
	defer func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyStopping) }()
	ended := make(chan struct{})
	var reloading sync.WaitGroup
	defer reloading.Wait()
	defer close(ended)
	reloading.Go(func() {
		for {
			select {
			case <-again:
				m.Reload()
			case <-ended:
				return
			}
		}
	})
	return m.Run(ctx)
}

// notifyReady tells systemd; without it nothing happens.
func notifyReady() { _, _ = daemon.SdNotify(false, daemon.SdNotifyReady) }

// newLogger makes the logger that the configuration asks for. Lines are held
// back for a tenth of a second at most, errors not at all; flush writes what
// is left.
func newLogger(c config.Log, to io.Writer) (log *slog.Logger, flush func()) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		panic(fmt.Sprintf("log level %q passed the configuration", c.Level))
	}
	w := newBufferedLog(to)
	options := &slog.HandlerOptions{Level: level}
	var handler slog.Handler = slog.NewTextHandler(w, options)
	if c.Format == "json" {
		handler = slog.NewJSONHandler(w, options)
	}
	return slog.New(flushOnError{handler, w}), w.flush
}
