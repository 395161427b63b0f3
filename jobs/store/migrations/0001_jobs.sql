-- Facts about this store: store_id, node, lseq_high, rseq_high, rseq_gone, clean.
CREATE TABLE meta (
  k TEXT PRIMARY KEY,
  v ANY
) WITHOUT ROWID, STRICT;

-- One row a start of the node: the boot chain, and with it the life of every
-- lseq and rseq handed out. n counts the starts.
CREATE TABLE boots (
  n          INTEGER PRIMARY KEY,
  boot       BLOB    NOT NULL UNIQUE CHECK (length(boot) = 16),
  start_lseq INTEGER NOT NULL,
  start_rseq INTEGER NOT NULL,
  started_at INTEGER NOT NULL
) STRICT;

-- The rows. Instants are microseconds UTC. The table keeps a rowid: job IDs
-- made from keys are random, and rows clustered by them would scatter.
CREATE TABLE jobs (
  n          INTEGER PRIMARY KEY,
  id         BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
  v1         BLOB    CHECK (v1 IS NULL OR length(v1) = 64),
  iterations INTEGER NOT NULL CHECK (iterations BETWEEN 1 AND 9007199254740992),
  priority   INTEGER NOT NULL DEFAULT 0 CHECK (priority BETWEEN 0 AND 9),
  origin     TEXT    NOT NULL,
  created_at INTEGER NOT NULL,
  gc_after   INTEGER NOT NULL DEFAULT 0,
  rank       INTEGER NOT NULL DEFAULT 0 CHECK (rank BETWEEN 0 AND 3), -- open, failed, cancelled, completed
  result     BLOB    CHECK (result IS NULL OR length(result) = 64),
  err        TEXT,
  verified   INTEGER NOT NULL DEFAULT 0 CHECK (verified IN (0, 1)),
  done_at    INTEGER,
  pulled     INTEGER NOT NULL DEFAULT 0 CHECK (pulled IN (0, 1)),
  purged     INTEGER NOT NULL DEFAULT 0 CHECK (purged IN (0, 1)),
  ck_done    INTEGER NOT NULL DEFAULT 0 CHECK (ck_done >= 0 AND ck_done < iterations),
  ck_value   BLOB    CHECK (ck_value IS NULL OR length(ck_value) = 64),
  attempts   INTEGER NOT NULL DEFAULT 0,
  lost       INTEGER NOT NULL DEFAULT 0,
  own_epoch  INTEGER NOT NULL DEFAULT 0,
  home       TEXT    NOT NULL,
  lseq       INTEGER NOT NULL,
  rseq       INTEGER,
  via        BLOB,
  rhash      INTEGER NOT NULL,
  ext        BLOB,
  CHECK ((v1 IS NULL) = (purged = 1)),
  CHECK ((result IS NOT NULL) = (rank = 3 AND purged = 0)),
  CHECK ((err IS NOT NULL) = (rank = 1)),
  CHECK ((done_at IS NOT NULL) = (rank > 0)),
  CHECK ((rseq IS NOT NULL) = (rank = 3)),
  CHECK ((ck_value IS NOT NULL) = (ck_done > 0)),
  CHECK (rank = 0 OR (ck_done = 0 AND lost = 0))
) STRICT;

CREATE UNIQUE INDEX jobs_feed    ON jobs (lseq);
CREATE        INDEX jobs_open    ON jobs (home, priority DESC, created_at) WHERE rank = 0;
CREATE        INDEX jobs_created ON jobs (created_at);
CREATE        INDEX jobs_ended   ON jobs (rank, created_at) WHERE rank IN (1, 2);
CREATE        INDEX jobs_pull    ON jobs (home, done_at) WHERE rank = 3 AND pulled = 0 AND purged = 0;
CREATE UNIQUE INDEX jobs_results ON jobs (rseq) WHERE rseq IS NOT NULL;

-- How many jobs a home has in each rank, kept by the transactions that change
-- them. The iterations still to do are a 128-bit number, hi and lo.
CREATE TABLE counts (
  home      TEXT    PRIMARY KEY,
  open      INTEGER NOT NULL CHECK (open >= 0),
  failed    INTEGER NOT NULL CHECK (failed >= 0),
  cancelled INTEGER NOT NULL CHECK (cancelled >= 0),
  completed INTEGER NOT NULL CHECK (completed >= 0),
  pulled    INTEGER NOT NULL CHECK (pulled >= 0),
  hi        INTEGER NOT NULL,
  lo        INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

-- What a consuming pull with an Idempotency-Key handed out, so that its retry
-- gets the same. Local; pruned with retention.
CREATE TABLE pulls (
  key   BLOB    PRIMARY KEY CHECK (length(key) = 16),
  at    INTEGER NOT NULL,
  whole INTEGER NOT NULL CHECK (whole IN (0, 1)),
  ids   BLOB    NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX pulls_at ON pulls (at);
