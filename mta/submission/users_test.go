package submission

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"

	"postrider/mta/smtpserver"
)

func bcryptHash(t *testing.T, password string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

func argon2Hash(password string) string {
	salt := []byte("0123456789abcdef")
	encode := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=19$m=64,t=1,p=1$%s$%s", encode(salt), encode(argon2.IDKey([]byte(password), salt, 1, 64, 1, 32)))
}

func TestUsers(t *testing.T) {
	t.Parallel()
	u, err := NewUsers(map[string]string{"shop": bcryptHash(t, "b"), "cron": argon2Hash("a")})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		user, password string
		want           error
	}{
		{"shop", "b", nil}, {"cron", "a", nil}, {"shop", "b", nil}, // the last from memory
		{"shop", "a", smtpserver.ErrCredentials}, {"cron", "", smtpserver.ErrCredentials}, {"Shop", "b", smtpserver.ErrCredentials},
		{"nobody", "b", smtpserver.ErrCredentials}, {"nobody", "a", smtpserver.ErrCredentials}, {"", "", smtpserver.ErrCredentials},
	}
	for range 2 {
		for _, test := range tests {
			if err := u.Authenticate(t.Context(), test.user, test.password); err != test.want {
				t.Errorf("%s, %s: %v", test.user, test.password, err)
			}
		}
	}
	nobody, err := NewUsers(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := nobody.Authenticate(t.Context(), "shop", "b"); err != smtpserver.ErrCredentials {
		t.Errorf("no users: %v", err)
	}
}

// A password that was right is not hashed again for a while, and a wrong one
// gains nothing from it.
func TestUsersRemember(t *testing.T) {
	t.Parallel()
	u, err := NewUsers(map[string]string{"shop": bcryptHash(t, "b")})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	u.now = func() time.Time { return now }
	if err := u.Authenticate(t.Context(), "shop", "b"); err != nil {
		t.Fatal(err)
	}
	// All slots are taken: whoever must be hashed waits until the context ends.
	for range cap(u.slots) {
		u.slots <- struct{}{}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := u.Authenticate(ended, "shop", "b"); err != nil {
		t.Errorf("was not remembered: %v", err)
	}
	for _, wrong := range []string{"c", "", "b "} {
		if err := u.Authenticate(ended, "shop", wrong); !errors.Is(err, context.Canceled) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	// Where the name ends and the password begins is part of what is remembered.
	if err := u.Authenticate(ended, "sho", "pb"); !errors.Is(err, context.Canceled) {
		t.Errorf("shifted: %v", err)
	}
	now = now.Add(rememberFor)
	if err := u.Authenticate(ended, "shop", "b"); !errors.Is(err, context.Canceled) {
		t.Errorf("remembered for too long: %v", err)
	}
}

func TestNewUsersRefuses(t *testing.T) {
	t.Parallel()
	good := argon2Hash("a")
	for _, hash := range []string{
		"", "secret", "$2b$", "$1$abc$def", "$2b$17" + bcryptHash(t, "x")[6:],
		strings.Replace(good, "m=64", "m=2000000", 1), strings.Replace(good, "t=1", "t=0", 1), strings.Replace(good, "v=19", "v=16", 1),
		strings.Replace(good, "argon2id", "argon2i", 1), strings.Replace(good, "m=64,t=1", "x", 1), good[:len(good)-3] + "!!!", good + "$x",
	} {
		if _, err := NewUsers(map[string]string{"shop": hash}); err == nil || !strings.Contains(err.Error(), `"shop"`) {
			t.Errorf("%q: %v", hash, err)
		}
	}
}
