-- What few jobs have, NULL for all others: how many checkpoints stay, 2 bytes,
-- from where the job was resumed, 8 bytes, both little endian, and then the
-- values of its first checkpoints, 64 bytes each.
ALTER TABLE jobs ADD COLUMN kept BLOB CHECK (kept IS NULL OR purged = 0 AND length(kept) % 64 = 10);
