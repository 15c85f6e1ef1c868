"""dataset/storage/: data sets that were built before, splits in memory, and files that do not fit together."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dataset.build.arc import build_arc
from dataset.build.distinct_augmentations import sample_augmentations
from dataset.build.settings import ArcSettings
from dataset.storage import (
    AugmentedTasks,
    DataOrigin,
    open_catalog,
    open_manifest,
    open_split,
    open_test_tasks,
    schema,
    splits_in_memory,
    write_data_set,
)
from tests.conftest import random_task
from utils.errors import DataError

BUILT_BEFORE = Path(__file__).parent / "built_before"
"""Two small data sets of three tasks, built by version 1.0 of the formats, and the files that they were built from."""

CONTENT = {
    "compact": "17fbfd0679d3af406f3b3cf22da61be8d6d72987addce5a0d1be6d8207d350f1",
    "expanded": "0f3a89eaf3e2f67e7e5808971367917c9e9ed13529fce12d35416861bb6995cd",
}
"""What that version read of them."""


def digest_of(folder: Path) -> str:
    """Returns one hash of everything that training and evaluation read of a data set."""
    digest = hashlib.sha256()
    for name in schema.SPLITS:
        split = open_split(folder, name)
        examples = np.arange(split.num_examples)
        for rows in split.read(examples, examples.astype(np.uint64) // np.uint64(3)):
            digest.update(rows.tobytes())
        digest.update(split.puzzle_identifiers.astype("<i4").tobytes())
        digest.update(split.group_indices.astype("<i8").tobytes())
        digest.update(split.puzzle_indices.astype("<i8").tobytes())
    catalog = open_catalog(folder)
    digest.update("\n".join(map(catalog.name, range(len(catalog)))).encode())
    return digest.hexdigest()


@pytest.mark.parametrize("fmt", ["compact", "expanded"])
def test_a_data_set_that_was_built_before_opens(fmt: str) -> None:
    folder = BUILT_BEFORE / fmt
    assert digest_of(folder) == CONTENT[fmt]
    weights = open_split(folder, "train").group_weights
    assert weights is not None and weights.tolist() == [1.5, 1.5, 1.0]
    manifest = open_manifest(folder)
    assert manifest is not None and manifest.counts["tasks"] == 3
    (task,) = open_test_tasks(folder).values()
    solutions = json.loads((BUILT_BEFORE / "arc_test_solutions.json").read_text())
    assert [output.tolist() for _, output in task.test if output is not None] == solutions[task.id]


@pytest.mark.parametrize("fmt", ["compact", "expanded"])
def test_the_same_command_still_gives_the_same_bytes(fmt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BUILT_BEFORE)
    settings = ArcSettings(
        sources=["arc,subsets=train,weight=1.5,max_pairs=3", "arc,subsets=test"],
        output_dir=str(tmp_path / fmt),
        num_aug=3,
        max_grid_size=5,
        test_set_name="test",
        format=fmt,
        seed=9,
        puzzle_identifiers_start=2,
    )
    build_arc(settings, lambda done, total: None)
    before = {path.relative_to(BUILT_BEFORE / fmt): path for path in (BUILT_BEFORE / fmt).rglob("*") if path.is_file()}
    after = {path.relative_to(tmp_path / fmt): path for path in (tmp_path / fmt).rglob("*") if path.is_file()}
    assert set(after) == set(before)
    for name, path in before.items():
        assert after[name].read_bytes() == path.read_bytes(), name


def test_splits_in_memory_are_those_of_the_disk(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tasks = [random_task("a", rng), random_task("b", rng, test=2), random_task("c", rng)]
    augmentations = [sample_augmentations(task, number, 0) for task, number in zip(tasks, (3, 0, 5), strict=True)]
    content = AugmentedTasks(tasks, {"b", "c"}, augmentations, side=7)
    write_data_set(
        tmp_path / "set",
        content,
        DataOrigin(sources=["made"], settings={}),
        fmt="compact",
        seed=0,
        progress=lambda done, total: None,
    )
    *in_memory, catalog = splits_in_memory(tasks, {"b", "c"}, augmentations, side=7)
    for name, split in zip(schema.SPLITS, in_memory, strict=True):
        on_disk = open_split(tmp_path / "set", name)
        examples = np.arange(on_disk.num_examples)
        assert split.metadata == on_disk.metadata and split.num_examples == len(examples)
        for field in ("group_indices", "puzzle_indices", "puzzle_identifiers"):
            assert np.array_equal(getattr(split, field), getattr(on_disk, field)), field
        assert split.group_weights is None and on_disk.group_weights is None
        assert np.array_equal(split.canvas_sizes(examples), on_disk.canvas_sizes(examples))
        for seeds in (None, examples.astype(np.uint64)):
            for here, there in zip(split.read(examples, seeds), on_disk.read(examples, seeds), strict=True):
                assert np.array_equal(here, there)
    stored = open_catalog(tmp_path / "set")
    assert [catalog.name(i) for i in range(len(catalog))] == [stored.name(i) for i in range(len(stored))]
    with pytest.raises(DataError, match=r"'a' has a grid of \d cells"):
        splits_in_memory(tasks, set(), augmentations, side=1)


def damage_array(name: str, change: Callable[[np.ndarray], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        array = np.load(folder / name, allow_pickle=False)
        changed = change(array)
        np.save(folder / name, array if changed is None else np.asarray(changed))

    return damage


def put(index: int | tuple[int, int], value: int) -> Callable[[np.ndarray], None]:
    def change(array: np.ndarray) -> None:
        array[index] = value

    return change


def damage_json(name: str, key: str, value: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | {key: value}))

    return damage


def more_demonstrations(folder: Path) -> None:
    content = json.loads((folder / schema.TASKS).read_text())
    content["tasks"][1]["demonstrations"] = 99
    (folder / schema.TASKS).write_text(json.dumps(content))


METADATA = f"train/{schema.SPLIT_METADATA}"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_array(schema.AUGMENTATIONS, lambda a: a[:-1]), r"augmentations.* \(11, 11\), but tasks.* 12 puzzles"),
        (damage_array(schema.PAIRS, lambda a: a[:-1]), r"pairs.* \(9, 6\), but tasks.* 10 pairs"),
        (damage_array(schema.PAIRS, put((0, 0), -1)), "pairs.npy has a negative number"),
        (damage_array(schema.PAIRS, put((0, 1), 6)), "pairs.npy has a grid larger than the canvas of 5 x 5"),
        (damage_array(schema.PAIRS, put((0, 0), 10**6)), "pairs.npy points behind the .* cells of grids.npy"),
        (damage_array(schema.GRIDS, lambda a: a[:-1]), "pairs.npy points behind the .* cells of grids.npy"),
        (damage_array(schema.GRIDS, put(0, 10)), "grids.npy has a colour that is not in 0..9"),
        (damage_array(schema.AUGMENTATIONS, put((1, 0), 8)), "augmentations.npy has a dihedral transform"),
        (damage_array(schema.AUGMENTATIONS, put((1, 1), 5)), "augmentations.npy has colours that are not a"),
        (damage_array(schema.GRIDS, lambda a: a.astype(np.int32)), "grids.npy has the type int32"),
        (damage_json(METADATA, "seq_len", 24), "seq_len 24, which is not a square"),
        (damage_json(METADATA, "num_puzzle_identifiers", 99), "dataset.json counts 99 identifiers, but tasks.json"),
        (more_demonstrations, "task 'b2' has 99 demonstrations but 3 pairs"),
    ],
)  # fmt: skip
def test_the_compact_files_that_do_not_fit_together_are_named(
    damage: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    shutil.copytree(BUILT_BEFORE / "compact", folder)
    damage(folder)
    with pytest.raises(DataError, match=said):
        open_split(folder, "train")


def part(name: str) -> str:
    return f"train/all__{name}.npy"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_array(part("inputs"), lambda a: a[:-1]), r"inputs.* \(31, 25\), but labels .* \(32, 25\)"),
        (damage_json(METADATA, "seq_len", 16), "inputs.npy has 25 tokens per example, but dataset.json has seq_len 16"),
        (damage_array(part("puzzle_indices"), lambda a: a[:-1]), "puzzle_indices.* 12 entries, but puzzle_identifiers"),
        (damage_array(part("puzzle_indices"), put(-1, 5)), "puzzle_indices.* does not rise from 0 to the 32 examples"),
        (damage_array(part("puzzle_indices"), put(1, 30)), "puzzle_indices.npy does not rise"),
        (damage_array(part("group_indices"), put(0, 1)), "group_indices.npy does not rise from 0 to the 12 puzzles"),
        (damage_array(part("group_weights"), lambda a: a[:-1]), "group_weights.npy has 2 entries, but .* 3 groups"),
        (damage_array(part("group_weights"), put(0, 0)), "group_weights.npy has a weight that is not a positive"),
        (damage_array(part("puzzle_identifiers"), put(0, 99)), "puzzle_identifiers.* identifier outside of 0..13"),
        (damage_json(METADATA, "sets", []), "dataset.json lists no sets"),
    ],
)  # fmt: skip
def test_the_expanded_files_that_do_not_fit_together_are_named(
    damage: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    shutil.copytree(BUILT_BEFORE / "expanded", folder)
    damage(folder)
    with pytest.raises(DataError, match=said):
        open_split(folder, "train")


def of_others(folder: Path, tokens: type, drop: str | None) -> Path:
    """A data set in the published layout as other programs write it."""
    shutil.copytree(BUILT_BEFORE / "expanded", folder)
    (folder / "manifest.json").unlink()
    for split in schema.SPLITS:
        path = folder / split / schema.SPLIT_METADATA
        metadata = json.loads(path.read_text())
        metadata.pop(drop or "", None)
        path.write_text(json.dumps(metadata))
        for array in (folder / split).glob("*.npy"):
            if "weights" not in array.name:
                np.save(array, np.load(array).astype(tokens))
    return folder


@pytest.mark.parametrize("tokens", [np.int64, np.int32, ">i4", np.uint16])
def test_wide_integers_are_read_with_a_line(tokens: type, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = of_others(tmp_path / "d", tokens, "total_puzzles")
    assert digest_of(folder) == CONTENT["expanded"]
    assert capsys.readouterr().out.count("its tokens are read as uint8") == 2  # one per split
    assert open_split(folder, "train").metadata.total_puzzles == len(open_split(folder, "train").puzzle_identifiers)


@pytest.mark.parametrize("wrong", [-1, 256])
def test_wide_integers_that_are_no_tokens_are_refused(wrong: int, tmp_path: Path) -> None:
    folder = of_others(tmp_path / "d", np.int64, None)
    path = folder / "train" / "all__labels.npy"
    labels = np.load(path)
    labels[-1, -1] = wrong
    np.save(path, labels)
    with pytest.raises(DataError, match=rf"all__labels\.npy has the type int64 and the number {wrong}"):
        open_split(folder, "train")
