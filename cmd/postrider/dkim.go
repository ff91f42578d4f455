package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"postrider/config"
	"postrider/dkim"
)

func newDKIMCommand() *cobra.Command {
	c := group("dkim", "Make DKIM keys, print their records, compare them with DNS", `Make DKIM keys, print the records to publish, and compare them with DNS.

A signature tells receivers that mail comes from its author's domain; most large
ones refuse mail without one. The private key stays with the server, the public
one is published as a TXT record under <selector>._domainkey.<domain>.`)
	file := configFlag(c)
	c.AddCommand(newDKIMKeygenCommand(file), newDKIMRecordCommand(file), newDKIMCheckCommand(file))
	return c
}

func dkimSources(cfg *config.Config) []dkim.Source {
	sources := make([]dkim.Source, len(cfg.DKIM))
	for i, k := range cfg.DKIM {
		sources[i] = dkim.Source(k)
	}
	return sources
}

// keyType is what --type of keygen names.
type keyType struct {
	algorithm dkim.Algorithm
	suffix    string // of the selector, where there are two keys
}

func newDKIMKeygenCommand(file *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "keygen --domain DOMAIN --selector SELECTOR",
		Short: "Make a key, and print what to publish and to configure",
		Long: `Make a key, and print the record to publish and the lines to configure.

The key is written to dkim/<domain>.<selector>.pem beside the configuration file
(or in the working directory, where there is none), readable by its owner alone.
A file that is there already is never written over.

--type both makes two keys, and mail is signed with both: an RSA key, which every
receiver knows, under the selector, and an Ed25519 key under the selector with
"-ed25519". Publish the record, wait until check finds it, then configure the key.`,
		Example: `  postrider dkim keygen --domain example.com --selector s2026
  postrider dkim keygen --domain example.com --selector s2026 --type both`,
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	domain := f.String("domain", "", "the `domain` in From of the mail to sign")
	selector := f.String("selector", "", "a `name` for the key, like s2026; a new key wants a new one")
	kind := f.String("type", "rsa2048", "rsa2048, ed25519 or both")
	dir := f.String("dir", "", "`directory` for the key (default dkim beside the configuration file)")
	asJSON := jsonFlag(c)
	for _, name := range []string{"domain", "selector"} {
		cobra.CheckErr(c.MarkFlagRequired(name))
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		types, err := keyTypes(*kind)
		if err != nil {
			return err
		}
		d, s, err := dkimNames(*domain, *selector)
		if err != nil {
			return err
		}
		cfg, err := clientConfig(c, *file)
		if err != nil {
			return err
		}
		if *dir == "" {
			*dir = filepath.Join(cfg.Dir, "dkim")
		}
		keys, err := keygen(d, s, *dir, types)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), keys)
		}
		printGenerated(c.OutOrStdout(), cfg, keys)
		return nil
	}
	return c
}

func keyTypes(kind string) ([]keyType, error) {
	switch kind {
	case "rsa2048":
		return []keyType{{dkim.RSA, ""}}, nil
	case "ed25519":
		return []keyType{{dkim.Ed25519, ""}}, nil
	case "both":
		return []keyType{{dkim.RSA, ""}, {dkim.Ed25519, "-ed25519"}}, nil
	}
	return nil, usageError("--type %q: it is rsa2048, ed25519 or both", kind)
}

// dkimNames reads --domain and --selector.
func dkimNames(domain, selector string) (d, s string, err error) {
	if d, err = config.ParseDomain(domain); err != nil {
		return "", "", usageError("--domain: %w", err)
	}
	if s, err = config.ParseDomain(selector); err != nil {
		return "", "", usageError("--selector: %q is not a selector, like s2026", selector)
	}
	return d, s, nil
}

