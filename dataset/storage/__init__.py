"""A data set on disk: the only folder that knows file names.  Other code imports from here."""

from dataset.storage.catalog import PuzzleCatalog
from dataset.storage.checksums import fingerprints, puzzles_digest
from dataset.storage.reader import open_catalog, open_manifest, open_split, open_tasks, open_test_tasks
from dataset.storage.schema import (
    BLANK,
    EXPANDED_IS_WHOLE,
    MAX_IDENTIFIERS_START,
    SPLITS,
    Manifest,
    SplitMetadata,
    TaskEntry,
)
from dataset.storage.splits import CompactSplit, ExpandedSplit, RestrictedSplit, Split
from dataset.storage.writer import Examples, write, write_examples

__all__ = [
    "BLANK",
    "EXPANDED_IS_WHOLE",
    "MAX_IDENTIFIERS_START",
    "SPLITS",
    "CompactSplit",
    "Examples",
    "ExpandedSplit",
    "Manifest",
    "PuzzleCatalog",
    "RestrictedSplit",
    "Split",
    "SplitMetadata",
    "TaskEntry",
    "fingerprints",
    "open_catalog",
    "open_manifest",
    "open_split",
    "open_tasks",
    "open_test_tasks",
    "puzzles_digest",
    "write",
    "write_examples",
]
