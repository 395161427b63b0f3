package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// A backup is one file: the database as SQLite reads it, and behind it one line
// with what is in it and the SHA-256 of all before that sum. So a file that is
// cut, lengthened or changed anywhere is told from a whole one.

const (
	backupMark = "workmanager backup 1 "
	// backupLine bounds the line.
	backupLine = 4096
	// partName is what a restored database is called until it is whole.
	partName = "restore.part"
)

// BackupInfo says what is in a backup.
type BackupInfo struct {
	Node    string    `json:"node"`
	MadeAt  time.Time `json:"made_at"`
	Schema  int       `json:"schema"`
	Jobs    int64     `json:"jobs"`
	Open    int64     `json:"open"`
	Results int64     `json:"results"`
	Bytes   int64     `json:"bytes"` // of the database
	SHA256  string    `json:"-"`
}

// Backup writes a copy of the database in dir to out, which must not be there,
// and returns what is in it. The node may run meanwhile, and writes go on: the
// copy is the database at the moment at which it began. While it is made the log
// cannot shrink. Purged jobs that are not in the database any more are not in
// the copy either. Memory is bounded by SQLite's cache.
func Backup(ctx context.Context, dir, out string, now time.Time) (BackupInfo, error) {
	if err := processOnce(); err != nil {
		return BackupInfo{}, err
	}
	source := filepath.Join(dir, fileName)
	if fi, err := os.Stat(source); err != nil || fi.Size() == 0 {
		return BackupInfo{}, fmt.Errorf("back up: there is no database in %s; is it the --data-dir of a node?", dir)
	}
	if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = errors.New("it is there already, and a backup is never written over")
		}
		return BackupInfo{}, fmt.Errorf("back up to %s: %w", out, err)
	}
	out, err := filepath.Abs(out)
	if err != nil {
		return BackupInfo{}, fmt.Errorf("back up: %w", err)
	}
	part, err := os.CreateTemp(filepath.Dir(out), filepath.Base(out)+".part-*") // 0600
	if err != nil {
		return BackupInfo{}, fmt.Errorf("back up: %w", err)
	}
	defer func() {
		_ = part.Close()           // closed before, but for an error
		_ = os.Remove(part.Name()) // renamed before, but for an error
	}()
	info := BackupInfo{MadeAt: now.UTC().Truncate(time.Second)}
	if err := copyDatabase(ctx, source, part.Name()); err != nil {
		return BackupInfo{}, err
	}
	if err := info.read(ctx, part.Name(), "quick_check"); err != nil {
		return BackupInfo{}, fmt.Errorf("back up: the copy is not sound: %w", err)
	}
	h := sha256.New()
	if info.Bytes, err = io.Copy(h, contextReader{ctx, part}); err != nil {
		return BackupInfo{}, fmt.Errorf("back up: read the copy: %w", err)
	}
	if _, err := part.Write(info.seal(h)); err != nil {
		return BackupInfo{}, fmt.Errorf("back up: %w", err)
	}
	if err := errors.Join(part.Sync(), part.Close()); err != nil {
		return BackupInfo{}, fmt.Errorf("back up: %w", err)
	}
	if err := os.Rename(part.Name(), out); err != nil {
		return BackupInfo{}, fmt.Errorf("back up: %w", err)
	}
	if err := syncDir(filepath.Dir(out)); err != nil {
		return BackupInfo{}, fmt.Errorf("back up: %w", err)
	}
	return info, nil
}

func copyDatabase(ctx context.Context, source, to string) error {
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: source}).EscapedPath()+"?mode=ro&_pragma=busy_timeout(5000)&_pragma=cache_size(-8192)")
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", to); err != nil {
		return fmt.Errorf("back up %s: %w", source, err)
	}
	return nil
}

