package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"

	"workmanager/jobs"
)

const (
	fileName = "workmanager.db"
	lockName = "lock"

	readers = 4
	// bootsKept bounds the boot chain; a cursor of an older boot starts again.
	bootsKept = 1000
	// retryFull is when a client that met a full disk should try again.
	retryFull = 10 * time.Second
)

// Options say how to open a store. Node is required.
type Options struct {
	// Node is the name of this node: origin and home of the rows it makes. A
	// store made for one node does not open for another.
	Node string
	// Now is the node's clock; nil is time.Now.
	Now func() time.Time
	// Limits bound open jobs and the file; the zero value is jobs.DefaultLimits.
	Limits jobs.Limits
	// OnStamp, if not nil, is called before each commit with the rows that it
	// will have changed. It runs in the writer, must not block, and must not
	// keep the slice. The commit may fail.
	OnStamp func(changed []jobs.Changed)
	// OnCommit, if not nil, is called after each commit and before its writers
	// are answered, with the rows it changed. It runs in the writer, must not
	// block, and must not keep the slice.
	OnCommit func(changed []jobs.Changed)
	// OnDisagree, if not nil, is called when a row comes whose value, or whose
	// value at the same checkpoint, is not the one here; merged is what stands
	// here from now on. It runs in the writer and must not block. The commit may
	// fail, and the same may come again.
	OnDisagree func(here, came, merged jobs.Job)
	// Log takes what an operator must know; nil discards it.
	Log *slog.Logger
	// DSN is appended to the DSN of every connection, "&name=value". Tests use
	// it to put a failing file system below, or to weaken synchronous.
	DSN string
}

// Store is the rows of one node. It is safe for concurrent use.
type Store struct {
	opt   Options
	dir   string
	boot  jobs.ID
	id    jobs.ID // of the file
	chain jobs.BootChain
	lock  *os.File
	read  *sql.DB
	get   *sql.Stmt // of getSQL; parsing it takes longer than answering
	disk  diskWatch

	ops     chan *op
	running atomic.Bool
	stop    chan struct{} // closed when Run no longer takes writes

	failOnce sync.Once
	failed   chan struct{} // closed on the first fatal error
	failure  error         // set before failed is closed

	mu sync.Mutex // guards w: held for the whole of a commit
	w  writer

	purged    atomic.Int64 // lseq of the newest commit with a purge
	scrubbing sync.Mutex   // guards scrubbed: held for the whole of a walk
	scrubbed  int64        // purges up to here have left nothing

	counts                   atomic.Pointer[jobs.Counts]
	byHome                   atomic.Pointer[map[string]jobs.Counts]
	homes                    atomic.Pointer[[]string] // of all rows, sorted
	committed                atomic.Int64             // head lseq
	results                  atomic.Int64             // head rseq
	reading                  atomic.Pointer[jobs.Reading]
	floor, promise           atomic.Int64 // microseconds; changed by the writer alone
	conflicts, disagreements atomic.Int64
	sizing                   sizing
	owned                    owned
	timing                   timing
}

// processOnce makes SQLite's settings of the whole process, before the first
// file is opened: locks that survive a stray close of the file (OFD), and
// fdatasync, which leaves out the file times that nothing here reads.
var processOnce = sync.OnceValue(func() error {
	if _, err := sqlite.OFDLocking(true); err != nil && !errors.Is(err, sqlite.ErrOFDLockingUnavailable) {
		return fmt.Errorf("switch SQLite to OFD locks: %w", err)
	}
	_, _ = sqlite.Fdatasync(true) // where it is not to be had fsync stays, which promises no less
	return nil
})

