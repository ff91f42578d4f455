package mta

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// fileStore keeps small values under names, one file each, for what is asked
// for rarely and must survive a restart (MTA-STS policies, TLS report tallies).
// A value is there whole or not at all.
type fileStore struct {
	dir string
	mu  sync.Mutex
}

func newFileStore(dir string) (*fileStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state_dir: %w", err)
	}
	return &fileStore{dir: dir}, nil
}

// fileOf gives the file of a name. What is no plain domain name is written in
// hexadecimal, so that no name leads out of the directory.
func (s *fileStore) fileOf(name string) string {
	for _, c := range []byte(name) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_') {
			return filepath.Join(s.dir, "="+hex.EncodeToString([]byte(name)))
		}
	}
	return filepath.Join(s.dir, "+"+name)
}

// Get answers nil where there is none.
func (s *fileStore) Get(name string) ([]byte, error) {
	data, err := os.ReadFile(s.fileOf(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// Put writes beside, syncs, and renames into place.
func (s *fileStore) Put(name string, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := os.CreateTemp(s.dir, ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already where all went well
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), s.fileOf(name)); err != nil {
		return err
	}
	dir, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// Delete of what is not there is no error.
func (s *fileStore) Delete(name string) error {
	err := os.Remove(s.fileOf(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Keys lists the names.
func (s *fileStore) Keys() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutPrefix(e.Name(), "+"); ok {
			names = append(names, name)
		} else if coded, ok := strings.CutPrefix(e.Name(), "="); ok {
			if name, err := hex.DecodeString(coded); err == nil {
				names = append(names, string(name))
			}
		}
	}
	return names, nil
}