// read reads what is in a copy that nobody writes, after SQLite's check of it.
func (b *BackupInfo) read(ctx context.Context, path, check string) error {
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?mode=ro&immutable=1&_pragma=cache_size(-8192)")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	ask := func(query string, to any) {
		if err == nil {
			if err = db.QueryRowContext(ctx, query).Scan(to); err != nil {
				err = fmt.Errorf("%s: %w", query, err)
			}
		}
	}
	var said string
	ask("PRAGMA "+check+"(1)", &said)
	if err == nil && said != "ok" {
		err = fmt.Errorf("%s: %s", check, said)
	}
	ask("PRAGMA user_version", &b.Schema)
	ask("SELECT v FROM meta WHERE k = 'node'", &b.Node)
	ask("SELECT count(*) FROM jobs", &b.Jobs)
	ask("SELECT coalesce(sum(open), 0) FROM counts", &b.Open)
	ask("SELECT coalesce(sum(completed), 0) FROM counts", &b.Results)
	return err
}

// seal returns the last line; h has hashed what stands before it.
func (b *BackupInfo) seal(h hash.Hash) []byte {
	text, err := json.Marshal(b)
	if err != nil {
		panic("store: what is in a backup cannot be encoded: " + err.Error())
	}
	line := append([]byte("\n"+backupMark), text...)
	h.Write(line)
	b.SHA256 = hex.EncodeToString(h.Sum(nil))
	return append(line, " "+b.SHA256+"\n"...)
}

var backupTail = regexp.MustCompile(`\n` + backupMark + `(\{[^\n]*\}) ([0-9a-f]{64})\n$`)

// openBackup reads the last line of a backup.
func openBackup(file string) (f *os.File, info BackupInfo, line []byte, err error) {
	bad := func(why string) (*os.File, BackupInfo, []byte, error) {
		if f != nil {
			_ = f.Close() // it was only read
		}
		return nil, BackupInfo{}, nil, fmt.Errorf("%s is no whole backup: %s", file, why)
	}
	if f, err = os.Open(file); err != nil {
		return nil, BackupInfo{}, nil, fmt.Errorf("open the backup: %w", err)
	}
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return bad("it is no file")
	}
	tail := make([]byte, min(backupLine, fi.Size()))
	if _, err := f.ReadAt(tail, fi.Size()-int64(len(tail))); err != nil {
		return bad(err.Error())
	}
	m := backupTail.FindSubmatchIndex(tail)
	if m == nil {
		return bad("its last line, which says what is in it, is missing: it was cut, or is something else")
	}
	d := json.NewDecoder(bytes.NewReader(tail[m[2]:m[3]]))
	if err := d.Decode(&info); err != nil {
		return bad("its last line cannot be read")
	}
	info.SHA256 = string(tail[m[4]:m[5]])
	line = tail[m[0]:m[3]]
	if want := info.Bytes + int64(len(line)) + int64(len(" \n")+len(info.SHA256)); fi.Size() != want {
		return bad(fmt.Sprintf("it has %d bytes, and says it has %d", fi.Size(), want))
	}
	return f, info, line, nil
}

// unpack copies the database of a backup to w and checks the sum of it all.
func unpack(ctx context.Context, f *os.File, info BackupInfo, line []byte, w io.Writer) error {
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(h, w), io.LimitReader(contextReader{ctx, f}, info.Bytes))
	if err != nil {
		return fmt.Errorf("copy the database out of %s: %w", f.Name(), err)
	}
	h.Write(line)
	if got := hex.EncodeToString(h.Sum(nil)); n != info.Bytes || got != info.SHA256 {
		return fmt.Errorf("%s is damaged: its SHA-256 is %s and should be %s", f.Name(), got, info.SHA256)
	}
	return nil
}

// CheckBackup reads a backup whole, and has SQLite check the database in it. It
// needs room for a copy of it beside the file.
func CheckBackup(ctx context.Context, file string) (BackupInfo, error) {
	dir, err := os.MkdirTemp(filepath.Dir(file), ".workmanager-check-*")
	if err != nil {
		return BackupInfo{}, fmt.Errorf("check the backup: %w", err)
	}
	defer os.RemoveAll(dir)
	return Restore(ctx, file, filepath.Join(dir, "data"))
}

