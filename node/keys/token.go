package keys

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The roles that a token can have. A worker's is for enrolment: it buys a
// credential, and nothing else.
const (
	Client   = "client"
	Operator = "operator"
	Worker   = "worker"
)

// Roles are all of them.
var Roles = []string{Client, Operator, Worker}

// Token is what is kept of a token.
type Token struct {
	ID        string     `json:"id"`
	Role      string     `json:"role"`
	Name      string     `json:"name"`
	SHA256    string     `json:"sha256"` // of the whole token, hexadecimal
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	// Worker is the one worker that a token of this role enrols, or, with a '*'
	// at its end, how its name begins; "" is any.
	Worker string `json:"worker,omitempty"`

	sum [sha256.Size]byte // SHA256, read
}

type tokenFile struct {
	Tokens []Token `json:"tokens"`
}

const (
	tokenPrefix = "wm_" // wm_ROLE_ID_SECRET: the prefix lets scanners of leaked secrets find it
	maxTokens   = 10_000
	maxName     = 63
)

// newToken makes a token and what is kept of it. ttl 0 is for ever.
func newToken(role, name string, ttl time.Duration, now time.Time) (Token, string, error) {
	switch {
	case !slices.Contains(Roles, role):
		return Token{}, "", fmt.Errorf("role %q is none of %s", role, strings.Join(Roles, ", "))
	case !goodName(name):
		return Token{}, "", fmt.Errorf("name %q: want 1 to %d letters, digits, '.', '-' or '_'", name, maxName)
	}
	var id [6]byte
	var secret [keyBytes]byte
	_, _ = rand.Read(id[:]) // never fails
	_, _ = rand.Read(secret[:])
	t := Token{ID: hex.EncodeToString(id[:]), Role: role, Name: name, CreatedAt: now.UTC().Truncate(time.Second)}
	if ttl > 0 {
		at := t.CreatedAt.Add(ttl)
		t.ExpiresAt = &at
	}
	text := tokenPrefix + role + "_" + t.ID + "_" + base64.RawURLEncoding.EncodeToString(secret[:])
	sum := sha256.Sum256([]byte(text))
	t.SHA256 = hex.EncodeToString(sum[:])
	return t, text, nil
}

// Enrols reports whether the token is for a worker of that name.
func (t *Token) Enrols(worker string) bool {
	if begin, many := strings.CutSuffix(t.Worker, "*"); many {
		return strings.HasPrefix(worker, begin)
	}
	return t.Worker == "" || t.Worker == worker
}

// ForWorker makes a worker's token good for one worker, or, with a '*' behind
// it, for those whose names begin so. "" is any.
func ForWorker(name string) func(*Token) error {
	return func(t *Token) error {
		switch {
		case name == "":
		case t.Role != Worker:
			return fmt.Errorf("a %s's token enrols no worker: give role %s with worker %q", t.Role, Worker, name)
		case !goodName(strings.TrimSuffix(name, "*")):
			return fmt.Errorf("worker %q: want 1 to %d letters, digits, '.', '-' or '_', and perhaps a '*' behind them", name, maxName)
		}
		t.Worker = name
		return nil
	}
}

// goodName reports whether a name of a token or a worker is one.
func goodName(s string) bool {
	return s != "" && len(s) <= maxName && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == ""
}

func (t *Token) expired(now time.Time) bool { return t.ExpiresAt != nil && !now.Before(*t.ExpiresAt) }

// find returns the token that text is. The id in it only finds the line; the
// comparison takes the same time whatever text is.
func (k *Keys) find(text string) (Token, bool) {
	rest, ours := strings.CutPrefix(text, tokenPrefix)
	all := k.tokens.Load()
	if !ours || all == nil {
		return Token{}, false
	}
	_, rest, _ = strings.Cut(rest, "_")
	id, _, _ := strings.Cut(rest, "_")
	t, known := (*all)[id]
	got := sha256.Sum256([]byte(text))
	if subtle.ConstantTimeCompare(t.sum[:], got[:]) != 1 || !known || t.expired(k.now()) {
		return Token{}, false
	}
	return t, true
}

