"""examples/kaggle_arc_agi_2.ipynb, every cell in order, with a tiny model on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from tests.builders.programs import Finished, Running, run_process
from tests.conftest import ROOT, SMALL, random_task, write_kaggle

NOTEBOOK = ROOT / "examples" / "kaggle_arc_agi_2.ipynb"


FAILS = """
import json, os, sys
from pathlib import Path

settings = dict(word.split("=", 1) for word in sys.argv[1:])
run = Path(settings["checkpoint_path"])
run.mkdir()
(run / "submission_kaggle.json").write_text(os.environ["FIRST"])
sys.exit("out of memory")
"""


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_what_it_installs_is_what_the_project_needs_and_kaggle_has_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRM_REPOSITORY", str(ROOT))
    monkeypatch.setenv("TRM_WHEELS", str(tmp_path))
    settings, installation, *_ = code_cells()
    ran: list[list[str]] = []
    names: dict[str, object] = {}
    exec(settings, names)
    names["run"] = lambda *command: ran.append([str(word) for word in command])
    exec(installation, names)
    (words,) = ran
    assert words[1:4] == ["-m", "pip", "install"]
    after = words.index("--find-links") + 1
    assert "--no-index" in words and words[after] == str(tmp_path)
    installed = set(words[after + 1 :])
    needed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    assert {wanted.split(">=")[0] for wanted in needed - installed} == {"torch", "numpy"}
    assert installed - needed == {f"numpy=={np.__version__}"}  # the one that is there


def touch(path: Path, text: str = "{}") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("competition", "repository", "checkpoint"),
    [
        ("arc-prize-2026-arc-agi-2", "trm-arc/trm", "trm-checkpoint"),
        ("competitions/arc-prize-2026-arc-agi-2", "datasets/some-one/code/trm", "datasets/some-one/run"),
        ("competitions/arc-prize-2026-arc-agi-2", "datasets/a/b/trm-main", "models/a/trm/pytorch/default/1"),
        ("competitions/arc-prize-2027/data", "datasets/a/b", "datasets/a/c/weights"),
    ],
)
def test_inputs_are_found_wherever_they_are_mounted(
    competition: str,
    repository: str,
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TRM_INPUT", str(tmp_path))
    for subset in ("evaluation", "test", "training"):
        touch(tmp_path / competition / f"arc-agi_{subset}_challenges.json")
    for name in ("pyproject.toml", "eval_arc_k10.py", "tests/golden/trm.safetensors"):
        touch(tmp_path / repository / name)
    wheels = touch(tmp_path / "datasets/a/w/wheels/hydra_core-1.3.2-py3-none-any.whl").parent
    inside = {"run": "step_3/checkpoint.json", "trm-checkpoint": "checkpoint.json", "1": "provenance.json"}
    touch(tmp_path / checkpoint / inside.get(Path(checkpoint).name, "model.safetensors"))
    touch(tmp_path / checkpoint / "config.json")
    touch(tmp_path / ".hidden" / "step_1")
    names: dict[str, object] = {}
    exec(code_cells()[0], names)
    found = {name: names[name] for name in ("COMPETITION", "REPOSITORY", "WHEELS", "CHECKPOINT")}
    wanted = {"COMPETITION": tmp_path / competition, "REPOSITORY": tmp_path / repository, "WHEELS": wheels}
    assert found == wanted | {"CHECKPOINT": tmp_path / checkpoint}
    said = capsys.readouterr().out
    assert all(f"{name}: {place}" in said for name, place in found.items())


def test_several_places_are_said_and_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRM_INPUT", str(tmp_path))
    for name in ("arc-prize-2025", "arc-prize-2026-arc-agi-2"):
        touch(tmp_path / "competitions" / name / "arc-agi_evaluation_challenges.json")
    names: dict[str, object] = {}
    exec(code_cells()[0], names)
    assert names["COMPETITION"] == tmp_path / "competitions" / "arc-prize-2026-arc-agi-2"
    assert f"(also {tmp_path / 'competitions' / 'arc-prize-2025'}: TRM_COMPETITION chooses)" in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["COMPETITION", "REPOSITORY", "CHECKPOINT"])
def test_a_missing_input_ends_in_a_sentence(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "input").mkdir()
    monkeypatch.setenv("TRM_INPUT", str(tmp_path / "input"))
    for name in {"COMPETITION", "REPOSITORY", "CHECKPOINT"} - {missing}:
        monkeypatch.setenv(f"TRM_{name}", str(tmp_path))
    names: dict[str, object] = {}
    with pytest.raises(RuntimeError, match=f"there is no {missing} below .*: attach .* or set TRM_{missing}"):
        for cell in code_cells()[:3]:
            exec(cell, names)


def run_cells(settings: Mapping[str, object]) -> None:
    """Runs the notebook in this process, and what it starts in copies of it: one rank in place of torchrun's."""

    def run(command: list[str], check: bool, cwd: Path) -> Finished:
        words = command[1:]
        if "torch.distributed.run" in words:
            words = words[words.index("eval_arc_k10.py") :]
        if words[0] != "-m":
            words = [str(cwd / words[0]), *words[1:]]
        process = Running(words, {key: str(value) for key, value in settings.items()})
        out, err = process.communicate(timeout=240)
        print(out, err)
        if check and process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        return Finished(process.returncode or 0, out, err)

    environment = {key: str(value) for key, value in settings.items()}
    with mock.patch.dict(os.environ, environment), mock.patch.object(subprocess, "run", run):
        exec("\n\n".join(code_cells()), {})


