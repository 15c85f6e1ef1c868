"""What runs leave in their folders, and how long tests of them may take."""

from __future__ import annotations

import os
from pathlib import Path

from training.checkpoint import latest_undamaged

LONG = int(os.environ.get("TRM_LONG_TESTS", "0"))
"""Whether tests run in their long form: `-m long`, which tests/conftest.py reads before this is imported."""


def last(folder: Path) -> Path:
    """Returns the last checkpoint of a run, none of which is damaged."""
    path, problems = latest_undamaged(folder)
    assert path is not None and not problems
    return path
