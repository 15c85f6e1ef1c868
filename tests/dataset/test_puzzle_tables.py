"""dataset/layouts/tables.py and the text of Sudoku: tables as people have them."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.build import grid_puzzles, sudoku
from dataset.storage import open_manifest, open_split
from utils.errors import DataError, InputError, SettingError

DIGITS = "123456789ABCDEFG"


def boards(n: int, count: int = 6) -> list[tuple[np.ndarray, np.ndarray]]:
    """Sudoku with a few blanks: a pattern that is valid for any box, digits renamed."""
    rng = np.random.default_rng(n)
    height, width = sudoku.BOXES[n]
    base = np.array([[(width * (r % height) + r // height + c) % n for c in range(n)] for r in range(n)])
    made = []
    for _ in range(count):
        solution = (rng.permutation(n)[base] + 1).reshape(-1).astype(np.uint8)
        made.append((np.where(rng.random(n * n) < 0.4, 0, solution).astype(np.uint8), solution))
    return made


def text(board: np.ndarray, blank: str = ".", digits: str = DIGITS) -> str:
    return "".join(blank if d == 0 else digits[d - 1] for d in board)


def table(path: Path, header: Sequence[str] | None, rows: list[list[str]], delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", newline="") as stream:  # type: ignore[operator]
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerows([header, *rows] if header else rows)
    return path


def built(source: Path, output: Path, **more: Any) -> tuple[np.ndarray, np.ndarray]:
    """The digits of all questions and answers, train and test together."""
    settings = grid_puzzles.SudokuSettings(source_repo=str(source), output_dir=str(output), **more)
    grid_puzzles.build_sudoku(settings, lambda *_: None)
    both = [open_split(output, name) for name in ("train", "test")]
    read = [split.read(np.arange(split.num_examples)) for split in both]
    return tuple(np.concatenate(side) - 1 for side in zip(*read, strict=True))  # type: ignore[return-value]


def same(found: tuple[np.ndarray, np.ndarray], want: list[tuple[np.ndarray, np.ndarray]]) -> bool:
    rows = {(q.tobytes(), a.tobytes()) for q, a in zip(*(side.astype(np.uint8) for side in found), strict=True)}
    return rows == {(q.tobytes(), a.tobytes()) for q, a in want}


@pytest.mark.parametrize(
    ("header", "name", "delimiter"),
    [
        (["quizzes", "solutions"], "sudoku.csv", ","),
        (["Puzzle", "Solution"], "sudoku.csv.gz", ","),
        (["QUESTION", "answer"], "train.csv", ";"),
        (["puzzle", "solution"], "sudoku.tsv", "\t"),
        (None, "sudoku.csv", ","),
    ],
)
@pytest.mark.parametrize("blank", [".", "0", " ", "_"])
def test_tables_under_other_names(
    header: list[str] | None, name: str, delimiter: str, blank: str, tmp_path: Path
) -> None:
    want = boards(4)
    path = table(tmp_path / "in" / name, header, [[text(q, blank), text(a)] for q, a in want], delimiter)
    assert same(built(path, tmp_path / "file"), want)
    assert same(built(path.parent, tmp_path / "folder"), want)


@pytest.mark.parametrize("digits", [DIGITS, "0123456789ABCDEF", "ABCDEFGHIJKLMNOP", DIGITS.lower()])
@pytest.mark.parametrize("n", [4, 6, 8, 9, 10, 12, 15, 16])
def test_sides_and_letters(n: int, digits: str, tmp_path: Path) -> None:
    want = boards(n, 3)
    path = table(
        tmp_path / "in.csv", ["question", "answer"], [[text(q, ".", digits), text(a, ".", digits)] for q, a in want]
    )
    assert same(built(path, tmp_path / "out"), want)


def test_numbers_with_separators(tmp_path: Path) -> None:
    want = boards(16, 3)
    rows = [[" ".join(map(str, q)), ",".join(map(str, a))] for q, a in want]
    assert same(built(table(tmp_path / "in.csv", ["puzzle", "solution"], rows), tmp_path / "out"), want)


def test_one_file_is_split_by_the_seed_and_has_decimal_ratings(tmp_path: Path, capsys: Any) -> None:
    want = boards(9, 30)
    rows = [[str(i), text(q, "."), text(a), "30", str(i / 10)] for i, (q, a) in enumerate(want)]
    path = table(tmp_path / "in.csv", ["id", "puzzle", "solution", "clues", "difficulty"], rows)
    tests = []
    for seed in (1, 1, 2):
        output = tmp_path / f"out{len(tests)}"
        assert same(built(path, output, seed=seed), want)
        split = open_split(output, "test")
        assert split.num_examples == 3
        tests.append(split.read(np.arange(3))[0].tobytes())
    assert tests[0] == tests[1] != tests[2]
    assert "3 of its 30 puzzles are drawn for test" in capsys.readouterr().out
    assert len(built(path, tmp_path / "few", min_difficulty=2)[0]) == 10
    assert open_split(tmp_path / "few", "test").num_examples == 1
    manifest = open_manifest(tmp_path / "few")
    assert manifest is not None and manifest.counts["mean_test_difficulty_x100"] >= 200
    built(path, tmp_path / "five", test_size=5)
    assert open_split(tmp_path / "five", "test").num_examples == 5
    with pytest.raises(SettingError, match="lower --test-size"):
        built(path, tmp_path / "none", test_size=30)
    assert not (tmp_path / "none").exists()


def test_columns_can_be_named(tmp_path: Path) -> None:
    want = boards(4)
    rows = [[text(q), text(a), "1e1"] for q, a in want]
    path = table(tmp_path / "in.csv", ["start", "Finish", "stars"], rows)
    with pytest.raises(DataError, match=r"no column question, only start, Finish, stars: name it by --question-column"):
        built(path, tmp_path / "out")
    named = {"question_column": "start", "answer_column": "finish", "rating_column": "stars"}
    assert same(built(path, tmp_path / "out", min_difficulty=10, **named), want)
    with pytest.raises(SettingError, match=r"--rating-column x: .*only start, Finish, stars"):
        built(path, tmp_path / "other", **{**named, "rating_column": "x"})


@pytest.mark.parametrize(
    ("header", "rows", "said"),
    [
        (["question", "sol"], [["." * 16, "1234" * 4]], r"no column answer, only question, sol: name it by --answer"),
        (["question", "answer"], [["", "1" * 16]], r"line 2 has no question"),
        (["question", "answer", "rating"], [["." * 16, "1" * 16, "hard"]], r"line 2 has the rating 'hard'"),
        (["question", "answer"], [["." * 16, "?" * 16]], r"line 2 contains something other than digits"),
        (["question", "answer"], [["." * 16, "1" * 16]], r"line 2: the answer is not a solution"),
    ],
)
def test_what_is_no_puzzle_is_named(header: list[str], rows: list[list[str]], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        built(table(tmp_path / "in.csv", header, rows), tmp_path / "out", min_difficulty=1 if "rating" in header else 0)
    assert not (tmp_path / "out").exists()


def test_a_parquet_file_without_pyarrow_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "in.parquet").write_bytes(b"PAR1")
    with pytest.raises(SettingError, match="pyarrow is missing: pip install pyarrow"):
        built(tmp_path / "in.parquet", tmp_path / "out")


def test_parquet_is_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    want = boards(4)
    columns = {"Puzzle": [text(q) for q, _ in want], "Solution": [text(a) for _, a in want], "rating": [1.5] * 6}
    parquet.write_table(pyarrow.table(columns), tmp_path / "in.parquet")
    assert same(built(tmp_path / "in.parquet", tmp_path / "out"), want)


def lines_of(board: np.ndarray, blank: str = ".") -> str:
    """A board over several lines, in one cell of a table."""
    side = int(len(board) ** 0.5)
    return "\n".join(text(row, blank) for row in board.reshape(side, side))


WANT = boards(9, 4)
PAIRS = [(text(q), text(a)) for q, a in WANT]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("index.csv", "".join(f"{i},{q},{a}\n" for i, (q, a) in enumerate(PAIRS))),
        (
            "index_named.csv",
            "\ufeff,PUZZLE, Solution\r\n" + "".join(f"{i},{q}, {a}\r\n" for i, (q, a) in enumerate(PAIRS)),
        ),
        ("quotes.csv", '"quizzes";"solutions"\n' + "".join(f'"{q}";"{a}"\n' for q, a in PAIRS)),
        ("single.csv", "puzzle,solution\n" + "".join(f"'{q}','{a}'\n" for q, a in PAIRS)),
        ("lines.csv", "puzzle,solution\n" + "".join(f'"{lines_of(q)}","{lines_of(a)}"\n' for q, a in WANT)),
        ("spaces.txt", "".join(f"{q} {a}\n" for q, a in PAIRS)),
        ("tail.csv", "puzzle,solution,\n" + "".join(f"{q},{a},\n" for q, a in PAIRS) + ",,\n\n,,\n"),
        ("twice.csv", "puzzle,solution\n" + "".join(f"{q},{a}\n" for q, a in PAIRS * 3)),
        ("words.csv", "puzzle,solution,difficulty\n" + "".join(f"{q},{a},hard\n" for q, a in PAIRS)),
        (
            "gaps.csv",
            "puzzle;solution;rating\n"
            + "".join(f"{q};{a};{r}\n" for (q, a), r in zip(PAIRS, ("", "1,5", "nan", "2"), strict=True)),
        ),
        ("objects.jsonl", "".join(f'{{"question": "{q}", "answer": "{a}"}}\n' for q, a in PAIRS)),
        ("objects.json", str([{"Puzzle": q, "solution": a, "rating": 2} for q, a in PAIRS]).replace("'", '"')),
        (
            "numbers.json",
            str([{"quiz": q.tolist(), "solved": a.reshape(9, 9).tolist()} for q, a in WANT]).replace("'", '"'),
        ),
    ],
)
def test_tables_as_people_have_them(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    assert same(built(path, tmp_path / "out"), WANT)
    assert sum(open_split(tmp_path / "out", split).num_examples for split in ("train", "test")) == 4


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.csv", b"", "is empty"),
        ("header.csv", b"puzzle,solution\n", "has no puzzle"),
        ("book.xlsx", b"PK\x03\x04....", "a zip archive or a spreadsheet: unpack it, or save it as CSV"),
        (
            "latin.csv",
            f"source,puzzle,solution\ncaf\xe9,{PAIRS[0][0]},{PAIRS[0][1]}\n".encode("latin-1"),
            "save it as UTF-8",
        ),
        ("cut.csv.gz", gzip.compress(str(PAIRS).encode(), mtime=0)[:60], "cannot be read"),
        (
            "zeros.csv",
            f"puzzle,solution\n{PAIRS[0][1][1:]},{PAIRS[0][1]}\n".encode(),
            "line 2 has 80 and 81 cells: .*dropped zeros",
        ),
        ("several.csv", f"{','.join(PAIRS[0])},{PAIRS[0][1]}\n".encode(), "3 columns of boards: add a header"),
        ("other.csv", f"unsolved,complete\n{','.join(PAIRS[0])}\n".encode(), "only unsolved, complete: name it by"),
        (
            "lines.csv",
            f'puzzle,solution\n"{lines_of(WANT[0][0])}","{lines_of(WANT[0][1])}"\n{PAIRS[1][0]},?\n'.encode(),
            "line 19 contains something",
        ),
    ],
)
def test_what_no_table_is_leaves_nothing(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said) as error:
        built(tmp_path / name, tmp_path / "out")
    assert name in str(error.value) and "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_puzzles_without_answers_are_for_test_and_have_no_labels(tmp_path: Path, capsys: Any) -> None:
    rows = [[q, a if i < 3 else ""] for i, (q, a) in enumerate(PAIRS)]
    output = tmp_path / "out"
    found = built(table(tmp_path / "some.csv", ["puzzle", "solution"], rows), output)
    assert open_split(output, "train").num_examples == 3 and len(found[0]) == 4
    inputs, labels = open_split(output, "test").read(np.array([0]))
    assert np.array_equal(inputs[0] - 1, WANT[3][0]) and not labels.any()
    assert "1 of its puzzles have no answer and are for test" in capsys.readouterr().out
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "boards.txt").write_text("\n\n".join(lines_of(q) for q, _ in WANT))
    built(tmp_path / "text" / "boards.txt", tmp_path / "only")
    assert open_split(tmp_path / "only", "train").num_examples == 0
    test = open_split(tmp_path / "only", "test")
    assert np.array_equal(test.read(np.arange(4))[0] - 1, [q for q, _ in WANT])


def test_training_puzzles_need_answers_and_test_puzzles_do_not(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    table(folder / "train.csv", ["question", "answer"], [list(pair) for pair in PAIRS[:3]])
    table(folder / "test.csv", ["question"], [[PAIRS[3][0]]])
    built(folder, tmp_path / "out")
    assert not open_split(tmp_path / "out", "test").read(np.array([0]))[1].any()
    for header, rows, said in (
        (["question"], [[q] for q, _ in PAIRS], "no column answer.*without answers"),
        (["question", "answer"], [[PAIRS[0][0], ""]], "line 2 has no answer"),
    ):
        table(folder / "train.csv", header, rows)
        with pytest.raises(DataError, match=said):
            built(folder, tmp_path / "none")
    (folder / "train.csv").write_text("\n".join(q for q, _ in PAIRS))
    with pytest.raises(DataError, match="4 boards without answers, which cannot be trained on"):
        built(folder, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_mazes_from_a_table_and_from_text(tmp_path: Path) -> None:
    rows = [
        ("#####\n#S G#\n#####\n#   #\n#####", "#####\n#SoG#\n#####\n#   #\n#####"),
        ("#####\n#S###\n#   #\n###G#\n#####", "#####\n#S###\n#ooo#\n###G#\n#####"),
    ]
    sources = {
        "flat.csv": [[q.replace("\n", ""), a.replace("\n", "")] for q, a in rows],
        "lines.csv": [list(row) for row in rows],
    }
    for name, cells in sources.items():
        path = table(tmp_path / name, ["maze", "solution"], cells)
        output = tmp_path / f"from-{name}"
        grid_puzzles.build_maze(
            grid_puzzles.MazeSettings(source_repo=str(path), output_dir=str(output)), lambda *_: None
        )
        both = [open_split(output, split).read(np.array([0])) for split in ("train", "test")]
        assert {bytes(labels[0]) for _, labels in both} == {
            bytes("# SGo".index(c) + 1 for c in a.replace("\n", "")) for _, a in rows
        }
    (tmp_path / "mazes.txt").write_text("\n\n".join(q for q, _ in rows))
    settings = grid_puzzles.MazeSettings(source_repo=str(tmp_path / "mazes.txt"), output_dir=str(tmp_path / "text"))
    grid_puzzles.build_maze(settings, lambda *_: None)
    inputs, labels = open_split(tmp_path / "text", "test").read(np.arange(2))
    assert len(inputs) == 2 and not labels.any()
