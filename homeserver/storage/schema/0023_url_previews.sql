-- What was found at addresses that people wrote of.

CREATE TABLE url_previews (
    url TEXT NOT NULL,
    -- As the page's server was told which languages are liked.
    language TEXT NOT NULL,
    -- Several of one address are kept, for messages are of different times.
    fetched_at INTEGER NOT NULL,
    -- Until when it counts as new.
    expires_at INTEGER NOT NULL,
    -- JSON; NULL where there was none to be had.
    preview TEXT,
    -- Its image, if it has one.
    media_id TEXT,
    PRIMARY KEY (url, language, fetched_at)
);
CREATE INDEX url_previews_age ON url_previews (fetched_at);
CREATE INDEX url_previews_failed ON url_previews (expires_at) WHERE preview IS NULL;
CREATE INDEX url_previews_image ON url_previews (media_id) WHERE media_id IS NOT NULL;

-- The images of previews: media of this server, but no user's.
CREATE TABLE preview_images (
    media_id TEXT PRIMARY KEY,
    file_id TEXT NOT NULL UNIQUE,
    url TEXT NOT NULL,
    size INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    fetched_at INTEGER NOT NULL
);
CREATE INDEX preview_images_url ON preview_images (url, fetched_at);
CREATE INDEX preview_images_age ON preview_images (fetched_at);
