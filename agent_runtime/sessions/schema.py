"""The tables of the session stores, as ordered migrations; the version of a database is how many of them it has had.

A migration that was released is never changed: what comes next is another one. A store applies what is missing in one
transaction and under a lock, so of several replicas that start together one does it and the others find it done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent_runtime.errors import StartError


@dataclass(frozen=True, slots=True)
class Migration:
    """One step, in each database's own words: single statements, in order."""

    sqlite: Sequence[str]
    postgres: Sequence[str]


# A database of before there were versions has the tables of the first migration already.
MIGRATIONS: Sequence[Migration] = (
    Migration(
        sqlite=(
            """
            CREATE TABLE IF NOT EXISTS session_messages (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                agent TEXT NOT NULL,
                owner TEXT NOT NULL,
                session_id TEXT NOT NULL,
                role TEXT NOT NULL,
                content TEXT NOT NULL,
                tool_calls TEXT,
                tool_call_id TEXT,
                created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
            )
            """,
            "CREATE INDEX IF NOT EXISTS session_messages_by_session ON session_messages (agent, owner, session_id, id)",
        ),
        postgres=(
            """
            CREATE TABLE IF NOT EXISTS session_messages (
                id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                agent text NOT NULL,
                owner text NOT NULL,
                session_id text NOT NULL,
                role text NOT NULL,
                content text NOT NULL,
                tool_calls text,
                tool_call_id text,
                created_at timestamptz NOT NULL DEFAULT now()
            )
            """,
            "CREATE INDEX IF NOT EXISTS session_messages_by_session ON session_messages (agent, owner, session_id, id)",
        ),
    ),
    Migration(
        sqlite=(
            """
            CREATE TABLE session_summaries (
                agent TEXT NOT NULL,
                owner TEXT NOT NULL,
                session_id TEXT NOT NULL,
                summary TEXT NOT NULL,
                covered INTEGER NOT NULL,
                PRIMARY KEY (agent, owner, session_id)
            )
            """,
        ),
        postgres=(
            """
            CREATE TABLE session_summaries (
                agent text NOT NULL,
                owner text NOT NULL,
                session_id text NOT NULL,
                summary text NOT NULL,
                covered bigint NOT NULL,
                PRIMARY KEY (agent, owner, session_id)
            )
            """,
        ),
    ),
    Migration(
        sqlite=(
            """
            CREATE TABLE approvals (
                id TEXT PRIMARY KEY,
                agent TEXT NOT NULL,
                owner TEXT NOT NULL,
                session_id TEXT NOT NULL,
                run_id TEXT NOT NULL,
                tool TEXT NOT NULL,
                arguments TEXT NOT NULL,
                state TEXT NOT NULL,
                created_at TEXT NOT NULL
            )
            """,
        ),
        postgres=(
            """
            CREATE TABLE approvals (
                id text PRIMARY KEY,
                agent text NOT NULL,
                owner text NOT NULL,
                session_id text NOT NULL,
                run_id text NOT NULL,
                tool text NOT NULL,
                arguments text NOT NULL,
                state text NOT NULL,
                created_at text NOT NULL
            )
            """,
        ),
    ),
)

# Both databases understand these. `{0}` to `{3}` are the parameters, in the database's own way of writing them.
OWN_SESSION = "WHERE agent = {0} AND owner = {1} AND session_id = {2}"
LOAD = (
    f"SELECT role, content, tool_calls, tool_call_id FROM session_messages {OWN_SESSION} ORDER BY id DESC LIMIT {{3}}"
)
COUNT = f"SELECT count(*) FROM session_messages {OWN_SESSION}"
APPEND = (
    "INSERT INTO session_messages (agent, owner, session_id, role, content, tool_calls, tool_call_id)"
    " VALUES ({0}, {1}, {2}, {3}, {4}, {5}, {6})"
)
DELETE = f"DELETE FROM session_messages {OWN_SESSION}"
DELETE_APPROVALS = f"DELETE FROM approvals {OWN_SESSION}"
OLD_APPROVALS = "DELETE FROM approvals WHERE agent = {0} AND created_at < {1}"
DELETE_SUMMARY = f"DELETE FROM session_summaries {OWN_SESSION}"
LOAD_SUMMARY = f"SELECT summary, covered FROM session_summaries {OWN_SESSION}"
SAVE_SUMMARY = (
    "INSERT INTO session_summaries (agent, owner, session_id, summary, covered) VALUES ({0}, {1}, {2}, {3}, {4})"
    " ON CONFLICT (agent, owner, session_id) DO UPDATE SET summary = excluded.summary, covered = excluded.covered"
)
LIST = """
    SELECT s.session_id, substr(first.content, 1, {3}), s.messages, s.created_at, s.updated_at
    FROM (
        SELECT session_id, count(*) AS messages, min(created_at) AS created_at, max(created_at) AS updated_at,
            min(id) AS first_id, max(id) AS last_id
        FROM session_messages WHERE agent = {0} AND owner = {1}
        GROUP BY session_id ORDER BY max(id) DESC LIMIT {2}
    ) AS s JOIN session_messages AS first ON first.id = s.first_id
    ORDER BY s.last_id DESC
"""
_APPROVAL = "id, agent, owner, session_id, run_id, tool, arguments, state, created_at"
SAVE_APPROVAL = f"INSERT INTO approvals ({_APPROVAL}) VALUES ({', '.join(f'{{{n}}}' for n in range(9))})"
APPROVALS = f"SELECT {_APPROVAL} FROM approvals WHERE agent = {{0}} AND owner = {{1}} ORDER BY created_at, id"
TAKE_APPROVAL = f"DELETE FROM approvals WHERE agent = {{0}} AND owner = {{1}} AND id = {{2}} RETURNING {_APPROVAL}"
OLD = """
    SELECT owner, session_id FROM session_messages WHERE agent = {0}
    GROUP BY owner, session_id HAVING max(created_at) < {1} LIMIT {2}
"""


def missing_from(version: int, where: str) -> Sequence[Migration]:
    """The migrations that a database of some version lacks.

    Raises:
        StartError: a newer program has migrated it already.
    """
    if version > len(MIGRATIONS):
        raise StartError(
            f"the session store {where} was made by a newer myagent (its schema is version {version}, "
            f"this one knows {len(MIGRATIONS)}): update this agent, or name another store"
        )
    return MIGRATIONS[version:]
