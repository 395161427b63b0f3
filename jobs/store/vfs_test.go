//go:build linux

package store_test

import (
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
)

// The file system "fault" stands below SQLite and above the real one. A test
// hooks a directory, and sees every operation on its files before it happens.
// It leans on modernc's internals, so it moves with their version.

// onFault is Options.DSN for a store on it.
const onFault = "&vfs=fault"

type opKind string

const (
	opOpen     opKind = "open"
	opWrite    opKind = "write"
	opSync     opKind = "sync"
	opTruncate opKind = "truncate"
	opDelete   opKind = "delete"
)

// diskOp is one operation. data is valid only during the call.
type diskOp struct {
	kind opKind
	file string // base name
	off  int64
	data []byte
	size int64 // of a truncate
}

// diskHook says what becomes of an operation: a code other than 0 fails it,
// and of a failed write the first keep bytes reach the disk.
type diskHook func(diskOp) (rc int32, keep int)

var fault struct {
	mu    sync.Mutex // guards all below
	hooks map[string]diskHook
	files map[uintptr]faultFile
	own   map[uintptr]uintptr // SQLite's methods to ours
	once  sync.Once
	unix  uintptr // the VFS below
}

type faultFile struct {
	name string
	real uintptr // its methods below
}

// onDisk hooks the directory until the test ends.
func onDisk(tb testing.TB, dir string, hook diskHook) {
	tb.Helper()
	fault.once.Do(func() { registerFault(tb) })
	fault.mu.Lock()
	fault.hooks[dir] = hook
	fault.mu.Unlock()
	tb.Cleanup(func() {
		fault.mu.Lock()
		delete(fault.hooks, dir)
		fault.mu.Unlock()
	})
}

// at returns what an address of SQLite's memory holds.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

// call turns the address of a C function into a Go function, and address does
// the reverse: both are the word of a func value.
func call[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&struct{ uintptr }{p})) }

func address[F any](f F) uintptr { return *(*uintptr)(unsafe.Pointer(&struct{ f F }{f})) }

type (
	xOpen     = func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32
	xDelete   = func(*libc.TLS, uintptr, uintptr, int32) int32
	xClose    = func(*libc.TLS, uintptr) int32
	xWrite    = func(*libc.TLS, uintptr, uintptr, int32, int64) int32
	xTruncate = func(*libc.TLS, uintptr, int64) int32
	xSync     = func(*libc.TLS, uintptr, int32) int32
)

func registerFault(tb testing.TB) {
	fault.hooks, fault.files, fault.own = map[string]diskHook{}, map[uintptr]faultFile{}, map[uintptr]uintptr{}
	tls := libc.NewTLS()
	defer tls.Close()
	if rc := lib.Xsqlite3_initialize(tls); rc != 0 {
		tb.Fatalf("sqlite3_initialize() = %d", rc)
	}
	fault.unix = lib.Xsqlite3_vfs_find(tls, 0)
	v := libc.Xmalloc(tls, lib.Tsize_t(unsafe.Sizeof(lib.Tsqlite3_vfs{})))
	vfs := at[lib.Tsqlite3_vfs](v)
	*vfs = *at[lib.Tsqlite3_vfs](fault.unix)
	name, err := libc.CString("fault")
	if err != nil {
		tb.Fatal(err)
	}
	vfs.FpNext, vfs.FzName = 0, name
	vfs.FxOpen, vfs.FxDelete = address[xOpen](faultOpen), address[xDelete](faultDelete)
	if rc := lib.Xsqlite3_vfs_register(tls, v, 0); rc != 0 {
		tb.Fatalf("sqlite3_vfs_register() = %d", rc)
	}
}

// ask calls the hook of a file's directory.
func ask(name string, op diskOp) (rc int32, keep int) {
	fault.mu.Lock()
	hook := fault.hooks[filepath.Dir(name)]
	fault.mu.Unlock()
	if hook == nil || strings.HasSuffix(name, "-shm") {
		return 0, 0
	}
	op.file = filepath.Base(name)
	return hook(op)
}

func fileOf(p uintptr) faultFile {
	fault.mu.Lock()
	defer fault.mu.Unlock()
	return fault.files[p]
}

func faultOpen(tls *libc.TLS, _, zName, p uintptr, flags int32, outFlags uintptr) int32 {
	var name string
	if zName != 0 {
		name = libc.GoString(zName)
		if rc, _ := ask(name, diskOp{kind: opOpen}); rc != 0 {
			at[lib.Tsqlite3_file](p).FpMethods = 0
			return rc
		}
	}
	rc := call[xOpen](at[lib.Tsqlite3_vfs](fault.unix).FxOpen)(tls, fault.unix, zName, p, flags, outFlags)
	f := at[lib.Tsqlite3_file](p)
	if rc != 0 || f.FpMethods == 0 || zName == 0 {
		return rc
	}
	fault.mu.Lock()
	defer fault.mu.Unlock()
	own := fault.own[f.FpMethods]
	if own == 0 {
		own = libc.Xmalloc(tls, lib.Tsize_t(unsafe.Sizeof(lib.Tsqlite3_io_methods{})))
		m := at[lib.Tsqlite3_io_methods](own)
		*m = *at[lib.Tsqlite3_io_methods](f.FpMethods)
		m.FxClose, m.FxWrite = address[xClose](faultClose), address[xWrite](faultWrite)
		m.FxTruncate, m.FxSync = address[xTruncate](faultTruncate), address[xSync](faultSync)
		fault.own[f.FpMethods] = own
	}
	fault.files[p] = faultFile{name: name, real: f.FpMethods}
	f.FpMethods = own
	return 0
}

func faultDelete(tls *libc.TLS, _, zName uintptr, syncDir int32) int32 {
	if rc, _ := ask(libc.GoString(zName), diskOp{kind: opDelete}); rc != 0 {
		return rc
	}
	return call[xDelete](at[lib.Tsqlite3_vfs](fault.unix).FxDelete)(tls, fault.unix, zName, syncDir)
}

func faultClose(tls *libc.TLS, p uintptr) int32 {
	f := fileOf(p)
	fault.mu.Lock()
	delete(fault.files, p)
	fault.mu.Unlock()
	at[lib.Tsqlite3_file](p).FpMethods = f.real
	return call[xClose](at[lib.Tsqlite3_io_methods](f.real).FxClose)(tls, p)
}

func faultWrite(tls *libc.TLS, p, buf uintptr, n int32, off int64) int32 {
	f := fileOf(p)
	write := call[xWrite](at[lib.Tsqlite3_io_methods](f.real).FxWrite)
	rc, keep := ask(f.name, diskOp{kind: opWrite, off: off, data: unsafe.Slice(at[byte](buf), int(n))})
	if rc == 0 {
		return write(tls, p, buf, n, off)
	}
	if keep > 0 {
		write(tls, p, buf, int32(min(keep, int(n))), off)
	}
	return rc
}

func faultTruncate(tls *libc.TLS, p uintptr, size int64) int32 {
	f := fileOf(p)
	if rc, _ := ask(f.name, diskOp{kind: opTruncate, size: size}); rc != 0 {
		return rc
	}
	return call[xTruncate](at[lib.Tsqlite3_io_methods](f.real).FxTruncate)(tls, p, size)
}

func faultSync(tls *libc.TLS, p uintptr, flags int32) int32 {
	f := fileOf(p)
	if rc, _ := ask(f.name, diskOp{kind: opSync}); rc != 0 {
		return rc
	}
	return call[xSync](at[lib.Tsqlite3_io_methods](f.real).FxSync)(tls, p, flags)
}
