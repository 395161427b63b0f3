package e2e

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"workmanager/web/api"
)

// TestRetention shows that ended jobs go after their time and open ones stay.
func TestRetention(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, dir, nil, "--workers", "1", "--retention", "1s")
	open := n.enqueue("without an end", 1_000_000_000_000)
	cancelled := n.enqueue("to be cancelled", 1_000_000_000_000)
	var done api.Job // as it is answered: a second later it may have gone
	decode(t, n.must(http.StatusCreated, "POST", "/v1/jobs", strings.NewReader(`{"data":"aGVsbG8=","iterations":1}`), "Content-Type", "application/json"), &done)
	if done.State != "completed" || done.Value != chain("hello", 1) {
		t.Errorf("a job just ended: got %+v, want completed", done)
	}
	begin := time.Now()
	n.must(http.StatusOK, "DELETE", "/v1/jobs/"+cancelled, nil)
	for _, id := range []string{done.ID, cancelled} {
		poll(t, 20*time.Second, "job "+id+" goes", func() string {
			r, err := n.ask("GET", "/v1/jobs/"+id, nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.status == http.StatusOK {
				return r.String()
			}
			if p := problem(t, r); r.status != http.StatusNotFound || !strings.Contains(p.Detail, "retention") {
				t.Errorf("a job that went: got %v, want 404 that names retention", r)
			}
			return ""
		})
	}
	if took := time.Since(begin); took < 500*time.Millisecond {
		t.Errorf("ended jobs went after %v, want about 1s", took)
	}
	if list, _ := n.results(""); len(list) != 0 {
		t.Errorf("results: got %v, want none", list)
	}
	if j := n.job(open); j.State != "leased" && j.State != "queued" {
		t.Errorf("the open job: got %+v", j)
	}
	s := n.status()
	if s.RetentionSecs != 1 || s.Completed != 0 || s.Cancelled != 0 || s.Queued+s.Leased != 1 {
		t.Errorf("status: got %+v, want 1 s, 1 open job and no other", s)
	}
	n.kill()
	n = start(t, dir, nil, "--workers", "0", "--retention", "1s")
	if j := n.job(open); j.State != "queued" {
		t.Errorf("the open job after a restart: got %+v", j)
	}
	n.stop()
}

// TestPurge shows that the bytes of a purged job are in no file of the node,
// while it runs, after it was stopped, and after it was killed.
func TestPurge(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"stop", "kill"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			n := start(t, dir, nil, "--workers", "1", "--checkpoint-interval", "100ms")
			type purged struct{ id, data, v1, value string }
			var all []purged
			for i := range 300 { // enough for rows to move between pages
				data := fmt.Sprintf("secret %d", i)
				all = append(all, purged{n.enqueue(data, 50), data, chain(data, 1), chain(data, 50)})
			}
			n.idle(60 * time.Second)
			found := func(p purged) []string {
				return append(grep(t, dir, p.v1, p.data), grep(t, dir, p.value, "")...)
			}
			victims := []purged{all[0], all[150], all[299]}
			for _, p := range victims {
				if places := found(p); len(places) < 2 {
					t.Fatalf("v1 and value of a job that is kept are only in %v: this test would find nothing", places)
				}
			}
			for _, p := range victims {
				n.must(http.StatusOK, "DELETE", "/v1/jobs/"+p.id+"?purge=true", nil)
			}
			gone := func(when string) {
				t.Helper()
				for _, p := range victims {
					if places := found(p); len(places) > 0 {
						t.Errorf("%s: bytes of the purged job %s are in %v", when, p.id, places)
					}
				}
				if places := found(all[1]); len(places) < 2 {
					t.Errorf("%s: another job is only in %v", when, places)
				}
			}
			gone("after the answer")
			j := n.job(victims[0].id)
			if !j.Purged || j.Value != "" {
				t.Errorf("a purged job: got %+v, want purged without value", j)
			}
			if list, _ := n.results(""); len(list) != len(all)-len(victims) {
				t.Errorf("results: got %d, want %d", len(list), len(all)-len(victims))
			}
			if end == "stop" {
				n.stop()
			} else {
				n.kill()
			}
			gone("after " + end)
			if log := n.log.String(); strings.Contains(log, victims[0].value[:32]) || strings.Contains(log, victims[0].v1[:32]) {
				t.Error("the log has a value in it")
			}
			n = start(t, dir, nil, "--workers", "1")
			n.completed(all[1].id, all[1].value)
			gone("after the next start")
			n.stop()
		})
	}
}

// grep returns the files below dir that hold half of a value or more, raw or as
// hexadecimal, or the text if it is not empty. Data must never be there at all.
func grep(t testing.TB, dir, value, text string) []string {
	t.Helper()
	raw, err := hex.DecodeString(value)
	if err != nil || len(raw) != sha512.Size {
		t.Fatalf("%q is no value", value)
	}
	var in []string
	err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if bytes.Contains(b, raw[:32]) || bytes.Contains(b, raw[32:]) || bytes.Contains(b, []byte(value[:64])) || bytes.Contains(b, []byte(value[64:])) {
			in = append(in, filepath.Base(name))
		}
		if text != "" && bytes.Contains(b, []byte(text)) {
			t.Errorf("%s holds the data of a job", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// TestCache shows that work done before is answered at once, also after a
// restart, and that it is not with the cache off.
func TestCache(t *testing.T) {
	t.Parallel()
	iterations := lasting(600 * time.Millisecond)
	want := chain("work done twice", iterations)
	dir := t.TempDir()
	n := start(t, dir, nil, "--workers", "1")
	n.completed(n.enqueue("work done twice", iterations), want)
	again := func(n *node) string {
		t.Helper()
		id := n.enqueue("work done twice", iterations)
		j := n.job(id)
		if j.State == "completed" && (j.Value != want || j.Done != iterations) {
			t.Errorf("got %+v, want value %s", j, want)
		}
		return j.State
	}
	if got := again(n); got != "completed" {
		t.Errorf("the same work again: got %s, want completed at once", got)
	}
	if s := n.status().Cache; !s.Enabled || s.Hits != 1 || s.Entries != 1 {
		t.Errorf("status of the cache: got %+v, want 1 hit and 1 entry", s)
	}
	n.completed(n.enqueue("work done twice", iterations-1), chain("work done twice", iterations-1)) // other work
	n.stop()

	n = start(t, dir, nil, "--workers", "0")
	poll(t, 10*time.Second, "the cache is warm after a restart", func() string {
		if again(n) != "completed" {
			return fmt.Sprintf("%+v", n.status().Cache)
		}
		return ""
	})
	n.stop()

	n = start(t, dir, nil, "--workers", "1", "--cache", "0")
	n.completed(n.enqueue("work done twice", iterations), want) // so that a cache would know it
	if got := again(n); got == "completed" {
		t.Errorf("the same work with the cache off: got %s at once", got)
	}
	n.idle(60 * time.Second)
	if s := n.status().Cache; s.Enabled || s.Hits != 0 {
		t.Errorf("status of the cache: got %+v, want it off", s)
	}
	n.stop()
}
