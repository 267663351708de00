-- Events that are purged once their time is over; accounts of guests.

-- events.flags: 16 marks a purged event.  Its place in the graph is left of it, for what builds on it: its
-- JSON is a husk without content, and it is in no timeline any more (pos is NULL).

-- What is in no timeline for having been refused has an age too.
CREATE INDEX events_refused ON events (room_nid, origin_server_ts)
    WHERE pos IS NULL AND key_nid IS NULL AND state_before IS NOT NULL AND flags < 16;

-- 1: a guest, who has no password and may do little.
ALTER TABLE users ADD COLUMN is_guest INTEGER NOT NULL DEFAULT 0;
CREATE INDEX users_guests ON users (user_id) WHERE is_guest = 1;
