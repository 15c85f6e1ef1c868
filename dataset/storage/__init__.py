"""A data set on the disk or in memory.  Only this folder knows the file names; other code imports from here."""

from dataset.storage.catalog import PuzzleCatalog
from dataset.storage.checksums import fingerprints, puzzles_digest, tasks_digest
from dataset.storage.compact import CompactSplit, splits_in_memory
from dataset.storage.content import AugmentedTasks, DataOrigin, GeneratedPairs, PlainExamples
from dataset.storage.expanded_writer import examples_in_memory
from dataset.storage.install import check_target
from dataset.storage.puzzle_layout import PuzzleLayout, count_examples, count_taken, first_example
from dataset.storage.reader import open_catalog, open_manifest, open_metadata, open_split, open_tasks, open_test_tasks
from dataset.storage.schema import (
    BLANK,
    EXPANDED_HAS_ONE_CANVAS,
    MAX_IDENTIFIERS_START,
    SPLITS,
    Manifest,
    SplitMetadata,
    TaskEntry,
)
from dataset.storage.splits import ExpandedSplit, PuzzleIdentities, PuzzleNames, RestrictedSplit, Split
from dataset.storage.writer import Format, write_data_set, write_examples

__all__ = [
    "BLANK",
    "EXPANDED_HAS_ONE_CANVAS",
    "MAX_IDENTIFIERS_START",
    "SPLITS",
    "AugmentedTasks",
    "CompactSplit",
    "DataOrigin",
    "ExpandedSplit",
    "Format",
    "GeneratedPairs",
    "Manifest",
    "PlainExamples",
    "PuzzleCatalog",
    "PuzzleIdentities",
    "PuzzleLayout",
    "PuzzleNames",
    "RestrictedSplit",
    "Split",
    "SplitMetadata",
    "TaskEntry",
    "check_target",
    "count_examples",
    "count_taken",
    "examples_in_memory",
    "fingerprints",
    "first_example",
    "open_catalog",
    "open_manifest",
    "open_metadata",
    "open_split",
    "open_tasks",
    "open_test_tasks",
    "puzzles_digest",
    "splits_in_memory",
    "tasks_digest",
    "write_data_set",
    "write_examples",
]
