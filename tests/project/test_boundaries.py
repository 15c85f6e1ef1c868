"""Rules that hold between the parts, read from the syntax trees of the sources."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.builders.programs import ROOT
from tests.builders.sources import (
    BENCHMARKS,
    FOLDERS_OF_PRODUCT,
    MODULES,
    SCRIPTS,
    SOURCES,
    TESTS,
    TORCH_FREE,
    calls,
    dotted,
    imported,
    packages,
    tree,
)

FOLDERS = ("config", "dataset", "evaluators", "models", "tests", "training", "utils")

MAY_IMPORT = {
    "utils": {"utils"},
    "dataset": {"dataset", "utils"},
    "models": {"models"},
    "training": {"training", "models", "dataset", "utils"},
    "evaluators": {"evaluators", "dataset", "utils"},
}
"""Which folders of this project each folder knows."""

LAYERS = (
    ("utils/",),
    ("models/", "dataset/"),
    ("dataset/storage/",),
    ("dataset/sampling/", "dataset/build/"),
    ("dataset/statistics/",),
    ("training/config/", "training/optim/", "training/metrics/"),
    ("training/slots/",),
    ("training/data.py",),
    ("training/state.py", "training/step.py"),
    ("training/prepare/", "training/checkpoint/"),
    ("training/loop.py", "training/metrics/reporter.py"),
    ("training/launch/", "training/export/"),
    ("evaluators/inference/",),
    ("evaluators/",),
    ("evaluators/report/",),
    ("evaluators/arc.py", "evaluators/grid_puzzles/", "evaluators/picture/"),
    ("evaluators/tools.py", "evaluators/evaluation.py", "evaluators/solver/"),
)
"""The order of the parts, from the lowest up: a part imports none of a later line.  The longest prefix counts."""

MAX_LINES = 350
MAX_NAMES = 12
"""Files and folders in one folder, without `__init__.py` and `__main__.py`."""

NEEDS_TORCH = (
    *("evaluators/inference/", "evaluators/evaluation.py", "evaluators/solver/"),
    "evaluators/grid_puzzles/solver.py",
)
"""The parts of evaluators/ that run the network; the others need none."""

STORAGE = "dataset/storage/"
"""The one folder that names the files of a data set."""

DATA_FILES = (
    *("manifest.json", "test_puzzles.json", "tasks.json", "grids.npy", "pairs.npy", "augmentations.npy"),
    *("identifiers.json", "dataset.json", "inputs.npy", "labels.npy", "puzzle_indices.npy", "group_indices.npy"),
)

FILE_ACCESS = {"os", "io", "pathlib", "shutil", "tempfile", "json", "pickle", "yaml", "safetensors"}


def of(folder: str) -> list[str]:
    return [source for source in MODULES if source.startswith(f"{folder}/")]


def imported_modules(source: str, at_start: bool = False) -> set[str]:
    """The files of this project that a file imports when it runs; what only the type checker reads does not count.

    Args:
        at_start: leave out what is imported inside a function.
    """
    files: set[str] = set()
    waiting: list[ast.AST] = [tree(source)]
    while waiting:
        node = waiting.pop()
        if at_start and isinstance(node, ast.FunctionDef):
            continue
        if isinstance(node, ast.If) and dotted(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            while name and not (path := file_of(name)):
                name = name.rpartition(".")[0]
            if name:
                files.add(path)
    return files - {source}


def file_of(module: str) -> str:
    """The file of a module or package, "" if it is not one of SOURCES."""
    path = module.replace(".", "/")
    return next((file for file in (f"{path}.py", f"{path}/__init__.py") if file in SOURCES), "")


def layer_of(source: str) -> int:
    prefixes = [(len(prefix), i) for i, layer in enumerate(LAYERS) for prefix in layer if source.startswith(prefix)]
    assert prefixes, f"{source} stands in no layer: add it to LAYERS"
    return max(prefixes)[1]


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Paths in the graph that end where they begin; none for a graph without circles."""
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> None:
        if node in path:
            found.append([*path[path.index(node) :], node])
        elif node not in done:
            for further in sorted(graph.get(node, ())):
                visit(further, [*path, node])
            done.add(node)

    for node in graph:
        visit(node, [])
    return found


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set()}) == [["a", "b", "c", "a"]]
    assert imported_modules("training/loop.py") >= {"training/step.py", "utils/consensus.py"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles({source: imported_modules(source) for source in SOURCES}) == []


@pytest.mark.parametrize("source", [source for source in MODULES if not source.endswith("__init__.py")])
def test_nothing_imports_upward(source: str) -> None:
    """An `__init__.py` is left out as importer and as imported: it re-exports its own folder."""
    upward = [
        other
        for other in imported_modules(source)
        if other in MODULES and not other.endswith("__init__.py") and layer_of(other) > layer_of(source)
    ]
    assert not upward, f"{source} stands below {upward}: see LAYERS"


@pytest.mark.parametrize("source", [*SOURCES, *BENCHMARKS])
def test_files_are_of_a_length_to_read(source: str) -> None:
    lines = (ROOT / source).read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_LINES, f"{source} has {lines} lines: split it by ideas"


@pytest.mark.parametrize("folder", FOLDERS_OF_PRODUCT)
def test_a_folder_has_at_most_a_dozen_names(folder: str) -> None:
    """Exempt are the root, whose names are given, and what grows: config/experiment and benchmarks/results."""
    names = [
        path.name
        for path in (ROOT / folder).iterdir()
        if not path.name.startswith((".", "__")) and path.suffix != ".pyc"
    ]
    assert len(names) <= MAX_NAMES, f"{folder} has {len(names)} names: {sorted(names)}"


def test_every_class_has_a_name_of_its_own() -> None:
    """Private classes too: a reader who searches for a name finds one thing."""
    where: dict[str, list[str]] = {}
    for source in [*SOURCES, *BENCHMARKS]:
        for node in ast.walk(tree(source)):
            if isinstance(node, ast.ClassDef):
                where.setdefault(node.name, []).append(source)
    doubles = {name: files for name, files in where.items() if len(files) > 1}
    assert doubles == {}


@pytest.mark.parametrize("source", TESTS)
def test_tests_import_no_other_test(source: str) -> None:
    """What several tests need is in tests/builders or tests/conftest.py."""
    modules = {name for name in imported(source) if name.startswith("tests.")}
    assert not [name for name in modules if name.rpartition(".")[2].startswith("test_") or ".test_" in name]


@pytest.mark.parametrize("source", TORCH_FREE)
def test_what_starts_quickly_loads_no_torch(source: str) -> None:
    """Neither itself nor by what it imports: these start in a fraction of a second."""
    waiting, seen = [source], {source}
    while waiting:
        current = waiting.pop()
        body = [node for node in tree(current).body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = [node.module or "" for node in body if isinstance(node, ast.ImportFrom)]
        names += [alias.name for node in body if isinstance(node, ast.Import) for alias in node.names]
        assert "torch" not in {name.split(".")[0] for name in names}, f"{source} loads torch by {current}"
        further = imported_modules(current, at_start=True) - seen
        seen |= further
        waiting += further


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
    assert ast.get_docstring(module)
