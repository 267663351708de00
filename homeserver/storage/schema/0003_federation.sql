-- Federation: other servers' keys, what is on its way to them, and what has come from them.

CREATE TABLE remote_keys (
    server_name TEXT NOT NULL,
    key_id TEXT NOT NULL,
    -- Unpadded base64.
    key TEXT NOT NULL,
    valid_until INTEGER NOT NULL,
    PRIMARY KEY (server_name, key_id)
) WITHOUT ROWID;

CREATE TABLE destinations (
    server_name TEXT PRIMARY KEY,
    -- Events this server sent up to this position have been delivered; stored now and then.
    sent_pos INTEGER NOT NULL,
    -- How many attempts in a row have failed, and when the next one is due.
    failures INTEGER NOT NULL DEFAULT 0,
    retry_at INTEGER NOT NULL DEFAULT 0
);

-- EDUs that have to arrive; deleted once acknowledged.
CREATE TABLE outbox (
    destination TEXT NOT NULL,
    pos INTEGER NOT NULL,
    -- The EDU as canonical JSON.
    edu BLOB NOT NULL,
    PRIMARY KEY (destination, pos)
) WITHOUT ROWID;

-- What transactions of other servers were answered with, for when they are sent again.
CREATE TABLE received_transactions (
    origin TEXT NOT NULL,
    transaction_id TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    reply BLOB NOT NULL,
    PRIMARY KEY (origin, transaction_id)
) WITHOUT ROWID;
CREATE INDEX received_transactions_by_age ON received_transactions (received_at);
