package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"postrider/config"
	"postrider/dkim"
	"postrider/mta"
	"postrider/mta/delivery"
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
		if err := cfg.WriteTOML(c.OutOrStdout()); err != nil {
			return err
		}
		return writeRules(c.OutOrStdout(), mta.ReplyRules(cfg))
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
	return cfg, tryCertificates(cfg)
}

// tryCertificates tries those of the listeners.
func tryCertificates(cfg *config.Config) error {
	for _, l := range cfg.Submission.Listeners() {
		if l.TLSCertFile == "" {
			continue
		}
		if _, err := tls.LoadX509KeyPair(l.TLSCertFile, l.TLSKeyFile); err != nil {
			return fmt.Errorf("certificate %s with key %s: %w", l.TLSCertFile, l.TLSKeyFile, err)
		}
	}
	return nil
}

// writeRules prints the rules about replies in their order, as comments: they
// stand in a file of their own.
func writeRules(w io.Writer, rules delivery.Rules) error {
	var b strings.Builder
	b.WriteString("\n# What replies mean beyond their codes: the first rule that matches counts.\n")
	for _, r := range rules {
		fmt.Fprintf(&b, "# %s", ruleOf(&r).Name)
		for _, part := range ruleOf(&r).parts() {
			b.WriteString(", " + part)
		}
		fmt.Fprintf(&b, ": %s\n", r.Pattern)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// checkedRule is a rule about replies in JSON.
type checkedRule struct {
	Name    string `json:"name"`
	Code    int    `json:"code,omitempty"` // or its first digits
	Domain  string `json:"domain,omitempty"`
	Site    string `json:"site,omitempty"`
	Pattern string `json:"pattern"`
	Action  string `json:"action"`
	For     string `json:"for,omitempty"`
	Class   string `json:"class,omitempty"`
}

func ruleOf(r *delivery.Rule) checkedRule {
	out := checkedRule{Name: r.Name, Code: r.Code, Domain: r.Domain, Site: r.Site, Pattern: r.Pattern.String(), Action: r.Action.String(), Class: string(r.Class)}
	if r.For > 0 {
		out.For = config.FormatDuration(r.For)
	}
	return out
}

func (r checkedRule) parts() []string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+" "+value)
		}
	}
	if r.Code != 0 {
		add("code", strconv.Itoa(r.Code)+strings.Repeat("x", 3-len(strconv.Itoa(r.Code))))
	}
	add("domain", r.Domain)
	add("site", r.Site)
	add("action", r.Action)
	add("for", r.For)
	add("class", r.Class)
	return parts
}

// checked is the JSON of postrider check.
type checked struct {
	File     string         `json:"file"`
	Warnings []string       `json:"warnings"`
	Settings []checkedValue `json:"settings,omitempty"`
	Rules    []checkedRule  `json:"rules,omitempty"`
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
	for _, r := range mta.ReplyRules(cfg) {
		out.Rules = append(out.Rules, ruleOf(&r))
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
