"""Checkpoints and weights on disk.  Other code imports from here.

record.py           what weights say of themselves
reader.py           finds, verifies and restores checkpoints; draws their layout
writer.py           writes and removes them
initialise.py       a network and its puzzle rows from weights that exist
row_files.py        reads the rows of puzzles, which checkpoints share; row_snapshots.py copies what has changed of them
resume.py           which settings may change when a run continues
start.py            puts these together: what a run starts from, and the record it begins
sources/            weights of every kind: weights.py reads them from six kinds of place, architecture.py finds what
                    network they belong to, tensor_files.py reads what other programs write, hub.py fetches weights by
                    their name on the hub, exported.py is the folder in which a network is shared
"""

from training.checkpoint.initialise import RowsStart, disagreements, initialise_network, initialise_rows
from training.checkpoint.reader import (
    latest_checkpoint,
    latest_undamaged,
    list_checkpoints,
    read_part,
    read_record,
    restore_state,
    verify_file,
)
from training.checkpoint.record import RECORD, CheckpointRecord, Stage, StageData, WeightsAre
from training.checkpoint.resume import check_resumable
from training.checkpoint.row_files import TABLES, StoredRows
from training.checkpoint.sources.architecture import network_config
from training.checkpoint.sources.exported import (
    CONFIG,
    MODEL,
    PROVENANCE,
    ROWS,
    Provenance,
    is_exported,
    write_exported,
)
from training.checkpoint.sources.hub import HUB, locate_weights
from training.checkpoint.sources.network_config import NetworkConfig
from training.checkpoint.sources.weights import (
    PUBLISHED_TABLE,
    Weights,
    WeightsKind,
    identify_weights,
    load_weights,
    published_name,
    record_of,
)
from training.checkpoint.start import Fresh, Initialised, Resumed, Start, seen_tasks, start_record, start_state
from training.checkpoint.writer import CheckpointWriter, save_checkpoint, snapshot_state

__all__ = [
    "CONFIG",
    "HUB",
    "MODEL",
    "PROVENANCE",
    "PUBLISHED_TABLE",
    "RECORD",
    "ROWS",
    "TABLES",
    "CheckpointRecord",
    "CheckpointWriter",
    "Fresh",
    "Initialised",
    "NetworkConfig",
    "Provenance",
    "Resumed",
    "RowsStart",
    "Stage",
    "StageData",
    "Start",
    "StoredRows",
    "Weights",
    "WeightsAre",
    "WeightsKind",
    "check_resumable",
    "disagreements",
    "identify_weights",
    "initialise_network",
    "initialise_rows",
    "is_exported",
    "latest_checkpoint",
    "latest_undamaged",
    "list_checkpoints",
    "load_weights",
    "locate_weights",
    "network_config",
    "published_name",
    "read_part",
    "read_record",
    "record_of",
    "restore_state",
    "save_checkpoint",
    "seen_tasks",
    "snapshot_state",
    "start_record",
    "start_state",
    "verify_file",
    "write_exported",
]
