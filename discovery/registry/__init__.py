"""The registry: who is deployed, where, and in which state. Knows no HTTP and no database."""

from discovery.registry.history import HistoryEntry
from discovery.registry.leases import Record
from discovery.registry.listing import Entry, Listing, Prepared, as_list, selection_tag
from discovery.registry.registry import SWEEP_SECONDS, Registry
from discovery.registry.rules import Accepted, Superseded
from discovery.registry.search import Found, Hit
from discovery.registry.store import LastSeen, Line, Snapshot, Store, StoreError, Transaction
from discovery.registry.watch import Watch

__all__ = [
    "SWEEP_SECONDS",
    "Accepted",
    "Entry",
    "Found",
    "HistoryEntry",
    "Hit",
    "LastSeen",
    "Line",
    "Listing",
    "Prepared",
    "Record",
    "Registry",
    "Snapshot",
    "Store",
    "StoreError",
    "Superseded",
    "Transaction",
    "Watch",
    "as_list",
    "selection_tag",
]
