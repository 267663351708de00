-- Finding rooms and events: the list of published rooms, the timeline by time, OpenID tokens.

CREATE INDEX rooms_published ON rooms (joined_members, room_nid) WHERE published = 1;

CREATE INDEX events_by_time ON events (room_nid, origin_server_ts, pos) WHERE pos IS NOT NULL;

-- Tokens are kept as their SHA-256.
CREATE TABLE openid_tokens (
    hash BLOB PRIMARY KEY,
    user_id TEXT NOT NULL,
    expires_at INTEGER NOT NULL
);
CREATE INDEX openid_tokens_age ON openid_tokens (expires_at);
