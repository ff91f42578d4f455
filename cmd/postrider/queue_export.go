package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"postrider/mta/api/client"
	"postrider/mta/api/wire"
)

func newQueueExportCommand(server serverFlags) *cobra.Command {
	var e exporter
	c := &cobra.Command{
		Use:   "export --dir DIRECTORY [flags] [ID...]",
		Short: "Write messages with their envelopes to files",
		Long: `Write messages with their envelopes to files.

Each message becomes <id>.eml, for its open recipients that are selected; those
that are held get a file of their own, <id>.held.eml. Moved into the pickup
directory of another server, the files become the same messages again, with
sender, recipients, what they asked to be told, tag, priority and times. Age and
attempts begin anew there.

To move a queue to another machine: set mode = "disabled" and restart, so that
nothing is sent meanwhile; export; move the files into the other's pickup
directory; then cancel here what was moved.`,
		Example: `  postrider queue export --all --dir /var/tmp/queue
  postrider queue export --domain example.com --status held --dir /var/tmp/held`,
	}
	addSelector(c, &e.selector)
	s := c.Flags()
	all := s.Bool("all", false, "mean everything, where nothing else is selected")
	s.StringVar(&e.dir, "dir", "", "`directory` for the files; it is made where it is not there")
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		e.selector.IDs = append(e.selector.IDs, args...)
		if e.dir == "" {
			return usageError("where to? name a directory with --dir")
		}
		if e.selector.Empty() && !*all {
			return usageError("nothing is selected: name messages, use the flags of the selector, or --all to mean everything")
		}
		client, err := server.connect(c)
		if err != nil {
			return err
		}
		defer client.Close()
		if err := os.MkdirAll(e.dir, 0o750); err != nil {
			return err
		}
		e.server = client
		if err := e.run(c.Context()); err != nil {
			return withHint(err, fmt.Sprintf("%s have been written to %s", count(e.done.Files, "file", "files"), e.dir))
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), e.done)
		}
		fmt.Fprintf(c.OutOrStdout(), "exported to %s: %s in %s\n", e.dir, count(e.done.Messages, "message", "messages"), count(e.done.Files, "file", "files"))
		return nil
	}
	return c
}

// exporter writes what is selected to files.
type exporter struct {
	server   *client.Client
	selector wire.Selector
	dir      string
	done     exported
}

// exported is what --json prints.
type exported struct {
	Messages int `json:"messages"`
	Files    int `json:"files"`
}

func (e *exporter) run(ctx context.Context) error {
	after := ""
	for {
		part, err := e.server.List(ctx, e.selector, after, 1000)
		if err != nil {
			return err
		}
		for i := range part.Messages {
			if err := e.message(ctx, part.Messages[i].ID); err != nil {
				return err
			}
		}
		if after = part.Next; after == "" {
			return syncDirectory(e.dir)
		}
	}
}

// message writes the one or two files of a message.
func (e *exporter) message(ctx context.Context, id string) error {
	others := slices.DeleteFunc(slices.Clone(e.selector.Status), func(s string) bool { return s == "held" })
	wantsHeld := len(e.selector.Status) == 0 || len(others) < len(e.selector.Status)
	files := 0
	for _, f := range []struct {
		name   string
		status []string
		wanted bool
	}{
		{id + ".eml", others, len(e.selector.Status) == 0 || len(others) > 0},
		{id + ".held.eml", []string{"held"}, wantsHeld},
	} {
		if !f.wanted {
			continue
		}
		sel := e.selector
		sel.IDs, sel.Status = nil, f.status
		content, err := e.server.Export(ctx, id, sel)
		var refused *client.Refused
		if errors.As(err, &refused) && refused.HTTP == http.StatusNotFound {
			continue // no recipient of that kind, or it has ended meanwhile
		}
		if err != nil {
			return fmt.Errorf("message %s: %w", id, err)
		}
		err = writeDurably(filepath.Join(e.dir, f.name), content)
		content.Close()
		if err != nil {
			return fmt.Errorf("message %s: %w", id, err)
		}
		files++
	}
	if files > 0 {
		e.done.Messages++
		e.done.Files += files
	}
	return nil
}

// writeDurably makes a file that is whole and on the disk when it has its name:
// the directory may be one that is watched.
func writeDurably(name string, content io.Reader) error {
	temporary := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".part")
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	defer os.Remove(temporary) // gone already where all went well
	_, err = io.Copy(f, content)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(temporary, name)
}

func syncDirectory(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
