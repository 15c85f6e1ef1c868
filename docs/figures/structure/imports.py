"""Reads the layers of the project from the import statements of its sources."""

from __future__ import annotations

import ast
import graphlib
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = "scripts"
FOLDERS = ("evaluators", "training", "dataset", "models", "utils")


@dataclass
class Layer:
    """One top-level folder, or all scripts of the root together.

    sentence: the first one of its docstring.  files: names of its own modules.  parts: those of each subfolder.
    imports: the layers it imports.  with_torch: the subfolders, or "" for its own files, that import PyTorch.
    """

    name: str
    sentence: str
    files: list[str] = field(default_factory=list)
    parts: dict[str, list[str]] = field(default_factory=dict)
    imports: set[str] = field(default_factory=set)
    with_torch: set[str] = field(default_factory=set)


def read_layers(root: Path) -> dict[str, Layer]:
    """Returns every layer by its name."""
    scripts = sorted(root.glob("*.py"))
    layers = {SCRIPTS: Layer(SCRIPTS, "The commands at the root of the repository.")}
    layers |= {name: Layer(name, _first_sentence(root / name / "__init__.py")) for name in FOLDERS}
    for path in scripts:
        _add(layers[SCRIPTS], "", path, layers)
    for name in FOLDERS:
        for path in sorted((root / name).rglob("*.py")):
            _add(layers[name], "/".join(path.relative_to(root / name).parts[:-1]), path, layers)
    return layers


def _add(layer: Layer, part: str, path: Path, layers: Iterable[str]) -> None:
    names = layer.parts.setdefault(part, []) if part else layer.files
    if not path.stem.startswith("__"):
        names.append(path.stem)
    imported = {name.split(".")[0] for name in _imported(path)}
    layer.imports |= imported & set(layers) - {layer.name}
    if "torch" in imported:
        layer.with_torch.add(part)


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def _tree(path: Path) -> ast.Module:
    with tokenize.open(path) as stream:
        return ast.parse(stream.read(), str(path))


def _first_sentence(path: Path) -> str:
    text = " ".join((ast.get_docstring(_tree(path)) or "").split())
    return text.split(". ")[0].rstrip(".") + "." if text else ""


def direct_imports(layers: dict[str, Layer]) -> set[tuple[str, str]]:
    """Returns the (importer, imported) pairs that no longer path implies: evaluators -> training -> models implies
    evaluators -> models.

    Raises:
        graphlib.CycleError: if layers import each other.
    """
    below: dict[str, set[str]] = {}
    for name in graphlib.TopologicalSorter({layer.name: layer.imports for layer in layers.values()}).static_order():
        below[name] = layers[name].imports.union(*(below[other] for other in layers[name].imports))
    return {
        (layer.name, other)
        for layer in layers.values()
        for other in layer.imports
        if not any(other in below[between] for between in layer.imports)
    }


def rows_of_layers(layers: dict[str, Layer]) -> list[list[str]]:
    """Returns the names in rows, importers above what they import, in the order of `FOLDERS` within a row."""
    depth = dict.fromkeys(layers, 0)
    order = list(graphlib.TopologicalSorter({layer.name: layer.imports for layer in layers.values()}).static_order())
    for name in reversed(order):
        for other in layers[name].imports:
            depth[other] = max(depth[other], depth[name] + 1)
    rows: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in layers:
        rows[depth[name]].append(name)
    return rows
