-- Rooms: their events, their state and who is in them.
-- Integers stand for rooms (room_nid), events (event_nid) and (type, state_key) pairs (key_nid).

-- Numbers handed out in memory; everything below `reserved` may have been used.
CREATE TABLE sequences (
    name TEXT PRIMARY KEY,
    reserved INTEGER NOT NULL
);

CREATE TABLE rooms (
    room_nid INTEGER PRIMARY KEY,
    room_id TEXT NOT NULL UNIQUE,
    version TEXT NOT NULL,
    -- Which run of the state log is in force; another one starts when a join imports the state anew.
    epoch INTEGER NOT NULL,
    -- Position of the newest change of current state, and of the newest event.
    state_ver INTEGER NOT NULL,
    last_pos INTEGER NOT NULL,
    depth INTEGER NOT NULL,
    -- The forward extremities: event_nids, eight bytes each, big-endian.
    tips BLOB NOT NULL,
    joined_members INTEGER NOT NULL,
    invited_members INTEGER NOT NULL,
    published INTEGER NOT NULL DEFAULT 0,
    checkpoint_ver INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE state_keys (
    key_nid INTEGER PRIMARY KEY,
    type TEXT NOT NULL,
    state_key TEXT NOT NULL,
    UNIQUE (type, state_key)
);

CREATE TABLE events (
    event_nid INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    room_nid INTEGER NOT NULL,
    -- The stream position; negative for backfilled events; NULL for outliers, which no timeline holds.
    pos INTEGER,
    depth INTEGER NOT NULL,
    origin_server_ts INTEGER NOT NULL,
    -- NULL for a message event.
    key_nid INTEGER,
    -- 1 rejected, 2 soft-failed, 4 sent by this server, 8 redacted (storage/events.py).
    flags INTEGER NOT NULL,
    -- State references (rooms/state_store.py): a position, or minus an overlay_nid; NULL for outliers.
    state_before INTEGER,
    state_after INTEGER,
    -- event_nids, eight bytes each, big-endian.
    auth_nids BLOB NOT NULL,
    -- The m.room.redaction that emptied this event.
    redacted_by INTEGER
);
CREATE INDEX events_timeline ON events (room_nid, pos);
CREATE INDEX events_sent_here ON events (pos) WHERE flags IN (4, 12);

-- The PDU: a format byte, then the canonical JSON (storage/event_json.py).
CREATE TABLE event_json (
    event_nid INTEGER PRIMARY KEY,
    json BLOB NOT NULL
);

-- Events that others build on and this server does not have: where backfill starts.
CREATE TABLE missing_events (
    room_nid INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    -- Position of the event that refers to it.
    wanted_by INTEGER NOT NULL,
    PRIMARY KEY (room_nid, event_id)
) WITHOUT ROWID;

-- Redactions of events that have not come yet.
CREATE TABLE pending_redactions (
    redacts TEXT NOT NULL,
    event_nid INTEGER NOT NULL,
    PRIMARY KEY (redacts, event_nid)
) WITHOUT ROWID;

CREATE TABLE current_state (
    room_nid INTEGER NOT NULL,
    key_nid INTEGER NOT NULL,
    event_nid INTEGER NOT NULL,
    -- For m.room.member: 1 join, 2 invite, 3 knock, 4 leave, 5 ban.
    membership INTEGER,
    PRIMARY KEY (room_nid, key_nid)
) WITHOUT ROWID;
CREATE INDEX current_state_members ON current_state (room_nid, membership) WHERE membership IS NOT NULL;
CREATE INDEX current_state_others ON current_state (room_nid) WHERE membership IS NULL;

-- Every change of a room's current state; `ver` is the position of the event that brought it.
-- event_nid 0: the key has no value (any more, or before).
CREATE TABLE state_log (
    room_nid INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    key_nid INTEGER NOT NULL,
    ver INTEGER NOT NULL,
    event_nid INTEGER NOT NULL,
    prev_event_nid INTEGER NOT NULL,
    PRIMARY KEY (room_nid, epoch, key_nid, ver)
) WITHOUT ROWID;
CREATE INDEX state_log_by_ver ON state_log (room_nid, epoch, ver);

-- The whole state at one version, compressed, so that old versions need not be replayed from the start.
CREATE TABLE state_checkpoints (
    room_nid INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    ver INTEGER NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (room_nid, epoch, ver)
) WITHOUT ROWID;

-- The state on a fork, as a difference from a version (parent 0) or from another overlay.
CREATE TABLE state_overlays (
    overlay_nid INTEGER PRIMARY KEY,
    room_nid INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    base_ver INTEGER NOT NULL,
    parent INTEGER NOT NULL,
    chain INTEGER NOT NULL,
    hash BLOB NOT NULL,
    diff BLOB NOT NULL,
    UNIQUE (room_nid, hash)
);

-- What each local user sees of each room, rooms this server is only invited to included.
CREATE TABLE local_memberships (
    user_id TEXT NOT NULL,
    room_nid INTEGER NOT NULL,
    membership INTEGER NOT NULL,
    event_nid INTEGER NOT NULL,
    sender TEXT NOT NULL,
    pos INTEGER NOT NULL,
    forgotten INTEGER NOT NULL,
    -- invite_room_state or knock_room_state as it was received, as JSON; NULL where the room is known here.
    stripped_state BLOB,
    PRIMARY KEY (user_id, room_nid)
) WITHOUT ROWID;
CREATE INDEX local_memberships_by_room ON local_memberships (room_nid, membership);

-- How many members each server has joined to each room; no row for none.
CREATE TABLE room_servers (
    room_nid INTEGER NOT NULL,
    server_name TEXT NOT NULL,
    joined INTEGER NOT NULL,
    PRIMARY KEY (room_nid, server_name)
) WITHOUT ROWID;
CREATE INDEX room_servers_by_server ON room_servers (server_name);

CREATE TABLE room_aliases (
    alias TEXT PRIMARY KEY,
    room_id TEXT NOT NULL,
    creator TEXT NOT NULL
);
CREATE INDEX room_aliases_by_room ON room_aliases (room_id);
