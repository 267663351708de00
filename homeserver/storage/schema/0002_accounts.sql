-- Accounts: local users, their devices and tokens, and what they keep on the server.

CREATE TABLE users (
    user_id TEXT PRIMARY KEY,
    -- argon2id in its text form; NULL: nobody can log in with a password.
    password_hash TEXT,
    is_admin INTEGER NOT NULL,
    deactivated INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL
);

CREATE TABLE devices (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    display_name TEXT,
    created_at INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, device_id)
) WITHOUT ROWID;

-- Tokens are kept as their SHA-256.
CREATE TABLE refresh_tokens (
    refresh_nid INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    -- The refresh token this one replaces as soon as it, or its access token, is used.
    replaces_nid INTEGER
);
CREATE INDEX refresh_tokens_device ON refresh_tokens (user_id, device_id);

CREATE TABLE access_tokens (
    token_id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    -- NULL: does not expire.
    expires_at INTEGER,
    -- The refresh token it was issued with.
    refresh_nid INTEGER
);
CREATE INDEX access_tokens_device ON access_tokens (user_id, device_id);
CREATE INDEX access_tokens_refresh ON access_tokens (refresh_nid);

CREATE TABLE registration_tokens (
    token TEXT PRIMARY KEY,
    -- NULL: as often as wanted; NULL: for ever.
    uses_allowed INTEGER,
    expires_at INTEGER,
    uses INTEGER NOT NULL DEFAULT 0
);

-- One row a field, the value as JSON.
CREATE TABLE profiles (
    user_id TEXT NOT NULL,
    field TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (user_id, field)
) WITHOUT ROWID;

-- Global account data has the empty room id.
CREATE TABLE account_data (
    user_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    type TEXT NOT NULL,
    content TEXT NOT NULL,
    pos INTEGER NOT NULL,
    PRIMARY KEY (user_id, room_id, type)
);
CREATE INDEX account_data_changes ON account_data (user_id, pos);

CREATE TABLE filters (
    user_id TEXT NOT NULL,
    filter_id INTEGER NOT NULL,
    definition TEXT NOT NULL,
    PRIMARY KEY (user_id, filter_id)
);

-- What a client's transaction id led to, so that a repeated request is answered alike.
CREATE TABLE transaction_ids (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    -- Which endpoint, and for what: the same transaction id elsewhere is another one.
    scope TEXT NOT NULL,
    txn_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, device_id, scope, txn_id)
) WITHOUT ROWID;
CREATE INDEX transaction_ids_age ON transaction_ids (created_at);
