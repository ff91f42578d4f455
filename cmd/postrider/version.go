package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// build is what the binary knows of how it was made.
type build struct {
	Version  string `json:"version"`            // "(devel)" when built from a work tree
	Revision string `json:"revision,omitempty"` // of the sources
	Time     string `json:"time,omitempty"`     // of the revision
	Modified bool   `json:"modified"`           // the work tree was not clean
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func thisBuild() build {
	b := build{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func buildVersion() string {
	b := thisBuild()
	s := b.Version
	if b.Revision != "" {
		s += fmt.Sprintf(", revision %.12s of %s", b.Revision, b.Time)
		if b.Modified {
			s += ", modified"
		}
	}
	return fmt.Sprintf("%s (%s, %s)", s, b.Go, b.Platform)
}

func newVersionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "Tell which Postrider this is",
		Args:  cobra.NoArgs,
	}
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *asJSON {
			return printJSON(c.OutOrStdout(), thisBuild())
		}
		_, err := fmt.Fprintf(c.OutOrStdout(), "postrider %s\n", buildVersion())
		return err
	}
	return c
}
