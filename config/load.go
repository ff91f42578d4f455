package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Options say where a configuration is looked for.
type Options struct {
	File string // as --config names it; empty: looked for
	// Local lets ./postrider.toml and ./postrider-data be taken: by whoever
	// runs the server, not by root, and only in a directory of their own.
	Local bool
	// KeysUnseen leaves the files that the configuration names alone: for
	// commands that may not read them, or are about to make them.
	KeysUnseen bool
	// Client is for programs of any user that only need to find the running
	// server. A fault must not keep them from handing in mail: without File a
	// file that may not be read counts as none, and what is wrong in it is a
	// warning, its key having its default. It implies KeysUnseen.
	Client  bool
	Environ []string // as os.Environ gives it
}

// Load finds, reads and checks the configuration of this host. An error about
// its content is of type Errors.
func Load(o Options) (*Config, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("find the working directory: %w", err)
	}
	return load(o, host{dir: dir, uid: os.Geteuid(), systemFile: "/etc/postrider/postrider.toml", read: readFile, canWrite: canWrite})
}

// host is what Load sees of the machine.
type host struct {
	dir        string // the working directory
	uid        int
	systemFile string
	read       func(path string) ([]byte, error)
	canWrite   func(dir string) bool
}

const (
	localFile     = "postrider.toml"
	localStateDir = "postrider-data"
)

