package api

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// loadToken reads the bearer token, or draws one at the first start.
func loadToken(path string) (string, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newToken(path)
	}
	if err != nil {
		return "", fmt.Errorf("api token: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("api token %s can be read by others (mode %04o): chmod 600 it, or remove it to have a new one made", path, info.Mode().Perm())
	}
	const most = 4096
	if !info.Mode().IsRegular() || info.Size() > most {
		return "", fmt.Errorf("api token %s is not a small file", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("api token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	const least = 20 // a shorter one could be guessed
	if len(token) < least {
		return "", fmt.Errorf("api token %s has %d characters, %d are needed: remove it to have a new one made", path, len(token), least)
	}
	return token, nil
}

func newToken(path string) (string, error) {
	token := rand.Text()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("api token: %w", err)
	}
	_, err = f.WriteString(token + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(path)
		return "", fmt.Errorf("api token: %w", err)
	}
	return token, nil
}
