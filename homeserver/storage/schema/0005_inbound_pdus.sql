-- PDUs that other servers were told are taken in while they were still waiting for it.
-- A row is deleted once that has happened.

CREATE TABLE inbound_pdus (
    -- In the order in which they came.
    number INTEGER PRIMARY KEY,
    origin TEXT NOT NULL,
    room_id TEXT NOT NULL,
    -- Canonical JSON.
    pdu BLOB NOT NULL
);
