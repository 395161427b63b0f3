package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// BareInsert measures what SQLite alone does here, the baseline of the bench:
// rows of an ID, a v1 and a count into one table without any index but the
// key, in transactions of batch rows, with the store's own settings of the
// file. It returns rows a second, each on the disk. It makes its file in dir.
func BareInsert(ctx context.Context, dir string, batch int, lasting time.Duration) (float64, error) {
	if err := processOnce(); err != nil {
		return 0, err
	}
	db, err := sql.Open("sqlite", (&Store{}).dsn(filepath.Join(dir, "bare.db"), "&_txlock=immediate"))
	if err != nil {
		return 0, fmt.Errorf("open bare database: %w", err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, "CREATE TABLE bare (n INTEGER PRIMARY KEY, id BLOB NOT NULL, v1 BLOB NOT NULL, iterations INTEGER NOT NULL) STRICT"); err != nil {
		return 0, fmt.Errorf("make bare table: %w", err)
	}
	insert := "INSERT INTO bare (id, v1, iterations) VALUES (?, ?, ?)" + strings.Repeat(", (?, ?, ?)", insertRows-1)
	var id [16]byte
	var v1 [64]byte
	_, _ = rand.Read(id[:]) // never fails
	_, _ = rand.Read(v1[:])
	args := make([]any, 0, 3*insertRows)
	for range insertRows {
		args = append(args, id[:], v1[:], int64(1000))
	}
	rows, begin := 0, time.Now()
	for time.Since(begin) < lasting {
		if err := bareBatch(ctx, db, insert, args, batch); err != nil {
			return 0, fmt.Errorf("insert bare rows: %w", err)
		}
		rows += batch
	}
	return float64(rows) / time.Since(begin).Seconds(), nil
}

func bareBatch(ctx context.Context, db *sql.DB, insert string, args []any, rows int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // does nothing after the commit
	stmt, err := tx.PrepareContext(ctx, insert)
	if err != nil {
		return err
	}
	for range rows / insertRows {
		if _, err := stmt.ExecContext(ctx, args...); err != nil {
			return err
		}
	}
	return tx.Commit()
}
