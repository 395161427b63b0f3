package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"workmanager/jobs/store"
)

// TestBackup copies a database while it is written to: what was acknowledged
// before is in the copy, as it was, and what is in the copy is sound.
func TestBackup(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir, store.Options{DSN: "&_pragma=synchronous(OFF)"})
	if _, err := s.Enqueue(t.Context(), work(t, 20_000, 9)); err != nil {
		t.Fatal(err)
	}
	before := all(t, s)

	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	load.Go(func() {
		for ctx.Err() == nil {
			if _, err := s.Enqueue(context.WithoutCancel(ctx), work(t, 50, 9)); err != nil {
				t.Errorf("a write beside the backup: %v", err)
				return
			}
		}
	})
	file := filepath.Join(t.TempDir(), "copy")
	now := time.Date(2026, 11, 26, 5, 0, 0, 0, time.UTC)
	info, err := store.Backup(t.Context(), dir, file, now)
	stop()
	load.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the backup: %v, %v", fi, err)
	}
	if got := filesIn(t, filepath.Dir(file)); !slices.Equal(got, []string{"copy"}) {
		t.Errorf("beside the backup there is %v", got)
	}
	if info.Node != "a" || !info.MadeAt.Equal(now) || info.Jobs < 20_000 || info.Open != info.Jobs || info.Results != 0 {
		t.Errorf("it says %+v", info)
	}
	if after := all(t, s); int64(len(after)) < info.Jobs {
		t.Errorf("%d jobs in the copy, %d afterwards", info.Jobs, len(after))
	}
	checked, err := store.CheckBackup(t.Context(), file)
	if err != nil || checked != info {
		t.Errorf("CheckBackup() = %+v, %v; made was %+v", checked, err, info)
	}
	if got := filesIn(t, filepath.Dir(file)); !slices.Equal(got, []string{"copy"}) {
		t.Errorf("after the check there is %v", got)
	}

	to := filepath.Join(t.TempDir(), "data")
	restored, err := store.Restore(t.Context(), file, to)
	if err != nil || restored != info {
		t.Fatalf("Restore() = %+v, %v; made was %+v", restored, err, info)
	}
	r := openIn(t, to, store.Options{DSN: "&_pragma=synchronous(OFF)"})
	have := all(t, r)
	if int64(len(have)) != info.Jobs {
		t.Errorf("%d jobs restored, %d in the backup", len(have), info.Jobs)
	}
	for id, j := range before {
		if got, ok := have[id]; !ok || !got.Equal(j) {
			t.Fatalf("job %v: %v, restored %v", id, j, got)
		}
	}
	if r.Boot() == s.Boot() {
		t.Error("the restored node has the boot of the former")
	}
	if _, err := r.Enqueue(t.Context(), work(t, 10, 9)); err != nil {
		t.Error(err)
	}
}

