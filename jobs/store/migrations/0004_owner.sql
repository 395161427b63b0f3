-- Who submitted a job, NULL for an operator and where no tokens are asked for,
-- and how often it was taken back below a checkpoint that proved wrong.
ALTER TABLE jobs ADD COLUMN owner TEXT CHECK (owner IS NULL OR length(owner) BETWEEN 1 AND 63);
ALTER TABLE jobs ADD COLUMN restarts INTEGER NOT NULL DEFAULT 0 CHECK (restarts >= 0);

-- What one owner is shown, without a look at the jobs of others. Jobs that have
-- no owner cost nothing here.
CREATE INDEX jobs_owner         ON jobs (owner, rank, created_at) WHERE owner IS NOT NULL;
CREATE INDEX jobs_owner_results ON jobs (owner, rseq)             WHERE owner IS NOT NULL AND rseq IS NOT NULL;
CREATE INDEX jobs_owner_pull    ON jobs (owner, home, done_at)    WHERE owner IS NOT NULL AND rank = 3 AND pulled = 0 AND purged = 0;

-- While the peer was of this release and this node was not, owners came as
-- fields that it did not know. It reads the peer's feed once more to learn them.
UPDATE peers SET boot = NULL, at = 0, seen_head = 0, back_at = 0, back_to = 0, amnesia = 1
WHERE EXISTS (SELECT 1 FROM jobs WHERE ext IS NOT NULL);
