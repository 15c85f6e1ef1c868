"""Broken and hostile input: every reader ends in a result or in a ValueError with a sentence, and runs no code."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset import storage
from dataset.build.arc import build_arc
from dataset.build.settings import ArcSettings
from dataset.sampling.joined import JoinedSplits
from dataset.storage import open_catalog, open_split, open_test_tasks, schema
from dataset.tasks import load_kaggle
from evaluators.inference.predictions import Predictions
from tests.builders.states import state_of, trained
from tests.conftest import SMALL, random_task, run_script, write_kaggle
from training import checkpoint
from training.config import EvalConfig, PretrainConfig
from training.launch.cli import GROUPS
from training.launch.overrides import check_overrides, validate
from utils.errors import CheckpointError, DataError, InputError, SubmissionError

MANY = 2000 if os.environ.get("TRM_LONG_TESTS", "0") == "1" else 60
_many = settings(max_examples=MANY, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def many(test: Callable[..., Any]) -> Any:
    """Tried with many examples, in the long form with thousands."""
    return pytest.mark.long(_many(test))


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 40) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
grid_like = st.lists(st.lists(st.integers(-1, 11), max_size=3), max_size=3)
task_like = st.fixed_dictionaries(
    {},
    optional={
        "train": anything | st.lists(st.fixed_dictionaries({}, optional={"input": grid_like, "output": grid_like})),
        "test": anything | st.lists(st.fixed_dictionaries({}, optional={"input": grid_like, "output": grid_like})),
    },
)


def ends_well(read: Callable[[], Any]) -> Any:
    """The result, or None after an InputError that is a sentence.  Any other error fails the test."""
    refusal: InputError
    try:
        return read()
    except InputError as error:
        refusal = error
    assert len(str(refusal)) > 20, repr(refusal)
    return None


@many
@given(anything | st.dictionaries(st.text(max_size=6), task_like, max_size=3), anything)
def test_any_json_as_tasks(tmp_path: Path, challenges: Any, solutions: Any) -> None:
    (tmp_path / "arc_x_challenges.json").write_text(json.dumps(challenges))
    for with_solutions in (False, True):
        path = tmp_path / "arc_x_solutions.json"
        path.unlink(missing_ok=True)
        if with_solutions:
            path.write_text(json.dumps(solutions))
        ends_well(lambda: load_kaggle(str(tmp_path / "arc"), "x"))


@many
@given(st.binary(max_size=200))
def test_any_bytes_as_tasks(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "arc_x_challenges.json").write_bytes(content)
    assert not ends_well(lambda: load_kaggle(str(tmp_path / "arc"), "x"))


@pytest.fixture(scope="module")
def expanded(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    rng = np.random.default_rng(0)
    prefix = write_kaggle(folder, "e", [random_task("t", rng)])
    settings = ArcSettings(
        input_file_prefix=prefix,
        output_dir=str(folder / "set"),
        subsets=["e"],
        test_set_name="e",
        num_aug=2,
        max_grid_size=5,
        format="expanded",
    )
    build_arc(settings, lambda done, total: None)
    return folder / "set"


def read_all(folder: Path) -> None:
    """Everything that training and evaluation read of a data set."""
    for name in storage.SPLITS:
        split = open_split(folder, name)
        data = JoinedSplits([split])
        data.read(np.arange(split.num_examples), np.arange(split.num_examples, dtype=np.uint64))
    catalog = open_catalog(folder)
    for identifier in range(len(catalog)):
        catalog.name(identifier)
    open_test_tasks(folder)


@many
@given(data=st.data())
@pytest.mark.parametrize("kind", ["compact", "expanded"])
def test_any_damage_to_a_data_set(
    kind: str, data: st.DataObject, small_data: Path, expanded: Path, tmp_path: Path
) -> None:
    """A file with bytes changed, cut off or put in; first with the manifest, which notices, then without it."""
    folder = tmp_path / "set"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(small_data if kind == "compact" else expanded, folder)
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name != schema.MANIFEST)
    file = folder / data.draw(st.sampled_from(names))
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, max(0, len(content) - 1)))
    kind_of_damage = data.draw(st.sampled_from(["change", "cut", "insert", "json"]))
    if kind_of_damage == "change":
        content[at] ^= data.draw(st.integers(1, 255))
    elif kind_of_damage == "cut":
        del content[at:]
    elif kind_of_damage == "insert":
        content[at:at] = data.draw(st.binary(min_size=1, max_size=20))
    else:
        content = bytearray(json.dumps(data.draw(anything)).encode())
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged|does not have the size"):
        storage.fingerprints(folder)
    (folder / schema.MANIFEST).unlink()
    ends_well(lambda: read_all(folder))


@many
@given(st.dictionaries(st.sampled_from(["lr", "epochs", "arch", "data_paths", "seed", "ema", "xyz"]), anything))
def test_any_settings(values: dict[str, Any]) -> None:
    for model in (PretrainConfig, EvalConfig):
        ends_well(lambda model=model: validate({"arch": {}, "data_paths": ["x"], **values}, model))  # type: ignore[misc]


@many
@given(st.text(max_size=20))
def test_any_override(text: str) -> None:
    ends_well(lambda: check_overrides([text], EvalConfig, GROUPS))


@many
@given(anything)
def test_any_record_of_a_checkpoint(tmp_path: Path, record: Any) -> None:
    folder = tmp_path / "step_3"
    folder.mkdir(exist_ok=True)
    (folder / checkpoint.RECORD).write_text(json.dumps(record))
    ends_well(lambda: checkpoint.read_record(folder))
    ends_well(lambda: checkpoint.latest_undamaged(tmp_path))
    ends_well(lambda: checkpoint.load_weights(folder))


@many
@given(st.binary(max_size=300), st.sampled_from(["x.safetensors", "x.pt", "x"]))
def test_any_bytes_as_weights_or_predictions(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert ends_well(lambda: checkpoint.load_weights(tmp_path / name)) is None
    assert ends_well(lambda: Predictions.load(tmp_path / name)) is None


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickled_code_in_data_does_not_run(small_data: Path, tmp_path: Path) -> None:
    folder, sung = tmp_path / "set", tmp_path / "sung"
    shutil.copytree(small_data, folder)
    (folder / schema.MANIFEST).unlink()
    for name in (schema.GRIDS, schema.PAIRS, schema.AUGMENTATIONS):
        whole = (folder / name).read_bytes()
        np.save(folder / name, np.array([Canary(sung)], dtype=object), allow_pickle=True)
        with pytest.raises(DataError, match="is not a plain array"):
            open_split(folder, "train")
        (folder / name).write_bytes(pickle.dumps(Canary(sung)))
        with pytest.raises(DataError, match="is not a plain array"):
            open_split(folder, "train")
        (folder / name).write_bytes(whole)
    np.savez(tmp_path / "p.npz", tokens=np.array([Canary(sung)], dtype=object))
    with pytest.raises(SubmissionError, match="is not a file of predictions"):
        Predictions.load(tmp_path / "p.npz")
    assert not sung.exists()


def test_set_names_lead_nowhere(expanded: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(expanded, folder)
    path = folder / "train" / schema.SPLIT_METADATA
    metadata = json.loads(path.read_text())
    for name in ("../test/all", "/etc/passwd", "", ".."):
        path.write_text(json.dumps(metadata | {"sets": [name]}))
        with pytest.raises(DataError, match="dataset.json: sets"):
            open_split(folder, "train")


def test_a_name_that_is_no_augmentation_is_refused_with_its_file(expanded: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(expanded, folder)
    names = json.loads((folder / schema.IDENTIFIERS).read_text())
    (folder / schema.IDENTIFIERS).write_text(json.dumps([*names[:-1], "x|||t1|||0123456799"]))
    with pytest.raises(DataError, match=r"identifiers\.json.*0123456799"):
        open_catalog(folder)


def test_augmentations_that_move_colour_0_are_refused(small_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(small_data, folder)
    rows = np.load(folder / schema.AUGMENTATIONS)
    rows[-1, 1:] = np.roll(np.arange(10), 1)
    np.save(folder / schema.AUGMENTATIONS, rows)
    for read in (lambda: open_catalog(folder), lambda: open_split(folder, "train")):
        with pytest.raises(DataError, match=r"augmentations\.npy has colours"):
            read()


@pytest.mark.parametrize("number", ["1" * 5000, "[" * 100_000])
def test_json_that_python_cannot_hold_is_refused(small_data: Path, tmp_path: Path, number: str) -> None:
    folder = tmp_path / "set"
    shutil.copytree(small_data, folder)
    (folder / schema.TASKS).write_text(number)
    with pytest.raises(DataError, match=r"tasks\.json"):
        open_catalog(folder)


@pytest.mark.parametrize("config", [{"arch": "trm"}, {"arch": [1]}, {"ema_rate": "fast"}])
def test_settings_of_a_record_have_their_types(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = tmp_path / "step_3"
    folder.mkdir()
    record = {"format": 1, "step": 3, "files": {}, "config": config}
    (folder / checkpoint.RECORD).write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=next(iter(config))):
        checkpoint.read_record(folder)


HOSTILE = ("../../escape", "/absolute", "<script>alert(1)</script>", "a" * 5000, "nul\x00byte", "%2e%2e", "-rf", "日本")


def test_hostile_task_ids_are_only_names(tmp_path: Path) -> None:
    """From files to submission: they are keys of the submission and part of no path."""
    rng = np.random.default_rng(0)
    prefix = write_kaggle(tmp_path, "e", [random_task(name, rng) for name in HOSTILE])
    inside = tmp_path / "inside"
    settings = ArcSettings(
        input_file_prefix=prefix,
        output_dir=str(inside / "set"),
        subsets=["e"],
        test_set_name="e",
        num_aug=1,
        max_grid_size=5,
    )
    build_arc(settings, lambda done, total: None)
    done = run_script(
        *("eval_arc_k10.py", f"data_paths=[{inside / 'set'}]", "epochs=1", "puzzle_rows=zero"),
        *(f"checkpoint_path={inside / 'run'}", *SMALL),
    )
    assert done.returncode == 0, done.stderr
    (built,) = inside.glob("run/evaluation_step_*/submission.json")
    assert set(json.loads(built.read_text())) == set(HOSTILE)
    assert {path.name for path in tmp_path.iterdir()} == {"inside", "arc_e_challenges.json", "arc_e_solutions.json"}
    paths = [str(path.relative_to(inside)) for path in inside.rglob("*")]
    assert not [path for path in paths if any(word in path for word in ("escape", "script", "aaaa", "-rf", "日本"))]


def test_a_checkpoint_of_another_network_is_no_crash(tmp_path: Path) -> None:
    path = checkpoint.save_checkpoint(trained(1), tmp_path, checkpoint.CheckpointRecord())
    record = checkpoint.read_record(path)
    del record.files["network.safetensors"]
    (path / checkpoint.RECORD).write_text(json.dumps(record.to_json()))
    assert ends_well(lambda: checkpoint.load_weights(path)) is None
    assert ends_well(lambda: checkpoint.restore_state(state_of(), path)) is None
