-- Room keys that clients keep here, encrypted; and devices that nobody uses, kept for a later login.

-- One row for every user who ever had a backup: versions are never given out twice.
CREATE TABLE key_backup_users (
    user_id TEXT PRIMARY KEY,
    last_version INTEGER NOT NULL
);

CREATE TABLE key_backups (
    user_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    algorithm TEXT NOT NULL,
    -- JSON.
    auth_data TEXT NOT NULL,
    -- How often the stored keys changed.
    etag INTEGER NOT NULL,
    -- How many keys are stored.
    count INTEGER NOT NULL,
    PRIMARY KEY (user_id, version)
) WITHOUT ROWID;

CREATE TABLE backed_up_keys (
    user_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    room_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    first_message_index INTEGER NOT NULL,
    forwarded_count INTEGER NOT NULL,
    is_verified INTEGER NOT NULL,
    -- JSON.
    session_data TEXT NOT NULL,
    PRIMARY KEY (user_id, version, room_id, session_id)
) WITHOUT ROWID;
CREATE INDEX backed_up_keys_by_session ON backed_up_keys (user_id, version, session_id);

-- At most one for a user (MSC3814); its keys are those of any device.
CREATE TABLE dehydrated_devices (
    user_id TEXT PRIMARY KEY,
    device_id TEXT NOT NULL,
    -- JSON.
    device_data TEXT NOT NULL
);
