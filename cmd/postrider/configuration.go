package main

import (
	"os"

	"github.com/spf13/cobra"

	"postrider/config"
)

// configFlag adds --config to a command and to those below it.
func configFlag(c *cobra.Command) *string {
	return c.PersistentFlags().String("config", "", "configuration `file` (default /etc/postrider/postrider.toml, where there is one)")
}

// serverConfig loads the configuration for what runs as the server's user.
func serverConfig(c *cobra.Command, file string) (*config.Config, error) {
	return loadConfig(c, config.Options{File: file, Local: true})
}

// clientConfig loads the configuration for a command that only needs to find
// the running server, whoever calls it.
func clientConfig(c *cobra.Command, file string) (*config.Config, error) {
	return loadConfig(c, config.Options{File: file, Client: true})
}

func loadConfig(c *cobra.Command, o config.Options) (*config.Config, error) {
	o.Environ = os.Environ()
	cfg, err := config.Load(o)
	if err != nil {
		return nil, err
	}
	for _, w := range cfg.Warnings {
		warn(c, "%s", w)
	}
	return cfg, nil
}
