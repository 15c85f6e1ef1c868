"""Gives every run of a sweep (`--multirun`) a folder of its own, named after what it has otherwise than the others."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from omegaconf import DictConfig, open_dict

LONGEST = 100
"""Characters of a name; a file system has 255."""

FOLDER_SETTINGS = ("checkpoint_path", "run_name")


def separate_runs(configs: Sequence[DictConfig], overrides: Sequence[Sequence[str]]) -> None:
    """Changes `checkpoint_path` and `run_name` of the runs of a sweep, where runs share one.

    A run of `--multirun lr=0.1,0.2 checkpoint_path=runs/a` goes into `runs/a/lr=0.1`; with `run_name=a` alone it is
    called `a-lr=0.1`.  A run without either has a name drawn for it anyway.  What the sweep itself varies is kept.

    Args:
        configs: one per run.
        overrides: the words that make each of them.
    """
    if len(configs) < 2:
        return
    labels = _labels(overrides)
    for setting, join in zip(FOLDER_SETTINGS, ("/", "-"), strict=True):
        given = [config.get(setting) for config in configs]
        if len(set(given)) == len(configs):
            continue
        for config, value, label in zip(configs, given, labels, strict=True):
            if value is not None:
                with open_dict(config):
                    config[setting] = f"{str(value).rstrip('/')}{join}{label}"


def _labels(overrides: Sequence[Sequence[str]]) -> list[str]:
    """Returns for each run the words that not all have, fit for the name of a folder, none twice."""
    common = set.intersection(*(set(words) for words in overrides))
    labels: list[str] = []
    for words in overrides:
        own = ",".join(word.lstrip("+") for word in words if word not in common)
        label = re.sub(r"[^\w.,=+-]+", "_", own.replace("'", ""))
        if label != own.replace("'", "") or len(label) > LONGEST or label in labels:
            label = f"{label[:LONGEST]}-{hashlib.sha256(own.encode()).hexdigest()[:6]}"
        labels.append(f"{label}-{len(labels)}" if label in labels else label)
    return labels
