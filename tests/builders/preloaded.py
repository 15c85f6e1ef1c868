"""Imported once by the fork server of tests/builders/programs.py, whose copies then have everything imported."""

from __future__ import annotations

from tests.builders.programs import preload

preload()
