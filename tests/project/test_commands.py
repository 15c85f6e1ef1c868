"""Every command that README.md and docs/ show is run, or parsed where it cannot be, with the reason."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import demo
from tests.builders.commands import Command, NotUnderstoodError, blocks, call, commands_of, documents, execute, parse
from tests.conftest import ROOT, random_task, write_kaggle

NOT_RUN = {
    r"make\b": "sets up an environment and takes minutes; what it calls is tested by itself",
    r"\S*python3? -m (pip|venv)\b|pip\b": "needs a network",
    r"\S*python3? -m pytest\b": "this is that",
    r"\S*python demo\.py": "minutes; its three commands are run here with small settings",
    r"\S*python -m benchmarks\b": "minutes: it measures, and what it measures has tests of its own",
    r"\S*python -m docs\.settings_page$": "writes into docs/; tests/project/test_settings_page.py compares",
    r".*\s--push\b": "needs a login and a network; tests/training/test_export.py uploads to a stand-in",
    r"\S*python -m docs\.figures$": "writes into docs/; tests/project/test_figures.py compares",
    r"sbatch\b": "needs Slurm; tests/project/test_slurm.py runs the job with stand-ins",
    r".*\s(--nnodes=N|--rdzv-endpoint=HOST)": "needs several machines; test_faults.py has two over loopback",
}
"""Commands that are parsed, but not run: the reason by a pattern of the command's beginning."""

