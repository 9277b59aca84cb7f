"""A search over a table: the store ranks, the table says what the hits look like now and why they are hits."""

from collections.abc import Sequence

from discovery.contract import match_words
from discovery.registry.listing import agent_record
from discovery.registry.search import Found, Hit, ranked
from discovery.registry.store import Store, StoreError
from discovery.registry.table import Table


async def find(store: Store, table: Table, words: Sequence[str], *, every: bool, limit: int) -> list[Hit]:
    """The agents where words stand, or words that begin like them; with `every`, all of them. The best first."""
    hits: list[Hit] = []
    for found in await _ranked(store, table, words, every, limit) if words else ():
        agent = agent_record(table, found.name)
        if agent is not None:
            why = match_words(agent, words, every=False) or []
            hits.append(Hit(agent.model_copy(update={"matched": why}), found.score, why))
    return hits


async def _ranked(store: Store, table: Table, words: Sequence[str], every: bool, limit: int) -> Sequence[Found]:
    try:
        return await store.search(words, every=every, limit=limit)
    except StoreError:  # what is in memory can be read all the same, if not as well
        return ranked((record.registration for record in table), words, every=every, limit=limit)
