-- What each server is owed of what was sent while it was away.

-- When servers were in rooms: the events after joined_pos, up to left_pos and with it, are for them.
CREATE TABLE room_stays (
    server_name TEXT NOT NULL,
    room_nid INTEGER NOT NULL,
    joined_pos INTEGER NOT NULL,
    -- NULL while the server is in the room.
    left_pos INTEGER,
    PRIMARY KEY (server_name, room_nid, joined_pos)
) WITHOUT ROWID;
CREATE INDEX room_stays_open ON room_stays (room_nid) WHERE left_pos IS NULL;
CREATE INDEX room_stays_ended ON room_stays (left_pos) WHERE left_pos IS NOT NULL;

-- A server that was sent to before has been in its rooms for as long as it matters, another one since now.
INSERT INTO room_stays (server_name, room_nid, joined_pos)
SELECT s.server_name, s.room_nid,
       CASE WHEN EXISTS (SELECT 1 FROM destinations d WHERE d.server_name = s.server_name) THEN 0
            ELSE (SELECT COALESCE(MAX(r.last_pos), 0) FROM rooms r) END
FROM room_servers s;

CREATE INDEX events_sent_here_in_room ON events (room_nid, pos) WHERE flags IN (4, 12);

-- Receipts up to here have been delivered.
ALTER TABLE destinations ADD COLUMN receipts_pos INTEGER NOT NULL DEFAULT 0;
-- After a long absence: the rooms whose newest event is at or before this have been caught up with; else 0.
ALTER TABLE destinations ADD COLUMN caught_up_pos INTEGER NOT NULL DEFAULT 0;
-- When the first of the failures in a row was, in ms since the epoch; 0 for one that works.
ALTER TABLE destinations ADD COLUMN failing_since INTEGER NOT NULL DEFAULT 0;
UPDATE destinations SET receipts_pos = sent_pos;

-- In ms since the epoch; 0 where it was not noted.
ALTER TABLE outbox ADD COLUMN added_at INTEGER NOT NULL DEFAULT 0;
CREATE INDEX outbox_by_age ON outbox (added_at);