@pytest.mark.parametrize("scoring", [False, True])
@pytest.mark.parametrize("valid", [False, True])
def test_a_failure_on_the_way_keeps_the_submission(
    scoring: bool, valid: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fine-tuning that fails when its first submission is there: a dry run fails after it, the scoring run does not."""
    repository, work = tmp_path / "repository", tmp_path / "work"
    for folder in (repository, work):
        folder.mkdir()
    (repository / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
    (repository / "build_dataset.py").write_text("")
    (repository / "eval_arc_k10.py").write_text(FAILS)
    challenge = {"a": {"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[3]]}]}}
    for subset in ("evaluation", "test"):
        (tmp_path / f"arc-agi_{subset}_challenges.json").write_text(json.dumps(challenge))
    first = json.dumps({"a" if valid else "b": [{"attempt_1": [[3]], "attempt_2": [[3]]}]})
    settings: dict[str, object] = {
        "TRM_COMPETITION": tmp_path,
        "TRM_REPOSITORY": repository,
        "TRM_WORK": work,
        "TRM_WHEELS": tmp_path / "none",
        "TRM_MORE": "epochs=1",
        "FIRST": first,
    }
    if scoring:
        run_cells(settings | {"KAGGLE_IS_COMPETITION_RERUN": "1"})
    else:
        with pytest.raises(RuntimeError, match="fine-tuning ended with status 1"):
            run_cells(settings)
    printed = capsys.readouterr().out
    assert "out of memory" in printed
    assert (work / "submission.json").read_text() == first
    assert ("is valid: 1 tasks" in printed) is valid
    assert ("fine-tuning ended with status 1, the check of the submission with" in printed) is scoring


@pytest.mark.slow
@pytest.mark.parametrize("scoring", [False, True])
def test_the_notebook_leaves_a_submission(
    scoring: bool, small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dry run on the public tasks; the scoring run on those whose answers nobody has."""
    competition, work = tmp_path / "competition", tmp_path / "work"
    competition.mkdir()
    work.mkdir()
    rng = np.random.default_rng(0)
    for subset, solved in (("evaluation", True), ("test", False)):
        tasks = [random_task(f"{subset}{i}", rng) for i in range(3)]
        prefix = Path(write_kaggle(competition, subset, tasks, solutions=solved))
    for path in competition.glob("arc_*"):
        path.rename(path.with_name(path.name.replace("arc_", "arc-agi_", 1)))
    assert prefix.parent == competition
    settings = {
        **{"TRM_COMPETITION": competition, "TRM_REPOSITORY": ROOT, "TRM_CHECKPOINT": small_run, "TRM_WORK": work},
        **{"TRM_WHEELS": tmp_path / "none", "TRM_AUGMENTATIONS": 3, "TRM_MINUTES": 0.2, "TRM_DRY_MINUTES": 0.1},
        "TRM_MORE": " ".join((*SMALL, "epochs=100000", "eval_interval=100000", "puzzle_rows=mean")),
    }
    if scoring:  # as it runs on Kaggle, all processes and imports included
        code = ("-c", "\n\n".join(code_cells()))
        done = run_process(
            *code, KAGGLE_IS_COMPETITION_RERUN="1", **{key: str(value) for key, value in settings.items()}
        )
        assert done.returncode == 0, done.stderr[-3000:]
        printed = done.stdout
    else:
        run_cells(settings)
        printed = capsys.readouterr().out
    built = json.loads((work / "submission.json").read_text())
    assert set(built) == {f"{'test' if scoring else 'evaluation'}{i}" for i in range(3)}
    assert all(set(entry) == {"attempt_1", "attempt_2"} for entries in built.values() for entry in entries)
    assert "is valid: 3 tasks, 3 test inputs, 2 attempts each" in printed