SMALL_BUILD = ("--num-aug", "1", "--max-tasks-per-subset", "2")
SMALL_BOARDS = ("--size", "4", "--subsample-size", "12", "--test-size", "4")
SMALL_MAZES = ("--size", "9", "--subsample-size", "12", "--test-size", "4")
SMALL_RUN = (
    *("arch.hidden_size=16", "arch.num_heads=1", "arch.L_layers=1", "arch.H_cycles=1", "arch.L_cycles=1"),
    *("arch.halt_max_steps=2", "arch.puzzle_emb_ndim=16", "arch.puzzle_emb_len=0", "arch.forward_dtype=float32"),
    *(
        "global_batch_size=4",
        "micro_batch_size=null",
        "lr_warmup_steps=2",
        "log_every=1",
        "compile=false",
        "device=cpu",
    ),
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what the documents take for granted: Kaggle's files, others' corpora, a small data set, its run."""
    folder = tmp_path_factory.mktemp("scratch")
    before = Path.cwd()
    os.chdir(folder)
    rng = np.random.default_rng(0)
    for name in ("kaggle/combined", "ConceptARC/corpus", "re_arc/tasks", "synthetic/tasks"):
        Path(name).mkdir(parents=True)
    for subset in ("training2", "evaluation2", "concept"):
        write_kaggle(Path("kaggle/combined"), subset, [random_task(f"{subset}{i}", rng) for i in range(2)])
    for path in Path("kaggle/combined").glob("arc_*"):
        path.rename(path.with_name(path.name.replace("arc_", "arc-agi_", 1)))

    Path("synthetic/tasks/s.json").write_text(json.dumps(random_task("", rng).to_json()))
    Path("ConceptARC/corpus/c.json").write_text(json.dumps(random_task("", rng).to_json()))
    Path("re_arc/tasks/r.json").write_text(json.dumps(random_task("", rng).to_json()["train"]))

    shutil.copytree(ROOT / "examples", "examples")
    checkpoint = ("load_checkpoint=runs/demo/pretrain", "checkpoint_path=runs/demo/finetune")
    for words in (
        ("python", "build_dataset.py"),
        ("python", *demo.BUILD),
        ("python", *demo.PRETRAIN, "checkpoint_path=runs/demo/pretrain"),
        ("python", *demo.FINE_TUNE, *checkpoint),
    ):
        execute(shrunk(Command("what the documents take for granted", words)))
    train_on_boards()
    yield folder
    os.chdir(before)


def train_on_boards() -> None:
    """Makes runs/sudoku of 9 x 9 boards, runs/maze, and files of boards for them."""
    for kind, more in (("sudoku", ("--clues", "60")), ("maze", ("--size", "9"))):
        build = ("build_dataset.py", kind, *more, "--subsample-size", "12", "--test-size", "4")
        execute(["python", *build, "--output-dir", f"made/{kind}"])
        train = ("eval_arc_k10.py", f"data_paths=[made/{kind}]", f"checkpoint_path=runs/{kind}", "evaluators=[exact]")
        execute(["python", *train, "puzzle_rows=zero", "epochs=2", "eval_interval=2", *SMALL_RUN])
    Path("boards.csv").write_text("puzzle\n" + "." * 81 + "\n")
    Path("maze.txt").write_text("\n".join(["#" * 9, "#S     G#", *["#" * 9] * 7]))


def shrunk(command: Command) -> list[str]:
    """The command with settings behind it that make it small, and the checkpoint that is there for one that is not."""
    words = [re.sub(r"(\S*)/step_\d+$", _the_step_that_is_there, word) for word in command.words]
    if {"--help", "-h", "--hydra-help", "--cfg"} & set(words):
        return words
    if "build_dataset.py" in words:
        more = SMALL_BOARDS if "sudoku" in words else SMALL_MAZES if "maze" in words else SMALL_BUILD
        made_here = ("--max-grid-size", "5") if "--input-file-prefix" in words else ()
        return [*words, *more, *made_here]
    if "pretrain_no_eval.py" in words or "eval_arc_k10.py" in words:
        fine_tunes = "eval_arc_k10.py" in words
        epochs = () if "epochs=0" in words else ("epochs=2", "eval_interval=2")
        untimed = ("time_budget=null", "deadline=null") if fine_tunes else ()
        return [*words, *SMALL_RUN, *epochs, *untimed]
    if "solve.py" in words and any(word.endswith((".json", "examples/puzzles")) for word in words):
        return [*words, "--steps", "2", "--augmentations", "2"]
    return words


def _the_step_that_is_there(match: re.Match[str]) -> str:
    folder = Path(match[1].split("=")[-1])
    steps = sorted(folder.glob("step_*"), key=lambda path: int(path.name.rpartition("_")[2]))
    return f"{match[1]}/{steps[-1].name}" if steps else match[0]


def reason_not_to_run(command: Command) -> str | None:
    if command.inline:
        return "stands in a sentence"
    return next((why for pattern, why in NOT_RUN.items() if re.match(pattern, command.text)), None)


ALL = [command for path in documents() for command in commands_of(path)]


def test_commands_are_found() -> None:
    texts = [command.text for command in ALL]
    assert len(ALL) > 25
    assert sum("pretrain_no_eval.py" in text for text in texts) >= 4
    assert "make demo" in texts and any(text.startswith("sbatch") for text in texts)


@pytest.mark.parametrize("command", ALL, ids=lambda command: f"{command.where}: {command.text[:60]}")
def test_every_command_is_understood(command: Command) -> None:
    parse(command)


def test_the_notebook_shows_commands_that_are() -> None:
    """Its list of wheels is that of the dependencies."""
    cells = json.loads((ROOT / "examples" / "kaggle_arc_agi_2.ipynb").read_text(encoding="utf-8"))["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    commands = [Command("the notebook", tuple(code.split())) for code in re.findall(r"`(pip [^`]+)`", prose)]
    assert commands
    for command in commands:
        parse(command)


@pytest.mark.slow
@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_run(path: Path, scratch: Path) -> None:
    """In their order, so that one may use what the one before has made."""
    for command in commands_of(path):
        if reason_not_to_run(command) is None:
            try:
                execute(shrunk(command))
            except (AssertionError, ValueError, OSError) as error:
                pytest.fail(f"{command.where}: {command.text}\n{error}")


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_python_runs(path: Path, scratch: Path) -> None:
    for line, language, text in blocks(path):
        if language == "python":
            try:
                exec(compile(text, f"{path.name}, line {line}", "exec"), {"__name__": "__main__"})
            except Exception as error:
                pytest.fail(f"{path.name}, block of line {line}: {type(error).__name__}: {error}")


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        if "://" in file:
            continue
        linked = path.parent / file if file else path
        assert linked.exists(), f"{target} is not there"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in anchors, f"{target}: there is no such heading"


@pytest.mark.parametrize(
    "words",
    [
        ("python", "pretrain_no_eval.py", "epoch=3"),
        ("python", "build_dataset.py", "--num-augs", "3"),
        ("torchrun", "--nproc-per-nodes", "8", "pretrain_no_eval.py"),
        ("python", "-m", "dataset.statistics", "--nonsense"),
        ("make", "coffee"),
        ("curl", "somewhere"),
        ("sbatch", "examples/slurm/pretrain.sbatch", "lrr=3"),
        ("pip", "install", "-e", ".[nothing]"),
        ("pip", "wheel", "--wheel-dir", "wheels", "numba"),
    ],
)
def test_a_wrong_command_is_noticed(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((ValueError, SystemExit, NotUnderstoodError, AssertionError)):
        parse(Command("here", words))


def test_a_failing_command_says_what_it_said(scratch: Path) -> None:
    with pytest.raises(AssertionError, match="nowhere is not a data set folder"):
        execute(["python", "pretrain_no_eval.py", "data_paths=[nowhere]", *SMALL_RUN])
    assert "usage" in call(["-m", "dataset.statistics", "--help"])
    assert Path.cwd() != ROOT


def test_a_demonstration_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    assert demo.folder_to_use() == Path("runs/demo")
    (tmp_path / "runs/demo/finetune/step_5").mkdir(parents=True)
    assert demo.folder_to_use() == Path("runs/demo")
    (tmp_path / "runs/demo/finetune/evaluation_step_9").mkdir()
    assert demo.folder_to_use() == Path("runs/demo"), "it was cut off before it was scored"
    (tmp_path / "runs/demo/finetune/evaluation_step_9/scores.json").write_text("{}")
    assert demo.folder_to_use() == Path("runs/demo-2")
