-- Email addresses and telephone numbers of local users, in their canonical form.

CREATE TABLE third_party_ids (
    medium TEXT NOT NULL,
    address TEXT NOT NULL,
    user_id TEXT NOT NULL,
    -- When it was shown to be theirs, and when they added it; milliseconds since the epoch.
    validated_at INTEGER NOT NULL,
    added_at INTEGER NOT NULL,
    PRIMARY KEY (medium, address)
);
CREATE INDEX third_party_ids_user ON third_party_ids (user_id);

-- Which identity servers were told whose an address is, so that they can be told otherwise.
CREATE TABLE third_party_bindings (
    user_id TEXT NOT NULL,
    medium TEXT NOT NULL,
    address TEXT NOT NULL,
    id_server TEXT NOT NULL,
    PRIMARY KEY (user_id, medium, address, id_server)
);

-- Under way: showing that an address can be read.  Secret and token are kept as their SHA-256.
CREATE TABLE address_validations (
    sid TEXT PRIMARY KEY,
    -- What it is for: another purpose needs a validation of its own.
    purpose TEXT NOT NULL,
    medium TEXT NOT NULL,
    address TEXT NOT NULL,
    client_secret BLOB NOT NULL,
    -- NULL: nothing was sent that could validate it.
    token BLOB,
    send_attempt INTEGER NOT NULL,
    next_link TEXT,
    expires_at INTEGER NOT NULL,
    -- NULL: not yet.
    validated_at INTEGER,
    UNIQUE (purpose, medium, address, client_secret)
);
CREATE INDEX address_validations_expiry ON address_validations (expires_at);
