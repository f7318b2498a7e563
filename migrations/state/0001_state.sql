-- The applied state: one row an object, whose body is its JSON.
CREATE TABLE objects (
    kind TEXT NOT NULL,
    key  TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;

-- What happened, by revision, back to the last compaction.
CREATE TABLE events (
    revision INTEGER PRIMARY KEY,
    service  TEXT,
    type     TEXT NOT NULL,
    body     TEXT NOT NULL
) STRICT;

-- The last applied log id and the membership, as JSON. They change in the transaction of the rows above.
CREATE TABLE marks (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
