"""evaluators/grid_puzzles/ and solve.py: Sudoku and mazes from a text or a table to completed boards."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import solve
from dataset.storage import open_split
from evaluators.grid_puzzles.kinds import MazeKind, SudokuKind, identify_kind
from evaluators.grid_puzzles.solver import GridPuzzleSolver
from evaluators.inference.predictions import Predictions
from tests.conftest import SMALL, run_script
from training.export import folder
from utils.errors import CheckpointError, DataError, SettingError

BUILD = {"sudoku": ("--size", "4", "--clues", "6"), "maze": ("--size", "7", "--min-way", "4")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set and a run of a few steps for each kind: sudoku, sudoku-run, maze, maze-run."""
    place = tmp_path_factory.mktemp("boards")
    for kind, more in BUILD.items():
        built = run_script(
            *("build_dataset.py", kind, *more, "--subsample-size", "30", "--test-size", "12"),
            *("--output-dir", str(place / kind)),
        )
        assert built.returncode == 0, built.stderr
        done = run_script(
            *("eval_arc_k10.py", f"data_paths=[{place / kind}]", "evaluators=[exact]", "puzzle_rows=zero", "ema=True"),
            *("epochs=8", "eval_interval=8", f"checkpoint_path={place / kind}-run", *SMALL, "puzzle_emb_lr=0.5"),
        )
        assert done.returncode == 0, done.stderr
    return place


