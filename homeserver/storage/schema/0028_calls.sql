-- Events that are to be sent later (MSC4140), and what became of them; events that stick for a while (MSC4354).

CREATE TABLE delayed_events (
    delay_id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    type TEXT NOT NULL,
    -- NULL for a message event.
    state_key TEXT,
    content BLOB NOT NULL,
    delay_ms INTEGER NOT NULL,
    -- When it was scheduled or restarted the last time; it is due when the delay has passed since.
    scheduled_at INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    -- Chosen by an application service.
    origin_server_ts INTEGER,
    sticky_ms INTEGER,
    -- NULL while it is scheduled.
    finalised_at INTEGER,
    -- The event it became; else what went wrong, as JSON; neither where it was cancelled.
    event_id TEXT,
    error BLOB
);
CREATE INDEX delayed_events_due ON delayed_events (due_at) WHERE finalised_at IS NULL;
CREATE INDEX delayed_events_scheduled ON delayed_events (user_id, due_at) WHERE finalised_at IS NULL;
CREATE INDEX delayed_events_finalised ON delayed_events (user_id, finalised_at) WHERE finalised_at IS NOT NULL;
CREATE INDEX delayed_events_sent ON delayed_events (event_id) WHERE event_id IS NOT NULL;

CREATE TABLE sticky_events (
    event_nid INTEGER PRIMARY KEY,
    room_nid INTEGER NOT NULL,
    sender TEXT NOT NULL,
    -- From which stream position on clients are told of it; NULL while it is soft-failed.
    pos INTEGER,
    expires_at INTEGER NOT NULL
);
CREATE INDEX sticky_events_expiry ON sticky_events (expires_at);
