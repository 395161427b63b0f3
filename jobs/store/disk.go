package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"workmanager/jobs"
)

// The room that new jobs leave to results, checkpoints and the log of SQLite:
// a fiftieth of the file system, and never more than maxReserve.
const (
	reserveShare = 50
	maxReserve   = 256 << 20
	// diskEvery is how long a look at the disk counts.
	diskEvery = 200 * time.Millisecond
)

// Disk is what the store takes and what is left.
type Disk struct {
	StoreBytes, WALBytes, FreeBytes int64
	// Full says why new jobs are refused, nil if they are not.
	Full error
	// Short says that it is the disk that has no room, not the limit.
	Short bool
}

// diskWatch looks at the disk at most once in diskEvery.
type diskWatch struct {
	dir   string
	limit int64        // Limits.StoreBytes
	spare func() int64 // bytes of the file that wait to be used again

	mu   sync.Mutex // guards the rest
	at   time.Time
	last Disk
}

// look returns how the disk stands.
func (d *diskWatch) look() Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); now.Sub(d.at) >= diskEvery || now.Before(d.at) {
		d.at, d.last = now, d.read()
	}
	return d.last
}

func (d *diskWatch) read() Disk {
	k := Disk{StoreBytes: size(d.dir, fileName), WALBytes: size(d.dir, fileName+"-wal")}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &fs); err != nil {
		return k // no reason to refuse: a write will tell
	}
	block := int64(fs.Bsize)
	k.FreeBytes = int64(fs.Bavail) * block
	reserve := min(int64(fs.Blocks)*block/reserveShare, maxReserve)
	switch {
	case k.FreeBytes < reserve:
		k.Short = true
		k.Full = jobs.Errorf(jobs.CodeDiskFull, "the disk is full: %d MiB are free and %d MiB are kept for results; free some space, reads go on meanwhile",
			k.FreeBytes>>20, (reserve+1<<20-1)>>20).Retry(retryFull)
	case d.limit > 0 && k.StoreBytes+k.WALBytes > d.limit && k.StoreBytes+k.WALBytes-d.spare() > d.limit:
		k.Full = jobs.Errorf(jobs.CodeDiskFull, "the database has reached its limit: it takes %d bytes, the limit is %d; raise --max-store-bytes, or wait for retention",
			k.StoreBytes+k.WALBytes, d.limit).Retry(retryFull)
	}
	return k
}

// syncDir makes the names in dir durable. Where a directory cannot be read or
// synced, that is left to the file system.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	if err := f.Sync(); errors.Is(err, syscall.EIO) {
		return err
	}
	return nil
}

// size returns a file's size by its name; opening it would endanger SQLite's locks.
func size(dir, name string) int64 {
	st, err := os.Stat(filepath.Join(dir, name))
	if err != nil {
		return 0
	}
	return st.Size()
}

// Disk returns what the store takes and what is left. It may be 0.2 s old.
func (s *Store) Disk() Disk { return s.disk.look() }

// spare returns the bytes of the database file that hold nothing: what retention
// drops leaves room in the file, which does not shrink.
func (s *Store) spare() int64 {
	var n int64
	if err := s.read.QueryRow("SELECT f.freelist_count * p.page_size FROM pragma_freelist_count AS f, pragma_page_size AS p").Scan(&n); err != nil {
		return 0 // the limit then holds a little early
	}
	return n
}

// lockDir takes the directory for this process until the file is closed.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			var pid [20]byte
			n, _ := f.ReadAt(pid[:], 0) // only for the message
			return nil, fmt.Errorf("%w: %s is held by process %s: stop that node, or give another --data-dir", ErrInUse, dir, pid[:n])
		}
		return nil, fmt.Errorf("lock data directory %s: %w", dir, err)
	}
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(f, "%d", os.Getpid()) // only for the message above
	}
	return f, nil
}
