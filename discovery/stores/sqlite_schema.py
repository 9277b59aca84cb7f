"""The tables of the registry's SQLite file, and how a file of an earlier version becomes one of this."""

from uuid import uuid4

from discovery.registry.search import WEIGHTS
from discovery.stores.rows import too_new
from discovery.stores.sqlite_file import SqliteFile
from discovery.stores.sqlite_process import Statement
from discovery.stores.sqlite_rows import BEGIN, COMMIT, indexing, record

VERSION = 3

AGENTS = """
CREATE TABLE agents (
    name TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    status TEXT NOT NULL,
    status_reason TEXT NOT NULL,
    agent_type TEXT NOT NULL,
    version TEXT NOT NULL,
    description TEXT,
    owner TEXT,
    last_seen TEXT NOT NULL,       -- times are UTC, this one is written every few seconds
    since TEXT NOT NULL,           -- of the status
    registered_at TEXT NOT NULL,
    reported_status TEXT NOT NULL, -- what the agent said itself
    ttl_seconds REAL,
    public_endpoint TEXT,
    observed_address TEXT,
    boot_id TEXT,
    tools TEXT NOT NULL,           -- JSON from here on, but for config_fingerprint and revision
    tags TEXT NOT NULL,
    checks TEXT NOT NULL,
    skills TEXT NOT NULL,
    protocols TEXT NOT NULL,
    links TEXT,
    model TEXT,
    metadata TEXT NOT NULL,
    config_fingerprint TEXT,
    turns TEXT NOT NULL,           -- when its status changed lately
    earlier TEXT NOT NULL,         -- processes that it took the entry from
    conflict TEXT,
    reachability TEXT,
    revision INTEGER NOT NULL,
    PRIMARY KEY (name, instance_id)
);
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT INTO counters VALUES ('revision', 0);
"""
NAMES = """
CREATE TABLE history_names (       -- finds a name's history, as far as the counter 'named' says
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (name, revision)
) WITHOUT ROWID;
INSERT INTO counters VALUES ('named', 0);
"""
REST = f"""
CREATE TABLE history (
    revision INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT NOT NULL,
    version TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    boot_id TEXT,
    fields TEXT NOT NULL,          -- JSON: which fields changed
    tools TEXT                     -- JSON: how the tools changed
);
{NAMES}
CREATE TABLE lineage (id TEXT NOT NULL);
CREATE VIRTUAL TABLE agents_search USING fts5({", ".join(WEIGHTS)}, agent UNINDEXED);
"""
FROM_1 = """
ALTER TABLE agents ADD COLUMN status_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE agents ADD COLUMN turns TEXT NOT NULL DEFAULT '[]';
ALTER TABLE agents ADD COLUMN earlier TEXT NOT NULL DEFAULT '[]';
ALTER TABLE agents ADD COLUMN conflict TEXT;
ALTER TABLE agents ADD COLUMN reachability TEXT;
UPDATE agents SET status_reason = CASE status
    WHEN 'registered' THEN 'sends no heartbeats'
    WHEN 'stale' THEN 'no heartbeat within its lease'
    WHEN 'down' THEN 'no heartbeat for three leases'
    ELSE 'reported ' || status || ' by its heartbeat' END;
"""
FROM_2 = f"DROP INDEX history_by_name; {NAMES}"


async def prepare(file: SqliteFile) -> None:
    """Make a connection that was just opened ready for use, and the file's tables those of this version.

    Raises:
        StoreError: A later version wrote the file; it is left as it is.
    """
    ((found,),) = await file.execute([_statement("PRAGMA user_version")])
    version = int(found["user_version"])
    if version > VERSION:
        raise too_new(file.path, version)
    settings = (
        "journal_mode = WAL",
        "synchronous = FULL",
        "wal_autocheckpoint = 4096",  # every 16 MiB: what changed several times in between is written back once
        "cache_size = -8192",  # KiB: the pages of a fleet, which change all the time, stay at hand
    )
    await file.execute([_statement(f"PRAGMA {setting}") for setting in settings])
    if version == VERSION:
        return
    lineage = f"INSERT INTO lineage VALUES ('{uuid4().hex}');"
    script = {0: f"{AGENTS} {REST} {lineage}", 1: f"{FROM_1} {REST} {lineage}", 2: FROM_2}[version]
    made = [_statement(sql) for sql in script.split(";") if sql.strip()]
    *_, rows = await file.execute([BEGIN, *made, _statement("SELECT * FROM agents")])
    known = [one for row in rows if (one := record(row))]
    words = [] if version == 2 else [indexing(known)]
    await file.execute([*words, _statement(f"PRAGMA user_version = {VERSION}"), COMMIT])


def _statement(sql: str) -> Statement:
    return sql, [()]
