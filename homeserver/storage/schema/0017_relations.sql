-- Which events relate to which, for events that have a place in a timeline, are shown and not redacted.
CREATE TABLE relations (
    event_nid INTEGER PRIMARY KEY,
    room_nid INTEGER NOT NULL,
    -- The parent need not be known here.
    parent_id TEXT NOT NULL,
    rel_type TEXT NOT NULL,
    -- Of the child: its type, sender, position and origin_server_ts.
    type TEXT NOT NULL,
    sender TEXT NOT NULL,
    pos INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    -- What replacements and annotations of one sender compete for (protocol/relations.py).
    slot TEXT
);
CREATE INDEX relations_by_parent ON relations (room_nid, parent_id, rel_type, pos);
CREATE INDEX relations_by_slot ON relations (slot, ts) WHERE slot IS NOT NULL;

-- How much each user has said in each thread.
CREATE TABLE threads (
    room_nid INTEGER NOT NULL,
    root_id TEXT NOT NULL,
    sender TEXT NOT NULL,
    events INTEGER NOT NULL,
    latest_pos INTEGER NOT NULL,
    PRIMARY KEY (room_nid, root_id, sender)
) WITHOUT ROWID;
CREATE INDEX threads_by_activity ON threads (room_nid, latest_pos);

-- Of the events that were stored before there was this index, those up to here are still to be looked at.
CREATE TABLE relations_fill (
    upto INTEGER NOT NULL
);
INSERT INTO relations_fill (upto) SELECT COALESCE(MAX(event_nid), 0) FROM events;