// Open opens the store in dir, makes it if there is none, brings its schema up
// to date and commits the new boot. It refuses, and says what to do, if the
// directory is in use, of a newer release, of another node, or damaged.
func Open(ctx context.Context, dir string, opt Options) (*Store, error) {
	if opt.Node == "" {
		return nil, errors.New("open store: the name of the node is missing")
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Limits == (jobs.Limits{}) {
		opt.Limits = jobs.DefaultLimits()
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if err := processOnce(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{
		opt: opt, dir: dir, lock: lock,
		disk:   diskWatch{dir: dir, limit: opt.Limits.StoreBytes},
		ops:    make(chan *op, maxQueuedOps),
		stop:   make(chan struct{}),
		failed: make(chan struct{}),
	}
	s.disk.spare = s.spare
	if err := s.open(ctx); err != nil {
		_ = s.closeFiles() // the error that matters is err
		return nil, err
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	path := filepath.Join(s.dir, fileName)
	if f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return fmt.Errorf("open database: %w", err)
	} else if err := f.Close(); err != nil { // before SQLite has opened it, so no lock of its is dropped
		return fmt.Errorf("open database: %w", err)
	}
	// A new file, and a new directory, must be there after a power loss; SQLite
	// sees to the log's name only.
	for _, d := range []string{s.dir, filepath.Dir(s.dir)} {
		if err := syncDir(d); err != nil {
			return fmt.Errorf("open database: %w", err)
		}
	}
	version, err := s.inspect(ctx, path)
	if err != nil {
		return err
	}
	db, err := sql.Open("sqlite", s.dsn(path, "&_txlock=immediate"))
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(ctx)
	if err != nil {
		_ = db.Close() // the error that matters is err
		return damaged(path, err)
	}
	s.w = writer{s: s, db: db, conn: conn, cache: make(map[jobs.ID]row), near: make(map[jobs.ID]row)}
	if err := s.w.start(ctx, path, version); err != nil {
		return err
	}
	if s.read, err = sql.Open("sqlite", s.dsn(path, "&mode=ro&_pragma=query_only(1)&_pragma=cache_size(-8192)")); err != nil {
		return fmt.Errorf("open database for reading: %w", err)
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	if s.get, err = s.read.PrepareContext(ctx, getSQL); err != nil {
		return damaged(path, err)
	}
	s.publish()
	return damaged(path, s.startScrub(ctx))
}

// dsn returns the data source name of path. Pragmas stand in it because an
// Exec would reach one connection of a pool only.
func (s *Store) dsn(path, more string) string {
	return "file:" + (&url.URL{Path: path}).EscapedPath() +
		"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)" +
		"&_pragma=wal_autocheckpoint(1000)&_pragma=journal_size_limit(67108864)" +
		"&_pragma=cache_size(-65536)&_pragma=foreign_keys(0)&_pragma=secure_delete(1)&_pragma=temp_store(2)" + more + s.opt.DSN
}

// errCheck says that quick_check found damage.
var errCheck = errors.New("quick_check")

// damaged explains an error met while opening path.
func damaged(path string, err error) error {
	code := sqliteCode(err) & 0xff
	switch {
	case err == nil:
		return nil
	case code == codeCorrupt || code == codeNotADB || errors.Is(err, errCheck):
		return fmt.Errorf("database %s is damaged (%w): restore it from a backup, or move it away to begin empty; nothing was changed", path, err)
	case full(err):
		return fmt.Errorf("open database %s: the disk is full (%w): free some space and start again; nothing is lost", path, err)
	}
	return fmt.Errorf("open database %s: %w", path, err)
}

// inspect returns the schema of what is at path, 0 if that is empty. It refuses
// a newer schema and, after an unclean stop, a file that does not pass SQLite's
// check. It only reads: a connection that may write would move the log into a
// database that is refused.
func (s *Store) inspect(ctx context.Context, path string) (version int, err error) {
	if size(s.dir, fileName) == 0 {
		return 0, nil
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?mode=ro&_pragma=busy_timeout(5000)"+s.opt.DSN)
	if err != nil {
		return 0, fmt.Errorf("open database: %w", err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	ask := func(query string, to any) {
		if err == nil {
			err = db.QueryRowContext(ctx, query).Scan(to)
		}
	}
	var tables, clean int
	ask("PRAGMA user_version", &version)
	ask("SELECT count(*) FROM sqlite_schema", &tables)
	if err != nil {
		return 0, damaged(path, err)
	}
	if version > len(migrations) {
		return 0, fmt.Errorf("database %s has schema %d, this release knows up to %d: start the newer release that wrote it, or restore an older backup", path, version, len(migrations))
	}
	if version == 0 {
		return 0, nil
	}
	said := "ok"
	ask("SELECT coalesce((SELECT v FROM meta WHERE k = 'clean'), 0)", &clean) // absent: killed before its first boot
	if clean == 0 {
		ask("PRAGMA quick_check(1)", &said)
	}
	if err == nil && said != "ok" {
		err = fmt.Errorf("%w: %s", errCheck, said)
	}
	return version, damaged(path, err)
}

// start migrates the file, reads the heads and commits the boot.
func (w *writer) start(ctx context.Context, path string, version int) error {
	if sync, err := w.int(ctx, "PRAGMA synchronous"); err != nil {
		return damaged(path, err)
	} else if sync != 2 && w.s.opt.DSN == "" {
		return fmt.Errorf("open database %s: synchronous is %d, must be 2 (FULL): an acknowledged job would not be on the disk", path, sync)
	}
	var err error
	if w.checkpointAt, err = w.int(ctx, "PRAGMA wal_autocheckpoint"); err != nil {
		return damaged(path, err)
	}
	if _, err := w.conn.ExecContext(ctx, "PRAGMA wal_autocheckpoint = 0"); err != nil { // see checkpoint
		return damaged(path, err)
	}
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return w.migrate(ctx, version) }, w.prepare, w.load, w.newBoot,
	} {
		if err := step(ctx); err != nil {
			return damaged(path, err)
		}
	}
	// What an unclean stop left in the log may be what a purge overwrote.
	w.truncate = true
	w.emptyLog(ctx)
	return w.s.Err()
}

// newBoot commits this start of the node, before anything is served: every
// lseq and rseq from here on belongs to it.
func (w *writer) newBoot(ctx context.Context) error {
	s := w.s
	if _, err := rand.Read(s.boot[:]); err != nil {
		return fmt.Errorf("make boot id: %w", err)
	}
	var storeID jobs.ID
	if _, err := rand.Read(storeID[:]); err != nil {
		return fmt.Errorf("make store id: %w", err)
	}
	tx, err := w.conn.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("commit boot: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // does nothing after the commit
	var node string
	err = tx.QueryRowContext(ctx, "SELECT v FROM meta WHERE k = 'node'").Scan(&node)
	switch {
	case err == sql.ErrNoRows:
		node = s.opt.Node
	case err != nil:
		return fmt.Errorf("read node name: %w", err)
	}
	if node != s.opt.Node {
		return fmt.Errorf("data directory %s belongs to node %q, this is node %q: give the right --name or another --data-dir", s.dir, node, s.opt.Node)
	}
	for _, q := range []struct {
		sql  string
		args []any
	}{
		{"INSERT INTO meta (k, v) VALUES ('store_id', ?) ON CONFLICT DO NOTHING", []any{storeID[:]}},
		{"INSERT INTO meta (k, v) VALUES ('node', ?) ON CONFLICT DO NOTHING", []any{node}},
		{"INSERT INTO meta (k, v) VALUES ('clean', 0) ON CONFLICT (k) DO UPDATE SET v = 0", nil},
		{"INSERT INTO boots (boot, start_lseq, start_rseq, started_at) VALUES (?, ?, ?, ?)",
			[]any{s.boot[:], w.lseq + 1, w.rseq + 1, micros(s.opt.Now())}},
		{"DELETE FROM boots WHERE n <= (SELECT max(n) FROM boots) - ?", []any{bootsKept}},
	} {
		if _, err := tx.ExecContext(ctx, q.sql, q.args...); err != nil {
			return fmt.Errorf("commit boot: %w", err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit boot: %w", err)
	}
	var id []byte
	if err := w.conn.QueryRowContext(ctx, "SELECT v FROM meta WHERE k = 'store_id'").Scan(&id); err != nil {
		return fmt.Errorf("read store id: %w", err)
	}
	copy(s.id[:], id)
	s.chain, err = w.readChain(ctx)
	return err
}

// Boot returns the random ID of this start of the node.
func (s *Store) Boot() jobs.ID { return s.boot }

// Close closes the files. It must not be called while Run runs. After a clean
// close the next start skips the check of the file.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.w.conn != nil && s.Err() == nil {
		s.w.emptyLog(context.Background()) // the one that SQLite does at the end says nothing of a failed fsync
		err = s.Err()
	}
	if s.w.conn != nil && s.Err() == nil {
		_, err = s.w.conn.ExecContext(context.Background(), "UPDATE meta SET v = 1 WHERE k = 'clean'")
		err = explain("mark the store closed", err)
	}
	return errors.Join(err, s.closeFiles())
}

func (s *Store) closeFiles() error {
	var errs []error
	if s.get != nil {
		errs = append(errs, s.get.Close())
	}
	if s.read != nil {
		errs = append(errs, s.read.Close())
	}
	for _, stmt := range s.w.prepared {
		errs = append(errs, stmt.Close())
	}
	if s.w.conn != nil {
		errs = append(errs, s.w.conn.Close())
	}
	if s.w.db != nil {
		errs = append(errs, s.w.db.Close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// Err returns the fatal error that the store met, nil if there was none.
func (s *Store) Err() error {
	select {
	case <-s.failed:
		return s.failure
	default:
		return nil
	}
}

// fail notes the first fatal error, so that Run returns it.
func (s *Store) fail(err error) {
	s.failOnce.Do(func() {
		s.failure = err
		close(s.failed)
	})
}
