package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"postrider/config"
	"postrider/dkim"
)

func newCheckCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Validate the configuration and print the one in force",
		Long: `Validate the configuration and print the one in force.

The output is TOML; a comment on each line says where the value comes from: the
default, a line of the file, or an environment variable. What is wrong is
printed with its place, as much of it at once as can be told apart; nothing is
started or changed. The files that the configuration names are looked at too.

Without --config the file is ./postrider.toml, for others than root and in a
directory of one's own, else /etc/postrider/postrider.toml. Where there is none
the defaults are in force.`,
		Example: `  postrider check --config new.toml && systemctl reload-or-restart postrider
  postrider check --json | jq '.settings[] | select(.origin != "default")'
  postrider check --defaults > postrider.toml`,
		Args: cobra.NoArgs,
	}
	file, asJSON := configFlag(c), jsonFlag(c)
	defaults := c.Flags().Bool("defaults", false, "print an example file instead, with every key at its default and explained")
	c.MarkFlagsMutuallyExclusive("defaults", "config")
	c.MarkFlagsMutuallyExclusive("defaults", "json")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *defaults {
			_, err := io.WriteString(c.OutOrStdout(), config.Example())
			return err
		}
		if *asJSON {
			return checkJSON(c, *file)
		}
		cfg, err := checkedConfig(c, *file)
		if err != nil {
			return err
		}
		if cfg.File == "" {
			fmt.Fprintln(c.OutOrStdout(), "# no configuration file: the defaults")
		} else {
			fmt.Fprintf(c.OutOrStdout(), "# %s\n", cfg.File)
		}
		return cfg.WriteTOML(c.OutOrStdout())
	}
	return c
}

// checkedConfig loads the configuration and tries the keys and certificates
// that it names, as the server will.
func checkedConfig(c *cobra.Command, file string) (*config.Config, error) {
	cfg, err := serverConfig(c, file)
	if err != nil {
		return nil, err
	}
	sources, err := dkimSources(cfg)
	if err != nil {
		return nil, err
	}
	if _, err := dkim.NewKeys(dkim.Options{Sources: sources}); err != nil {
		return nil, err
	}
	for _, l := range cfg.Submission.Listeners() {
		if l.TLSCertFile == "" {
			continue
		}
		if _, err := tls.LoadX509KeyPair(l.TLSCertFile, l.TLSKeyFile); err != nil {
			return nil, fmt.Errorf("certificate %s with key %s: %w", l.TLSCertFile, l.TLSKeyFile, err)
		}
	}
	return cfg, nil
}

// checked is the JSON of postrider check.
type checked struct {
	File     string         `json:"file"`
	Warnings []string       `json:"warnings"`
	Settings []checkedValue `json:"settings,omitempty"`
	Errors   []checkedError `json:"errors,omitempty"`
}

type checkedValue struct {
	Key    string `json:"key"`
	Value  any    `json:"value"`
	Origin string `json:"origin"`
}

type checkedError struct {
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"`
	Variable string `json:"variable,omitempty"`
	Key      string `json:"key,omitempty"`
	Text     string `json:"text"`
	Hint     string `json:"hint,omitempty"`
}

func checkJSON(c *cobra.Command, file string) error {
	cfg, err := checkedConfig(c, file)
	if err != nil {
		out := checked{File: file, Warnings: []string{}, Errors: jsonErrors(err)}
		return errors.Join(printJSON(c.OutOrStdout(), out), exitWith(exitFailure, nil))
	}
	out := checked{File: cfg.File, Warnings: append([]string{}, cfg.Warnings...)}
	for _, s := range cfg.Settings() {
		out.Settings = append(out.Settings, checkedValue{s.Key, s.Value, s.Origin.String()})
	}
	return printJSON(c.OutOrStdout(), out)
}

func jsonErrors(err error) []checkedError {
	var several config.Errors
	if !errors.As(err, &several) {
		return []checkedError{{Text: err.Error()}}
	}
	var all []checkedError
	for _, e := range several {
		all = append(all, checkedError{e.File, e.Line, e.Column, e.Variable, e.Key, e.Text, e.Hint})
	}
	return all
}