def ended(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence that solve.py ends with."""
    monkeypatch.setattr(sys, "argv", ["solve.py", *words])
    with pytest.raises(SystemExit) as status:
        solve.main()
    printed = capsys.readouterr().err
    assert status.value.code == 2 and printed.count("\n") == 1, printed
    return printed


def run(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What solve.py prints."""
    monkeypatch.setattr(sys, "argv", ["solve.py", *words])
    solve.main()
    return capsys.readouterr().out


def written(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


# --- kinds

SOLVED = "1234341221434321"


@pytest.mark.parametrize(
    ("answer", "broken", "words"),
    [
        (SOLVED, set(), "clues kept, rows, columns and boxes valid"),
        ("2134341221434321", {"clues_kept", "columns_valid"}, "clues not kept, not valid: columns"),
        ("1243341221434321", {"columns_valid"}, "clues kept, not valid: columns"),
        ("1234123434124321", {"columns_valid", "boxes_valid"}, "clues kept, not valid: columns, boxes"),
        ("1134341221434321", {"rows_valid", "columns_valid", "boxes_valid"}, "clues kept, not valid: rows, columns"),
    ],
)
def test_which_rules_of_sudoku_an_answer_keeps(answer: str, broken: set[str], words: str) -> None:
    kind = SudokuKind(4)
    question, solution = kind.parse("1" + "." * 15, "", "q")[0], np.array([int(d) + 1 for d in answer], dtype=np.uint8)
    checks = kind.check(question, solution)
    assert {name for name, holds in checks.items() if not holds} == broken
    assert kind.describe_checks(checks).startswith(words)


def test_boxes_are_those_of_the_side() -> None:
    kind = SudokuKind(6)
    rows = ["123456", "456123", "231564", "564231", "312645", "645312"]
    solved = kind.parse("." * 36, "".join(rows), "q")[1]
    assert all(kind.check(solved, solved).values())
    swapped = solved.reshape(6, 6)[[0, 2, 1, 3, 4, 5]].reshape(-1)
    assert [n for n, holds in kind.check(swapped, swapped).items() if not holds] == ["boxes_valid"]
    assert kind.draw(solved).split("\n")[:3] == ["1 2 3 | 4 5 6", "4 5 6 | 1 2 3", "------+------"]


def test_how_a_board_is_written() -> None:
    kind = SudokuKind(16)
    tokens = np.arange(256, dtype=np.uint8) % 18
    assert kind.to_text(tokens)[:20] == "?.123456789ABCDEFG?."
    assert MazeKind(5).draw(np.arange(25, dtype=np.uint8) % 7).split("\n")[:2] == ["?# SG", "o??# "]


MAZE = "#######" "#S    #" "# ### #" "#     #" "### ###" "#   G##" "#######"  # fmt: skip


@pytest.mark.parametrize(
    ("marked", "wanted"),
    [
        ((15, 22, 23, 24, 31, 38), (True, True, True)),
        ((15, 22, 23, 24, 31, 38, 36), (True, True, False)),  # and one beside the path
        ((9, 10, 11, 12, 19, 26, 25, 24, 31, 38), (True, True, False)),  # a longer way
        ((15, 22, 23, 31, 38), (True, False, False)),
        ((15, 16, 22, 23, 24, 31, 38), (False, True, False)),  # through a wall
    ],
)
def test_which_rules_of_mazes_an_answer_keeps(marked: tuple[int, ...], wanted: tuple[bool, ...]) -> None:
    kind = MazeKind(7)
    question, _ = kind.parse(MAZE, "", "q")
    answer = question.copy()
    answer[list(marked)] = 5
    assert tuple(kind.check(question, answer).values()) == wanted


def test_what_kind_tokens_are_of() -> None:
    for vocab, cells, sources, wanted in (
        (11, 81, (), (SudokuKind, 9)),
        (6, 16, (), (SudokuKind, 4)),
        (6, 16, ("maze:x",), (MazeKind, 4)),
        (6, 900, (), (MazeKind, 30)),
        (12, 100, ("sudoku:generate",), (SudokuKind, 10)),
    ):
        kind = identify_kind(vocab, cells, sources)
        assert kind is not None and (type(kind), kind.side) == wanted
    assert identify_kind(12, 100) is identify_kind(12, 900) is identify_kind(11, 80) is None


def test_mazes_need_a_start_and_a_goal() -> None:
    for text, said in ((MAZE.replace("S", " "), "0 starts S"), (MAZE.replace("  G", "GGG"), "3 goals G")):
        with pytest.raises(DataError, match=said):
            MazeKind(7).parse(text, "", "q")


# --- the solver


@pytest.mark.parametrize("kind", ["sudoku", "maze"])
def test_the_same_answers_as_an_evaluation_in_one_batch_or_several(trained: Path, kind: str, tmp_path: Path) -> None:
    place = trained / f"{kind}-run"
    split = open_split(trained / kind, "test")
    (evaluation,) = place.glob("evaluation_step_*")
    found = Predictions.load(evaluation / "predictions.npz")
    solver = GridPuzzleSolver.load(place)
    questions = [solver.kind.to_text(tokens) for tokens in split.read(np.arange(split.num_examples))[0]]
    answers = solver.solve(questions)
    assert np.array_equal(answers.answers, found.tokens) and np.array_equal(answers.steps, found.steps)
    np.testing.assert_allclose(answers.q_halt, found.q_halt, rtol=1e-5)
    again = GridPuzzleSolver.load(place, eval_batch_size=5).solve(questions)
    assert np.array_equal(again.answers, answers.answers)
    folder.write_folder(place, tmp_path / "shared")  # its one row is trained, and shared as the mean of all
    shared = GridPuzzleSolver.load(tmp_path / "shared").solve(questions)
    np.testing.assert_allclose(shared.q_halt, answers.q_halt, rtol=1e-5)


def test_all_boards_of_a_table_are_one_batch(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evaluators.grid_puzzles import solver as module

    seen: list[tuple[int, int]] = []
    whole = module.predict_all

    def counting(state: Any, split: Any, options: Any) -> Any:
        seen.append((split.num_examples, options.batch_size))
        return whole(state, split, options)

    monkeypatch.setattr(module, "predict_all", counting)
    GridPuzzleSolver.load(trained / "sudoku-run").solve(["1" + "." * 15] * 40)
    assert seen == [(40, 40)]


def test_settings_without_an_effect_are_refused(trained: Path) -> None:
    for name in ("lr", "epochs", "ranking", "arch.H_cycles"):
        with pytest.raises(SettingError, match=f"^{name} has no effect on a Sudoku"):
            GridPuzzleSolver.load(trained / "sudoku-run", **{name: 1})
    with pytest.raises(SettingError, match="there is no setting"):
        GridPuzzleSolver.load(trained / "sudoku-run", lrr=1)
    answers = GridPuzzleSolver.load(trained / "sudoku-run", eval_halt_max_steps=2).solve(["." * 16])
    assert answers.steps.tolist() == [2]
    with pytest.raises(DataError, match="there is no puzzle"):
        GridPuzzleSolver.load(trained / "sudoku-run").solve([])


# --- solve.py


def test_a_board_as_a_text(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--weights", str(trained / "sudoku-run"), "--out", str(tmp_path / "a.csv")]
    tables = []
    for board in ("12..34....41....", "1200340000410000", "12 .. / 34 .. / .. 41 / ....", "12..\n34..\n..41\n...."):
        printed = run([board, *common], monkeypatch, capsys)
        tables.append((tmp_path / "a.csv").read_text())
        assert printed.startswith("Sudoku 1: halting ") and " after 3 steps, clues" in printed
        assert f"all answers: {tmp_path / 'a.csv'}; as JSON: {tmp_path / 'a.answers.json'}" in printed
    assert len(set(tables)) == 1
    (row,) = written(tmp_path / "a.csv")
    assert row["question"] == "12..34....41...." and len(row["prediction"]) == 16 and row["steps"] == "3"
    assert list(row)[4:] == ["clues_kept", "rows_valid", "columns_valid", "boxes_valid"]
    told = json.loads((tmp_path / "a.answers.json").read_text())
    assert told["kind"] == "Sudoku" and told["puzzles"][0]["prediction"] == row["prediction"]
    assert float(row["halting"]) == told["puzzles"][0]["halting"] and 0 < told["puzzles"][0]["halting"] < 1
    shown = [line for line in printed.split("\n") if line.startswith("  ") and "+" not in line]
    assert "".join(shown).replace(" ", "").replace("|", "") == row["prediction"]


def test_a_table_with_answers_says_how_many_are_right(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    solver = GridPuzzleSolver.load(trained / "sudoku-run")
    monkeypatch.setattr(  # a network that is right about the first rows
        GridPuzzleSolver,
        "_predict",
        lambda self, questions, truths: _answers_of(solver, questions, truths),
    )
    given = tmp_path / "boards.csv"
    rows = [("1" + "." * 15, SOLVED), ("." * 15 + "1", SOLVED), (SOLVED, ""), ("...." * 4, SOLVED)]
    given.write_text("id;Start;Ende\r\n" + "".join(f"{i};{q};{a}\r\n" for i, (q, a) in enumerate(rows)))
    words = [str(given), "--weights", str(trained / "sudoku-run"), "--out", str(tmp_path / "a.csv")]
    named = ["--question-column", "start", "--answer-column", "Ende"]
    assert "only id, Start, Ende: name it by --question-column" in ended(words, monkeypatch, capsys)
    printed = run([*words, *named], monkeypatch, capsys)
    assert "Sudoku 3:" in printed and "Sudoku 4:" not in printed and "and 1 more" in printed
    assert "3 of 4 answers keep every rule\n2 of the 3 whose answer is given are right" in printed
    found = written(tmp_path / "a.csv")
    assert [row["right"] for row in found] == ["yes", "yes", "", "no"]
    assert [row["answer"] for row in found] == [SOLVED, SOLVED, "", SOLVED]


def _answers_of(solver: GridPuzzleSolver, questions: np.ndarray, truths: np.ndarray) -> Any:
    from evaluators.grid_puzzles.answers import GridAnswers

    right = solver.kind.parse("." * 16, SOLVED, "q")[1]
    answers = np.tile(right, (len(questions), 1))
    answers[-1, 0] = 5
    N = len(questions)
    return GridAnswers(solver.kind, questions, answers, truths, np.zeros(N, np.float32), np.full(N, 3, np.int32))


def test_a_maze_from_a_file(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "maze.txt"
    given.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(MAZE[row * 7 : row * 7 + 7] for row in range(7)).encode())
    words = [str(given), "--weights", str(trained / "maze-run"), "--out", str(tmp_path / "a.csv")]
    printed = run(words, monkeypatch, capsys)
    (row,) = written(tmp_path / "a.csv")
    assert row["question"] == MAZE and len(row["prediction"]) == 49
    assert list(row)[4:] == ["maze_kept", "path_connected", "path_shortest"]
    lines = [line[2:] for line in printed.split("\n") if line.startswith("  ")]
    assert "".join(lines) == row["prediction"]


def test_what_does_not_go_together_leaves_nothing(
    trained: Path,
    small_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    board, place = "12..34....41....", tmp_path / "here"
    place.mkdir()
    maze, table, task = place / "maze.txt", place / "boards.csv", place / "task.json"
    maze.write_text("\n".join(MAZE[row * 7 : row * 7 + 7] for row in range(7)))
    table.write_text(f"puzzle\n{board}\n{board[1:]}\n")
    task.write_text(json.dumps({"train": [{"input": [[1]], "output": [[1]]}], "test": [{"input": [[1]]}]}))
    before = sorted(place.iterdir())
    out = str(place / "a.csv")
    for given, weights, more, said in (
        (board, small_run, (), "is not a network for Sudoku or mazes (12 tokens, 36 cells): name another"),
        (board, trained / "maze-run", (), "the board, line 1 is a Sudoku, and"),
        (str(maze), trained / "sudoku-run", (), "maze.txt, lines 1 to 7 is a maze, and"),
        ("." * 81, trained / "sudoku-run", (), "is 9 x 9, and the network completes 4 x 4"),
        (str(table), trained / "sudoku-run", (), "boards.csv, line 3 has 15 cells: "),
        (board[1:], trained / "sudoku-run", (), "write a Sudoku as 16, 36, 81 or 256 cells (these are 15)"),
        ("boards.txt", trained / "sudoku-run", (), "there is no file boards.txt"),
        ("19" + board[2:], trained / "sudoku-run", (), "has the digit 9, which a Sudoku of 16 cells does not have"),
        (board, trained / "sudoku-run", ("--steps", "3"), "--steps is for ARC tasks: leave it out"),
        (board, trained / "sudoku-run", ("--out", "a.png"), "--out a.png is not a place for a table"),
        (str(table), trained / "sudoku-run", ("--out", str(table)), "would overwrite the puzzle"),
        (str(task), trained / "sudoku-run", ("--out", str(place / "a.png")), "for Sudoku of side 4): name another one"),
    ):
        printed = ended([given, "--weights", str(weights), "--out", out, *more], monkeypatch, capsys)
        assert said in printed, printed
        assert sorted(place.iterdir()) == before
    assert table.read_text() == f"puzzle\n{board}\n{board[1:]}\n"


# --- data sets of questions


def test_a_data_set_of_questions_is_evaluated_to_a_file(trained: Path, tmp_path: Path) -> None:
    questions = ["12..34....41....", "." * 15 + "1"]
    (tmp_path / "boards.txt").write_text("\n".join(questions))
    built = run_script(
        "build_dataset.py",
        "sudoku",
        "--source-repo",
        str(tmp_path / "boards.txt"),
        "--output-dir",
        str(tmp_path / "set"),
    )
    assert built.returncode == 0 and "0 are trained on (use epochs=0)" in built.stdout, built.stderr
    words = ("eval_arc_k10.py", f"data_paths=[{tmp_path / 'set'}]", "evaluators=[exact]", *SMALL)
    done = run_script(
        *(*words, "epochs=0", f"load_checkpoint={trained / 'sudoku-run'}", f"checkpoint_path={tmp_path / 'run'}"),
    )
    assert done.returncode == 0, done.stderr
    assert "2 test examples predicted" in done.stdout and "no answer is known, so there is no score" in done.stdout
    (evaluation,) = (tmp_path / "run").glob("evaluation_step_*")
    found = written(evaluation / "answers.csv")
    assert [row["question"] for row in found] == questions
    same = GridPuzzleSolver.load(trained / "sudoku-run").solve(questions)
    assert [row["prediction"] for row in found] == [same.kind.to_text(answer) for answer in same.answers]
    scores = json.loads((evaluation / "scores.json").read_text())
    assert scores["exact/examples"] == 0 and scores["exact/predictions"] == 2
    assert not {"exact/exact_accuracy", "exact/accuracy", "all"} & scores.keys()
    refused = run_script(*words, "epochs=4", "puzzle_rows=zero", f"checkpoint_path={tmp_path / 'x'}")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_networks_of_other_kinds_are_named(small_run: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a network for Sudoku or mazes"):
        GridPuzzleSolver.load(small_run)