// TestRestoreRefuses: nothing is made of a file that is not whole, or where
// something is.
func TestRestoreRefuses(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir, store.Options{DSN: "&_pragma=synchronous(OFF)"})
	if _, err := s.Enqueue(t.Context(), work(t, 100, 9)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "copy")
	if _, err := store.Backup(t.Context(), dir, file, time.Now()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.LastIndex(strings.TrimSuffix(string(whole), "\n"), "\n")
	flip := func(at int) []byte {
		b := slices.Clone(whole)
		b[at] ^= 1
		return b
	}
	for _, row := range []struct {
		name string
		b    []byte
		want string
	}{
		{"empty", nil, "no whole backup"},
		{"something_else", []byte("hello\n"), "no whole backup"},
		{"the_first_half", whole[:len(whole)/2], "it was cut"},
		{"all_but_the_last_byte", whole[:len(whole)-1], "it was cut"},
		{"a_page_missing", slices.Concat(whole[:4096], whole[8192:]), "bytes, and says it has"},
		{"a_bit_of_the_first_page", flip(200), "damaged"},
		{"a_bit_in_the_middle", flip(line / 2), "damaged"},
		{"another_node", []byte(strings.Replace(string(whole), `"node":"a"`, `"node":"b"`, 1)), "damaged"},
		{"another_time", []byte(strings.Replace(string(whole), `"made_at":"2`, `"made_at":"3`, 1)), "damaged"},
		{"more_behind_it", append(slices.Clone(whole), 'x'), "it was cut"},
	} {
		t.Run(row.name, func(t *testing.T) {
			bad, to := filepath.Join(t.TempDir(), "copy"), filepath.Join(t.TempDir(), "data")
			if err := os.WriteFile(bad, row.b, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := store.Restore(t.Context(), bad, to); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("Restore() = %v, want %q", err, row.want)
			}
			if _, err := os.Stat(filepath.Join(to, "workmanager.db")); err == nil {
				t.Error("there is a database")
			}
			if _, err := store.CheckBackup(t.Context(), bad); err == nil {
				t.Error("CheckBackup() finds nothing wrong")
			}
			if _, err := store.Restore(t.Context(), file, to); err != nil { // the folder is as good as new
				t.Errorf("a whole one afterwards: %v", err)
			}
		})
	}
	for name, to := range map[string]string{"in_use": dir, "not_empty": filepath.Dir(file)} {
		t.Run(name, func(t *testing.T) {
			was := filesIn(t, to)
			if _, err := store.Restore(t.Context(), file, to); err == nil || !strings.Contains(err.Error(), "not empty") {
				t.Errorf("Restore() = %v", err)
			}
			if got := filesIn(t, to); !slices.Equal(got, was) {
				t.Errorf("there is %v, was %v", got, was)
			}
		})
	}
	if len(all(t, s)) != 100 {
		t.Error("the database in use has changed")
	}
	for name, run := range map[string]func() error{
		"over_a_file":  func() error { _, err := store.Backup(t.Context(), dir, file, time.Now()); return err },
		"of_nothing":   func() error { _, err := store.Backup(t.Context(), t.TempDir(), file+"2", time.Now()); return err },
		"interrupted":  func() error { _, err := store.Backup(done(), dir, file+"3", time.Now()); return err },
		"cut_restore":  func() error { _, err := store.Restore(done(), file, filepath.Join(t.TempDir(), "x")); return err },
		"no_such_file": func() error { _, err := store.Restore(t.Context(), file+"4", t.TempDir()); return err },
	} {
		if err := run(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got := filesIn(t, filepath.Dir(file)); !slices.Equal(got, []string{"copy"}) {
		t.Errorf("left: %v", got)
	}
	if now, err := os.ReadFile(file); err != nil || string(now) != string(whole) {
		t.Error("the backup has changed", err)
	}
}

// TestBackupForgetsThePurged: what was purged before is not in the copy.
func TestBackupForgetsThePurged(t *testing.T) {
	dir := t.TempDir()
	s := openIn(t, dir, store.Options{DSN: "&_pragma=synchronous(OFF)"})
	batch := work(t, 50, 9)
	if _, err := s.Enqueue(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	var facts []store.Fact
	for _, sub := range batch[:25] {
		facts = append(facts, store.Fact{ID: sub.Job.ID, Apply: purge})
	}
	if _, err := s.Record(t.Context(), facts); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "copy")
	if _, err := store.Backup(t.Context(), dir, file, time.Now()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, sub := range batch {
		if has := strings.Contains(string(b), string(sub.Job.V1[:])); has != (i >= 25) {
			t.Errorf("v1 of job %d is in the copy: %v", i, has)
		}
	}
}

func TestKeepBackups(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 11, 26, 5, 0, 0, 0, time.UTC)
	var want []string
	for day := range 5 {
		name := store.BackupName("a", now.AddDate(0, 0, day))
		if day >= 2 {
			want = append(want, name)
		}
		touch(t, filepath.Join(dir, name), now)
	}
	mine := []string{"notes.txt", "workmanager-a.backup", store.BackupName("a", now) + ".part-7"}
	for _, name := range mine {
		touch(t, filepath.Join(dir, name), now)
	}
	old := store.BackupName("a", now) + ".part-8"
	touch(t, filepath.Join(dir, old), now.AddDate(0, 0, -2))
	deleted, err := store.KeepBackups(dir, 3, now)
	if err != nil || len(deleted) != 3 {
		t.Errorf("deleted %v, %v", deleted, err)
	}
	want = append(want, mine...)
	slices.Sort(want)
	if got := filesIn(t, dir); !slices.Equal(got, want) {
		t.Errorf("left %v, want %v", got, want)
	}
}

func touch(t *testing.T, name string, at time.Time) {
	t.Helper()
	if err := errors.Join(os.WriteFile(name, nil, 0o600), os.Chtimes(name, at, at)); err != nil {
		t.Fatal(err)
	}
}

func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "lock" {
			names = append(names, e.Name())
		}
	}
	return names
}

// done returns a context that is.
func done() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(fmt.Errorf("interrupted"))
	return ctx
}
