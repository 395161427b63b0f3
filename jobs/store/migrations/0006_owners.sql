-- How many open jobs an owner has, at both homes, kept by the transactions that
-- change them. Who has none has no row. A number below zero is one that rows
-- which were changed behind this node's back have left; a recount mends it.
CREATE TABLE owners (
  owner TEXT    PRIMARY KEY CHECK (length(owner) BETWEEN 1 AND 63),
  open  INTEGER NOT NULL CHECK (open <> 0)
) WITHOUT ROWID, STRICT;

INSERT INTO owners (owner, open)
SELECT owner, count(*) FROM jobs WHERE owner IS NOT NULL AND rank = 0 GROUP BY owner;
