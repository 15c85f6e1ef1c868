"""The source files of this project, as syntax trees."""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterator
from functools import cache

from tests.builders.programs import ROOT

SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
MODULES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("dataset", "evaluators", "models", "training", "utils")
    for path in (ROOT / folder).rglob("*.py")
)
SOURCES = SCRIPTS + MODULES
BENCHMARKS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "benchmarks").rglob("*.py"))
TESTS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py"))
FOLDERS_OF_PRODUCT = sorted(
    str(path.relative_to(ROOT))
    for top in ("benchmarks", "config", "dataset", "docs", "evaluators", "models", "training", "utils")
    for path in (ROOT / top, *(ROOT / top).rglob("*"))
    if path.is_dir() and path.name not in ("__pycache__", "experiment") and path != ROOT / "benchmarks" / "results"
)
TORCH_FREE = ("utils/cli.py", "utils/files.py", "utils/metrics_log.py", "utils/plot.py", "utils/progress.py")


@cache
def tree(source: str) -> ast.Module:
    with tokenize.open(ROOT / source) as stream:
        return ast.parse(stream.read(), source)


def imported(source: str) -> set[str]:
    """Dotted names of all that is imported anywhere in a file, `from a.b import c` as both a.b and a.b.c."""
    names: set[str] = set()
    for node in ast.walk(tree(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}:{node.lineno}: relative import"
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def packages(source: str) -> set[str]:
    return {name.split(".")[0] for name in imported(source)}


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a chain of attributes, "" of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{base}.{node.attr}" if (base := dotted(node.value)) else ""
    return ""


def calls(source: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree(source)):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node
