package submission

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"

	"postrider/mta/smtpserver"
)

// rememberFor is how long a password that was right need not be hashed again:
// a program that connects for each message would otherwise wait, and burn, a
// tenth of a second for each.
const rememberFor = 10 * time.Minute

// Users are names and password hashes, bcrypt ("$2b$...") or argon2id
// ("$argon2id$..."), and check passwords against them. Hashing is expensive on
// purpose: only so many passwords are hashed at once, the others wait.
type Users struct {
	hashes map[string]string
	decoy  string // checked for a name that nobody has, so that it takes as long
	slots  chan struct{}
	key    []byte // of the digests below
	now    func() time.Time

	mu    sync.Mutex
	right map[string]remembered // by name
}

type remembered struct {
	digest [sha256.Size]byte
	until  time.Time
}

// NewUsers takes name and hash of each user; the map must not be changed
// afterwards. It fails where a hash is not one that can be checked.
func NewUsers(hashes map[string]string) (*Users, error) {
	u := &Users{
		hashes: hashes, slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		key: make([]byte, 32), now: time.Now, right: map[string]remembered{},
	}
	rand.Read(u.key)
	for name, hash := range hashes {
		if err := checkable(hash); err != nil {
			return nil, fmt.Errorf("password hash of user %q: %w", name, err)
		}
		u.decoy = hash
	}
	return u, nil
}

// Authenticate implements [smtpserver.Authenticator].
func (u *Users) Authenticate(ctx context.Context, user, password string) error {
	digest := u.digest(user, password)
	if u.isRemembered(user, digest) {
		return nil
	}
	select {
	case u.slots <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("waited for the check of other passwords: %w", ctx.Err())
	}
	defer func() { <-u.slots }()
	hash, known := u.hashes[user]
	if !known {
		hash = u.decoy
	}
	matches := hash != "" && compare(hash, password)
	if !known || !matches {
		return smtpserver.ErrCredentials
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.right[user] = remembered{digest: digest, until: u.now().Add(rememberFor)}
	return nil
}

// digest stands for a password in memory: with a key that no other process
// has, and that is nowhere on disk.
func (u *Users) digest(user, password string) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, u.key)
	fmt.Fprintf(h, "%d %s%s", len(user), user, password)
	h.Sum(sum[:0])
	return sum
}

func (u *Users) isRemembered(user string, digest [sha256.Size]byte) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	r, ok := u.right[user]
	return ok && u.now().Before(r.until) && subtle.ConstantTimeCompare(r.digest[:], digest[:]) == 1
}

// checkable tells why a hash cannot be checked. Its costs are bounded, so that
// a password takes neither minutes nor gigabytes.
func checkable(hash string) error {
	if strings.HasPrefix(hash, "$2") {
		cost, err := bcrypt.Cost([]byte(hash))
		if err == nil && cost > 16 {
			err = fmt.Errorf("a bcrypt cost of %d takes too long", cost)
		}
		return err
	}
	_, err := parseArgon2id(hash)
	return err
}

func compare(hash, password string) bool {
	if strings.HasPrefix(hash, "$2") {
		return bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil
	}
	a, err := parseArgon2id(hash)
	if err != nil {
		return false
	}
	got := argon2.IDKey([]byte(password), a.salt, a.passes, a.memory, a.lanes, uint32(len(a.sum)))
	return subtle.ConstantTimeCompare(got, a.sum) == 1
}

// argon2id is a hash in the PHC string form:
// $argon2id$v=19$m=65536,t=3,p=4$salt$sum.
type argon2id struct {
	memory, passes uint32 // KiB; times
	lanes          uint8
	salt, sum      []byte
}

func parseArgon2id(s string) (a argon2id, err error) {
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != "v=19" {
		return a, errors.New("neither bcrypt nor argon2id of version 19")
	}
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &a.memory, &a.passes, &a.lanes); err != nil || n != 3 {
		return a, errors.New("argon2id without m=, t= and p=")
	}
	if a.memory < 8 || a.memory > 1<<20 || a.passes < 1 || a.passes > 64 || a.lanes < 1 || a.lanes > 64 {
		return a, errors.New("argon2id whose m (KiB), t or p is not within 8 to 1048576, 1 to 64 and 1 to 64")
	}
	if a.salt, err = base64.RawStdEncoding.DecodeString(parts[4]); err != nil || len(a.salt) < 8 {
		return a, errors.New("argon2id whose salt is damaged")
	}
	if a.sum, err = base64.RawStdEncoding.DecodeString(parts[5]); err != nil || len(a.sum) < 8 || len(a.sum) > 1024 {
		return a, errors.New("argon2id whose sum is damaged")
	}
	return a, nil
}
