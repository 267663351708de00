-- Keys of other servers: which of them are no longer used, and what a notary vouches for.

-- 1: its server no longer uses it, and valid_until is when it stopped.
ALTER TABLE remote_keys ADD COLUMN expired INTEGER NOT NULL DEFAULT 0;

-- The newest answer in which a key was in use, as its server signed it.
CREATE TABLE published_keys (
    server_name TEXT NOT NULL,
    key_id TEXT NOT NULL,
    -- When the server gave it; 0 where another server did.
    fetched_at INTEGER NOT NULL,
    -- Canonical JSON.
    answer BLOB NOT NULL,
    PRIMARY KEY (server_name, key_id)
);
CREATE INDEX published_keys_by_age ON published_keys (fetched_at);
