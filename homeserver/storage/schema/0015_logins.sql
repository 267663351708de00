-- What an administrator may do to an account, where devices are used from, and accounts of other providers.

ALTER TABLE users ADD COLUMN locked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN suspended INTEGER NOT NULL DEFAULT 0;

-- Of the newest request that was noted (users/last_seen.py).
ALTER TABLE devices ADD COLUMN last_seen_ip TEXT;
ALTER TABLE devices ADD COLUMN user_agent TEXT;

-- Whom a provider of single sign-on calls `subject` is this user here.
CREATE TABLE sso_subjects (
    provider TEXT NOT NULL,
    subject TEXT NOT NULL,
    user_id TEXT NOT NULL,
    PRIMARY KEY (provider, subject)
);
CREATE INDEX sso_subjects_user ON sso_subjects (user_id);
