"""The saved analysis: `Analysis`, the arrays it holds, its JSON document and its folder."""

from landscape.store.document import FORMAT, VERSION, dynamics_record, source_file
from landscape.store.records import Exact, Saddles, Sampled, SavedPaths, States
from landscape.store.saved import DOCUMENT, FILES, STAGING, Analysis

__all__ = [
    "DOCUMENT",
    "FILES",
    "FORMAT",
    "STAGING",
    "VERSION",
    "Analysis",
    "Exact",
    "Saddles",
    "Sampled",
    "SavedPaths",
    "States",
    "dynamics_record",
    "source_file",
]
