// Package receipt makes and checks receipts: what a node states of a completed
// job, signed with its Ed25519 key. Anybody can check one offline, with the
// node's public key. It proves who said so, and not that it is right: that takes
// the data and a recomputation.
//
// What is signed are the canonical bytes, which anybody can make from the fields
// of a receipt: these lines, each ended by a line feed, every one there and in
// this order, with one blank behind the word.
//
//	workmanager receipt 1
//	job 0193a2c4-7e21-7c3e-9b1a-5d2f60c4e801
//	v1 <128 hexadecimal digits, lower case>
//	iterations <decimal>
//	value <128 hexadecimal digits, lower case>
//	checkpoints <decimal>
//	checkpoints_digest <64 hexadecimal digits, lower case>
//	created_at 2026-11-25T14:22:01.123456Z
//	finished_at 2026-11-25T14:22:01.125004Z
//	node <name>
//	worker <name, or nothing where it is not known>
//
// The instants are UTC with six digits behind the second. A name is UTF-8
// without control characters. checkpoints_digest is SHA-256 over the job's kept
// checkpoints in their order, of each the iterations done as 8 bytes, big endian,
// and then the 64 bytes of its value; v1 and the value are not among them. They
// are few enough to be handed over whole, so a plain digest does, and no tree is
// needed.
package receipt

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"workmanager/jobs"
)

// Receipt is what is stated of a completed job.
type Receipt struct {
	Job         jobs.ID
	V1          jobs.Value
	Iterations  uint64
	Value       jobs.Value
	Checkpoints int      // kept ones, without v1 and the value
	Digest      [32]byte // over them
	CreatedAt   time.Time
	FinishedAt  time.Time
	Node        string // that signed
	Worker      string // that reported the value, "" if it is not known
}

// Signed is a receipt with its signature and the key that belongs to it.
type Signed struct {
	Receipt
	PublicKey [ed25519.PublicKeySize]byte
	Signature [ed25519.SignatureSize]byte
}

const (
	title   = "workmanager receipt 1"
	version = 1
	layout  = "2006-01-02T15:04:05.000000Z"
	maxName = 255
	// MaxBytes bounds a receipt as JSON, several times over.
	MaxBytes = 16 << 10
)

// Of returns the receipt of a job. The error says why there is none: the job is
// not completed, or was erased.
func Of(j jobs.Job, node string) (Receipt, error) {
	if j.Purged {
		return Receipt{}, jobs.Errorf(jobs.CodeNotCompleted, "job %s was purged: its value is erased, and there is no receipt for it", j.ID)
	}
	if j.Rank != jobs.Completed {
		return Receipt{}, jobs.Errorf(jobs.CodeNotCompleted, "job %s is not completed: there is a receipt when it has a value", j.ID)
	}
	ladder := j.Ladder()
	kept := ladder[1 : 1+j.Rungs.Len()]
	return Receipt{
		Job: j.ID, V1: j.V1, Iterations: j.Iterations, Value: j.Result, Checkpoints: len(kept), Digest: Digest(kept),
		CreatedAt: j.CreatedAt.UTC(), FinishedAt: j.DoneAt.UTC(), Node: node,
	}, nil
}

// Digest returns the digest over kept checkpoints.
func Digest(kept []jobs.Progress) (sum [32]byte) {
	h := sha256.New()
	var at [8]byte
	for _, p := range kept {
		binary.BigEndian.PutUint64(at[:], p.Done)
		h.Write(at[:]) // never fails
		h.Write(p.Value[:])
	}
	h.Sum(sum[:0])
	return sum
}

// Canonical returns the bytes that are signed.
func (r Receipt) Canonical() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\njob %s\nv1 %s\niterations %d\nvalue %s\ncheckpoints %d\ncheckpoints_digest %x\ncreated_at %s\nfinished_at %s\nnode %s\nworker %s\n",
		title, r.Job, r.V1, r.Iterations, r.Value, r.Checkpoints, r.Digest, r.CreatedAt.UTC().Format(layout), r.FinishedAt.UTC().Format(layout), r.Node, r.Worker)
	return b.Bytes()
}

// check refuses a receipt whose canonical bytes could be read in two ways, or
// that no job has.
func (r Receipt) check() error {
	if err := checkName("node", r.Node); err != nil {
		return err
	}
	if err := checkName("worker", r.Worker); err != nil {
		return err
	}
	switch {
	case r.Node == "":
		return errors.New("node: is missing")
	case jobs.CheckIterations(r.Iterations) != nil:
		return fmt.Errorf("iterations: %d is not from 1 to %d (2^53)", r.Iterations, uint64(jobs.MaxIterations))
	case r.Checkpoints < 0 || r.Checkpoints > jobs.MaxKeep:
		return fmt.Errorf("checkpoints: %d is not from 0 to %d", r.Checkpoints, jobs.MaxKeep)
	}
	for name, at := range map[string]time.Time{"created_at": r.CreatedAt, "finished_at": r.FinishedAt} {
		if y := at.UTC().Year(); y < 1 || y > 9999 {
			return fmt.Errorf("%s: is not in the years 1 to 9999", name)
		}
	}
	return nil
}

