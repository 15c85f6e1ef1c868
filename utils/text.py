"""Small helpers for printed sentences."""

from __future__ import annotations


def count_of(number: int, singular: str, plural: str) -> str:
    """Returns the number and the form that fits it: `1 task is`, `1,200 tasks are`."""
    return f"{number:,} {singular if number == 1 else plural}"
