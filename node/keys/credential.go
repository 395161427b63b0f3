package keys

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"maps"
	"math"
	"strings"
	"time"

	"workmanager/jobs"
)

// Credentials are signed, not stored: either node takes what the other gave, and
// a restart loses none. They end by themselves, and with the token that bought
// them.

const (
	// WorkerTTL is how long a worker's credential is good, SessionTTL how long a
	// login to the dashboard is.
	WorkerTTL  = time.Hour
	SessionTTL = 12 * time.Hour
	// InstanceTTL is how long the credential of an instance is good: it cannot be
	// revoked, and the instance shows again that it is one.
	InstanceTTL = 15 * time.Minute

	credentialPrefix = "wmc_"
	maxCredential    = 1024
	ticketBytes      = 16
)

// kind keeps a credential of one use from being taken for another.
type kind string

const (
	kindWorker   kind = "worker"
	kindInstance kind = "instance"
	kindSession  kind = "session"
)

// credential is what is signed.
type credential struct {
	Kind  kind   `json:"k"`
	Token string `json:"t"` // id of the token that bought it; "" of an instance
	Name  string `json:"n,omitempty"`
	Ends  int64  `json:"e"` // unix seconds
	Nonce string `json:"r"` // so that no two are alike
}

// Identify says whose token, or worker's credential, text is: its role and its
// name. The second result is false if it is nobody's.
func (k *Keys) Identify(text string) (role, name string, ok bool) {
	if len(text) > maxCredential {
		return "", "", false
	}
	if strings.HasPrefix(text, credentialPrefix) {
		if c, ok := k.open(kindPass, text); ok {
			return Worker, c.Name, true
		}
		if c, ok := k.open(kindInstance, text); ok {
			return Enrolled, c.Name, true
		}
		c, ok := k.open(kindWorker, text)
		if !ok {
			return "", "", false
		}
		if t, ok := k.standing(c.Token); !ok || t.Role != Worker {
			return "", "", false
		}
		return Enrolled, c.Name, true
	}
	t, ok := k.find(text)
	return t.Role, t.Name, ok
}

// Enrolled is the role of a worker that has shown its enrolment token and goes
// by a credential.
const Enrolled = "enrolled"

// Enrol exchanges an enrolment token for a credential of the worker of that
// name, good until ends. ok is false if the token is no worker's, is
// for another worker, or the name is none.
func (k *Keys) Enrol(token, worker string) (text string, ends time.Time, ok bool) {
	if c, ok := k.open(kindPass, token); ok {
		if c.Name != worker {
			return "", time.Time{}, false
		}
		return k.Admit(worker)
	}
	t, found := k.find(token)
	if !found || t.Role != Worker || !goodName(worker) || !t.Enrols(worker) {
		return "", time.Time{}, false
	}
	return k.sign(kindWorker, t, worker, WorkerTTL)
}

// EnrolInstance returns a credential of the worker on an instance, good until
// ends. Whether it is ours is for the caller to know. ok is false if the name is
// none, or there is nothing to sign with.
func (k *Keys) EnrolInstance(id string) (text string, ends time.Time, ok bool) {
	if !goodName(id) {
		return "", time.Time{}, false
	}
	return k.sign(kindInstance, Token{}, id, InstanceTTL)
}

// Login exchanges a client's or operator's token for a session of the dashboard.
func (k *Keys) Login(token string) (text string, ends time.Time, ok bool) {
	t, found := k.find(token)
	if !found || t.Role == Worker {
		return "", time.Time{}, false
	}
	return k.sign(kindSession, t, "", SessionTTL)
}

// Session says whose session text is.
func (k *Keys) Session(text string) (role, name string, ok bool) {
	c, ok := k.open(kindSession, text)
	if !ok || k.over(c) {
		return "", "", false
	}
	t, ok := k.standing(c.Token)
	if !ok || t.Role == Worker {
		return "", "", false
	}
	return t.Role, t.Name, true
}

// maxOver bounds how many logins that were ended are remembered, 100 bytes each.
const maxOver = 10_000

