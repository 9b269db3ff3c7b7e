"""The saved analysis: `Analysis`, the arrays it holds, its JSON document, and the store that a search writes to."""

from landscape.store.database import DATABASE, STAGING, Reader, Search, Store, StoreError, is_store
from landscape.store.document import FORMAT, VERSION, dynamics_record, source_file
from landscape.store.large import Large
from landscape.store.records import Exact, Saddles, Sampled, SavedPaths, States
from landscape.store.saved import DOCUMENT, FILES, Analysis

__all__ = [
    "DATABASE",
    "DOCUMENT",
    "FILES",
    "FORMAT",
    "STAGING",
    "VERSION",
    "Analysis",
    "Exact",
    "Large",
    "Reader",
    "Saddles",
    "Sampled",
    "SavedPaths",
    "Search",
    "States",
    "Store",
    "StoreError",
    "dynamics_record",
    "is_store",
    "source_file",
]