func checkName(what, s string) error {
	switch {
	case len(s) > maxName:
		return fmt.Errorf("%s: has %d bytes, at most %d", what, len(s), maxName)
	case !utf8.ValidString(s):
		return fmt.Errorf("%s: is not UTF-8", what)
	case strings.ContainsFunc(s, unicode.IsControl):
		return fmt.Errorf("%s: has a control character", what)
	}
	return nil
}

// Sign signs a receipt.
func (r Receipt) Sign(key ed25519.PrivateKey) (Signed, error) {
	if err := r.check(); err != nil {
		return Signed{}, fmt.Errorf("sign a receipt: %w", err)
	}
	s := Signed{Receipt: r}
	copy(s.PublicKey[:], key.Public().(ed25519.PublicKey)) //nolint:forcetypeassert // as crypto/ed25519 says
	copy(s.Signature[:], ed25519.Sign(key, r.Canonical()))
	return s, nil
}

// ErrSignature says that a receipt was not signed with the key that it names,
// or was changed afterwards.
var ErrSignature = errors.New("the signature is not that of this receipt by this key")

// Check returns ErrSignature unless the receipt is as the owner of its public key
// signed it. Whose key that is the caller must know.
func (s Signed) Check() error {
	if !ed25519.Verify(s.PublicKey[:], s.Canonical(), s.Signature[:]) {
		return ErrSignature
	}
	return nil
}

// wire is a signed receipt as JSON.
type wire struct {
	Version     int    `json:"version"`
	Job         string `json:"job"`
	V1          string `json:"v1"`
	Iterations  uint64 `json:"iterations"`
	Value       string `json:"value"`
	Checkpoints int    `json:"checkpoints"`
	Digest      string `json:"checkpoints_digest"`
	CreatedAt   string `json:"created_at"`
	FinishedAt  string `json:"finished_at"`
	Node        string `json:"node"`
	Worker      string `json:"worker,omitempty"`
	PublicKey   string `json:"public_key"`
	Signature   string `json:"signature"`
}

// MarshalJSON writes every field as the canonical bytes have it, and the key and
// the signature as hexadecimal digits.
func (s Signed) MarshalJSON() ([]byte, error) {
	return json.Marshal(wire{
		Version: version, Job: s.Job.String(), V1: s.V1.String(), Iterations: s.Iterations, Value: s.Value.String(),
		Checkpoints: s.Checkpoints, Digest: hex.EncodeToString(s.Digest[:]),
		CreatedAt: s.CreatedAt.UTC().Format(layout), FinishedAt: s.FinishedAt.UTC().Format(layout), Node: s.Node, Worker: s.Worker,
		PublicKey: hex.EncodeToString(s.PublicKey[:]), Signature: hex.EncodeToString(s.Signature[:]),
	})
}

// UnmarshalJSON reads a receipt and is strict: what it does not know, or what the
// canonical bytes would have another way, is refused, since the signature does
// not cover it. It does not check the signature.
func (s *Signed) UnmarshalJSON(text []byte) error {
	if len(text) > MaxBytes {
		return fmt.Errorf("receipt: has %d bytes, at most %d", len(text), MaxBytes)
	}
	var w wire
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		return fmt.Errorf("receipt: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("receipt: something follows it")
	}
	r, err := w.receipt()
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return fmt.Errorf("receipt: %w", err)
	}
	*s = r
	return nil
}

func (w *wire) receipt() (s Signed, err error) {
	if w.Version != version {
		return s, fmt.Errorf("version: %d is not %d, the only one that this release knows", w.Version, version)
	}
	if s.Job, err = jobs.ParseID(w.Job); err != nil || s.Job.String() != w.Job {
		return s, fmt.Errorf("job: %q is no job ID", w.Job)
	}
	for _, f := range []struct {
		name, text string
		to         []byte
	}{
		{"v1", w.V1, s.V1[:]}, {"value", w.Value, s.Value[:]}, {"checkpoints_digest", w.Digest, s.Digest[:]},
		{"public_key", w.PublicKey, s.PublicKey[:]}, {"signature", w.Signature, s.Signature[:]},
	} {
		b, err := hex.DecodeString(f.text)
		if err != nil || len(b) != len(f.to) || f.text != strings.ToLower(f.text) {
			return s, fmt.Errorf("%s: is not %d lower-case hexadecimal digits", f.name, 2*len(f.to))
		}
		copy(f.to, b)
	}
	for _, f := range []struct {
		name, text string
		to         *time.Time
	}{{"created_at", w.CreatedAt, &s.CreatedAt}, {"finished_at", w.FinishedAt, &s.FinishedAt}} {
		at, err := time.Parse(layout, f.text)
		if err != nil || at.Format(layout) != f.text {
			return s, fmt.Errorf("%s: %s is no instant such as %s", f.name, strconv.Quote(f.text), layout)
		}
		*f.to = at
	}
	s.Iterations, s.Checkpoints, s.Node, s.Worker = w.Iterations, w.Checkpoints, w.Node, w.Worker
	return s, nil
}
