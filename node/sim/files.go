package sim

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"workmanager/jobs/store"
)

// fileMedium is a directory with a real database.
type fileMedium struct {
	root, dir string
	s         *store.Store
}

func newFileMedium(root string) *fileMedium {
	m := &fileMedium{root: root}
	m.next()
	return m
}

// next makes the medium a new directory.
func (m *fileMedium) next() {
	dir, err := os.MkdirTemp(m.root, "disk")
	if err != nil {
		panic(machineError{fmt.Errorf("make a directory for a database: %w", err)})
	}
	m.dir = dir
}

func (m *fileMedium) open(n *node) rows {
	s, err := store.Open(ctx, m.dir, store.Options{Node: n.name, Now: n.now, OnStamp: n.stamped, OnCommit: n.committed, DSN: "&_pragma=synchronous(OFF)"})
	if err != nil {
		panic(machineError{err})
	}
	m.s = s
	return s
}

// copyFiles copies the database and its log into another directory.
func (m *fileMedium) copyFiles(to string) {
	for _, suffix := range []string{"", "-wal"} {
		from, err := os.Open(filepath.Join(m.dir, "workmanager.db"+suffix))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			panic(machineError{err})
		}
		out, err := os.Create(filepath.Join(to, "workmanager.db"+suffix))
		if err == nil {
			_, err = io.Copy(out, from)
		}
		if err != nil {
			panic(machineError{fmt.Errorf("copy a database: %w", err)})
		}
		from.Close()
		out.Close()
	}
}

// kill leaves what is in the files, and goes on in a copy of them: the store
// that was open cannot be stopped in the middle, and writes no more to the copy.
func (m *fileMedium) kill() {
	if m.s == nil {
		return
	}
	was := m.dir
	m.next()
	old := fileMedium{dir: was}
	old.copyFiles(m.dir)
	_ = m.s.Close() // what it says is of files that nobody reads again
	m.s = nil
	_ = os.RemoveAll(was) // the directory of the run goes in the end
}

func (m *fileMedium) copy() medium {
	c := newFileMedium(m.root)
	m.copyFiles(c.dir)
	return c
}

func (m *fileMedium) drop() {
	if m.s != nil {
		_ = m.s.Close() // as above
		m.s = nil
	}
	_ = os.RemoveAll(m.dir) // as above
}
