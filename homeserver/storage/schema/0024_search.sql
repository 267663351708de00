-- The words of messages, and of rooms' names and topics: what people search for.
CREATE TABLE search_documents (
    event_nid INTEGER PRIMARY KEY,
    -- The event whose text it is: the newest edit, else the event itself.
    source_nid INTEGER NOT NULL,
    room_nid INTEGER NOT NULL,
    sender TEXT NOT NULL,
    -- Which field: 0 content.body, 1 content.name, 2 content.topic.
    field INTEGER NOT NULL,
    -- Whether the content has a url.
    has_url INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    -- The text, as protocol/segmentation.py writes words.
    words TEXT NOT NULL,
    -- What the index below finds it by: keyed hashes, with spaces between them.
    terms TEXT NOT NULL
);
CREATE INDEX search_documents_by_edit ON search_documents (source_nid) WHERE source_nid <> event_nid;

-- Events to be looked at (again), beside those that come after the stream position below.
CREATE TABLE search_queue (
    id INTEGER PRIMARY KEY,
    event_nid INTEGER NOT NULL
);

-- One row while there is an index.
CREATE TABLE search_progress (
    -- Of protocol/segmentation.py, by which the documents were made.
    version INTEGER NOT NULL,
    -- Of the hashes.
    key BLOB NOT NULL,
    -- Timelines have been looked at up to this stream position ...
    pos INTEGER NOT NULL,
    -- ... and, of the events before, those from this number on.
    upto INTEGER NOT NULL
);
