-- By which transaction id of which device of its sender an event was sent.  In the order of the
-- events, so that storing one costs no page of its own, as an index over event ids would.
CREATE TABLE event_transactions (
    event_nid INTEGER PRIMARY KEY,
    device_id TEXT NOT NULL,
    txn_id TEXT NOT NULL
);
INSERT INTO event_transactions (event_nid, device_id, txn_id)
    SELECT e.event_nid, t.device_id, t.txn_id FROM transaction_ids t JOIN events e ON e.event_id = t.event_id
    ON CONFLICT DO NOTHING;
DROP INDEX transaction_ids_event;
