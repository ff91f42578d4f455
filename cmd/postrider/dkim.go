package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

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

// keyDirectory holds the keys that need no configuration.
func keyDirectory(cfg *config.Config) string { return filepath.Join(cfg.StateDir, "dkim") }

// dkimSources gives the keys that the server signs with.
func dkimSources(cfg *config.Config) ([]dkim.Source, error) {
	configured := make([]dkim.Source, len(cfg.DKIM))
	for i, k := range cfg.DKIM {
		configured[i] = dkim.Source(k)
	}
	return dkim.Sources(configured, keyDirectory(cfg))
}

// dkimConfig loads the configuration for the commands below dkim. They look
// where the server does, and at keys by themselves.
func dkimConfig(c *cobra.Command, file string) (*config.Config, error) {
	return loadConfig(c, config.Options{File: file, Local: true, KeysUnseen: true})
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

The key is written to <state_dir>/dkim/<domain>.<selector>.pem, readable by the
server's user alone. The server signs with every key of that directory from its
next start or reload. A file that is there already is never written over.

--type both makes two keys, and mail is signed with both: an RSA key, which every
receiver knows, under the selector, and an Ed25519 key under the selector with
"-ed25519". Publish the records, wait until check finds them, then restart.`,
		Example: `  postrider dkim keygen --domain example.com --selector s2026
  postrider dkim keygen --domain example.com --selector s2026 --type both`,
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	domain := f.String("domain", "", "the `domain` in From of the mail to sign")
	selector := f.String("selector", "", "a `name` for the key, like s2026; a new key wants a new one")
	kind := f.String("type", "rsa2048", "rsa2048, ed25519 or both")
	dir := f.String("dir", "", "another `directory` for the key, which then has to be configured")
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
		cfg, err := dkimConfig(c, *file)
		if err != nil {
			return err
		}
		if *dir == "" {
			*dir = keyDirectory(cfg)
		} else if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
		keys, err := keygen(d, s, *dir, types)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), keys)
		}
		printGenerated(c.OutOrStdout(), cfg, *dir, keys)
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
	if s, err = config.ParseDomain(selector); err != nil || strings.Contains(s, ".") {
		return "", "", usageError("--selector: %q is not a selector, like s2026", selector)
	}
	return d, s, nil
}

// keygen makes the keys of one domain, all or none.
func keygen(domain, selector, dir string, types []keyType) ([]publishedKey, error) {
	var keys []publishedKey
	for _, t := range types {
		k := publishedKey{Domain: domain, Selector: selector + t.suffix}
		k.KeyFile = filepath.Join(dir, dkim.KeyFileName(k.Domain, k.Selector))
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

func printGenerated(w io.Writer, cfg *config.Config, dir string, keys []publishedKey) {
	for _, k := range keys {
		fmt.Fprintf(w, "wrote %s (%s)\n", k.KeyFile, k.Algorithm)
	}
	fmt.Fprint(w, "\npublish:\n\n")
	printRecords(w, keys)
	if dir == keyDirectory(cfg) {
		fmt.Fprint(w, "\nThe server signs with it from its next start or reload, for the keys of this\ndirectory need no configuration. These lines would name it all the same:\n")
	} else {
		fmt.Fprint(w, "\nand, once \"postrider dkim check\" finds it, configure:\n")
	}
	for _, k := range keys {
		fmt.Fprintf(w, "\n[[dkim]]\ndomain = %q\nselector = %q\nkey_file = %q\n", k.Domain, k.Selector, k.KeyFile)
	}
}
