-- Pushers: where people are told of what happens while they are away, and up to where they were.

CREATE TABLE pushers (
    user_id TEXT NOT NULL,
    app_id TEXT NOT NULL,
    pushkey TEXT NOT NULL,
    -- http or email.
    kind TEXT NOT NULL,
    -- The device that made it, with which it goes.
    device_id TEXT NOT NULL,
    app_display_name TEXT NOT NULL,
    device_display_name TEXT NOT NULL,
    profile_tag TEXT,
    lang TEXT NOT NULL,
    -- A JSON object.
    data TEXT NOT NULL,
    -- When it was made or set anew, in seconds since the epoch.
    pushkey_ts INTEGER NOT NULL,
    -- Everything up to this stream position has been pushed; counts where it is later than
    -- that of all pushers, or where the pusher is behind.
    pos INTEGER NOT NULL,
    -- 1: something was waiting when the position of all pushers was stored.
    behind INTEGER NOT NULL DEFAULT 0,
    -- When the first of the failures in a row was, in ms since the epoch; 0 for one that works.
    failing_since INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, app_id, pushkey)
);
CREATE INDEX pushers_by_key ON pushers (app_id, pushkey);

-- One row: the position up to which every pusher that is not behind has everything.
CREATE TABLE push_position (
    id INTEGER PRIMARY KEY,
    pos INTEGER NOT NULL
);

-- How often one room makes a person's mail.
CREATE TABLE mailed_rooms (
    user_id TEXT NOT NULL,
    pushkey TEXT NOT NULL,
    room_nid INTEGER NOT NULL,
    -- In ms since the epoch.
    mailed_at INTEGER NOT NULL,
    -- How long the room has to wait for its next mail, in ms.
    pause_ms INTEGER NOT NULL,
    PRIMARY KEY (user_id, pushkey, room_nid)
);
