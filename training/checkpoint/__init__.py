"""Checkpoints and weights on disk: writing, reading, resuming, starting from others.  Other code imports from here."""

from training.checkpoint import exported
from training.checkpoint.exported import CONFIG, MODEL, PROVENANCE, ROWS, NetworkConfig, Provenance
from training.checkpoint.initialise import disagreements, initialise_network, initialise_rows
from training.checkpoint.reader import check, found, latest, latest_whole, read_part, read_record, restore
from training.checkpoint.resume import check_resumable, seen_tasks, stages_before, start
from training.checkpoint.weights import (
    PUBLISHED_TABLE,
    Weights,
    load_weights,
    network_config,
    published_name,
    record_of,
)
from training.checkpoint.writer import CheckpointWriter, save, snapshot

__all__ = [
    "CONFIG",
    "MODEL",
    "PROVENANCE",
    "PUBLISHED_TABLE",
    "ROWS",
    "CheckpointWriter",
    "NetworkConfig",
    "Provenance",
    "Weights",
    "check",
    "check_resumable",
    "disagreements",
    "exported",
    "found",
    "initialise_network",
    "initialise_rows",
    "latest",
    "latest_whole",
    "load_weights",
    "network_config",
    "published_name",
    "read_part",
    "read_record",
    "record_of",
    "restore",
    "save",
    "seen_tasks",
    "snapshot",
    "stages_before",
    "start",
]
