"""Rules that hold between the parts, read from the syntax trees of the sources."""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("config", "dataset", "evaluators", "models", "tests", "training", "utils")
SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
MODULES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("dataset", "evaluators", "models", "training", "utils")
    for path in (ROOT / folder).rglob("*.py")
)
SOURCES = SCRIPTS + MODULES

MAY_IMPORT = {
    "utils": {"utils"},
    "dataset": {"dataset", "utils"},
    "models": {"models"},
    "training": {"training", "models", "dataset", "utils"},
    "evaluators": {"evaluators", "dataset", "utils"},
}
"""Which folders of this project each folder knows."""

NEEDS_TORCH = ("evaluators/inference/", "evaluators/evaluation.py", "evaluators/solver.py")
"""The parts of evaluators/ that run the network; the others need none."""

STORAGE = "dataset/storage/"
"""The one folder that names the files of a data set."""

DATA_FILES = (
    *("manifest.json", "test_puzzles.json", "tasks.json", "grids.npy", "pairs.npy", "augmentations.npy"),
    *("identifiers.json", "dataset.json", "inputs.npy", "labels.npy", "puzzle_indices.npy", "group_indices.npy"),
)

FILE_ACCESS = {"os", "io", "pathlib", "shutil", "tempfile", "json", "pickle", "yaml", "safetensors"}


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


def of(folder: str) -> list[str]:
    return [source for source in MODULES if source.startswith(f"{folder}/")]


def test_the_sources_are_found() -> None:
    assert {"build_dataset.py", "eval_arc_k10.py", "pretrain_no_eval.py"} <= set(SCRIPTS)
    assert all(of(folder) for folder in MAY_IMPORT)
    assert all(any(source.startswith(part) for source in MODULES) for part in (*NEEDS_TORCH, STORAGE))


@pytest.mark.parametrize("source", [source for source in MODULES if not source.startswith(NEEDS_TORCH)])
def test_folders_know_only_those_below_them(source: str) -> None:
    known = MAY_IMPORT[source.split("/")[0]]
    assert packages(source) & {*FOLDERS, *(Path(script).stem for script in SCRIPTS)} <= known


@pytest.mark.parametrize("source", of("models"))
def test_models_are_architecture_alone(source: str) -> None:
    names = imported(source)
    assert not {name for name in names if name.startswith("torch.distributed")}
    assert not packages(source) & {*FILE_ACCESS, "hydra", "omegaconf", "logging", "tqdm", "sys"}
    forbidden = {"print", "open", "input", "torch.save", "torch.load"}
    assert not [name for name, _ in calls(source) if name in forbidden or name.startswith("torch.distributed.")]


@pytest.mark.parametrize(
    "source", of("dataset") + [source for source in of("evaluators") if not source.startswith(NEEDS_TORCH)]
)
def test_data_and_scores_need_no_torch(source: str) -> None:
    assert "torch" not in packages(source)


@pytest.mark.parametrize("source", [source for source in SOURCES if not source.startswith(STORAGE)])
def test_storage_alone_names_the_data_files(source: str) -> None:
    docstrings = {
        node.body[0].value
        for node in ast.walk(tree(source))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            assert not node.value.endswith(DATA_FILES), f"line {node.lineno}: {node.value!r} belongs into {STORAGE}"


@pytest.mark.parametrize("source", SOURCES)
def test_no_error_is_swallowed(source: str) -> None:
    for node in ast.walk(tree(source)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: except without a type"
            types = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            broad = {dotted(kind) for kind in types} & {"Exception", "BaseException"}
            idle = all(
                isinstance(line, ast.Pass | ast.Continue)
                or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
                for line in node.body
            )
            assert not (broad and idle), f"line {node.lineno}: every exception is dropped"


@pytest.mark.parametrize("source", SOURCES)
def test_nothing_is_unpickled(source: str) -> None:
    assert not packages(source) & {"dill", "cloudpickle", "joblib", "shelve"}
    for name, call in calls(source):
        options = {keyword.arg: keyword.value for keyword in call.keywords}

        def is_set(option: str, wanted: bool, options: dict[str | None, ast.expr] = options) -> bool:
            value = options.get(option)
            return isinstance(value, ast.Constant) and value.value is wanted

        assert not name.startswith("pickle."), f"line {call.lineno}: {name}"
        if name in ("np.load", "numpy.load"):
            assert is_set("allow_pickle", False), f"line {call.lineno}: np.load without allow_pickle=False"
        if name == "torch.load":
            assert is_set("weights_only", True), f"line {call.lineno}: torch.load without weights_only=True"


@pytest.mark.parametrize("source", SOURCES)
def test_random_draws_take_a_generator(source: str) -> None:
    explicit = {"default_rng", "Generator", "SeedSequence", "PCG64", "Philox"}
    for name, call in calls(source):
        module, _, function = name.rpartition(".")
        hidden = (module in ("np.random", "numpy.random") and function not in explicit) or (
            module == "random" and function not in ("Random", "SystemRandom")
        )
        seeded = name in ("torch.manual_seed", "torch.seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all")
        assert not hidden, f"line {call.lineno}: {name} draws from a global state"
        assert not seeded, f"line {call.lineno}: {name} sets a global state"


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_recipes(script: str) -> None:
    lines = (ROOT / script).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    assert script in (ast.get_docstring(tree(script)) or ""), "a script opens with its literal command"


@pytest.mark.parametrize("source", SOURCES)
def test_modules_say_what_they_are(source: str) -> None:
    module = tree(source)
    assert not module.body or ast.get_docstring(module)
