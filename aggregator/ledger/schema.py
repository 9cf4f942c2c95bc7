"""The ledger's tables. Numbers without a unit are counts; times are seconds since 1970, for people only."""

FORMAT = 6

# WITHOUT ROWID only where rows are small: SQLite reads all of a row, however long, to compare its key there.
TABLES = """
CREATE TABLE IF NOT EXISTS meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Every bundle ever published; the newest row is the present task.
CREATE TABLE IF NOT EXISTS task (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    bundle BLOB NOT NULL,
    published_at REAL NOT NULL
) STRICT;

-- Feature sums as the nodes sent them, with the number that each gave them, and what was released from them.
CREATE TABLE IF NOT EXISTS statistics (
    task TEXT NOT NULL,
    node TEXT NOT NULL,
    sums BLOB NOT NULL,
    issued INTEGER NOT NULL,
    received_at REAL NOT NULL,
    PRIMARY KEY (task, node)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS normalisation (
    task TEXT PRIMARY KEY,
    value BLOB NOT NULL,
    nodes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The name of a task's model history: random, drawn with version 0.
CREATE TABLE IF NOT EXISTS run (
    task TEXT PRIMARY KEY,
    id TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Below which topics something was ever retained, and in how many chunks at most.
CREATE TABLE IF NOT EXISTS shelf (
    prefix TEXT PRIMARY KEY,
    chunks INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Pieces of updates that are not whole yet.
CREATE TABLE IF NOT EXISTS chunk (
    node TEXT NOT NULL,
    digest BLOB NOT NULL,
    position INTEGER NOT NULL,
    message BLOB NOT NULL,
    received_at REAL NOT NULL,
    PRIMARY KEY (node, digest, position)
) STRICT;

-- Every whole update, in the order of its decision; `body` is the update as received, kept when accepted, and `score`
-- that of its base version on the node's own validation data, as the node says; `class_scores` the same for each
-- class with the number of examples, as MessagePack, where the task has classes that are scored apart.
CREATE TABLE IF NOT EXISTS contribution (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    node TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    digest TEXT NOT NULL,
    base_version INTEGER NOT NULL,
    num_examples INTEGER NOT NULL,
    accepted INTEGER NOT NULL,
    code TEXT NOT NULL,
    reason TEXT NOT NULL,
    hint TEXT NOT NULL,
    staleness INTEGER NOT NULL,
    norm REAL NOT NULL,
    num_params INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    score REAL,
    class_scores BLOB,
    body BLOB,
    received_at REAL NOT NULL,
    UNIQUE (node, sequence)
) STRICT;

-- Every released version: the delta message that leads to it, and the last contribution folded into it.
CREATE TABLE IF NOT EXISTS version (
    task TEXT NOT NULL,
    version INTEGER NOT NULL,
    contribution INTEGER NOT NULL,
    parameters TEXT NOT NULL,
    delta BLOB NOT NULL,
    weights BLOB NOT NULL,
    released_at REAL NOT NULL,
    score REAL,
    PRIMARY KEY (task, version)
) STRICT;

-- Where a replay may begin: exact and released parameters, and the method's state, after one contribution.
CREATE TABLE IF NOT EXISTS checkpoint (
    task TEXT NOT NULL,
    version INTEGER NOT NULL,
    contribution INTEGER NOT NULL,
    exact BLOB NOT NULL,
    released BLOB NOT NULL,
    state BLOB NOT NULL,
    written_at REAL NOT NULL,
    PRIMARY KEY (task, version)
) STRICT;

-- With which settings the contributions behind `contribution` are folded, up to the next row's; `fresh`: the
-- method's state began anew there. A checkpoint stands at the same place.
CREATE TABLE IF NOT EXISTS stretch (
    task TEXT NOT NULL,
    contribution INTEGER NOT NULL,
    version INTEGER NOT NULL,
    settings TEXT NOT NULL,
    fresh INTEGER NOT NULL,
    began_at REAL NOT NULL,
    PRIMARY KEY (task, contribution)
) STRICT, WITHOUT ROWID;

-- Up to where a task's log was compacted: updates before it are dropped, and the deltas up to `deltas_from`; a
-- checkpoint stands at it.
CREATE TABLE IF NOT EXISTS compaction (
    task TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    contribution INTEGER NOT NULL,
    deltas_from INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Where the model was turned back: after `contribution`, `version` was released with the parameters of `to_version`,
-- and the method's state began anew. A checkpoint stands at the same place.
CREATE TABLE IF NOT EXISTS turn_back (
    task TEXT NOT NULL,
    version INTEGER NOT NULL,
    contribution INTEGER NOT NULL,
    to_version INTEGER NOT NULL,
    PRIMARY KEY (task, version)
) STRICT, WITHOUT ROWID;

-- What people asked for at the control socket, and was done; `who` is the user as the kernel knows him. A chain: see
-- chain.py. `key`, `digest` and `signature` in hex.
CREATE TABLE IF NOT EXISTS operation (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    who TEXT NOT NULL,
    command TEXT NOT NULL,
    subject TEXT NOT NULL,
    result TEXT NOT NULL,
    key TEXT NOT NULL,
    digest TEXT NOT NULL,
    signature TEXT NOT NULL
) STRICT;

-- Nodes of which nothing is taken at present.
CREATE TABLE IF NOT EXISTS excluded (
    node TEXT PRIMARY KEY,
    who TEXT NOT NULL,
    since REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- The key that each node signs with, as its certificate says.
CREATE TABLE IF NOT EXISTS signer (
    node TEXT PRIMARY KEY,
    standing BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- What is left of contributions whose rows are dropped: sums, and the highest sequence number.
CREATE TABLE IF NOT EXISTS forgotten (
    node TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL,
    accepted INTEGER NOT NULL,
    rejected INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    parameters INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Of which run a run is a branch: up to `version` they are the same, behind it the nodes in `without` (JSON) are left
-- out. The rows of the runs before it stand here too.
CREATE TABLE IF NOT EXISTS origin (
    run TEXT PRIMARY KEY,
    task TEXT NOT NULL,
    parent TEXT NOT NULL,
    version INTEGER NOT NULL,
    without TEXT NOT NULL,
    made_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
"""
