package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"postrider/config"
	"postrider/mta"
	"postrider/mta/doctor"
)

func newDoctorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check this host: what keeps mail from getting out, and what to do",
		Long: `Check this host: what keeps mail from getting out, and what to do about it.

Looked at are the configuration, the disk, limits of the system, the name
servers, the HELO name and reverse DNS, the way out to mail hosts, who reads
root's mail, and the DKIM, SPF and DMARC records of the domains that are signed
for. A server that runs is asked how it is; none is needed. Nothing is changed.
Run it as root, or as the server's user, to have everything looked at.

Nobody is connected to unasked: mail hosts of a domain only where --probe names
it, or local_mail_to or postmaster has an address there (and the mode is live).
They are greeted by, told QUIT, and left. All else is asked of DNS. Block lists
are not asked.

It ends within half a minute. The exit code is 0 when nothing has failed;
warnings are allowed. docs/doctor.md says what each check means.`,
		Example: `  postrider doctor
  postrider doctor --probe example.org
  postrider doctor --json | jq '.findings[] | select(.verdict == "failed")'`,
		Args: cobra.NoArgs,
	}
	server := addServerFlags(c)
	asJSON := jsonFlag(c)
	probes := c.Flags().StringSlice("probe", nil, "connect to the mail hosts of this `domain`; may be repeated")
	c.RunE = func(c *cobra.Command, _ []string) error {
		domains, err := probeDomains(*probes)
		if err != nil {
			return err
		}
		report, err := examine(c, server, domains)
		if err != nil {
			return err
		}
		if *asJSON {
			err = printJSON(c.OutOrStdout(), report)
		} else {
			printReport(c.OutOrStdout(), &report)
		}
		if err == nil && report.Failed > 0 {
			return exitWith(exitFailure, nil)
		}
		return err
	}
	return c
}

func probeDomains(words []string) ([]string, error) {
	if len(words) > doctor.MaxProbes {
		return nil, usageError("--probe is given %d times, at most %d domains are taken", len(words), doctor.MaxProbes)
	}
	domains := make([]string, len(words))
	for i, w := range words {
		d, err := config.ParseDomain(w)
		if err != nil {
			return nil, usageError("--probe: %w", err)
		}
		domains[i] = d
	}
	return domains, nil
}

// examine looks at the host with the configuration that the server would run
// with. Where only the files that it names are wrong, the rest is looked at
// all the same.
func examine(c *cobra.Command, server serverFlags, probes []string) (doctor.Report, error) {
	options := config.Options{File: *server.config, Environ: os.Environ()}
	found := doctor.ConfigurationOptions{File: *server.config}
	cfg, err := examinedConfig(options)
	if err != nil {
		found.Errors = problems(err)
		options.KeysUnseen = true
		if cfg, err = examinedConfig(options); err != nil {
			return doctor.Unconfigured(found), nil
		}
	} else if err := tryCertificates(cfg); err != nil {
		found.Errors = problems(err)
	}
	found.File, found.Warnings = cfg.File, cfg.Warnings
	d, err := mta.NewDoctor(cfg, mta.DoctorOptions{
		Configuration: found, Probes: probes, Socket: *server.socket, Version: buildVersion(),
	})
	if err != nil {
		return doctor.Report{}, err
	}
	return d.Run(c.Context()), nil
}

// examinedConfig loads the configuration of the server that is meant.
func examinedConfig(o config.Options) (*config.Config, error) {
	o.Local = true
	own, err := config.Load(o)
	o.Local = false
	installed, installedErr := config.Load(o)
	if installedErr == nil && meansInstalled(own, err, installed, isDirectory) {
		return installed, nil
	}
	return own, err
}

// meansInstalled: who may not write the state_dir of the server that is
// installed here means that one all the same, and not one that they could
// start in the working directory, unless they have done so.
func meansInstalled(own *config.Config, err error, installed *config.Config, isThere func(string) bool) bool {
	if !isThere(installed.StateDir) {
		return false
	}
	if err != nil {
		var several config.Errors
		return errors.As(err, &several) && !slices.ContainsFunc(several, func(e *config.Error) bool { return e.Key != "state_dir" })
	}
	return own.File == installed.File && !isThere(own.StateDir)
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func problems(err error) (all []doctor.Problem) {
	var several config.Errors
	if !errors.As(err, &several) {
		return []doctor.Problem{{Text: err.Error()}}
	}
	for _, e := range several {
		all = append(all, doctor.Problem{Text: e.Error(), Hint: e.Hint})
	}
	return all
}

var verdictWords = map[doctor.Verdict]string{
	doctor.OK: "ok", doctor.Warning: "warning", doctor.Failed: "FAILED", doctor.NotDone: "not done",
}

// printReport gives each finding a line, what to do a second one, and counts
// at the end.
func printReport(w io.Writer, r *doctor.Report) {
	for i := range r.Findings {
		f := &r.Findings[i]
		fmt.Fprintf(w, "%-8s  %s: %s: %s\n", verdictWords[f.Verdict], f.Check, plain(f.Subject), plain(oneLine(f.Found)))
		if f.Advice != "" {
			fmt.Fprintf(w, "          -> %s\n", plain(oneLine(f.Advice)))
		}
	}
	fmt.Fprintf(w, "\n%d failed, %d warnings, %d not done, %d in all\n", r.Failed, r.Warnings, r.NotDone, len(r.Findings))
}

// oneLine is for texts of several errors, which have line ends.
func oneLine(s string) string { return strings.ReplaceAll(s, "\n", "; ") }
