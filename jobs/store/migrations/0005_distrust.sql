-- Whom the pair does not trust, or did not: one row a worker's name, merged with
-- the peer's outside the feed. inside: the worker in the process of the node of
-- that name. said and right are prints of values, never values.
CREATE TABLE quarantines (
  worker TEXT    NOT NULL CHECK (length(worker) > 0),
  inside INTEGER NOT NULL CHECK (inside IN (0, 1)),
  turn   INTEGER NOT NULL CHECK (turn > 0),
  barred INTEGER NOT NULL CHECK (barred IN (0, 1)),
  since  INTEGER NOT NULL,
  node   TEXT    NOT NULL,
  by     TEXT    NOT NULL,
  reason TEXT    NOT NULL,
  id     BLOB    CHECK (id IS NULL OR length(id) = 16),
  done   INTEGER NOT NULL CHECK (done >= 0),
  said   BLOB    CHECK (said IS NULL OR length(said) = 8),
  right  BLOB    CHECK (right IS NULL OR length(right) = 8),
  PRIMARY KEY (worker, inside)
) WITHOUT ROWID, STRICT;

-- Jobs of which this node must recompute the value, because there are two, or
-- because it came from a worker that was wrong elsewhere. Local; at most one row
-- a job.
CREATE TABLE doubts (
  id       BLOB    PRIMARY KEY CHECK (length(id) = 16),
  disputed INTEGER NOT NULL CHECK (disputed IN (0, 1)),
  at       INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX doubts_next ON doubts (disputed DESC, at);
