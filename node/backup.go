package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"workmanager/jobs/store"
)

// Backup writes a copy of the database in dir, whose node may run, to out: a file
// that is not there, or a folder, in which it gets a name of its own and of which
// the newest keep backups stay; 0 keeps all. It returns the file.
func Backup(ctx context.Context, dir, out string, keep int, now time.Time) (file string, info store.BackupInfo, err error) {
	folder := ""
	if fi, err := os.Stat(out); err == nil && fi.IsDir() {
		name, err := store.NodeOf(ctx, dir)
		if err != nil {
			return "", info, err
		}
		folder = out
		out = filepath.Join(out, store.BackupName(name, now))
	} else if keep > 0 {
		return "", info, fmt.Errorf("--keep is for a folder of backups, and %s is none", out)
	}
	if info, err = store.Backup(ctx, dir, out, now); err != nil {
		return "", info, err
	}
	if folder != "" && keep > 0 {
		_, err = store.KeepBackups(folder, keep, now)
	}
	return out, info, err
}

// CheckBackup reads a backup whole and checks the database in it.
func CheckBackup(ctx context.Context, file string) (store.BackupInfo, error) {
	return store.CheckBackup(ctx, file)
}

// Restore makes the data directory dir, which must be empty or not there, from a
// backup.
func Restore(ctx context.Context, file, dir string) (store.BackupInfo, error) {
	return store.Restore(ctx, file, dir)
}
