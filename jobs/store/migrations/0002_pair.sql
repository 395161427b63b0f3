-- What a node knows of its peer: its addresses, and the cursor over its feed.
-- boot is NULL before the first chunk. amnesia: our copy of that feed is
-- incomplete, since a walk from the bottom is not done.
CREATE TABLE peers (
  node      TEXT    PRIMARY KEY,
  boot      BLOB    CHECK (boot IS NULL OR length(boot) = 16),
  at        INTEGER NOT NULL DEFAULT 0,
  seen_head INTEGER NOT NULL DEFAULT 0,
  back_at   INTEGER NOT NULL DEFAULT 0,
  back_to   INTEGER NOT NULL DEFAULT 0,
  amnesia   INTEGER NOT NULL DEFAULT 1 CHECK (amnesia IN (0, 1)),
  api       TEXT    NOT NULL DEFAULT '',
  gossip    TEXT    NOT NULL DEFAULT ''
) WITHOUT ROWID, STRICT;

-- Results cursor, from one node to the other: when this node had numbered its
-- results up to own_rseq, every result that the peer numbers up to rcov under
-- boot was here. Pruned; a lost row costs repeats.
CREATE TABLE rcovs (
  own_rseq INTEGER PRIMARY KEY,
  boot     BLOB    NOT NULL CHECK (length(boot) = 16),
  rcov     INTEGER NOT NULL
) STRICT;

-- One Idempotency-Key that came with different work at the two nodes: what the
-- merge did not keep. Local.
CREATE TABLE conflicts (
  id         BLOB    NOT NULL CHECK (length(id) = 16),
  v1         BLOB    NOT NULL CHECK (length(v1) = 64),
  iterations INTEGER NOT NULL,
  seen_at    INTEGER NOT NULL,
  row        TEXT    NOT NULL, -- JSON
  PRIMARY KEY (id, v1, iterations)
) WITHOUT ROWID, STRICT;

-- Open rows whose retention was counted anew: few, and the others cost nothing.
CREATE INDEX jobs_raised ON jobs (gc_after) WHERE rank = 0 AND gc_after > 0;
