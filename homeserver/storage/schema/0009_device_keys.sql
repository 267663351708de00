-- End-to-end encryption: keys of devices and of users, and who has to be told when they change.

-- Identity keys of local devices, as they were uploaded (JSON).
CREATE TABLE device_keys (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    keys TEXT NOT NULL,
    PRIMARY KEY (user_id, device_id)
) WITHOUT ROWID;

CREATE TABLE one_time_keys (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    key_id TEXT NOT NULL,
    key TEXT NOT NULL,
    -- Keys are given out in this order; those of one upload share a number.
    number INTEGER NOT NULL,
    -- When it was given out (milliseconds).  Kept a while, so that a repeated upload does not bring it back.
    claimed_at INTEGER,
    PRIMARY KEY (user_id, device_id, algorithm, key_id)
) WITHOUT ROWID;
CREATE INDEX one_time_keys_unclaimed ON one_time_keys (user_id, device_id, algorithm, number)
    WHERE claimed_at IS NULL;
CREATE INDEX one_time_keys_claimed ON one_time_keys (claimed_at) WHERE claimed_at IS NOT NULL;

CREATE TABLE fallback_keys (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    key_id TEXT NOT NULL,
    key TEXT NOT NULL,
    used INTEGER NOT NULL,
    PRIMARY KEY (user_id, device_id, algorithm)
) WITHOUT ROWID;

-- Of local users, and of remote ones whose device lists are kept.
CREATE TABLE cross_signing_keys (
    user_id TEXT NOT NULL,
    -- master, self_signing or user_signing.
    usage TEXT NOT NULL,
    public_key TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (user_id, usage)
) WITHOUT ROWID;

-- Signatures that local users added to keys after those were uploaded.
CREATE TABLE key_signatures (
    target_user TEXT NOT NULL,
    -- A device id, or the public key of a master key.
    target_key TEXT NOT NULL,
    signer TEXT NOT NULL,
    -- As in ed25519:ABCDEF.
    signing_key TEXT NOT NULL,
    signature TEXT NOT NULL,
    pos INTEGER NOT NULL,
    PRIMARY KEY (target_user, target_key, signer, signing_key)
) WITHOUT ROWID;
CREATE INDEX key_signatures_signer ON key_signatures (signer, pos);

-- One row for every user, here or elsewhere, whose devices or cross-signing keys changed.
CREATE TABLE device_lists (
    user_id TEXT PRIMARY KEY,
    -- Of local users: how many changes there were, the number of the newest one.
    stream_id INTEGER NOT NULL,
    -- Position of the newest change that local users were told of.
    pos INTEGER NOT NULL
);
CREATE INDEX device_lists_changes ON device_lists (pos);

-- Changes of local users that are still to be told: one row a change, whoever it is for.
CREATE TABLE device_list_changes (
    number INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    -- '' for a change of cross-signing keys.
    device_id TEXT NOT NULL,
    stream_id INTEGER NOT NULL
);

-- Users of other servers whose devices are kept here, and up to which change.
CREATE TABLE remote_device_lists (
    user_id TEXT PRIMARY KEY,
    stream_id INTEGER NOT NULL,
    -- Changes are known to be missing: it has to be fetched anew.
    stale INTEGER NOT NULL
);

CREATE TABLE remote_devices (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    -- NULL: a device that does not encrypt.
    keys TEXT,
    display_name TEXT,
    PRIMARY KEY (user_id, device_id)
) WITHOUT ROWID;
