-- The Raft log and what must be as durable as it. One row an entry; the body is the JSON of the entry's payload.
CREATE TABLE log (
    idx  INTEGER PRIMARY KEY,
    term INTEGER NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL
) STRICT;

-- The node's own id, its vote, the last committed and the last purged log id, as JSON.
CREATE TABLE marks (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