// Restore makes the data directory dir from a backup. dir must be empty or not
// there; nothing is in it but a whole database when Restore has returned without
// an error. A node that starts there has a new boot, by which its peer notices
// that it is behind: both read each other's jobs anew.
func Restore(ctx context.Context, file, dir string) (BackupInfo, error) {
	if err := processOnce(); err != nil {
		return BackupInfo{}, err
	}
	f, info, line, err := openBackup(file)
	if err != nil {
		return BackupInfo{}, err
	}
	defer f.Close()
	if info.Schema > len(migrations) {
		return BackupInfo{}, fmt.Errorf("%s has schema %d, this release knows up to %d: take the release that made it, or a newer one", file, info.Schema, len(migrations))
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return BackupInfo{}, fmt.Errorf("restore: %w", err)
	}
	for _, e := range entries {
		if e.Name() != partName && e.Name() != lockName { // of a restore that was interrupted
			return BackupInfo{}, fmt.Errorf("restore into %s: it is not empty (%s): give a new folder, and move the old one away when the node runs", dir, e.Name())
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return BackupInfo{}, fmt.Errorf("restore: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return BackupInfo{}, err
	}
	defer lock.Close()
	path := filepath.Join(dir, partName)
	part, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return BackupInfo{}, fmt.Errorf("restore: %w", err)
	}
	defer part.Close()
	done := false
	defer func() {
		if !done {
			_ = os.Remove(path) // of no use
		}
	}()
	if err := unpack(ctx, f, info, line, part); err != nil {
		return BackupInfo{}, err
	}
	if err := errors.Join(part.Sync(), part.Close()); err != nil {
		return BackupInfo{}, fmt.Errorf("restore: %w", err)
	}
	has := info
	if err := has.read(ctx, path, "integrity_check"); err != nil {
		return BackupInfo{}, fmt.Errorf("the database in %s is not sound: %w", file, err)
	}
	if has != info {
		return BackupInfo{}, fmt.Errorf("the database in %s is another one than it says: %+v, %+v", file, has, info)
	}
	if err := os.Rename(path, filepath.Join(dir, fileName)); err != nil {
		return BackupInfo{}, fmt.Errorf("restore: %w", err)
	}
	done = true
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := syncDir(d); err != nil {
			return BackupInfo{}, fmt.Errorf("restore: %w", err)
		}
	}
	return info, nil
}

// BackupName is what a backup in a folder of them is called; by name they sort by
// age.
func BackupName(node string, now time.Time) string {
	return "workmanager-" + node + "-" + now.UTC().Format("20060102T150405Z") + ".backup"
}

var (
	backupNames = regexp.MustCompile(`^workmanager-.*-\d{8}T\d{6}Z\.backup$`)
	backupParts = regexp.MustCompile(`^workmanager-.*-\d{8}T\d{6}Z\.backup\.part-\d+$`)
)

// KeepBackups deletes the oldest backups of a folder until keep of them are left,
// and what is left of ones that were interrupted a day ago. It returns what it
// has deleted.
func KeepBackups(folder string, keep int, now time.Time) (deleted []string, err error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("delete old backups: %w", err)
	}
	var have []string
	for _, e := range entries {
		switch {
		case backupNames.MatchString(e.Name()):
			have = append(have, e.Name())
		case backupParts.MatchString(e.Name()):
			if fi, err := e.Info(); err == nil && now.Sub(fi.ModTime()) > 24*time.Hour {
				deleted = append(deleted, e.Name())
			}
		}
	}
	stamp := func(name string) string { return name[len(name)-len("20060102T150405Z.backup"):] }
	slices.SortFunc(have, func(a, b string) int { return bytes.Compare([]byte(stamp(a)), []byte(stamp(b))) })
	if keep < len(have) {
		deleted = append(deleted, have[:len(have)-keep]...)
	}
	for _, name := range deleted {
		if err := os.Remove(filepath.Join(folder, name)); err != nil {
			return nil, fmt.Errorf("delete old backups: %w", err)
		}
	}
	return deleted, nil
}

// NodeOf returns the name of the node whose database is in dir.
func NodeOf(ctx context.Context, dir string) (name string, err error) {
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: filepath.Join(dir, fileName)}).EscapedPath()+"?mode=ro&_pragma=busy_timeout(5000)")
	if err == nil {
		err = db.QueryRowContext(ctx, "SELECT v FROM meta WHERE k = 'node'").Scan(&name)
		_ = db.Close() // it was only read
	}
	if err != nil {
		return "", fmt.Errorf("there is no database of a node in %s: %w", dir, err)
	}
	return name, nil
}

// contextReader reads until its context is done.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
