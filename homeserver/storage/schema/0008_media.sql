-- Media: what people upload, copies of what other servers have, and thumbnails of both.
-- The files themselves are elsewhere; a row names its file by a random id.

CREATE TABLE local_media (
    media_id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    -- Until when content may be uploaded to an id that was made without it.
    expires_at INTEGER,
    -- NULL until there is content.
    file_id TEXT UNIQUE,
    size INTEGER NOT NULL,
    content_type TEXT,
    filename TEXT,
    -- 1 where the deprecated endpoints give it to anybody.
    is_public INTEGER NOT NULL
);
CREATE INDEX local_media_user ON local_media (user_id, size);
CREATE INDEX local_media_pending ON local_media (expires_at) WHERE file_id IS NULL;

CREATE TABLE remote_media (
    server_name TEXT NOT NULL,
    media_id TEXT NOT NULL,
    file_id TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    filename TEXT,
    fetched_at INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL,
    is_public INTEGER NOT NULL,
    PRIMARY KEY (server_name, media_id)
);
CREATE INDEX remote_media_use ON remote_media (last_used_at);

CREATE TABLE thumbnails (
    -- The file of the local or remote media it shows.
    original TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    method TEXT NOT NULL,
    animated INTEGER NOT NULL,
    -- NULL where the original itself serves as its thumbnail.
    file_id TEXT UNIQUE,
    size INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (original, width, height, method, animated)
);
