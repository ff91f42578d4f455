package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// parsePasswordHash takes the forms that submission can check. Costs are
// bounded, so that a password costs neither minutes nor gigabytes to check.
func parsePasswordHash(s string) (string, error) {
	switch {
	case strings.HasPrefix(s, "$2"):
		cost, err := bcrypt.Cost([]byte(s))
		if err != nil {
			return "", errors.New("not a whole bcrypt hash")
		}
		if cost > 16 {
			return "", fmt.Errorf("a bcrypt hash of cost %d takes too long to check: 16 is the most", cost)
		}
		return s, nil
	case strings.HasPrefix(s, "$argon2id$"):
		return s, checkArgon2id(s)
	case s == "":
		return "", errors.New("empty: a user needs a password")
	}
	return "", errors.New("neither bcrypt ($2b$...) nor argon2id ($argon2id$...); a password itself does not belong here")
}

// checkArgon2id reads the PHC string form: $argon2id$v=19$m=65536,t=3,p=4$salt$hash.
func checkArgon2id(s string) error {
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[2] != "v=19" {
		return errors.New("not a whole argon2id hash of version 19")
	}
	var memory, passes, lanes int
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &passes, &lanes); err != nil || n != 3 {
		return errors.New("an argon2id hash without m=, t= and p=")
	}
	if memory < 8 || memory > 1<<20 || passes < 1 || passes > 64 || lanes < 1 || lanes > 64 {
		return errors.New("an argon2id hash whose m (KiB), t or p is not within 8 to 1048576, 1 to 64 and 1 to 64")
	}
	for _, p := range parts[4:] {
		if raw, err := base64.RawStdEncoding.DecodeString(p); err != nil || len(raw) < 8 {
			return errors.New("an argon2id hash whose salt or hash is damaged")
		}
	}
	return nil
}
