"""Where the table is kept. The scheme of a URL picks the store, and only that store is imported."""

from urllib.parse import unquote

from discovery.registry.store import Store

__all__ = ["open_store", "sqlite_path"]

MEMORY_URL = "memory://"
SQLITE_PREFIX = "sqlite:///"
POSTGRES_PREFIXES = ("postgresql://", "postgres://")


def open_store(url: str) -> Store:
    """Make the store for `sqlite:///relative.db`, `sqlite:////absolute.db`, `postgresql://…` or `memory://`.

    Nothing is opened yet.

    Raises:
        ValueError: No store has such a URL; the message says which there are.
    """
    if url == MEMORY_URL:
        from discovery.stores.memory import MemoryStore

        return MemoryStore()
    path = sqlite_path(url)
    if path is not None:
        from discovery.stores.sqlite import SqliteStore

        return SqliteStore(path)
    if url.startswith(POSTGRES_PREFIXES):
        try:
            from discovery.stores.postgres import PostgresStore
        except ImportError:
            raise ValueError("needs the driver for Postgres: pip install 'myagent[postgres]'") from None

        return PostgresStore(url)
    # The URL may hold a password: only its scheme is repeated.
    raise ValueError(
        f"'{url.partition(':')[0]}:…' is not a store: use sqlite:///registry.db, postgresql://host/database, "
        "or memory:// to keep nothing"
    )


def sqlite_path(url: str) -> str | None:
    """The file that a `sqlite:///` URL names; None for any other URL."""
    path = unquote(url.removeprefix(SQLITE_PREFIX))
    return path if url.startswith(SQLITE_PREFIX) and path and "?" not in path else None