func load(o Options, h host) (*Config, error) {
	file, warnings := h.find(o)
	forgiving := o.Client && o.File == ""
	var data []byte
	if file != "" {
		var err error
		data, err = h.read(file)
		switch {
		case err != nil && forgiving && errors.Is(err, fs.ErrPermission):
			warnings = append(warnings, fmt.Sprintf("%s may not be read by this user: the defaults are taken", file))
			file = ""
		case err != nil:
			return nil, fmt.Errorf("read the configuration: %w", err)
		}
	}
	c, errs := parse(file, data, o.Environ)
	c.Dir = h.dir
	if file != "" {
		c.Dir = filepath.Dir(file)
	}
	if o.Client {
		c.Warnings = nil // of the server, not of whoever hands in mail
	}
	c.Warnings = append(warnings, c.Warnings...)
	c.resolvePaths()
	c.chooseStateDir(o, h, &errs)
	if !o.Client && !o.KeysUnseen {
		c.readRules(h.read, &errs)
		c.checkFiles(&errs)
		c.warnOfReaders()
	}
	err := errs.result()
	if err != nil && forgiving {
		for _, e := range errs {
			c.Warnings = append(c.Warnings, e.Error())
		}
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// find gives the file to read, "" for none.
func (h host) find(o Options) (file string, warnings []string) {
	if o.File != "" {
		return h.absolute(o.File), nil
	}
	if local := filepath.Join(h.dir, localFile); o.Local && exists(local) {
		why := h.notOurs(local)
		if why == "" {
			return local, []string{local + " is taken, since it is in the working directory"}
		}
		warnings = append(warnings, fmt.Sprintf("%s is not taken: %s; name it with --config", local, why))
	}
	if exists(h.systemFile) {
		return h.systemFile, warnings
	}
	return "", warnings
}

// notOurs says why a file of the working directory is not to be trusted: who
// starts a server in a directory of somebody else must not run with their
// settings.
func (h host) notOurs(file string) string {
	if h.uid == 0 {
		return "this is root"
	}
	for _, path := range []string{h.dir, file} {
		info, err := os.Stat(path)
		if err != nil {
			return err.Error()
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		if !ok || int(owner.Uid) != h.uid {
			return path + " belongs to another user"
		}
		if info.Mode().Perm()&0o022 != 0 {
			return path + " can be written by others"
		}
	}
	return ""
}

func (h host) absolute(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(h.dir, path)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// One more than is allowed, so that parse sees that it is too much; and
	// an end for a device or a pipe.
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// resolvePaths lets every relative path start at c.Dir.
func (c *Config) resolvePaths() {
	for _, t := range Tables() {
		roots := []any{c}
		if t.Repeated {
			roots = t.elements.all(c)
		}
		for _, root := range roots {
			for _, k := range t.Keys {
				if !k.isPath {
					continue
				}
				if to := k.at.field(root).(scalar[string]).to; *to != "" && !filepath.IsAbs(*to) {
					*to = filepath.Join(c.Dir, *to)
				}
			}
		}
	}
}

// chooseStateDir falls back to ./postrider-data where the default cannot be
// written, and puts the pickup directory below it.
func (c *Config) chooseStateDir(o Options, h host, errs *Errors) {
	if o.Local && !c.isSet("state_dir") && !h.canWrite(c.StateDir) {
		local := filepath.Join(h.dir, localStateDir)
		switch {
		case h.uid == 0:
			errs.add(c.complain("state_dir", c.StateDir+" cannot be written", "set state_dir"))
		case h.notOurs(h.dir) != "":
			errs.add(c.complain("state_dir", fmt.Sprintf("%s cannot be written, and %s is not taken: %s", c.StateDir, local, h.notOurs(h.dir)), "set state_dir, or start in a directory of your own"))
		default:
			c.Warnings = append(c.Warnings, fmt.Sprintf("state_dir: %s cannot be written: the queue is in %s", c.StateDir, local))
			c.StateDir = local
		}
	}
	if c.Pickup.Dir == "" {
		c.Pickup.Dir = filepath.Join(c.StateDir, "pickup")
	}
}

// canWrite reports whether a directory can be written, or made.
func canWrite(dir string) bool {
	for {
		if exists(dir) {
			return unix.Access(dir, unix.W_OK|unix.X_OK) == nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return false
		}
		dir = parent
	}
}

// warnOfReaders is for hashes that everybody may try to guess passwords from.
func (c *Config) warnOfReaders() {
	if len(c.Users) == 0 || c.File == "" {
		return
	}
	if info, err := os.Stat(c.File); err == nil && info.Mode().Perm()&0o004 != 0 {
		c.Warnings = append(c.Warnings, fmt.Sprintf("%s holds password hashes and can be read by every user: chmod 640", c.File))
	}
}

// CheckFiles looks again at the files with keys and certificates that the
// configuration names. The error is of type Errors.
func (c *Config) CheckFiles() error {
	var errs Errors
	c.checkFiles(&errs)
	return errs.result()
}

// checkFiles looks at the files that the configuration names, so that a wrong
// one is found now and not with the first message.
func (c *Config) checkFiles(errs *Errors) {
	check := func(key, path string, secret bool) {
		if path == "" {
			return
		}
		if text, hint := judgeFile(path, secret); text != "" {
			errs.add(c.complain(key, text, hint))
		}
	}
	for i, k := range c.DKIM {
		check(indexed("dkim.key_file", i), k.KeyFile, true)
	}
	listener := func(l *Listener, table string, element int) {
		check(c.firstSet(indexed(table+".tls_cert_file", element), "submission.tls_cert_file"), l.TLSCertFile, false)
		check(c.firstSet(indexed(table+".tls_key_file", element), "submission.tls_key_file"), l.TLSKeyFile, true)
	}
	listener(&c.Submission.Listener, "submission", -1)
	for i := range c.Submission.Further {
		listener(&c.Submission.Further[i], "submission.listener", i)
	}
}

// judgeFile says what is wrong with a file that is to be read, "" for nothing.
func judgeFile(path string, secret bool) (text, hint string) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe must not block here
	if err != nil {
		return err.Error(), ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err.Error(), ""
	}
	if !info.Mode().IsRegular() {
		return path + " is no regular file", ""
	}
	if secret && info.Mode().Perm()&0o077 != 0 {
		return fmt.Sprintf("%s can be read or written by others (mode %04o)", path, info.Mode().Perm()), "chmod 600 " + path
	}
	return "", ""
}
