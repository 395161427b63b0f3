package store

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migrations lists the steps of the schema in order; step i leads to version
// i+1. A released one is never edited, and none touches lseq: that would send
// the whole table to the peer.
var migrations = func() []string {
	names, err := fs.Glob(migrationFiles, "migrations/*.sql") // sorted by name
	if err != nil {
		panic("store: " + err.Error()) // the pattern is constant
	}
	var steps []string
	for _, name := range names {
		b, err := migrationFiles.ReadFile(name)
		if err != nil {
			panic("store: " + err.Error()) // the file is embedded
		}
		steps = append(steps, string(b))
	}
	return steps
}()

// migrate brings the schema from version to the newest, one transaction a step.
func (w *writer) migrate(ctx context.Context, version int) error {
	for i := version; i < len(migrations); i++ {
		tx, err := w.conn.BeginTx(ctx, nil)
		if err != nil {
			return fmt.Errorf("migrate to schema %d: %w", i+1, err)
		}
		if _, err := tx.ExecContext(ctx, migrations[i]+fmt.Sprintf("\nPRAGMA user_version = %d;", i+1)); err != nil {
			_ = tx.Rollback() // the error that matters is err
			return fmt.Errorf("migrate to schema %d: %w", i+1, err)
		}
		if err := tx.Commit(); err != nil {
			return fmt.Errorf("migrate to schema %d: %w", i+1, err)
		}
	}
	return nil
}
