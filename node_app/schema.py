"""The tables of the node's store. Whoever changes them raises the format in node_app.database."""

from __future__ import annotations

TABLES = """
CREATE TABLE IF NOT EXISTS fact (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
-- `tried` names the runtime that the bundle has passed its trial with.
CREATE TABLE IF NOT EXISTS bundle (
    digest TEXT PRIMARY KEY,
    data BLOB NOT NULL,
    tried TEXT NOT NULL
) STRICT, WITHOUT ROWID;
-- Parameters by purpose: `global` is the newest version, `served` the one predictions are made with, whole: shared
-- and then local values. `local/DIGEST` is what this gateway alone trains of a task, and never sends, and `personal`
-- the whole model that is its own. The column says whether what is served is one of those.
CREATE TABLE IF NOT EXISTS vector (
    purpose TEXT PRIMARY KEY,
    task TEXT NOT NULL,
    run TEXT NOT NULL,
    version INTEGER NOT NULL,
    data BLOB NOT NULL,
    digest TEXT NOT NULL,
    normalisation BLOB NOT NULL,
    personal INTEGER NOT NULL,
    written INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- What of a run was trained and has not been sent: what the codec left out of the updates so far, and whole updates
-- that were taken back, `steps` optimizer steps of them. `base_version` is the one the newest update is against.
CREATE TABLE IF NOT EXISTS residual (
    run TEXT PRIMARY KEY,
    base_version INTEGER NOT NULL,
    steps INTEGER NOT NULL,
    num_params INTEGER NOT NULL,
    num_trained INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT, WITHOUT ROWID;
-- `carried` is what goes back into the residual should the update never be folded.
CREATE TABLE IF NOT EXISTS outbox (
    sequence INTEGER PRIMARY KEY,
    digest TEXT NOT NULL,
    run TEXT NOT NULL,
    base_version INTEGER NOT NULL,
    has_left INTEGER NOT NULL,
    body BLOB NOT NULL,
    carried BLOB NOT NULL,
    created_at REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS history (
    sequence INTEGER PRIMARY KEY,
    accepted INTEGER NOT NULL,
    reason TEXT NOT NULL,
    staleness INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    decided_at REAL NOT NULL
) STRICT;
-- One object at a time: where it is fetched from, and the pieces that have come.
CREATE TABLE IF NOT EXISTS fetching (
    digest TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    version INTEGER NOT NULL,
    prefix TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    chunk_bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS piece (position INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
"""