// standing returns a token by its id, if it was neither revoked nor has expired.
func (k *Keys) standing(id string) (Token, bool) {
	if id == fleetID {
		return fleetToken, true
	}
	all := k.tokens.Load()
	if all == nil {
		return Token{}, false
	}
	t, ok := (*all)[id]
	return t, ok && !t.expired(k.now())
}

func readTokens(name string) ([]Token, error) {
	b, err := read(name)
	if err != nil {
		return nil, err
	}
	var f tokenFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(f.Tokens) > maxTokens {
		return nil, fmt.Errorf("%s: %d tokens, %d are the most", name, len(f.Tokens), maxTokens)
	}
	seen := map[string]bool{}
	for i, t := range f.Tokens {
		sum, err := hex.DecodeString(t.SHA256)
		if err != nil || len(sum) != sha256.Size || t.ID == "" || seen[t.ID] || !slices.Contains(Roles, t.Role) {
			return nil, fmt.Errorf("%s: token %d is not whole: an id of its own, a role of %s and a sha256", name, i+1, strings.Join(Roles, ", "))
		}
		seen[t.ID] = true
		f.Tokens[i].sum = [sha256.Size]byte(sum)
	}
	return f.Tokens, nil
}

func writeTokens(name string, list []Token) error {
	b, err := json.MarshalIndent(tokenFile{list}, "", "  ")
	if err != nil {
		return err
	}
	return replace(name, append(b, '\n'))
}

// folders returns the nodes' folders below dir, which is what init made or one
// node's own folder.
func folders(dir string) ([]string, error) {
	if _, err := os.Stat(filepath.Join(dir, TokensFile)); err == nil {
		return []string{dir}, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(dir, e.Name(), CertFile)); e.IsDir() && err == nil {
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s: no %s in it, nor in a folder of it; give what 'workmanager init --out' made", dir, TokensFile)
	}
	return found, nil
}

// ListTokens returns the tokens of the folders below dir, the oldest first.
// missing are the folders that do not have a token that another has.
func ListTokens(dir string) (all []Token, missing map[string][]string, err error) {
	in, err := folders(dir)
	if err != nil {
		return nil, nil, err
	}
	has := map[string]map[string]bool{}
	for _, f := range in {
		list, err := readTokens(filepath.Join(f, TokensFile))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
		for _, t := range list {
			if has[t.ID] == nil {
				has[t.ID] = map[string]bool{}
				all = append(all, t)
			}
			has[t.ID][f] = true
		}
	}
	missing = map[string][]string{}
	for _, t := range all {
		for _, f := range in {
			if !has[t.ID][f] {
				missing[t.ID] = append(missing[t.ID], f)
			}
		}
	}
	slices.SortFunc(all, func(a, b Token) int { return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID)) })
	return all, missing, nil
}

// CreateToken makes a token and enters it into the folders below dir. The text
// is given out here and never again.
func CreateToken(dir, role, name string, ttl time.Duration, now time.Time, more ...func(*Token) error) (Token, string, error) {
	t, text, err := newToken(role, name, ttl, now)
	for _, set := range more {
		if err == nil {
			err = set(&t)
		}
	}
	if err != nil {
		return Token{}, "", err
	}
	return t, text, change(dir, func(list []Token) ([]Token, error) {
		if len(list) >= maxTokens {
			return nil, fmt.Errorf("%d tokens are the most; revoke some", maxTokens)
		}
		return append(list, t), nil
	})
}

// ErrNoToken says that there is no token of that id.
var ErrNoToken = errors.New("no such token")

// RevokeToken takes a token out of the folders below dir.
func RevokeToken(dir, id string) error {
	found := false
	err := change(dir, func(list []Token) ([]Token, error) {
		return slices.DeleteFunc(list, func(t Token) bool { found = found || t.ID == id; return t.ID == id }), nil
	})
	if err == nil && !found {
		return fmt.Errorf("%w: %s", ErrNoToken, id)
	}
	return err
}

// change rewrites the tokens of every folder below dir.
func change(dir string, f func([]Token) ([]Token, error)) error {
	in, err := folders(dir)
	if err != nil {
		return err
	}
	for _, folder := range in {
		name := filepath.Join(folder, TokensFile)
		list, err := readTokens(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if list, err = f(list); err != nil {
			return err
		}
		if err := writeTokens(name, list); err != nil {
			return err
		}
	}
	return nil
}