// keygen makes the keys of one domain, all or none.
func keygen(domain, selector, dir string, types []keyType) ([]publishedKey, error) {
	var keys []publishedKey
	for _, t := range types {
		k := publishedKey{Domain: domain, Selector: selector + t.suffix}
		k.KeyFile = filepath.Join(dir, keyFileName(k.Domain, k.Selector))
		if _, err := os.Lstat(k.KeyFile); err == nil {
			return nil, withHint(fmt.Errorf("%s is there already, and is never written over", k.KeyFile),
				"take another --selector: receivers and caches know the former record by its name")
		}
		key, err := dkim.GenerateKey(t.algorithm)
		if err != nil {
			return nil, err
		}
		if err := k.setKey(key); err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	for i, k := range keys {
		if err := dkim.WriteKeyFile(k.KeyFile, k.key); err != nil {
			for _, written := range keys[:i] {
				err = errors.Join(err, os.Remove(written.KeyFile))
			}
			return nil, err
		}
	}
	return keys, nil
}

// keyFileName is where keygen puts a key, and where the other commands look
// for one that is not configured yet.
func keyFileName(domain, selector string) string { return domain + "." + selector + ".pem" }

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

func printGenerated(w io.Writer, cfg *config.Config, keys []publishedKey) {
	for _, k := range keys {
		fmt.Fprintf(w, "wrote %s (%s)\n", k.KeyFile, k.Algorithm)
	}
	fmt.Fprint(w, "\npublish:\n\n")
	printRecords(w, keys)
	fmt.Fprintln(w, "\nand, once \"postrider dkim check\" finds it, configure:")
	for _, k := range keys {
		file := k.KeyFile
		if rel, err := filepath.Rel(cfg.Dir, file); err == nil && filepath.IsLocal(rel) {
			file = rel
		}
		fmt.Fprintf(w, "\n[[dkim]]\ndomain = %q\nselector = %q\nkey_file = %q\n", k.Domain, k.Selector, file)
	}
	if os.Geteuid() == 0 {
		fmt.Fprintln(w, "\nThe keys belong to root; the server's user has to own them:")
		for _, k := range keys {
			fmt.Fprintf(w, "chown postrider %s\n", k.KeyFile)
		}
	}
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

// keyChoice are the flags that choose among the configured keys.
type keyChoice struct {
	domain, selector, keyFile *string
}

func keyChoiceFlags(c *cobra.Command) keyChoice {
	f := c.Flags()
	return keyChoice{
		domain:   f.String("domain", "", "only keys of this `domain`"),
		selector: f.String("selector", "", "only keys of this `selector`"),
		keyFile:  f.String("key", "", "this key `file` instead of the configured ones; wants --domain and --selector"),
	}
}

// load reads the keys that are meant: those of the configuration, or one that
// keygen made and that is not configured yet.
func (k keyChoice) load(cfg *config.Config) ([]publishedKey, error) {
	named := *k.domain != "" && *k.selector != ""
	if *k.keyFile != "" && !named {
		return nil, usageError("--key wants --domain and --selector too: the file does not tell them")
	}
	var chosen []config.DKIMKey
	for _, d := range cfg.DKIM {
		if *k.keyFile == "" && (*k.domain == "" || d.Domain == *k.domain) && (*k.selector == "" || d.Selector == *k.selector) {
			chosen = append(chosen, d)
		}
	}
	if len(chosen) == 0 && named {
		domain, selector, err := dkimNames(*k.domain, *k.selector)
		if err != nil {
			return nil, err
		}
		file := *k.keyFile
		if file == "" {
			file = filepath.Join(cfg.Dir, "dkim", keyFileName(domain, selector))
		}
		chosen = append(chosen, config.DKIMKey{Domain: domain, Selector: selector, KeyFile: file})
	}
	if len(chosen) == 0 {
		return nil, withHint(errors.New("no such key is configured"),
			"postrider dkim keygen makes one; --domain and --selector name one that is not configured yet")
	}
	keys := make([]publishedKey, len(chosen))
	for i, d := range chosen {
		keys[i] = publishedKey{Domain: d.Domain, Selector: d.Selector, KeyFile: d.KeyFile}
		key, err := dkim.ReadKeyFile(d.KeyFile)
		if err != nil {
			return nil, err
		}
		if err := keys[i].setKey(key); err != nil {
			return nil, err
		}
	}
	return keys, nil
}
