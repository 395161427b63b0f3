package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"time"

	"workmanager/jobs"
)

// SQLite overwrites what is deleted (secure_delete), but where it moves rows
// between pages it leaves their old copies in the room between a page's cell
// pointers and its cells. A row that is purged later is overwritten where it
// is, and the copies stay. So a purge is followed by a walk over all pages that
// zeroes that room. The walk reads beside the writer; only pages that need it
// are written. Once a row is purged no new copy of it can come about, so one
// walk that began after the purge is enough, for all purges before it.

const (
	// scrubPages is how many pages one read looks at, and wipePages how many
	// one transaction zeroes: about 4 ms of the writer.
	scrubPages = 128
	wipePages  = 256

	pagesSQL = `SELECT pgno, data FROM sqlite_dbpage WHERE pgno BETWEEN ? AND ?`
	pageSQL  = `SELECT data FROM sqlite_dbpage WHERE pgno = ?`
	wipeSQL  = `UPDATE sqlite_dbpage SET data = ? WHERE pgno = ?`

	markPurgeSQL  = `INSERT INTO meta (k, v) VALUES ('scrub', 1) ON CONFLICT (k) DO UPDATE SET v = 1`
	clearPurgeSQL = `UPDATE meta SET v = 0 WHERE k = 'scrub'`
)

// scrub erases what purges have left in unused room, from the database and from
// the log. It does nothing if there was no purge since the last time.
func (s *Store) scrub() error {
	s.scrubbing.Lock()
	defer s.scrubbing.Unlock()
	upto := s.purged.Load()
	if upto <= s.scrubbed {
		return nil
	}
	ctx := context.Background() // the purge is committed; who asked for it may have gone
	var pages int64
	if err := s.read.QueryRowContext(ctx, "PRAGMA page_count").Scan(&pages); err != nil {
		return s.readError("count pages", err)
	}
	if pages >= tableLeaf<<24 {
		return fmt.Errorf("%d pages: the first byte no longer tells a page's kind", pages)
	}
	for first := int64(1); first <= pages; first += scrubPages { // pages made after the purge hold nothing of it
		stale, err := s.stale(ctx, first, first+scrubPages-1)
		if err != nil {
			return s.readError("look for purged bytes", err)
		}
		for len(stale) > 0 {
			n := min(len(stale), wipePages)
			if err := s.write(ctx, n, func(w *writer) error { return w.wipe(stale[:n]) }); err != nil {
				return err
			}
			stale = stale[n:]
		}
	}
	err := s.write(ctx, 1, func(w *writer) error {
		w.truncate, w.emptyAt = true, time.Time{}
		if s.purged.Load() != upto {
			return nil // the next walk is for that purge too
		}
		_, err := w.conn.ExecContext(ctx, clearPurgeSQL)
		return err
	})
	if err == nil {
		s.scrubbed = upto
	}
	return err
}

// stale returns the pages of a range that have something in unused room.
func (s *Store) stale(ctx context.Context, first, last int64) ([]int64, error) {
	rows, err := s.query(ctx, pagesSQL, first, last)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []int64
	for rows.Next() {
		var n int64
		var page sql.RawBytes
		if err := rows.Scan(&n, &page); err != nil {
			return nil, err
		}
		for _, b := range unused(page) {
			if b != 0 {
				found = append(found, n)
				break
			}
		}
	}
	return found, rows.Err()
}

// wipe zeroes the unused room of pages, as they are now.
func (w *writer) wipe(pages []int64) error {
	ctx := context.Background()
	for _, n := range pages {
		var page []byte
		if err := w.conn.QueryRowContext(ctx, pageSQL, n).Scan(&page); err == sql.ErrNoRows {
			continue
		} else if err != nil {
			return err
		}
		clear(unused(page))
		if _, err := w.conn.ExecContext(ctx, wipeSQL, page, n); err != nil {
			return err
		}
	}
	return nil
}

// tableLeaf is the first byte of a leaf page of a table. The rows of jobs lie
// in such pages and nowhere else; no index holds a value.
const tableLeaf = 0x0d

// unused returns the room between the cell pointers and the cells of a table's
// leaf page, nil for another kind of page. See "B-tree Pages" in SQLite's
// description of its file format.
func unused(page []byte) []byte {
	if len(page) < 8 || page[0] != tableLeaf {
		return nil
	}
	from := 8 + 2*int(binary.BigEndian.Uint16(page[3:]))
	to := int(binary.BigEndian.Uint16(page[5:]))
	if from > to || to > len(page) {
		return nil
	}
	return page[from:to]
}

// purgedAny reports whether one of the effects was a purge.
func purgedAny(effects []Effect) bool {
	for _, e := range effects {
		if e.Changed && e.Job.Purged {
			return true
		}
	}
	return false
}

// startScrub takes up a walk that the last start did not finish.
func (s *Store) startScrub(ctx context.Context) error {
	marked, err := s.w.int(ctx, "SELECT coalesce((SELECT v FROM meta WHERE k = 'scrub'), 0)")
	if err != nil || marked == 0 {
		return err
	}
	s.purged.Store(max(int64(s.w.lseq), 1))
	s.tryScrub()
	return s.Err()
}

// tryScrub scrubs, and leaves it to Tidy where that fails.
func (s *Store) tryScrub() {
	if err := s.scrub(); err != nil && s.Err() == nil && jobs.CodeOf(err) != jobs.CodeStopping {
		s.opt.Log.Warn("purged bytes not erased from unused pages, will be tried again", "err", err)
	}
}
