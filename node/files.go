package node

import (
	"log/slog"
	"syscall"
)

// spareFiles is how many open files are kept for the database, the peer and
// replies on their way.
const spareFiles = 512

// boundConns returns how many connections there may be: no more than there can
// be files, so that a node never fails to open one of its own.
func boundConns(asked int, log *slog.Logger) int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil || l.Cur >= 1<<30 {
		return asked
	}
	can := max(int(l.Cur)-spareFiles, int(l.Cur)/2)
	if asked > 0 && asked <= can {
		return asked
	}
	if asked > 0 {
		log.Warn("fewer connections than --max-connections, for want of open files (ulimit -n)", "connections", can, "asked", asked, "files", l.Cur)
	}
	return can
}
