"""Finds the files of tasks in a folder, and the solutions beside a challenges file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from dataset.layouts.json_text import is_json_name, stem_of

_KAGGLE = re.compile(r"(?:(?P<name>.+)[-_])?(?P<kind>challenges|solutions)")
_NEVER = {"__MACOSX"}


def json_files(folder: Path) -> list[Path]:
    """Returns the JSON files below a folder, sorted, without hidden files and folders and those that a Mac adds."""
    return sorted(
        path
        for path in folder.rglob("*")
        if is_json_name(path.name)
        and not any(part.startswith(".") or part in _NEVER for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def is_wanted(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Returns whether a name, or a path with `/`, matches one of `include`, where there are any, and none of `exclude`.

    A glob matches the whole, the last part, or a folder that contains it.
    """
    parts = name.split("/")
    forms = [parts[-1], *("/".join(parts[:end]) for end in range(1, len(parts) + 1))]

    def matches(globs: Sequence[str]) -> bool:
        return any(fnmatchcase(form, pattern.rstrip("/")) for pattern in globs for form in forms)

    return (not include or matches(include)) and not matches(exclude)


def kind_of(path: Path) -> str | None:
    """Returns challenges or solutions for files that are named as Kaggle's, with `_` or `-`; None for others."""
    found = _KAGGLE.fullmatch(stem_of(path))
    return found["kind"] if found else None


def name_of(path: Path) -> str:
    """Returns the name of a file without its endings, and without `_challenges`."""
    found = _KAGGLE.fullmatch(stem_of(path))
    return found["name"] or path.resolve().parent.name if found else stem_of(path)


def solutions_beside(challenges: Path) -> Path | None:
    """Returns the solutions file in the folder of a challenges file, gzipped or not; None if there is none."""
    found = _KAGGLE.fullmatch(stem_of(challenges))
    assert found is not None, challenges
    name = found["name"]
    stems = ["solutions"] if name is None else [f"{name}_solutions", f"{name}-solutions"]
    candidates = [challenges.with_name(f"{stem}.json{gz}") for stem in stems for gz in ("", ".gz")]
    return next((path for path in candidates if path.is_file()), None)


def is_read_with_challenges(solutions: Path) -> bool:
    """Returns whether a file is the solutions file of a challenges file in its folder."""
    if kind_of(solutions) != "solutions":
        return False
    others = (path for path in solutions.parent.iterdir() if is_json_name(path.name))
    return any(kind_of(path) == "challenges" and solutions_beside(path) == solutions for path in others)


def challenges_by_subset(prefix: Path) -> dict[str, Path]:
    """Returns the challenges files `PREFIX_SUBSET_challenges.json` by subset, with `_` or `-`, gzipped or not."""
    if not prefix.name or not prefix.parent.is_dir():
        return {}
    found: dict[str, Path] = {}
    for path in sorted(prefix.parent.iterdir()):
        if not path.name.startswith(prefix.name) or not is_json_name(path.name) or kind_of(path) != "challenges":
            continue
        rest = name_of(path)[len(prefix.name) :]
        if rest[:1] in ("_", "-") and rest[1:]:
            found.setdefault(rest[1:], path)
    return dict(sorted(found.items()))
