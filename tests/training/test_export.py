"""training/export/ and training/checkpoint/sources/exported.py: the network alone, exported and loaded back."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from evaluators import tools
from models.arch import ArchConfig
from models.network import Network
from models.puzzles.rows import RowSummary
from tests.conftest import SMALL, run_script
from training import checkpoint
from training.checkpoint import CONFIG, MODEL, PROVENANCE, ROWS
from training.export import __main__ as export_main
from training.export import folder, hub, published_format
from training.export.folder import ExportDetails
from utils.errors import CheckpointError, SettingError
from utils.metrics_log import read_metrics


@pytest.fixture(scope="module")
def shared(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared") / "tiny"
    done = run_script("-m", "training.export", str(small_run), str(folder), "--format", "folder", "--licence", "mit")
    assert done.returncode == 0, done.stderr
    assert f"README.md, {CONFIG}, {MODEL}, {PROVENANCE}, {ROWS}" in done.stdout
    return folder


@pytest.fixture(scope="module")
def evaluated(shared: Path, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuning that starts from the exported folder, with its evaluation."""
    run = tmp_path_factory.mktemp("runs") / "tuned"
    done = run_script(
        *("eval_arc_k10.py", f"data_paths=[{small_data}]", f"load_checkpoint={shared}", f"checkpoint_path={run}"),
        *(
            "epochs=2",
            "eval_interval=2",
            "run_name=tuned-otter",
            "arch.H_cycles=1",
            *(s for s in SMALL if "H_" not in s),
        ),
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"weights of .*tiny, puzzle rows set to the mean of \d+ trained rows", done.stdout)
    assert "settings differ from its own (arch.H_cycles: 2 there, 1 here)" in done.stdout
    assert "has seen the demonstrations, not the test outputs, of 2 of the 2 tasks" in done.stdout
    return run


def test_tasks_that_are_not_scored_are_not_counted_as_seen(shared: Path, small_data: Path, tmp_path: Path) -> None:
    done = run_script(
        *("eval_arc_k10.py", f"data_paths=[{small_data}]", f"load_checkpoint={shared}", "epochs=2", "tasks=[eval1]"),
        *(f"checkpoint_path={tmp_path / 'run'}", "eval_interval=2", *SMALL),
    )
    assert done.returncode == 0, done.stderr
    assert "not the test outputs, of 1 of the 1 tasks" in done.stdout


def test_the_folder_holds_the_averaged_weights_and_the_rows_mean(shared: Path, small_run: Path) -> None:
    original, back = (checkpoint.load_weights(path) for path in (small_run, shared))
    assert back.network.keys() == original.network.keys()
    assert all(torch.equal(back.network[key], value) for key, value in original.network.items())
    raw = checkpoint.load_weights(small_run, averaged=False)
    assert any(not torch.equal(back.network[key], value) for key, value in raw.network.items())
    assert original.puzzle_rows is not None and back.puzzle_rows is None
    wanted, got = RowSummary.from_rows(original.puzzle_rows), back.row_summary()
    assert wanted is not None and got is not None and got.count == wanted.count > 10
    assert torch.equal(got.mean, wanted.mean) and torch.equal(got.spread, wanted.spread)
    assert wanted.mean.shape == (32,) and wanted.spread.min() > 0


def test_others_can_build_the_network_from_the_folder_alone(shared: Path) -> None:
    """From config.json and the file of weights, without this project's readers."""
    told = json.loads((shared / CONFIG).read_text())
    arch, canvas = ArchConfig(**told["arch"]), told["canvas"]
    network = Network(arch, told["tokens"]["vocab_size"], canvas["seq_len"], torch.Generator(), canvas["row_stride"])
    network.load_state_dict(load_file(shared / MODEL))
    assert canvas == {"seq_len": 36, "side": 6, "row_stride": 30, "prefix_len": 2, "positions": "rope"}
    assert told["tokens"] == {
        **{"vocab_size": 12, "pad_id": 0, "ignore_label_id": 0, "end_of_grid_id": 1, "colour_0_id": 2}
    }


