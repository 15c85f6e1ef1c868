"""evaluators: crop, undo, vote, score, submit, by hand-written cases and in agreement with the published counts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.augmentation import Augmentation
from dataset.storage import PuzzleCatalog, open_catalog, open_split, open_test_tasks
from dataset.tasks import Task
from evaluators import scores, submission, tools
from evaluators.arc import ArcScorer
from evaluators.inference.predictions import Predictions, PredictionSnapshot
from evaluators.voting import RANKINGS, Candidate, Votes, count_votes, vote_weight, weights_of
from tests.builders.grids import encode_grid
from tests.conftest import random_task, run_script, write_kaggle
from training.config import EvalConfig
from utils.errors import DataError, InputError, SettingError, SubmissionError

SIDE = 6
TURN = Augmentation(1, (0, 2, 1, 3, 4, 5, 6, 7, 8, 9))
CATALOG = PuzzleCatalog.from_names(["<blank>", "a", TURN.name("a"), "b"])


def predictions_of(rows: list[tuple[int, int, list[list[int]], float]]) -> Predictions:
    """Rows of (identifier, test input, predicted grid, halting logit)."""
    grids = [encode_grid(np.array(grid, dtype=np.uint8), SIDE) for _, _, grid, _ in rows]
    return Predictions(
        np.array(grids, dtype=np.uint8).reshape(-1, SIDE * SIDE),
        np.array([row[3] for row in rows], dtype=np.float32),
        np.array([row[0] for row in rows], dtype=np.int32),
        np.array([row[1] for row in rows], dtype=np.int32),
        np.ones(len(rows), dtype=np.int32),
    )


def grids_of(votes: Votes, task: str, index: int) -> list[list[list[int]]]:
    return [candidate.grid.tolist() for candidate in votes[task, index]]


@pytest.mark.parametrize("transform", range(8))
def test_votes_undo_the_augmentation(transform: int) -> None:
    grid = np.array([[1, 2, 3], [4, 0, 6]], dtype=np.uint8)
    augmentation = Augmentation(transform, (0, 9, 8, 7, 6, 5, 4, 3, 2, 1))
    catalog = PuzzleCatalog.from_names(["<blank>", augmentation.name("a")])
    votes = count_votes(predictions_of([(1, 0, augmentation.apply(grid).tolist(), 0.0)]), catalog)
    assert grids_of(votes, "a", 0) == [grid.tolist()]


def test_candidates_rank_by_votes_then_by_halting() -> None:
    one, two, three = [[1]], [[2]], [[3]]
    turned = TURN.apply(np.array(one, dtype=np.uint8)).tolist()
    found = count_votes(
        predictions_of(
            [(1, 0, one, -9.0), (2, 0, turned, -9.0), (1, 0, two, 1.0), (1, 0, three, 2.0), (3, 0, two, 0.0)]
        ),
        CATALOG,
    )
    assert grids_of(found, "a", 0) == [one, three, two]
    assert [c.votes for c in found["a", 0]] == [2, 1, 1]
    assert found["a", 0][1].mean_halt == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert grids_of(found, "b", 0) == [two]


def test_ranking_by_summed_halting() -> None:
    rows = [(1, 0, [[1]], -9.0), (1, 0, [[1]], -9.0), (1, 0, [[2]], 9.0)]
    assert grids_of(count_votes(predictions_of(rows), CATALOG, "sum_halt"), "a", 0) == [[[2]], [[1]]]


def test_every_ranking_can_be_asked_for() -> None:
    assert set(RANKINGS) == set(get_args(EvalConfig.model_fields["ranking"].annotation))


def test_ranking_by_mean_halting() -> None:
    rows = [(1, 0, [[1]], -1.0), (1, 0, [[1]], -1.0), (1, 0, [[1]], -1.0), (1, 0, [[2]], 0.0)]
    assert grids_of(count_votes(predictions_of(rows), CATALOG), "a", 0) == [[[1]], [[2]]]
    assert grids_of(count_votes(predictions_of(rows), CATALOG, "sum_halt"), "a", 0) == [[[1]], [[2]]]
    assert grids_of(count_votes(predictions_of(rows), CATALOG, "mean_halt"), "a", 0) == [[[2]], [[1]]]


def test_votes_of_older_checkpoints_count_less() -> None:
    """Three evaluations, half-life 2: weights 1/2, 2^(-1/2) and 1, added up exactly; the newest alone is outvoted."""
    weights = [vote_weight(age, 2) for age in (2, 1, 0)]
    assert weights == [0.5, 0.7071067811865476, 1.0] and vote_weight(7, None) == 1.0 and vote_weight(10, 10) == 0.5
    halted = float(1 / (1 + np.exp(-2.0)))
    parts = [
        predictions_of([(1, 0, [[1]], 0.0), (1, 0, [[2]], 2.0), (1, 0, [[2]], 2.0)]),
        predictions_of([(1, 0, [[1]], 0.0)]),
        predictions_of([(1, 0, [[2]], 0.0), (1, 1, [[4]], 0.0)]),
    ]
    given = weights_of(parts, weights)
    assert given is not None and given.tolist() == [0.5] * 3 + [0.7071067811865476] + [1.0, 1.0]
    votes = count_votes(Predictions.joined(parts), CATALOG, weights=given)
    assert [(c.grid.tolist(), c.votes) for c in votes["a", 0]] == [([[2]], 2.0), ([[1]], 1.2071067811865475)]
    assert votes["a", 0][0].sum_halt == pytest.approx(halted + 0.5, rel=1e-12)
    assert votes["a", 0][0].mean_halt == pytest.approx((halted + 0.5) / 2, rel=1e-12)
    assert [c.votes for c in votes["a", 1]] == [1.0]

    # the same parts with a half-life so short that the last one decides alone, and with none
    sharp = weights_of(parts, [vote_weight(age, 0.01) for age in (2, 1, 0)])
    assert count_votes(Predictions.joined(parts), CATALOG, weights=sharp)["a", 0][0].votes == pytest.approx(1)
    assert weights_of(parts, [1.0, 1.0, 1.0]) is None
    even = count_votes(Predictions.joined(parts), CATALOG)["a", 0]
    assert [c.votes for c in even] == [3, 2] and all(isinstance(c.votes, int) for c in even)


def stepped(rows: list[tuple[int, int, int, int]]) -> Predictions:
    """Rows of (identifier, test input, ACT step, colour of the answer)."""
    found = predictions_of([(identifier, index, [[colour]], 0.0) for identifier, index, _, colour in rows])
    found.steps = np.array([step for _, _, step, _ in rows], dtype=np.int32)
    return found


def test_the_last_of_several_saved_steps() -> None:
    rows = stepped([(1, 0, 3, 1), (1, 0, 4, 2), (2, 0, 1, 3), (1, 1, 2, 4), (1, 1, 1, 5), (1, 1, 3, 6)])
    assert rows.steps_from_end().tolist() == [1, 0, 0, 1, 2, 0]
    assert rows.last(1).steps.tolist() == [4, 1, 3]
    assert rows.last(2).steps.tolist() == [3, 4, 1, 2, 3]
    assert len(rows.last(9)) == len(rows)
    assert len(Predictions.empty(4).last(1)) == 0


@given(st.permutations(range(8)))
def test_the_order_of_predictions_does_not_matter(order: list[int]) -> None:
    rows = [(1, i % 2, [[1 + i % 3, 2]], 0.1 * i) for i in range(8)]
    plain, shuffled = (count_votes(predictions_of(r), CATALOG) for r in (rows, [rows[i] for i in order]))
    for key, candidates in plain.items():
        assert [(c.content, c.votes, c.mean_halt) for c in candidates] == [
            (c.content, c.votes, c.mean_halt) for c in shuffled[key]
        ]


def test_canvases_that_show_nothing_have_no_vote() -> None:
    empty = predictions_of([(1, 0, [[1]], 0.0)])
    empty.tokens[:] = 1
    assert count_votes(empty, CATALOG) == {}


def test_predictions_of_another_data_set_are_refused() -> None:
    with pytest.raises(SubmissionError, match="name puzzles up to 9"):
        count_votes(predictions_of([(9, 0, [[1]], 0.0)]), CATALOG)
    with pytest.raises(SubmissionError, match="blank puzzle"):
        count_votes(predictions_of([(0, 0, [[1]], 0.0)]), CATALOG)


def grid_of(colour: int) -> np.ndarray:
    return np.array([[colour]], dtype=np.uint8)


def task_of(name: str, *pairs: tuple[int, int | None]) -> Task:
    """A task without demonstrations whose test grids are single cells of these colours; None: not known."""
    test = tuple((grid_of(a), None if b is None else grid_of(b)) for a, b in pairs)
    return Task(name, "", (), test)


TASKS = {"a": task_of("a", (1, 5), (2, 6)), "b": task_of("b", (3, 3))}


def votes_of(**ranked: list[list[int]]) -> Votes:
    """a0=[5, 6]: for input 0 of task a the 1 x 1 grids 5, then 6."""
    return {
        (key[0], int(key[1])): [Candidate(np.array([[c]], dtype=np.uint8), 1, 0.5, 0.5) for c in colours]
        for key, colours in ranked.items()
    }


def test_pass_at_k_counts_shares_of_tasks_and_of_inputs() -> None:
    counted = scores.pass_at_k(votes_of(a0=[1, 5], a1=[6], b0=[1, 2, 4, 3]), TASKS)
    assert counted is not None
    assert [counted[f"ARC/pass@{k}"] for k in (1, 2, 5)] == [0.25, 0.5, 1.0]
    assert [counted[f"ARC/pass@{k}_inputs"] for k in (1, 2, 5)] == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_no_task_solved_is_not_a_score_of_zero_for_sure() -> None:
    counted = scores.pass_at_k({}, TASKS)
    assert counted is not None and counted["ARC/pass@1_95"] == pytest.approx(scores.wilson_interval(0, len(TASKS)))


def test_intervals_are_those_of_the_books() -> None:
    assert scores.wilson_interval(10, 20) == pytest.approx((0.299, 0.701), abs=1e-3)
    assert scores.wilson_interval(0, 10) == pytest.approx((0.0, 0.278), abs=1e-3)
    counted = scores.pass_at_k(votes_of(a0=[5], a1=[6], b0=[1]), TASKS)
    assert counted is not None
    low, high = counted["ARC/pass@1_95"]
    assert 0 <= low < counted["ARC/pass@1"] < high <= 1


def test_no_score_without_every_solution() -> None:
    unknown = {**TASKS, "c": task_of("c", (1, None))}
    assert scores.pass_at_k(votes_of(a0=[5]), unknown) is None
    assert scores.copy_baseline(unknown) is None
    assert scores.copy_baseline(TASKS) == pytest.approx(1 / 3)


def test_an_unanswered_input_keeps_its_place() -> None:
    built = submission.build_submission(votes_of(a1=[6, 7], b0=[3]), TASKS, 2)
    assert built["a"][0] == {"attempt_1": [[1]], "attempt_2": [[1]]}
    assert built["a"][1] == {"attempt_1": [[6]], "attempt_2": [[7]]}
    assert built["b"] == [{"attempt_1": [[3]], "attempt_2": [[3]]}]
    assert submission.list_unanswered(votes_of(a1=[6], b0=[3]), TASKS) == [("a", 0)]
    submission.check_submission(built, TASKS, 2)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda s: s.pop("b"), "'b' is missing"),
        (lambda s: s.update(c=[]), "'c' is too many"),
        (lambda s: s["a"].pop(), "needs 2 entries"),
        (lambda s: s["a"][0].pop("attempt_2"), "attempt_2"),
        (lambda s: s["a"][0].update(attempt_1=[]), "is empty"),
        (lambda s: s["a"][0].update(attempt_1=[[12]]), "colour 12"),
    ],
)
def test_what_the_competition_would_refuse(break_it, said: str) -> None:  # type: ignore[no-untyped-def]
    built = submission.build_submission(votes_of(a0=[5], a1=[6], b0=[3]), TASKS, 2)
    break_it(built)
    with pytest.raises(InputError, match=said):
        submission.check_submission(built, TASKS, 2)


def test_predictions_survive_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    rows = predictions_of([(1, 0, [[1]], 0.5), (2, 1, [[2, 3]], -0.5)])
    rows.save(path)
    loaded = Predictions.load(path)
    assert np.array_equal(loaded.tokens, rows.tokens) and np.array_equal(loaded.q_halt, rows.q_halt)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(SubmissionError, match="is not a file of predictions"):
        Predictions.load(path)


def test_published_votes_and_attempts(golden_dir: Path, tmp_path: Path) -> None:
    """The published evaluator's scores and attempts, from the same predictions and the published builder's data set."""
    folder = golden_dir / "voting"
    if not folder.is_dir():
        pytest.skip(f"no voting vectors in {folder}")
    split = open_split(folder / "dataset", "test")
    examples = np.arange(split.num_examples)
    puzzles = np.searchsorted(split.puzzle_indices, examples, side="right") - 1
    with np.load(folder / "predictions.npz", allow_pickle=False) as published:
        assert np.array_equal(published["puzzle_identifiers"], split.puzzle_identifiers[puzzles])
        rows = Predictions(
            *(published["preds"].astype(np.uint8), published["q_halt_logits"].astype(np.float32)),
            *(
                published["puzzle_identifiers"].astype(np.int32),
                (examples - split.puzzle_indices[puzzles]).astype(np.int32),
                np.ones(len(examples), np.int32),
            ),
        )
    cases = json.loads((folder / "expected.json").read_text())
    for name, expected in cases.items():
        attempts = int(name.rpartition("=")[2])
        catalog, tasks = open_catalog(folder / "dataset"), open_test_tasks(folder / "dataset")
        result = ArcScorer(catalog, tasks, attempts).score(PredictionSnapshot(rows))
        result.write(tmp_path / name)
        assert {key: result.metrics[key] for key in expected["metrics"]} == pytest.approx(expected["metrics"])
        assert json.loads((tmp_path / name / "submission.json").read_text()) == expected["submission"]
    assert cases


def test_votes_are_counts_of_equal_grids() -> None:
    """Against counting by hand, on many predictions of few grids."""
    rng = np.random.default_rng(0)
    rows = [(1, 0, [[int(c)]], 0.0) for c in rng.integers(1, 5, 300)]
    votes = count_votes(predictions_of(rows), CATALOG)
    counted = {c: sum(row[2] == [[c]] for row in rows) for c in range(1, 5)}
    assert {int(c.grid[0, 0]): c.votes for c in votes["a", 0]} == counted
    assert [c.votes for c in votes["a", 0]] == sorted(counted.values(), reverse=True)


def known_rows(small_data: Path, wrong: int = 0) -> Predictions:
    """The right answer of every test example, but for the first few."""
    split = open_split(small_data, "test")
    examples = np.arange(split.num_examples)
    puzzles = np.searchsorted(split.puzzle_indices, examples, side="right") - 1
    tokens = split.read(examples)[1]
    tokens[:wrong] = tokens[:wrong, ::-1]
    return Predictions(
        *(tokens, np.zeros(len(examples), np.float32), split.puzzle_identifiers[puzzles].astype(np.int32)),
        *((examples - split.puzzle_indices[puzzles]).astype(np.int32), np.ones(len(examples), np.int32)),
    )


def test_right_predictions_score_everything_and_can_be_recounted(small_data: Path, tmp_path: Path) -> None:
    for name, wrong in (("a.npz", 0), ("b.npz", 3)):
        known_rows(small_data, wrong).save(tmp_path / name)
    said = tools.recount(small_data, [tmp_path / "a.npz", tmp_path / "b.npz"], tmp_path / "out", 10, "votes")
    assert "100.0%" in said
    found = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert found["ARC/pass@1"] == 1.0 and found["ARC/predictions"] == 40
    assert found["ARC/checkpoints"] == 2
    assert found["conditions"]["predictions"] == [str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]
    assert tools.format_comparison(tools.compare(small_data, [tmp_path / "a.npz"])).count("100.0%") == 3 * len(
        scores.KS
    )


def test_ways_to_count_are_compared_on_saved_predictions(small_data: Path, tmp_path: Path) -> None:
    """Right after the last step, nothing but wrong before it: every further step that votes is for the worse."""
    right, wrong = known_rows(small_data), known_rows(small_data)
    wrong.tokens[:] = wrong.tokens[:, ::-1]
    wrong.tokens[:, 0], wrong.tokens[:, 1] = 2, 1
    right.steps[:] = 3
    both = [right, *(dataclasses.replace(wrong, steps=wrong.steps + n) for n in range(2))]
    Predictions.joined(both).save(tmp_path / "a.npz")
    known_rows(small_data).save(tmp_path / "b.npz")
    done = run_script("-m", "benchmarks.rankings", str(small_data), str(tmp_path / "a.npz"), str(tmp_path / "b.npz"))
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["results"]
    passed = {(Path(row["files"]).name, row["steps"], row["ranking"]): row["pass@1"] for row in rows}
    assert len(passed) == 3 * 3 * len(RANKINGS)
    assert passed["a.npz", 1, "votes"] == 1.0 and passed["a.npz", 3, "votes"] == 0.0
    assert passed["b.npz", 3, "votes"] == 1.0, "this file has one step"
    assert passed["all together", 1, "sum_halt"] == 1.0
    votes = {(Path(row["files"]).name, row["steps"]): row["votes_per_input"] for row in rows}
    assert votes["a.npz", 3] == 3 * votes["a.npz", 1] and votes["all together", 3] == 4 * votes["b.npz", 1]
    again = tools.recount(small_data, [tmp_path / "a.npz"], tmp_path / "out", 10, "votes", steps=1)
    assert "100.0%" in again and "after 3.0 ACT steps" in again
    nothing = run_script("-m", "benchmarks.rankings", str(small_data), str(tmp_path / "out" / "scores.json"))
    assert nothing.returncode == 2 and "is not a file of predictions" in nothing.stderr


def test_without_solutions_there_are_submissions_and_no_score(small_data: Path, tmp_path: Path) -> None:
    tasks = open_test_tasks(small_data)
    name, task = next(iter(tasks.items()))
    tasks[name] = dataclasses.replace(task, test=((task.test[0][0], None), *task.test[1:]))
    result = ArcScorer(open_catalog(small_data), tasks).score(PredictionSnapshot(known_rows(small_data)))
    result.write(tmp_path)
    assert not [key for key in result.metrics if "pass@" in key]
    assert "no solutions known" in result.summary(tmp_path)
    submission.check_submission(json.loads((tmp_path / "submission.json").read_text()), tasks, 10)


def test_merging_takes_attempts_in_turn(tmp_path: Path) -> None:
    one = {"a": [{"attempt_1": [[1]], "attempt_2": [[2]]}]}
    two = {"a": [{"attempt_1": [[1]], "attempt_2": [[3]]}]}
    for name, content in (("one", one), ("two", two), ("other", {"b": []})):
        (tmp_path / name).write_text(json.dumps(content))
    merged = tools.merge([tmp_path / "one", tmp_path / "two"], 4)
    assert [merged["a"][0][f"attempt_{n}"] for n in range(1, 5)] == [[[1]], [[2]], [[3]], [[1]]]
    with pytest.raises(SubmissionError, match="not for the same test inputs"):
        tools.merge([tmp_path / "one", tmp_path / "other"], 2)


def test_any_submission_is_validated_against_challenges(tmp_path: Path) -> None:
    task = random_task("t", np.random.default_rng(0), test=2)
    write_kaggle(tmp_path, "x", [task], solutions=False)
    challenges = tmp_path / "arc_x_challenges.json"
    (tmp_path / "s.json").write_text(json.dumps({"t": [{"attempt_1": [[1]], "attempt_2": [[1]]}] * 2}))
    assert "1 tasks, 2 test inputs, 2 attempts" in tools.validate(tmp_path / "s.json", challenges, None)
    (tmp_path / "s.json").write_text(json.dumps({"t": [{"attempt_1": [[1]], "attempt_2": [[1]]}]}))
    with pytest.raises(SubmissionError, match="needs 2 entries"):
        tools.validate(tmp_path / "s.json", challenges, None)
    with pytest.raises(DataError, match="task 't' has no 'train'"):
        tools.validate(tmp_path / "s.json", tmp_path / "s.json", None)


def test_tasks_to_validate_against_may_be_in_a_file_of_any_name(tmp_path: Path) -> None:
    task = random_task("t", np.random.default_rng(0), test=1)
    (tmp_path / "mine.json").write_text(json.dumps({"t": task.to_json()}))
    (tmp_path / "s.json").write_text(json.dumps({"t": [{"attempt_1": [[1]], "attempt_2": [[1]]}]}))
    assert "1 tasks, 1 test inputs" in tools.validate(tmp_path / "s.json", tmp_path / "mine.json", None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"t": [{"answer": [[1]]}]}, "task 't', test input 0 has no attempt_1"),
        ({"t": [[[1]]]}, "task 't', test input 0 is a list"),
        ({"t": 5}, "task 't' has no list of entries"),
        ([], "is not a submission"),
        ({"t": []}, "task 't' has no entries"),
        ({"t": [{"attempt_1": [[1], [1, 2]]}]}, "attempt_1"),
        ({"t": [{"attempt_1": [[1]], "attempt_2": "x"}]}, "attempt_2"),
    ],
)
def test_what_is_no_submission_is_not_merged(tmp_path: Path, content: Any, said: str) -> None:
    (tmp_path / "one").write_text(json.dumps(content))
    with pytest.raises(InputError, match=said):
        tools.merge([tmp_path / "one", tmp_path / "one"], 2)


A, B = [[1]], [[2, 3]]


@pytest.mark.parametrize("gap", [{"attempt_2": []}, {"attempt_2": None}, {}, {"attempt_2": {"answer": None}}])
def test_an_attempt_that_is_not_there_is_no_answer(gap: dict[str, Any], tmp_path: Path) -> None:
    task = random_task("t", np.random.default_rng(0), test=2)
    write_kaggle(tmp_path, "x", [task], solutions=False)
    challenges = tmp_path / "arc_x_challenges.json"
    nothing = {"attempt_1": [], "attempt_2": []}
    (tmp_path / "s.json").write_text(json.dumps({"t": [{"attempt_1": A, **gap}, nothing]}))
    said = tools.validate(tmp_path / "s.json", challenges, 2)
    assert "1 tasks, 2 test inputs, 2 attempts each; 3 of the 4 attempts are no answer" in said
    merged = tools.merge([tmp_path / "s.json"], 2)
    assert merged == {"t": [{"attempt_1": A, "attempt_2": A}, nothing]}
    (tmp_path / "two.json").write_text(json.dumps({"t": [{"attempt_2": B}, {"attempt_1": None, "attempt_2": B}]}))
    merged = tools.merge([tmp_path / "s.json", tmp_path / "two.json"], 2)
    assert merged == {"t": [{"attempt_1": A, "attempt_2": B}, {"attempt_1": B, "attempt_2": B}]}
    for nothing_at_all in (None, [], {}):
        (tmp_path / "two.json").write_text(json.dumps({"t": [nothing_at_all, {"attempt_1": B, "note": "unsure"}]}))
        second = tools.merge([tmp_path / "s.json", tmp_path / "two.json"], 2)["t"]
        assert second == [{"attempt_1": A, "attempt_2": A}, {"attempt_1": B, "attempt_2": B}]
    submission.write_submission(merged, tmp_path / "out.json")
    assert tools.validate(tmp_path / "out.json", challenges, None).endswith("2 attempts each")


def with_metadata(grid: Any) -> dict[str, Any]:
    return {"answer": grid, "metadata": {"model": "x", "pair_index": 0}, "correct": None}


def test_one_file_per_task_with_answers_and_metadata(tmp_path: Path) -> None:
    tasks = [random_task(name, np.random.default_rng(0), test=n) for name, n in (("13e47133", 1), ("a", 2))]
    write_kaggle(tmp_path, "x", tasks, solutions=False)
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "13e47133.json").write_text(json.dumps([{"attempt_1": with_metadata(A)}]))
    second = [{"attempt_1": with_metadata(B), "attempt_2": with_metadata([])}, {"attempt_1": A, "attempt_2": None}]
    (folder / "a.json").write_text(json.dumps(second))
    for name in ("results.json", "._a.json"):  # a summary, and what a Mac leaves
        (folder / name).write_text("{}")
    merged = tools.merge([folder], 2)
    assert merged["13e47133"] == [{"attempt_1": A, "attempt_2": A}]
    assert merged["a"] == [{"attempt_1": B, "attempt_2": B}, {"attempt_1": A, "attempt_2": A}]
    said = tools.validate(folder, tmp_path / "arc_x_challenges.json", None)
    assert "2 tasks, 3 test inputs, 2 attempts each; 3 of the 6 attempts are no answer" in said
    assert tools.merge([folder / "13e47133.json"], 1) == {"13e47133": [{"attempt_1": A}]}
    (folder / "a.json").write_text(json.dumps([{"attempt_1": with_metadata([[1], [2, 3]])}]))
    with pytest.raises(DataError, match=r"made: task 'a', test input 0, attempt_1 is ragged"):
        tools.merge([folder], 2)
    for name in ("13e47133.json", "a.json"):
        (folder / name).unlink()
    with pytest.raises(SubmissionError, match="has no file ID.json"):
        tools.merge([folder], 2)


def test_our_own_submissions_have_no_gaps() -> None:
    built = submission.build_submission(votes_of(a0=[5], a1=[6], b0=[3]), TASKS, 2)
    built["a"][0]["attempt_2"] = []
    with pytest.raises(InputError):
        submission.check_submission(built, TASKS, 2)
    submission.check_submission(built, TASKS, 2, gaps=True)


@pytest.mark.parametrize("attempts", [0, -1])
def test_submissions_are_not_merged_into_nothing(tmp_path: Path, attempts: int) -> None:
    (tmp_path / "one").write_text(json.dumps({"t": [{"attempt_1": [[1]]}]}))
    with pytest.raises(SettingError, match=f"--attempts {attempts}"):
        tools.merge([tmp_path / "one"], attempts)
