"""training/launch/words.py and sweeps.py: what was typed is what a run gets; runs of a sweep are apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from tests.builders.programs import run_script
from tests.conftest import SMALL
from training.config import EvalConfig, PretrainConfig
from training.launch.cli import compose_configs, for_hydra
from training.launch.overrides import settings_of, validate
from training.launch.words import keep_texts, text_keys
from utils.errors import SettingError
from utils.run_directory import RunDirectory, write_run_files

KEYS = text_keys(settings_of(EvalConfig))


def composed(*words: str) -> list[EvalConfig]:
    """The settings of each run of a command line."""
    return [validate(config, EvalConfig) for config in compose_configs("cfg_eval", keep_texts(words, KEYS))]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("typed", "tasks"),
    [
        ("tasks=[13e47133,90347967]", ["13e47133", "90347967"]),
        (
            "+tasks=[00576224, 1e5 ,0x10,1_000,nan,true,null]",
            ["00576224", "1e5", "0x10", "1_000", "nan", "true", "null"],
        ),
        ("tasks=13e47133", ["13e47133"]),
        ("tasks=13e47133,a", ["13e47133", "a"]),
        ("""tasks=["a,b",'c d',e f]""", ["a,b", "c d", "e f"]),
        ("tasks=[it's,the 6\" one]", ["it's", 'the 6" one']),
        ("""tasks=["it's, this"]""", ["it's, this"]),
        ("tasks=[x[1],{q},(a),p=1,h#,50%,a:b,@x]", ["x[1]", "{q}", "(a)", "p=1", "h#", "50%", "a:b", "@x"]),
        ("tasks=[ä,任务]", ["ä", "任务"]),
        (r"tasks=[a\,b]", ["a,b"]),
        ("tasks=null", None),
    ],
)
def test_ids_are_as_they_were_typed(typed: str, tasks: list[str] | None) -> None:
    assert composed(typed)[0].tasks == tasks


@pytest.mark.parametrize(
    "value", ["20260101", "1e5", "0.10", "true", "a b", "it's", "a=b", "x (2)", "[a", "a,b", "~/x", "C:\\runs\\", "-1"]
)
def test_names_and_paths_are_as_they_were_typed(value: str) -> None:
    (config,) = composed(f"run_name={value}", f"checkpoint_path={value}", f"load_checkpoint={value}")
    assert (config.run_name, config.checkpoint_path, config.load_checkpoint) == (value,) * 3


def test_quotes_references_and_null_keep_their_meaning() -> None:
    (config,) = composed("run_name='2026'", "checkpoint_path=runs/${run_name}", "load_checkpoint=null", "data_paths=x")
    assert (config.run_name, config.checkpoint_path, config.load_checkpoint) == ("2026", "runs/2026", None)
    assert config.data_paths == ["x"]


@pytest.mark.parametrize("typed", ["tasks=[a", 'tasks=["a]', "tasks=[a[1]"])
def test_a_list_that_is_not_closed_is_named(typed: str) -> None:
    with pytest.raises(SettingError, match="closed|closing") as error:
        composed(typed)
    assert typed in str(error.value)


def test_a_number_from_a_yaml_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"tasks\.0=90347967 .*in quotes"):
        validate({"tasks": [90347967]}, EvalConfig)


def test_the_settings_that_a_run_writes_down_can_be_read_by_hydra(tmp_path: Path) -> None:
    settings = {"tasks": ["13e47133", "90347967", "00576224"], "run_name": "20260101", "lr": 1e-5, "seed": 0}
    write_run_files(RunDirectory(tmp_path, "a", None), settings)  # type: ignore[arg-type]
    text = (tmp_path / "config.yaml").read_text()
    assert OmegaConf.to_container(OmegaConf.create(text)) == settings == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("typed", "order"),
    [
        (["lr=1", "--multirun", "seed=2"], ["--multirun", "lr=1", "seed=2"]),
        (["lr=1", "--cfg", "job", "seed=2", "-p", "arch"], ["--cfg", "job", "-p", "arch", "lr=1", "seed=2"]),
        (["lr=1", "--info", "seed=2"], ["--info=all", "lr=1", "seed=2"]),
        (["~tracker", "-m"], ["-m", "~tracker"]),
    ],
)
def test_options_may_stand_anywhere(typed: list[str], order: list[str]) -> None:
    assert for_hydra(typed) == order


def folders(*words: str) -> list[tuple[str | None, str | None]]:
    return [(config.run_name, config.checkpoint_path) for config in composed(*words)]


def test_runs_of_a_sweep_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert folders("checkpoint_path=runs/a/", "--multirun", "lr=1e-4,1e-3") == [
        (None, "runs/a/lr=0.0001"),
        (None, "runs/a/lr=0.001"),
    ]
    assert folders("seed=0,1", "-m", "run_name=2026", "+experiment=arc2") == [
        ("2026-seed=0", None),
        ("2026-seed=1", None),
    ]
    assert folders("run_name=1e5,2e5", "lr=0.1", "-m") == [("1e5", None), ("2e5", None)]
    assert folders("seed=0", "-m", "checkpoint_path=x") == [(None, "x")]
    paths = [path for _, path in folders("-m", "tasks=[a/b],[a b],[a]", "checkpoint_path=x")]
    assert len(set(paths)) == 3 and all(str(path).count("/") == 1 for path in paths)
    assert not list(tmp_path.iterdir())  # Hydra's own notes go elsewhere


def test_a_sweep_trains_every_run(small_data: Path, tmp_path: Path) -> None:
    done = run_script(
        *("pretrain_no_eval.py", f"data_paths=[{small_data}]", "seed=1,2", "epochs=1", "--multirun", *SMALL),
        *("eval_interval=1", f"checkpoint_path={tmp_path / 'runs'}"),
    )
    assert done.returncode == 0, done.stderr
    assert "run 2 of 2" in done.stdout and "resumed" not in done.stdout
    for seed in (1, 2):
        run = tmp_path / "runs" / f"seed={seed}"
        assert yaml.safe_load((run / "config.yaml").read_text())["seed"] == seed and list(run.glob("step_*"))


def test_a_wrong_run_of_a_sweep_ends_it_before_the_first(small_data: Path, tmp_path: Path) -> None:
    done = run_script(
        *("pretrain_no_eval.py", f"data_paths=[{small_data}]", "epochs=2,3", "-m", "eval_interval=2", *SMALL),
        f"checkpoint_path={tmp_path / 'runs'}",
    )
    assert done.returncode == 2 and "epochs=3 is not a multiple" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_every_text_is_known() -> None:
    assert {"run_name": str, "data_paths": list, "load_checkpoint": str} | KEYS == KEYS
    assert "lr" not in KEYS and "early_exit" not in KEYS and "canvases" not in KEYS
    assert "tracker.project" in text_keys(settings_of(PretrainConfig))
