-- Application services: what each of them is still to be sent, and the rooms it publishes for its networks.

CREATE TABLE appservices (
    service_id TEXT PRIMARY KEY,
    -- Number of the newest transaction that was made for it.
    txn_id INTEGER NOT NULL,
    -- Events, and changes of device lists, up to here have been looked at for it.
    pos INTEGER NOT NULL,
    devices_pos INTEGER NOT NULL
);

CREATE TABLE appservice_events (
    service_id TEXT NOT NULL,
    pos INTEGER NOT NULL,
    -- 0 for a membership in a room this server is not in; the event stands in `json` then.
    event_nid INTEGER NOT NULL,
    json BLOB,
    PRIMARY KEY (service_id, pos)
) WITHOUT ROWID;

-- The one that is on its way to each service, as it is repeated until it has arrived.
CREATE TABLE appservice_transactions (
    service_id TEXT PRIMARY KEY,
    txn_id INTEGER NOT NULL,
    body BLOB NOT NULL
);

CREATE TABLE appservice_rooms (
    service_id TEXT NOT NULL,
    network_id TEXT NOT NULL,
    room_nid INTEGER NOT NULL,
    PRIMARY KEY (service_id, network_id, room_nid)
) WITHOUT ROWID;
CREATE INDEX appservice_rooms_by_room ON appservice_rooms (room_nid);
