package node

import (
	"context"
	"time"

	"workmanager/jobs/store"
)

// BareInsert returns the rows a second that SQLite alone inserts here, each on
// the disk, in transactions of batch rows. It makes its file in dir.
func BareInsert(ctx context.Context, dir string, batch int, lasting time.Duration) (float64, error) {
	return store.BareInsert(ctx, dir, batch, lasting)
}
