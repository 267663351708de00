-- Which events name which media of this server, and what is to become of media that none names any more.

CREATE TABLE event_media (
    event_nid INTEGER NOT NULL,
    media_id TEXT NOT NULL,
    sender TEXT NOT NULL,
    PRIMARY KEY (event_nid, media_id)
) WITHOUT ROWID;
CREATE INDEX event_media_by_media ON event_media (media_id);

-- Media that an event of its uploader named, which was redacted or purged.
CREATE TABLE forsaken_media (
    media_id TEXT PRIMARY KEY,
    -- When to look whether something else needs it, in ms.
    due INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX forsaken_media_due ON forsaken_media (due);

-- Files of media that is gone, still to be deleted where files are kept.
CREATE TABLE discarded_files (
    file_id TEXT PRIMARY KEY
) WITHOUT ROWID;

-- Of the events that were stored before there was this index, those up to here are still to be looked at.
CREATE TABLE event_media_fill (
    upto INTEGER NOT NULL
);
INSERT INTO event_media_fill (upto) SELECT COALESCE(MAX(event_nid), 0) FROM events;
