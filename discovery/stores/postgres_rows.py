"""The tables and statements of the Postgres store. They live in a schema of their own, `discovery`."""

from typing import Any
from uuid import uuid4

from discovery.registry.leases import Record
from discovery.registry.search import indexed
from discovery.registry.table import Change, Key
from discovery.stores.rows import (
    AGENT_COLUMNS,
    AGENTS_TABLE,
    HISTORY_COLUMNS,
    HISTORY_TABLE,
    agent_values,
    change_of,
    insert,
    record_of,
    too_new,
    upsert,
)

FORMAT = 1
CHANNEL = "discovery"
SCHEMA_LOCK = 0x6469_7363  # any fixed number: registries that start together make the tables one after the other

_TYPES = {
    "schema": "discovery.",
    "time": "timestamptz",
    "json": "json",
    "integer": "bigint",
    "number": "double precision",
}
TABLES = f"""
CREATE SCHEMA discovery;
{AGENTS_TABLE.format(**_TYPES)};
ALTER TABLE discovery.agents ADD COLUMN words tsvector NOT NULL;
CREATE INDEX agents_by_words ON discovery.agents USING gin (words);
{HISTORY_TABLE.format(**_TYPES)};
CREATE TABLE discovery.state (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    format integer NOT NULL,
    revision bigint NOT NULL,
    lineage text NOT NULL
);
"""

STATE = "SELECT revision, lineage, clock_timestamp() FROM discovery.state"
SAVE_LAST_SEEN = "UPDATE discovery.agents SET last_seen = $3 WHERE name = $1 AND instance_id = $2 AND last_seen < $3"
DROP = "DELETE FROM discovery.agents WHERE name = $1 AND instance_id = $2"
SEARCH = """
SELECT name, max(ts_rank(words, query)) AS best FROM discovery.agents, (SELECT $1::tsquery AS query) AS asked
WHERE words @@ query GROUP BY name ORDER BY best DESC, name LIMIT $2
"""
_COLUMNS = (*AGENT_COLUMNS, "words")
_PLACES = [f"${place}" + ("::text::tsvector" if one == "words" else "") for place, one in enumerate(_COLUMNS, 1)]
PUT = upsert("discovery.agents", _COLUMNS, _PLACES)
LOG = insert("discovery.history", HISTORY_COLUMNS, [f"${place}" for place, _ in enumerate(HISTORY_COLUMNS, 1)])
# Postgres has four weights, from A (best) to D.
_WEIGHT_LABELS = {"name": "A", "tools": "B", "skills": "B", "description": "C", "tags": "D", "owner": "D"}


async def prepare(connection: Any, where: str) -> None:
    """Make the tables where there are none.

    Raises:
        StoreError: A later version wrote them; they are left as they are.
    """
    await connection.execute("SELECT pg_advisory_xact_lock($1)", SCHEMA_LOCK)
    if await connection.fetchval("SELECT to_regclass('discovery.state')") is None:
        await connection.execute(TABLES)
        await connection.execute(
            "INSERT INTO discovery.state (format, revision, lineage) VALUES ($1, 0, $2)", FORMAT, uuid4().hex
        )
    found = await connection.fetchval("SELECT format FROM discovery.state")
    if found > FORMAT:
        raise too_new(f"the {where}", found)


async def changes(connection: Any, revision: int) -> list[Change]:
    """See `Store.since`."""
    history = await connection.fetch("SELECT * FROM discovery.history WHERE revision > $1 ORDER BY revision", revision)
    if not history:
        return []
    query = "SELECT * FROM discovery.agents WHERE (name, instance_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))"
    keys = sorted({(row["name"], row["instance_id"]) for row in history})
    found = await connection.fetch(query, [name for name, _ in keys], [instance_id for _, instance_id in keys])
    there: dict[Key, Record | None] = {(row["name"], row["instance_id"]): record_of(row) for row in found}
    return [change_of(dict(row), there.get((row["name"], row["instance_id"]))) for row in history]


def values(record: Record) -> tuple[Any, ...]:
    """The parameters of `PUT`."""
    return (*agent_values(record), _vector(record))


def _vector(record: Record) -> str:
    """The words as tsvector text: results must not depend on how a server is configured to parse text."""
    best: dict[str, str] = {}
    for field, text in indexed(record.registration).items():
        for word in text.split():
            best[word] = min(best.get(word, "D"), _WEIGHT_LABELS[field])
    return " ".join(f"'{word}':1{label}" for word, label in best.items())
