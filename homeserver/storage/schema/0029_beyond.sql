-- What proposals ask for that are not in the specification yet.

-- What redactions took away, kept for a time for those who moderate (MSC2815).
CREATE TABLE redacted_content (
    event_nid INTEGER PRIMARY KEY,
    -- The event as it was, as in event_json.
    json BLOB NOT NULL,
    -- When it is over, in milliseconds since the epoch.
    expires_ts INTEGER NOT NULL
);
CREATE INDEX redacted_content_by_expiry ON redacted_content (expires_ts);

-- Redactions of events together with what relates to them (MSC3912).
CREATE TABLE related_redactions (
    -- The redaction of the parent.
    redaction_id TEXT PRIMARY KEY,
    room_nid INTEGER NOT NULL,
    parent_id TEXT NOT NULL,
    -- Who redacted the parent, and now redacts its children.
    sender TEXT NOT NULL,
    -- A JSON list; "*" is any type.
    rel_types TEXT NOT NULL,
    -- What valid replacements of the parent have in "slot" of relations; NULL: there are none.
    slot TEXT,
    -- Whether the parent may have had a thread.
    is_thread_root INTEGER NOT NULL,
    -- Whether the sender is an administrator of this server; or suspended, and so redacts only their own events.
    is_admin INTEGER NOT NULL,
    own_only INTEGER NOT NULL,
    reason TEXT,
    -- Until when children that come late are redacted too, in milliseconds since the epoch.
    expires_ts INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX related_redactions_by_expiry ON related_redactions (expires_ts);

-- The last change of each field of a local user's profile, for clients that follow profiles (MSC4262).
CREATE TABLE profile_changes (
    user_id TEXT NOT NULL,
    field TEXT NOT NULL,
    pos INTEGER NOT NULL,
    PRIMARY KEY (user_id, field)
) WITHOUT ROWID;
CREATE INDEX profile_changes_by_pos ON profile_changes (pos);
