package dkim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const keyFileEnd = ".pem"

// KeyFileName is the name under which Sources finds a key in a directory. The
// selector has no dot.
func KeyFileName(domain, selector string) string { return domain + "." + selector + keyFileEnd }

// Sources gives the configured keys and, behind them, those that lie in dir
// under their KeyFileName. Where both name a domain and selector the
// configured one counts. A directory that is not there has no keys.
func Sources(configured []Source, dir string) ([]Source, error) {
	all := append([]Source(nil), configured...)
	named := make(map[string]bool)
	for _, s := range configured {
		named[RecordName(s.Domain, s.Selector)] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for DKIM keys: %w", err)
	}
	for _, e := range entries {
		name, isKey := strings.CutSuffix(e.Name(), keyFileEnd)
		dot := strings.LastIndexByte(name, '.')
		if !isKey || dot < 1 || dot == len(name)-1 || e.IsDir() {
			continue
		}
		s := Source{Domain: name[:dot], Selector: name[dot+1:], KeyFile: filepath.Join(dir, e.Name())}
		if !named[RecordName(s.Domain, s.Selector)] {
			all = append(all, s)
		}
	}
	return all, nil
}
