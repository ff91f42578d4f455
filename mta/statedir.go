package mta

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// stateDir is where everything that survives a restart is kept.
type stateDir string

func (d stateDir) queue() string      { return filepath.Join(string(d), "queue") }
func (d stateDir) dkim() string       { return filepath.Join(string(d), "dkim") }
func (d stateDir) tlsReports() string { return filepath.Join(string(d), "tls-reports") }
func (d stateDir) sts() string        { return filepath.Join(string(d), "mta-sts") }
func (d stateDir) suppression() string {
	return filepath.Join(string(d), "suppression")
}

// prepare makes the directory and its parts: 0711 itself, so that the group
// reaches the control socket and the pickup directory inside it, its parts 0700.
func (d stateDir) prepare() error {
	if err := os.MkdirAll(string(d), 0o711); err != nil {
		return fmt.Errorf("state_dir: %w; make it, or name another one in the configuration", err)
	}
	if err := d.own(string(d), 0o711); err != nil {
		return err
	}
	for _, part := range []string{d.queue(), d.dkim()} {
		if err := os.MkdirAll(part, 0o700); err != nil {
			return fmt.Errorf("state_dir: %w", err)
		}
		if err := d.own(part, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// own sets the mode of a directory that must be ours.
func (d stateDir) own(dir string, mode os.FileMode) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("state_dir: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("state_dir: %s is no directory", dir)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("state_dir: %s belongs to user %d, and we run as %d; change its owner, or run as that user", dir, st.Uid, os.Geteuid())
	}
	if info.Mode().Perm() == mode {
		return nil
	}
	if err := os.Chmod(dir, mode); err != nil && !errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("state_dir: %w", err)
	}
	return nil
}
