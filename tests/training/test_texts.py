"""training/launch/texts.py: what was typed is what a setting that is a text has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training.config import EvalConfig
from training.launch.cli import compose_configs, in_own_folders
from training.launch.overrides import validate
from training.launch.texts import quote_texts


def settings(*words: str) -> list[EvalConfig]:
    words = ("data_paths=[data/x]", *words)
    return [validate(config, EvalConfig) for config in compose_configs("cfg_eval", quote_texts(words, EvalConfig))]


def one(*words: str) -> EvalConfig:
    (config,) = settings(*words)
    return config


@pytest.mark.parametrize(
    ("typed", "ids"),
    [
        ("[13e47133,90347967]", ["13e47133", "90347967"]),
        ("[00576224, 1e5, true, 3.5, 0x10]", ["00576224", "1e5", "true", "3.5", "0x10"]),
        ("['13e47133',\"90347967\"]", ["13e47133", "90347967"]),
        ("[a b,it's,x=y,p(q),[r]]", ["a b", "it's", "x=y", "p(q)", "[r]"]),
        ("['a,b',c]", ["a,b", "c"]),
        ("[a\\b,c\\]", ["a\\b", "c\\"]),
    ],
)
def test_ids_are_what_was_typed(typed: str, ids: list[str]) -> None:
    assert one(f"tasks={typed}").tasks == ids


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("run_name=20260101", "run_name", "20260101"),
        ("+run_name=1e5", "run_name", "1e5"),
        ("run_name=a,b", "run_name", "a,b"),
        ("run_name=it's", "run_name", "it's"),
        ("run_name='quoted'", "run_name", "quoted"),
        ("run_name=null", "run_name", None),
        ("checkpoint_path=runs/lr=1e-3", "checkpoint_path", "runs/lr=1e-3"),
        ("checkpoint_path=runs/my run (2)", "checkpoint_path", "runs/my run (2)"),
        ("load_checkpoint=runs/step_5#x", "load_checkpoint", "runs/step_5#x"),
        ("deadline=17:30", "deadline", "17:30"),
        ("run_name=${project_name}-x", "run_name", "None-x"),
    ],
)
def test_texts_are_what_was_typed(word: str, name: str, value: Any) -> None:
    assert getattr(one(word), name) == value


def test_other_settings_are_read_as_before() -> None:
    found = one("lr=1e-3", "early_exit=halt", "ema=true", "evaluators=[]", "tasks=null", "vote_augmentations=null")
    assert (found.lr, found.early_exit, found.ema, found.evaluators) == (1e-3, "halt", True, [])
    assert found.tasks is None and found.vote_augmentations is None


def test_a_sweep_is_a_sweep(tmp_path: Path) -> None:
    found = settings("--multirun", "run_name=1,2e3", "tasks=[a],[1e2,b]", f"hydra.sweep.dir={tmp_path}")
    assert [(each.run_name, each.tasks) for each in found] == [
        *(("1", ["a"]), ("1", ["1e2", "b"])),
        *(("2e3", ["a"]), ("2e3", ["1e2", "b"])),
    ]


def test_hydras_options_stand_anywhere(tmp_path: Path) -> None:
    for words in (("lr=0.1,0.2", "-m"), ("-m", "lr=0.1,0.2"), ("lr=0.1,0.2", "--multirun", "seed=3")):
        assert [each.lr for each in settings(*words, f"hydra.sweep.dir={tmp_path}")] == [0.1, 0.2]


def test_runs_of_a_sweep_have_folders_of_their_own(tmp_path: Path) -> None:
    shared = settings("-m", "lr=0.1,0.2", "checkpoint_path=runs/x", f"hydra.sweep.dir={tmp_path}")
    assert [each.checkpoint_path for each in in_own_folders(shared)] == ["runs/x/0", "runs/x/1"]
    own = settings("-m", "checkpoint_path=runs/x,runs/y", f"hydra.sweep.dir={tmp_path}")
    assert [each.checkpoint_path for each in in_own_folders(own)] == ["runs/x", "runs/y"]
    assert [each.checkpoint_path for each in in_own_folders([one("checkpoint_path=runs/x")])] == ["runs/x"]
