package main

import (
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"postrider/config"
	"postrider/mta/api"
	"postrider/mta/api/client"
)

// serverFlags say where the running server is found.
type serverFlags struct{ config, socket *string }

func addServerFlags(c *cobra.Command) serverFlags {
	return serverFlags{
		config: configFlag(c),
		socket: c.PersistentFlags().String("socket", "", "the server's control `socket` (default control.sock in its state_dir)"),
	}
}

// connect makes a client for the control socket, which has all rights.
func (s serverFlags) connect(c *cobra.Command) (*client.Client, error) {
	if *s.socket != "" {
		return client.New(*s.socket), nil
	}
	cfg, err := clientConfig(c, *s.config)
	if err != nil {
		return nil, err
	}
	return client.New(filepath.Join(cfg.StateDir, api.SocketName)), nil
}

// submission answers the sockets that take mail: the one for every user of
// this host, and the control socket for those who may open that.
func submission(socket string, cfg *config.Config) []string {
	if socket != "" {
		return []string{socket}
	}
	return []string{filepath.Join(cfg.StateDir, api.SubmitSocketName), filepath.Join(cfg.StateDir, api.SocketName)}
}

// submit tries the sockets in turn until one answers.
func submit(sockets []string, do func(c *client.Client) error) error {
	var err error
	for _, socket := range sockets {
		c := client.New(socket)
		err = do(c)
		c.Close()
		var away *client.Unreachable
		if !errors.As(err, &away) {
			return err
		}
	}
	return err // the control socket's, which says what to do
}
