-- People: who can be found here, and what they report.

-- Everybody who may be found: local users, and those of other servers who are joined to a room here.
CREATE TABLE directory_users (
    user_id TEXT PRIMARY KEY,
    is_remote INTEGER NOT NULL,
    display_name TEXT,
    avatar_url TEXT,
    -- 0 for a name that was said in a room that not everybody may look into.
    is_public INTEGER NOT NULL
);

-- The words they are found by (protocol/search_words.py).
CREATE TABLE directory_words (
    is_remote INTEGER NOT NULL,
    word TEXT NOT NULL,
    user_id TEXT NOT NULL,
    PRIMARY KEY (is_remote, word, user_id)
) WITHOUT ROWID;
CREATE INDEX directory_words_user ON directory_words (user_id);

-- Up to which version of its state each room has been read for the two tables above.
CREATE TABLE directory_rooms (
    room_nid INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    state_ver INTEGER NOT NULL,
    -- 1: anybody may join it, or read its history, and so see who is in it.
    is_public INTEGER NOT NULL
);

CREATE TABLE reports (
    report_id INTEGER PRIMARY KEY,
    reporter TEXT NOT NULL,
    -- What is reported: a room, an event in a room, or a user; '' for what it is not.
    room_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    UNIQUE (reporter, room_id, event_id, user_id)
);