def test_the_folder_says_what_it_was_trained_on(shared: Path, small_run: Path) -> None:
    told = json.loads((shared / PROVENANCE).read_text())
    last = checkpoint.latest_checkpoint(small_run)
    assert last is not None
    step = checkpoint.read_record(last).step
    (stage,) = told["stages"]
    assert (stage["run"], stage["step"], told["step"], told["weights"]) == ("small-otter", step, step, "averaged")
    (data,) = stage["data"]
    assert data["sources"] == ["arc_evaluation2", "arc_training2"] and data["counts"]["tasks"] == 8
    assert stage["recipe"]["epochs"] == 4 and stage["recipe"]["ema"] is True
    assert sorted(told["task_keys"].values()) == ["demonstrations"] * 2 + ["whole"] * 6


def test_a_run_that_starts_from_it_carries_its_history_on(evaluated: Path, shared: Path, tmp_path: Path) -> None:
    folder.write_folder(evaluated, tmp_path / "second")
    told = json.loads((tmp_path / "second" / PROVENANCE).read_text())
    assert [stage["run"] for stage in told["stages"]] == ["small-otter", "tuned-otter"]
    assert told["stages"][0]["step"] == json.loads((shared / PROVENANCE).read_text())["step"]
    assert told["stages"][1]["step"] == told["step"] == read_metrics(evaluated / "metrics.jsonl")[-1]["step"]
    (score,) = told["scores"]
    scores = json.loads(next(evaluated.glob("evaluation_step_*/scores.json")).read_text())
    assert score["metrics"] == {key: value for key, value in scores.items() if key != "conditions"}
    assert score["conditions"]["data_path"].count("/") == 1  # no path of this machine
    assert str(tmp_path.parent) not in (tmp_path / "second" / PROVENANCE).read_text()
    text = (tmp_path / "second" / "README.md").read_text()
    assert "**1. small-otter**" in text and "**2. tuned-otter**" in text and "H_cycles 1" in text
    assert re.search(r"\| pass@2 over test inputs \| \d+\.\d% \| \d", text)
    assert "eval_ema True" in text and "license" not in text


def test_the_hub_reads_the_card(shared: Path, evaluated: Path, tmp_path: Path) -> None:
    hub_package = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    found = hub_package.ModelCard.load(shared / "README.md")
    assert found.data.license == "mit" and {"tiny-recursive-model", "arc-agi"} <= set(found.data.tags)
    scores = next(evaluated.glob("evaluation_step_*/scores.json"))
    folder.write_folder(shared, tmp_path / "scored", details=ExportDetails(name="tiny-trm", scores=[scores]))
    data = hub_package.ModelCard.load(tmp_path / "scored" / "README.md").data
    assert data.model_name == "tiny-trm"
    values = {result.metric_name: result.metric_value for result in data.eval_results}
    assert values["pass@2 over test inputs"] == json.loads(scores.read_text())["ARC/pass@2_inputs"]
    told = json.loads((tmp_path / "scored" / PROVENANCE).read_text())
    assert told["weights"] == "averaged" and len(told["stages"]) == len(told["scores"]) == 1


def test_no_path_of_this_machine_is_shared(shared: Path, evaluated: Path, small_data: Path, tmp_path: Path) -> None:
    """Neither what an evaluation records nor what a recount of its predictions does."""
    (predictions,) = evaluated.glob("evaluation_step_*/predictions.npz")
    tools.recount(small_data, [predictions, predictions], tmp_path / "recounted", 2, "votes")
    odd = json.loads((tmp_path / "recounted" / "scores.json").read_text())
    odd["conditions"] |= {"elsewhere": {"deep": ["C:\\Users\\me\\runs\\a"]}, "ratio": 0.5, "canvases": [[4, 4]]}
    (tmp_path / "odd.json").write_text(json.dumps(odd))
    target = tmp_path / "told"
    scores = [tmp_path / "recounted" / "scores.json", tmp_path / "odd.json"]
    folder.write_folder(shared, target, details=ExportDetails(scores=scores))
    first, second = (score["conditions"] for score in json.loads((target / PROVENANCE).read_text())["scores"])
    assert first["predictions"] == [f"{predictions.parent.name}/predictions.npz"] * 2
    assert first["data_path"] == "/".join(small_data.parts[-2:]) and first["ranking"] == "votes"
    assert second["elsewhere"] == {"deep": ["runs/a"]} and second["canvases"] == [[4, 4]] and second["ratio"] == 0.5
    for file in (PROVENANCE, "README.md"):
        text = (target / file).read_text()
        assert str(tmp_path.parent) not in text and str(small_data.parent.parent) not in text and "Users" not in text
    assert f"`{small_data.name}`, " in (target / "README.md").read_text()


