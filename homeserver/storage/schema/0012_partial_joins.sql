-- Rooms joined with a part of their state, and what has been taken in on that ground.

-- A row for as long as the rest of the state is not here.
CREATE TABLE partial_joins (
    room_nid INTEGER PRIMARY KEY,
    -- The join that brought this server in: the state before it is what has to be fetched.
    join_nid INTEGER NOT NULL,
    -- The server that let it in, which is asked first.
    resident TEXT NOT NULL
);

-- Every event taken in meanwhile, the join first, in order: to be decided again.
CREATE TABLE partial_events (
    room_nid INTEGER NOT NULL,
    number INTEGER NOT NULL,
    event_nid INTEGER NOT NULL,
    -- Who can tell the state before it, where what it builds on is not here; else NULL.
    origin TEXT,
    PRIMARY KEY (room_nid, number)
) WITHOUT ROWID;

-- The position at which the state of a room that was joined so was complete; 0 for all others.
ALTER TABLE rooms ADD COLUMN full_since INTEGER NOT NULL DEFAULT 0;
