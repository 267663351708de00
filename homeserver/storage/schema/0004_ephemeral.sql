-- What people do beside sending events: receipts, messages between devices, presence.

CREATE TABLE receipts (
    room_nid INTEGER NOT NULL,
    user_id TEXT NOT NULL,
    type TEXT NOT NULL,
    -- '' for an unthreaded receipt, else 'main' or the id of the thread's root.
    thread_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    -- Where that event is in the timeline; the receipt's own position when it is not here.
    event_pos INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    PRIMARY KEY (room_nid, user_id, type, thread_id)
) WITHOUT ROWID;
CREATE INDEX receipts_changes ON receipts (room_nid, pos);

-- Messages waiting for a device; gone once its next sync shows that it has them.
CREATE TABLE to_device (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    pos INTEGER NOT NULL,
    -- type, sender and content as JSON.
    message TEXT NOT NULL,
    PRIMARY KEY (user_id, device_id, pos)
);

-- Which messages of other servers came already.
CREATE TABLE to_device_received (
    origin TEXT NOT NULL,
    message_id TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    PRIMARY KEY (origin, message_id)
) WITHOUT ROWID;
CREATE INDEX to_device_received_age ON to_device_received (received_at);

-- The last presence of each user that was seen.
CREATE TABLE presence (
    user_id TEXT PRIMARY KEY,
    presence TEXT NOT NULL,
    status_msg TEXT,
    last_active_at INTEGER NOT NULL
);

-- Senders are shown the transaction id of their own events.
CREATE INDEX transaction_ids_event ON transaction_ids (event_id);

-- "Which rooms is this user in", for users of other servers too.
CREATE INDEX current_state_member_rooms ON current_state (key_nid) WHERE membership = 1;
