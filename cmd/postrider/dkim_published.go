package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postrider/config"
	"postrider/dkim"
	"postrider/mta/doctor"
	"postrider/resolver"
)

// publishedKey is a key and what DNS has to say about it.
type publishedKey struct {
	Domain    string         `json:"domain"`
	Selector  string         `json:"selector"`
	Algorithm dkim.Algorithm `json:"algorithm"`
	KeyFile   string         `json:"key_file"`
	Name      string         `json:"name"`    // of the record
	Text      string         `json:"text"`    // of the record, whole
	Strings   []string       `json:"strings"` // of the record, as TXT has them
	Zone      string         `json:"zone"`    // the record in a zone file

	key *dkim.PrivateKey
}

func (k *publishedKey) setKey(key *dkim.PrivateKey) error {
	record, err := key.Record()
	if err != nil {
		return err
	}
	k.key, k.Algorithm = key, key.Algorithm
	k.Name = dkim.RecordName(k.Domain, k.Selector)
	k.Text, k.Strings, k.Zone = record.Text(), record.Strings(), record.ZoneLine(k.Name)
	return nil
}

// keyChoice are the flags that choose among the keys.
type keyChoice struct {
	domain, selector, keyFile *string
}

func keyChoiceFlags(c *cobra.Command) keyChoice {
	f := c.Flags()
	return keyChoice{
		domain:   f.String("domain", "", "only keys of this `domain`"),
		selector: f.String("selector", "", "only keys of this `selector`"),
		keyFile:  f.String("key", "", "this key `file` instead of the server's; wants --domain and --selector"),
	}
}

// load reads the keys that are meant.
func (k keyChoice) load(cfg *config.Config) ([]publishedKey, error) {
	chosen, err := k.choose(cfg)
	if err != nil {
		return nil, err
	}
	keys := make([]publishedKey, len(chosen))
	for i, s := range chosen {
		keys[i] = publishedKey{Domain: s.Domain, Selector: s.Selector, KeyFile: s.KeyFile}
		key, err := dkim.ReadKeyFile(s.KeyFile)
		if err != nil {
			return nil, err
		}
		if err := keys[i].setKey(key); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

func (k keyChoice) choose(cfg *config.Config) ([]dkim.Source, error) {
	domain := strings.ToLower(*k.domain)
	if *k.keyFile != "" {
		if domain == "" || *k.selector == "" {
			return nil, usageError("--key wants --domain and --selector too: the file does not tell them")
		}
		domain, selector, err := dkimNames(domain, *k.selector)
		return []dkim.Source{{Domain: domain, Selector: selector, KeyFile: *k.keyFile}}, err
	}
	sources, err := dkimSources(cfg)
	if err != nil {
		return nil, err
	}
	sources = slices.DeleteFunc(sources, func(s dkim.Source) bool {
		return domain != "" && s.Domain != domain || *k.selector != "" && s.Selector != *k.selector
	})
	if len(sources) == 0 {
		return nil, withHint(fmt.Errorf("there is no such key, neither in the configuration nor in %s", keyDirectory(cfg)),
			"postrider dkim keygen makes one")
	}
	return sources, nil
}

// printRecords writes lines that a zone file takes, the plain form in comments.
func printRecords(w io.Writer, keys []publishedKey) {
	for i, k := range keys {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "; TXT of %s, in one piece:\n; %s\n%s\n", k.Name, k.Text, k.Zone)
	}
}

func newDKIMRecordCommand(file *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "record",
		Short: "Print the DNS records to publish for the keys",
		Long: `Print the DNS records to publish for the keys, as a zone file takes them: split
into strings of at most 255 octets. A comment has each in one piece, for the
forms of DNS providers that split by themselves.`,
		Example: `  postrider dkim record
  postrider dkim record --domain example.com --selector s2026`,
		Args: cobra.NoArgs,
	}
	choice, asJSON := keyChoiceFlags(c), jsonFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := dkimConfig(c, *file)
		if err != nil {
			return err
		}
		keys, err := choice.load(cfg)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), keys)
		}
		printRecords(c.OutOrStdout(), keys)
		return nil
	}
	return c
}

// dkimCheckTimeout bounds the questions to DNS, all together.
const dkimCheckTimeout = 30 * time.Second

func newDKIMCheckCommand(file *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Compare the keys with the records in DNS",
		Long: `Compare the keys with the records in DNS.

The exit code is 0 when every key is published as it is here, so that receivers
can verify. A record just published may take as long to be seen as the former
answer may be kept.`,
		Example: `  postrider dkim check
  postrider dkim check --domain example.com --selector s2026 --server 192.0.2.53`,
		Args: cobra.NoArgs,
	}
	choice, asJSON := keyChoiceFlags(c), jsonFlag(c)
	servers := c.Flags().StringSlice("server", nil, "name `server` to ask, address or address:port (default those of the configuration, else of /etc/resolv.conf)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := dkimConfig(c, *file)
		if err != nil {
			return err
		}
		keys, err := choice.load(cfg)
		if err != nil {
			return err
		}
		if len(*servers) == 0 {
			*servers = cfg.Resolver.Servers
		}
		r, err := resolver.New(resolver.Options{Servers: *servers, Timeout: cfg.Resolver.Timeout})
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(c.Context(), dkimCheckTimeout)
		defer cancel()
		return reportPublished(c.OutOrStdout(), comparePublished(ctx, doctor.TXT{Resolver: r}, keys), *asJSON)
	}
	return c
}

func comparePublished(ctx context.Context, dns dkim.TXT, keys []publishedKey) []doctor.Published {
	all := make([]doctor.Published, len(keys))
	for i, k := range keys {
		all[i], _ = doctor.ComparePublished(ctx, dns, dkim.Source{Domain: k.Domain, Selector: k.Selector}, k.key)
	}
	return all
}

// reportPublished prints what was found. The error is for the exit code.
func reportPublished(w io.Writer, all []doctor.Published, asJSON bool) error {
	missing := 0
	for _, c := range all {
		if !c.Published {
			missing++
		}
		if !asJSON {
			printComparison(w, c)
		}
	}
	if asJSON {
		if err := printJSON(w, all); err != nil {
			return err
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d keys cannot be verified by receivers", missing, len(all))
	}
	return nil
}

func printComparison(w io.Writer, c doctor.Published) {
	if c.Published {
		fmt.Fprintf(w, "ok  %s (%s)\n", c.Name, c.Algorithm)
	} else {
		fmt.Fprintf(w, "--  %s\n", c.Problem)
	}
	if c.Advice != "" {
		fmt.Fprintf(w, "    %s\n", c.Advice)
	}
	for _, n := range c.Notes {
		fmt.Fprintf(w, "!!  %s\n", n)
	}
}
