package store

import (
	"context"
	"database/sql"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestPlans pins how SQLite answers every statement that runs while a node
// serves: by an index, and sorting only where it is said to.
func TestPlans(t *testing.T) {
	s, err := Open(t.Context(), t.TempDir(), Options{Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const id, byN = "SEARCH jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)", "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)"
	for name, c := range map[string]struct{ sql, want string }{
		"get":     {getSQL, id},
		"update":  {updateSQL, byN},
		"replace": {replaceSQL, byN},
		"end":     {endSQL, "SCAN 16-ROW VALUES CLAUSE; " + byN},
		"drop":    {dropSQL, byN},

		"open":       {openSQL, "SEARCH jobs USING INDEX jobs_open (home=? AND priority=? AND created_at>?)"},
		"open_plain": {openPlainSQL, "SEARCH jobs USING INDEX jobs_open (home=? AND priority=? AND created_at>?)"},
		"near":       {nearSQL, id},
		"oldest":     {oldestOpenSQL, "SEARCH jobs USING COVERING INDEX jobs_open (home=? AND priority=?)"},

		"results": {resultsSQL, "SEARCH jobs USING INDEX jobs_results (rseq>?)"},
		"recent":  {recentSQL, "SEARCH jobs USING INDEX jobs_results (rseq>?)"},
		// Within one microsecond by ID: rows come in the index's order and only
		// those of one instant are sorted, so LIMIT ends the scan.
		"newest":  {newestSQL, "SEARCH jobs USING INDEX jobs_pull (home=?); USE TEMP B-TREE FOR LAST TERM OF ORDER BY"},
		"consume": {oldestSQL, "SEARCH jobs USING INDEX jobs_pull (home=?); USE TEMP B-TREE FOR LAST TERM OF ORDER BY"},
		"pull":    {pullSQL, "SEARCH pulls USING PRIMARY KEY (key=?)"},

		"list_created":   {listCreatedSQL, "SEARCH jobs USING INDEX jobs_created (created_at>?)"},
		"list_ended":     {listEndedSQL, "SEARCH jobs USING INDEX jobs_ended (rank=? AND created_at>?)"},
		"failures":       {failuresSQL, "SEARCH jobs USING INDEX jobs_ended (rank=?)"},
		"ahead":          {aheadSQL, "CO-ROUTINE (subquery-1); SEARCH jobs USING COVERING INDEX jobs_open (home=? AND priority=? AND created_at<?); SCAN (subquery-1)"},
		"list_completed": {listCompletedSQL, "SEARCH jobs USING INDEX jobs_results (rseq>?)"},

		// Not one of them looks at a job of another owner.
		"owned":           {listOwnedSQL, "SEARCH jobs USING INDEX jobs_owner (owner=? AND rank=? AND created_at>?)"},
		"owned_completed": {listOwnedCompletedSQL, "SEARCH jobs USING INDEX jobs_owner_results (owner=? AND rseq>?)"},
		"owned_results":   {ownedResultsSQL, "SEARCH jobs USING INDEX jobs_owner_results (owner=? AND rseq>?)"},
		"owned_newest":    {ownedNewestSQL, "SEARCH jobs USING INDEX jobs_owner_pull (owner=? AND home=?); USE TEMP B-TREE FOR LAST TERM OF ORDER BY"},
		"owned_consume":   {ownedOldestSQL, "SEARCH jobs USING INDEX jobs_owner_pull (owner=? AND home=?); USE TEMP B-TREE FOR LAST TERM OF ORDER BY"},

		"feed": {feedSQL, "SEARCH jobs USING INDEX jobs_feed (lseq>? AND lseq<?)"},
		"heads": {headsSQL, "SCAN CONSTANT ROW; SCALAR SUBQUERY 1; SEARCH jobs USING COVERING INDEX jobs_feed; SCALAR SUBQUERY 2; SEARCH meta USING PRIMARY KEY (k=?); " +
			"SCALAR SUBQUERY 3; SEARCH jobs USING COVERING INDEX jobs_results (rseq>?); SCALAR SUBQUERY 4; SEARCH meta USING PRIMARY KEY (k=?)"},
		"receive":       {receiveSQL(insertRows), "SCAN 8-ROW VALUES CLAUSE"},
		"receive_plain": {receivePlainSQL(insertRows), "SCAN 8-ROW VALUES CLAUSE"},
		"pair":          {lastPairSQL, "SCAN rcovs"}, // the first from the end, by rowid
		"pair_at":       {pairAtSQL, "SEARCH rcovs USING INTEGER PRIMARY KEY (rowid<?)"},

		"below":         {belowSQL, "SEARCH jobs USING INDEX jobs_open (home=? AND priority=? AND created_at<?)"},
		"oldest_fresh":  {oldestFreshSQL, "SEARCH jobs USING INDEX jobs_open (home=? AND priority=?)"},
		"oldest_raised": {oldestRaisedSQL, "SEARCH jobs USING INDEX jobs_raised (gc_after>?)"},

		"doubts":          {doubtsSQL, "SCAN doubts USING COVERING INDEX doubts_next"},
		"save_doubt":      {saveDoubtSQL, ""},
		"drop_doubt":      {dropDoubtSQL, "SEARCH doubts USING PRIMARY KEY (id=?)"},
		"drop_quarantine": {dropQuarantineSQL, "SEARCH quarantines USING PRIMARY KEY (worker=? AND inside=?)"},

		"expired": {expiredSQL, "SEARCH jobs USING INDEX jobs_created (created_at<?)"},
	} {
		if got := plan(t, s, c.sql); got != c.want {
			t.Errorf("%s: plan %q, want %q", name, got, c.want)
		}
	}
}

// plan returns the lines of EXPLAIN QUERY PLAN.
func plan(t *testing.T, s *Store, query string) string {
	t.Helper()
	rows, err := s.w.conn.QueryContext(context.Background(), "EXPLAIN QUERY PLAN "+query, make([]any, params(query))...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	var lines []string
	for rows.Next() {
		var id, parent, unused int
		var line string
		if err := rows.Scan(&id, &parent, &unused, &line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

// params returns how many arguments a statement takes.
func params(query string) int {
	highest := 0
	for _, m := range regexp.MustCompile(`\?(\d*)`).FindAllStringSubmatch(query, -1) {
		if n, err := strconv.Atoi(m[1]); err == nil {
			highest = max(highest, n)
		} else {
			highest++
		}
	}
	return highest
}

// TestPlansStay: no statistics are kept, so a full store answers by the plans of
// an empty one.
func TestPlansStay(t *testing.T) {
	s, err := Open(t.Context(), t.TempDir(), Options{Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var name string
	err = s.read.QueryRow("SELECT name FROM sqlite_schema WHERE name LIKE 'sqlite_stat%'").Scan(&name)
	if err != sql.ErrNoRows {
		t.Errorf("the store has %s (%v): plans then depend on what was in it", name, err)
	}
}

// TestPragmas: what the promises lean on is really in force, on the writer and
// on every reader.
func TestPragmas(t *testing.T) {
	s, err := Open(t.Context(), t.TempDir(), Options{Node: "a"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for pragma, want := range map[string]string{
		"synchronous": "2", "journal_mode": "wal", "secure_delete": "1", "temp_store": "2", "busy_timeout": "5000",
		"wal_autocheckpoint": "0", "query_only": "0", // the writer moves the log by itself
	} {
		var got string
		if err := s.w.conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("writer: %s is %s (%v), want %s", pragma, got, err, want)
		}
	}
	if s.w.checkpointAt != 1000 {
		t.Errorf("the log is moved at %d pages, want 1000", s.w.checkpointAt)
	}
	var conns []*sql.Conn
	for range readers {
		c, err := s.read.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	for _, c := range conns {
		if _, err := c.ExecContext(t.Context(), "UPDATE meta SET v = 0"); err == nil {
			t.Error("a reader can write")
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}