// Logout ends a session: at this node, and until it is started again. What is
// signed is good at both nodes without a word between them, so the other does
// not hear of it; a browser has given its cookie up, and shows it nowhere.
func (k *Keys) Logout(text string) {
	c, ok := k.open(kindSession, text)
	if !ok {
		return
	}
	k.ended.Lock()
	defer k.ended.Unlock()
	if k.ended.nonces == nil {
		k.ended.nonces = map[string]int64{}
	}
	if len(k.ended.nonces) >= maxOver {
		now, first, ends := k.now().Unix(), "", int64(math.MaxInt64)
		maps.DeleteFunc(k.ended.nonces, func(_ string, e int64) bool { return now >= e })
		for nonce, e := range k.ended.nonces {
			if e < ends {
				first, ends = nonce, e
			}
		}
		if len(k.ended.nonces) >= maxOver {
			delete(k.ended.nonces, first) // it would have ended first
		}
	}
	k.ended.nonces[c.Nonce] = c.Ends
}

func (k *Keys) over(c credential) bool {
	k.ended.Lock()
	defer k.ended.Unlock()
	_, over := k.ended.nonces[c.Nonce]
	return over
}

func (k *Keys) sign(what kind, t Token, name string, ttl time.Duration) (string, time.Time, bool) {
	ring := k.credential.Load()
	if ring == nil {
		return "", time.Time{}, false
	}
	var nonce [8]byte
	_, _ = rand.Read(nonce[:]) // never fails
	ends := k.now().Add(ttl).UTC().Truncate(time.Second)
	if t.ExpiresAt != nil && t.ExpiresAt.Before(ends) {
		ends = *t.ExpiresAt
	}
	payload, err := json.Marshal(credential{Kind: what, Token: t.ID, Name: name, Ends: ends.Unix(), Nonce: hex.EncodeToString(nonce[:])})
	if err != nil {
		panic("keys: a credential cannot be encoded: " + err.Error())
	}
	b64 := base64.RawURLEncoding
	return credentialPrefix + b64.EncodeToString(payload) + "." + b64.EncodeToString(mac((*ring)[0], "credential", payload)), ends, true
}

func (k *Keys) open(what kind, text string) (credential, bool) {
	rest, ours := strings.CutPrefix(text, credentialPrefix)
	head, tail, whole := strings.Cut(rest, ".")
	b64 := base64.RawURLEncoding.Strict()
	payload, err := b64.DecodeString(head)
	sum, err2 := b64.DecodeString(tail)
	if !ours || !whole || err != nil || err2 != nil || len(text) > maxCredential || !k.signed("credential", payload, sum) {
		return credential{}, false
	}
	var c credential
	if err := json.Unmarshal(payload, &c); err != nil || c.Kind != what || k.now().Unix() >= c.Ends {
		return credential{}, false
	}
	return c, true
}

// Ticket returns what a worker is given along with a lease of a job, and shows
// when it reports on it. It says that the worker has, or once had, that job: it
// does not end, since a late value is as right as any, and it is good at the
// other node, and after a restart.
func (k *Keys) Ticket(worker string, id jobs.ID) string {
	ring := k.credential.Load()
	if ring == nil {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(mac((*ring)[0], "lease", leaseOf(worker, id))[:ticketBytes])
}

// Leased reports whether the ticket is of that worker and that job.
func (k *Keys) Leased(worker string, id jobs.ID, ticket string) bool {
	sum, err := base64.RawURLEncoding.Strict().DecodeString(ticket)
	return err == nil && len(sum) == ticketBytes && k.signed("lease", leaseOf(worker, id), sum)
}

func leaseOf(worker string, id jobs.ID) []byte { return append(id[:], worker...) }

// signed reports whether sum is the beginning of b's signature by one of the
// keys. The caller has seen to the length of sum.
func (k *Keys) signed(use string, b, sum []byte) bool {
	ring := k.credential.Load()
	if ring == nil || len(sum) < ticketBytes {
		return false
	}
	good := false
	for _, key := range *ring {
		want := mac(key, use, b)
		if use == "lease" {
			want = want[:ticketBytes]
		}
		good = hmac.Equal(want, sum) || good
	}
	return good
}

// mac signs b for one use, so that nothing signed for another is taken for it.
func mac(key []byte, use string, b []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("workmanager " + use + "\x00"))
	h.Write(b)
	return h.Sum(nil)
}