class FakeHub:
    """Keeps what it is given in a folder, as the hub would."""

    root: Path
    calls: list[Any]

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        self.calls.append((repo_id, private))
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(self, *, folder_path: Path, repo_id: str, commit_message: str) -> str:
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return f"https://hub/{repo_id}"


def test_pushed_and_fetched_it_is_the_same(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_package = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    FakeHub.root, FakeHub.calls = tmp_path, []
    monkeypatch.setattr(hub_package, "HfApi", FakeHub)
    assert hub.push_folder(shared, "someone/tiny", private=True) == "https://hub/someone/tiny"
    assert FakeHub.calls == [("someone/tiny", True)]
    one, two = (checkpoint.load_weights(path) for path in (shared, tmp_path / "someone/tiny"))
    assert all(torch.equal(value, two.network[key]) for key, value in one.network.items())


def test_a_hub_that_refuses_leaves_the_folder(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub_package = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

    class Refusing(FakeHub):
        def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
            raise ConnectionError("no route\nsecond line")

    monkeypatch.setattr(hub_package, "HfApi", Refusing)
    command = ["export", str(small_run), str(tmp_path / "a"), "--format", "folder", "--push", "someone/tiny"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        export_main.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.count("\n") == 1
    assert "someone/tiny was not uploaded (ConnectionError: no route)" in said and (tmp_path / "a" / MODEL).exists()
    assert "repeat the command, which uploads that folder" in said
    monkeypatch.setattr(hub_package, "HfApi", FakeHub)
    FakeHub.root, FakeHub.calls = tmp_path / "hub", []
    written = (tmp_path / "a" / MODEL).stat()
    export_main.main()  # the second attempt uploads what the first one has written
    assert "https://hub/someone/tiny" in capsys.readouterr().out
    assert (tmp_path / "a" / MODEL).stat().st_ino == written.st_ino
    assert (tmp_path / "hub/someone/tiny" / MODEL).read_bytes() == (tmp_path / "a" / MODEL).read_bytes()

    def refused(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", [*command, *more])
        with pytest.raises(SystemExit):
            export_main.main()
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and f"hf upload USER/NAME {tmp_path / 'a'}" in said
        return said

    assert "its README.md is not what would be written now" in refused("--licence", "mit")
    assert "its README.md is not what" in refused("--raw")
    (tmp_path / "a" / "notes.txt").write_text("mine")
    assert "its notes.txt is not what" in refused()
    (tmp_path / "a" / "notes.txt").unlink()
    (tmp_path / "a" / ROWS).write_bytes(b"damaged")
    assert f"its {ROWS} is not what" in refused()
    assert len(FakeHub.calls) == 1 and sorted(path.name for path in tmp_path.iterdir()) == ["a", "hub"]
    for name in ("no-owner", "a/b/c", "a/b c"):
        monkeypatch.setattr(sys, "argv", [*command[:-1], name])
        command[2] = str(tmp_path / "b")
        with pytest.raises(SystemExit):
            export_main.main()
        assert f"--push {name}" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_without_the_hub_package_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for loaded in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r'pip install -e "\.\[hub\]"'):
        hub.hub_client("someone/tiny")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / MODEL).write_bytes(b"x" * 100), "model.safetensors is missing or not what was"),
        (lambda folder: (folder / ROWS).unlink(), "puzzle_rows.safetensors is missing"),
        (lambda folder: (folder / CONFIG).write_text("{"), "config.json cannot be read"),
        (lambda folder: (folder / CONFIG).write_text('{"arch": {"hidden_size": "wide"}}'), "arch.hidden_size"),
        (lambda folder: (folder / PROVENANCE).write_text('{"weights": "old"}'), "(weights: "),
    ],
)
def test_a_damaged_folder_is_refused(damage: Any, said: str, shared: Path, tmp_path: Path) -> None:
    shutil.copytree(shared, tmp_path / "tiny")
    damage(tmp_path / "tiny")
    with pytest.raises(CheckpointError) as error:
        checkpoint.load_weights(tmp_path / "tiny")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_settings_that_disagree_are_refused_before_a_folder_is_made(
    shared: Path, small_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    common = ("eval_arc_k10.py", f"data_paths=[{small_data}]", f"load_checkpoint={shared}", f"checkpoint_path={run}")
    for more, said in (
        (("epochs=2", "eval_interval=2", "arch.L_layers=1"), "arch.L_layers is 2 in the checkpoint and 1 here"),
        (
            ("epochs=0",),
            "has no puzzle rows for puzzle_rows=keep: name a checkpoint that does, or train with puzzle_rows=mean",
        ),
    ):
        refused = run_script(*common, *SMALL, *more)
        assert refused.returncode == 2 and said in refused.stderr
        assert not run.exists()


def test_files_of_the_published_code_are_shared_too(
    shared: Path, small_run: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "published"
    published_format.write_published(small_run, file)
    with pytest.raises(CheckpointError, match="add --arch arch=trm"):
        folder.write_folder(file, tmp_path / "a")
    arch = [
        *("arch=trm", "arch.hidden_size=32", "arch.num_heads=2", "arch.H_cycles=2", "arch.L_cycles=2"),
        *("arch.halt_max_steps=3", "arch.puzzle_emb_len=2", "arch.forward_dtype=float32"),
    ]
    with pytest.raises(CheckpointError, match="add --data DATA_SET"):
        folder.write_folder(file, tmp_path / "a", details=ExportDetails(arch=arch))
    with pytest.raises(CheckpointError, match=r"arch\.hidden_size is 32 in the checkpoint and 64 here"):
        folder.write_folder(
            file, tmp_path / "a", details=ExportDetails(arch=[*arch, "arch.hidden_size=64"], data=small_data)
        )
    with pytest.raises(SettingError, match="arch=trn does not exist: choose one of hrm, "):
        folder.write_folder(file, tmp_path / "a", details=ExportDetails(arch=["arch=trn"], data=small_data))
    with pytest.raises(SettingError, match="records its network: leave out --arch"):
        folder.write_folder(small_run, tmp_path / "a", details=ExportDetails(arch=arch))
    assert not (tmp_path / "a").exists()
    folder.write_folder(file, tmp_path / "a", details=ExportDetails(arch=arch, data=small_data))
    assert (tmp_path / "a" / CONFIG).read_text() == (shared / CONFIG).read_text()
    card = (tmp_path / "a" / "README.md").read_text()
    assert "has no record of its data" in card
    assert f"`{MODEL}`: the weights (averaged or raw: not recorded), float32" in card
    assert json.loads((tmp_path / "a" / PROVENANCE).read_text())["weights"] == "unknown"
    assert checkpoint.load_weights(tmp_path / "a").record.weights == "unknown"
    with pytest.raises(CheckpointError, match="exists: name another folder"):
        folder.write_folder(file, tmp_path / "a", details=ExportDetails(arch=arch, data=small_data))


def test_options_of_the_folder_are_not_passed_over(small_run: Path, tmp_path: Path) -> None:
    done = run_script("-m", "training.export", str(small_run), str(tmp_path / "file"), "--push", "someone/tiny")
    assert done.returncode == 2 and "--push is for --format folder" in done.stderr
    assert not (tmp_path / "file").exists()


def test_the_front_matter_is_yaml(shared: Path) -> None:
    _, front, rest = (shared / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "mit"
    assert "## Trained on" in rest and "small-otter" in rest
