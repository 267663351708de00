-- Which threads users are subscribed to (MSC4306), and which no longer.
CREATE TABLE thread_subscriptions (
    user_id TEXT NOT NULL,
    room_nid INTEGER NOT NULL,
    root_id TEXT NOT NULL,
    -- 1 while it lasts; the row stays behind when it ends.
    subscribed INTEGER NOT NULL,
    -- 1 when a client made it for the user.
    automatic INTEGER NOT NULL,
    -- The stream position of the last change.
    pos INTEGER NOT NULL,
    -- The position at which the user last said that they do not want it; NULL if they never did.
    unsubscribed_at INTEGER,
    PRIMARY KEY (user_id, room_nid, root_id)
) WITHOUT ROWID;
CREATE INDEX thread_subscriptions_changes ON thread_subscriptions (user_id, pos);

-- "Who has read up to the newest events", of which sliding sync tells where a room comes into view (MSC3960).
CREATE INDEX receipts_by_place ON receipts (room_nid, event_pos);
