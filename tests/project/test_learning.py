"""benchmarks/learning: pairing, intervals, task sets by rule, and runs that are not made again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from benchmarks.learning import __main__ as command
from benchmarks.learning import page, results, runs, task_sets, tuning
from benchmarks.learning.boards import BoardOutcome
from benchmarks.learning.comparisons import COMPARISONS, Comparison
from benchmarks.learning.results import Outcome, bootstrap_difference, smallest_difference, summarise
from benchmarks.learning.runs import Job, in_order, job_of, jobs_of, jobs_of_equal_time
from benchmarks.learning.task_sets import DataSets
from dataset.sampling.sampler import BatchSampler
from dataset.storage import open_split, open_test_tasks
from models.arch import ArchConfig
from tests.builders.programs import run_script
from tests.conftest import SMALL
from training.config import EvalConfig, PretrainConfig
from training.launch.cli import CONFIG_DIR, GROUPS, for_hydra
from training.launch.overrides import check_overrides, validate
from utils.errors import SettingError


def outcome(seed: int, exact: float = 0.5, held_out_loss: float | None = None, **ranks: list[int]) -> Outcome:
    return Outcome(seed, 10, 1.0, ranks, train_exact=exact, loss=1.0, held_out_loss=held_out_loss)


def test_a_difference_is_paired_by_seed_and_task() -> None:
    """Every seed solves one more output of the four, always of task b: the interval stays above zero for a constant
    gain of every task, and the mean is a quarter."""
    one = [outcome(seed, a=[1, 0], b=[1, seed]) for seed in (1, 2)]
    other = [outcome(seed, a=[2, 0], b=[0, seed]) for seed in (1, 2)]
    mean, low, high = bootstrap_difference(one, other, 2)
    assert mean == pytest.approx(0.25) and low == 0 and high == pytest.approx(0.5)
    everywhere, least, most = bootstrap_difference([outcome(0, a=[1], b=[1])], [outcome(0, a=[3], b=[0])], 2)
    assert everywhere == least == most == 1


def test_solved_counts_inputs_within_k() -> None:
    found = outcome(0, a=[1, 3], b=[0, 2])
    assert [found.solved(k) for k in (1, 2, 10)] == [0.25, 0.5, 0.75]
    assert found.solved(10, lambda task: task == "b") == 0.5
    assert found.mean_reciprocal_rank(lambda task: task == "b") == 0.25
    assert found.mean_reciprocal_rank() == pytest.approx((1 + 1 / 3 + 1 / 2) / 4)


def test_the_smallest_difference_is_of_seeds_or_of_outputs() -> None:
    """Of pass@2 0 and 1 in one arm, 0.5 twice in the other: the pooled variance is 0.25 with two degrees of freedom,
    two seeds each."""
    arms = {
        "x": [outcome(0, a=[0], b=[0]), outcome(1, a=[1], b=[1])],
        "y": [outcome(0, a=[1], b=[0]), outcome(1, a=[1], b=[0])],
    }
    found = smallest_difference(arms, 2)
    assert found.freedom == 2 and found.of_seeds == pytest.approx(4.303 * np.sqrt(2 * 0.25 / 2))
    # of the two outputs y gains half and loses half
    assert found.outputs == 2 and found.of_outputs == pytest.approx(1.96 * 0.5 / np.sqrt(2))
    assert found.value == found.of_seeds


def test_arms_that_do_not_spread_differ_from_one_output_on() -> None:
    arms = {arm: [outcome(seed, a=[1], b=[0, 0, 0]) for seed in (0, 1)] for arm in "xy"}
    assert smallest_difference(arms, 2).value == 1 / 4
    assert smallest_difference(arms, 2, lambda task: task == "b").value == 1 / 3  # of the reported tasks alone
    assert smallest_difference({"x": [outcome(0, a=[1])]}, 2).of_seeds is None


def test_student_takes_the_next_smaller_degrees_of_freedom() -> None:
    assert results.student(1) == 12.706 and results.student(11) == results.student(10) and results.student(500) == 2.0


def test_task_sets_are_chosen_by_rule() -> None:
    tasks = task_sets.TASK_SETS["screening"].tasks()
    assert (len(tasks), sum(len(task.test) for task in tasks)) == (65, 75)
    wider = task_sets.TASK_SETS["decision"].tasks()
    assert (len(wider), sum(len(task.test) for task in wider)) == (301, 325)
    new = {
        name: [
            (len(fold), sum(len(task.test) for task in fold))
            for each in (task_sets.REPORTED, task_sets.TUNING)
            for fold in [[task for task in of if task_sets.fold_of(task.id) == each]]
        ]
        for name, of in (("screening", tasks), ("decision", wider))
    }
    assert new == {"screening": [(24, 27), (23, 26)], "decision": [(120, 128), (91, 94)]}
    reported = [task for task in wider if task_sets.is_reported(task.id, "held_out", True)]
    assert (len(reported), sum(len(task.test) for task in reported)) == (141, 151)
    assert all(task_sets.is_reported(task.id, "new_tasks", True) for task in wider)


def test_new_tasks_are_in_no_data_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of the others every pair is trained on, each once as it is."""

    def build_here(*words: str) -> None:
        done = run_script("build_dataset.py", *words)
        assert done.returncode == 0, done.stderr

    monkeypatch.setattr(task_sets, "_run_build", build_here)
    data = task_sets.build(tmp_path, "screening", "new_tasks", 0)
    assert data.before is not None
    tasks = task_sets.TASK_SETS["screening"].tasks()
    others = [task for task in tasks if task_sets.fold_of(task.id) != task_sets.REPORTED]
    counts = json.loads((data.before / "manifest.json").read_text())["counts"]
    scored = open_test_tasks(data.scored)
    assert counts["tasks"] == len(others) and counts["tasks"] + len(scored) == 65
    assert counts["train_examples"] == sum(len(task.train) + len(task.test) for task in others)
    assert {task_sets.fold_of(task) for task in scored} == {task_sets.REPORTED}


def test_generated_pairs_are_of_tasks_before_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all 65 tasks pairs are offered; those of new tasks, and of the one that takes the place of a test set, stay
    out."""

    def build_here(*words: str) -> None:
        done = run_script("build_dataset.py", *words)
        assert done.returncode == 0, done.stderr

    monkeypatch.setattr(task_sets, "_run_build", build_here)
    tasks = task_sets.TASK_SETS["screening"].tasks()
    made = tmp_path / "made"
    made.mkdir()
    for number, task in enumerate(tasks):
        pair = {"input": [[number % 10, 1 + number // 10, 0]] * 5, "output": [[number % 10]]}
        (made / f"{task.id}.json").write_text(json.dumps([pair] * 3))
    plain = task_sets.build(tmp_path, "screening", "new_tasks", 0)
    data = task_sets.build(tmp_path, "screening", "new_tasks", 0, generated=task_sets.Generated(made, 2.0))
    assert data.before is not None and plain.before is not None and data.before != plain.before
    assert data.scored == plain.scored
    manifest = json.loads((data.before / "manifest.json").read_text())
    before = len(tasks) - len(open_test_tasks(data.scored))
    assert manifest["counts"]["generated_pairs"] == 3 * (before - 1)
    left_out = manifest["settings"]["left_out"]["generated"]
    assert {name: what["count"] for name, what in left_out.items()} == {
        "pairs_of_scored_tasks": 1,
        "pairs_without_a_task": len(tasks) - before,
    }
    # a run is as long as it was asked for, though an epoch now visits each extended task three times
    for each in (plain, data):
        job = Job(tmp_path / "run", each, (), 0, 1000)
        (epochs,) = (int(word.removeprefix("epochs=")) for word in job.commands()[0] if word.startswith("epochs="))
        sampler = BatchSampler([open_split(str(each.before), "train")], job.batch, epochs, 0)
        assert sampler.num_steps(0) == pytest.approx(600, rel=0.1)
    with pytest.raises(SettingError, match="every task is scored, and generated pairs would tell its rule"):
        a_comparison(generated_of={"b": 1.0})


def a_comparison(**changes: object) -> Comparison:
    arms = {"a, first": ("lr=1e-3",), "b": ("lr=2e-3",)}
    return Comparison(**{"task_set": "screening", "form": "held_out", "arms": arms, "steps": 100} | changes)  # type: ignore[arg-type]


def test_folders_are_named_by_all_that_decides_a_run(tmp_path: Path) -> None:
    data = DataSets(None, tmp_path / "data")

    def name(comparison: Comparison | None = None, data: DataSets = data, steps: int = 100, lr: str = "1") -> str:
        return job_of(tmp_path, comparison or a_comparison(), "a, =first", (f"lr={lr}",), data, 0, steps).folder.name

    others = [
        name(a_comparison(common=("ema=false",))),
        name(data=DataSets(None, tmp_path / "other")),
        name(data=DataSets(tmp_path / "before", tmp_path / "data")),
        name(steps=101),
        name(lr="2"),
        name(a_comparison(evaluations=2)),
    ]
    assert name() == name() and len({name(), *others}) == 7
    assert all(set(each) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for each in (name(), *others))


def test_runs_are_ordered_by_seed_then_arm(tmp_path: Path) -> None:
    comparison = a_comparison()
    data = dict.fromkeys(comparison.arms, DataSets(None, tmp_path))
    jobs = in_order(jobs_of(tmp_path, comparison, data, range(2)))
    assert [(job.seed, job.settings) for job in jobs] == [
        (seed, settings) for seed in (0, 1) for settings in comparison.arms.values()
    ]


def write_times(job: Job, *seconds: float, status: int = 0) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    scripts = ("eval_arc_k10.py",) if len(seconds) == 1 else ("pretrain_no_eval.py", "eval_arc_k10.py")
    lines = [
        line
        for script, took in zip(scripts, seconds, strict=True)
        for line in ({"script": script}, {"script": script, "status": status, "cpu_seconds": took})
    ]
    (job.folder / runs.CPU).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_equal_time_counts_the_cpu_time_of_both_stages(tmp_path: Path) -> None:
    """The second arm takes 100 s instead of 50 s, most of it in pretraining: half the steps take as long."""
    comparison = a_comparison(form="new_tasks")
    data = dict.fromkeys(comparison.arms, DataSets(tmp_path / "before", tmp_path / "scored"))
    jobs = jobs_of(tmp_path, comparison, data, [0, 1])
    for arm, times in (("a, first", (30.0, 20.0)), ("b", (80.0, 20.0))):
        for job in jobs[arm]:
            write_times(job, *times)
    found = jobs_of_equal_time(tmp_path, comparison, jobs)
    assert found["a, first"] == jobs["a, first"]
    assert [job.steps for job in found["b"]] == [50, 50] and "-50-" in found["b"][0].folder.name
    write_times(jobs["b"][0], 80.0, 20.0, status=1)
    assert jobs["b"][0].cpu_seconds() is None  # it was cut off; the other seed is known
    assert jobs_of_equal_time(tmp_path, comparison, jobs)["b"][0].steps == 50
    write_times(jobs["b"][1], 80.0, 20.0, status=1)
    with pytest.raises(SystemExit, match="CPU time is not known"):
        jobs_of_equal_time(tmp_path, comparison, jobs)


def test_the_time_of_a_process_is_its_own(tmp_path: Path) -> None:
    """A process that sleeps takes no CPU time; one that fails is written down and ends the comparison."""
    runs._start(["-c", "import time; time.sleep(1)"], tmp_path)
    with pytest.raises(SystemExit, match="status 3"):
        runs._start(["-c", "raise SystemExit(3)"], tmp_path)
    lines = [json.loads(line) for line in (tmp_path / runs.CPU).read_text().splitlines()]
    assert [line.get("status") for line in lines] == [None, 0, None, 3]
    assert 0 < lines[1]["cpu_seconds"] < 0.5


def test_a_run_is_done_with_its_last_planned_evaluation(tmp_path: Path) -> None:
    job = Job(tmp_path, DataSets(None, tmp_path), (), 0, 10, evaluations=2)
    for step, done in ((5, False), (10, True)):
        (tmp_path / f"evaluation_step_{step}").mkdir()
        (tmp_path / f"evaluation_step_{step}" / "scores.json").write_text("{}")
        assert job.is_done is done


def test_runs_that_are_done_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Job] = []
    monkeypatch.setattr(Job, "run", lambda job: made.append(job))
    done, other = (Job(tmp_path / name, DataSets(None, tmp_path), (), 0, 10) for name in ("done", "other"))
    (done.folder / "evaluation_step_10").mkdir(parents=True)
    (done.folder / "evaluation_step_10" / "scores.json").write_text("{}")
    runs.run_all([done, other], 2)
    assert made == [other]


def test_a_run_that_was_cut_off_goes_on_after_its_first_stage(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pretraining that was cut off is started again, pretraining that has ended is not; the settings of all runs
    write checkpoints on the way."""
    started: list[list[str]] = []
    monkeypatch.setattr(runs, "_start", lambda words, folder: started.append(words))
    job = Job(tmp_path / "run", DataSets(small_data, small_data), (), 0, 100)
    write_times(job, 1.0, 1.0, status=143)
    job.run()
    write_times(job, 1.0, 1.0)
    job.run()
    assert [words[0] for words in started] == ["pretrain_no_eval.py", "eval_arc_k10.py", "eval_arc_k10.py"]
    assert all(any(word.startswith("checkpoint_steps=") for word in words) for words in started)


def test_settings_of_one_stage_go_to_that_stage(small_data: Path, tmp_path: Path) -> None:
    settings = ("pretrain:lr=3", "finetune:lr=4", "finetune:puzzle_rows=noise", "ema=false")
    job = Job(tmp_path, DataSets(small_data, small_data), settings, 0, 100)
    before, after = job.commands()
    assert not any(word.startswith(("pretrain:", "finetune:")) for word in (*before, *after))
    assert "lr=3" in before and "lr=4" not in before and "ema=false" in before
    assert "lr=4" in after and "lr=3" not in after and "ema=false" in after
    assert after.index("puzzle_rows=mean") < after.index("puzzle_rows=noise")  # Hydra takes the last
    assert not any(word.startswith("puzzle_rows") for word in before)
    with pytest.raises(SettingError, match="pretrain:lr=3"):
        a_comparison(arms={"a": settings})


def test_arms_try_the_same_number_of_rates() -> None:
    with pytest.raises(SettingError, match="same number"):
        a_comparison(tuned={"a, first": ("lr=1",), "b": ("lr=1", "lr=2")})
    with pytest.raises(SettingError, match="same number"):
        a_comparison(tuned={"b": ("lr=1", "lr=2")})


@pytest.mark.parametrize("name", list(COMPARISONS))
def test_named_comparisons_can_be_started(name: str, small_data: Path, tmp_path: Path) -> None:
    """Every arm's settings are accepted by the scripts, and the published recipe is the first arm."""
    comparison = COMPARISONS[name]
    assert next(iter(comparison.arms)) == "published"
    before = small_data if comparison.form == "new_tasks" else None
    for arm, settings in comparison.arms.items():
        rates = comparison.tuned.get(arm, ("seed=0",))
        for rate in rates:
            words = (*settings, rate)
            if "arch.puzzle_embedding=composed" in words and "puzzle_embedding" not in ArchConfig.model_fields:
                continue  # this version has no composed embeddings
            job = job_of(tmp_path, comparison, arm, words, DataSets(before, small_data), 0, comparison.steps)
            for script, *overrides in job.commands():
                pretrains = script == "pretrain_no_eval.py"
                model = PretrainConfig if pretrains else EvalConfig
                check_overrides(overrides, model, GROUPS)
                with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
                    name_of_config = "cfg_pretrain" if pretrains else "cfg_eval"
                    found = validate(compose(name_of_config, overrides=for_hydra(overrides)), model)
                assert found.global_batch_size == comparison.batch
                assert found.num_intervals == (1 if pretrains else comparison.evaluations)


def test_boards_are_compared_at_the_first_evaluation_that_reaches_the_target() -> None:
    run = BoardOutcome(0, 40, 80.0, 1000, [[10, 0.5], [20, 0.95], [30, 0.9], [40, 0.99]])
    assert run.steps_to(0.95) == 20 and run.seconds_to(0.95) == 40.0
    assert run.steps_to(0.999) is None and run.seconds_to(0.999) is None
    report = {
        **{"name": "s", "form": "boards", "target": 0.95, "cpu": "c"},
        "outcomes": {"equal steps": command.boards_as_json({"published": [run]})},
    }
    assert "| published | 20 | 40 | 99.0% to 99.0% |" in page.format_table(report)
    assert page.bars_of(report) == {"published": (0.99, 0.99, 0.99)}


def test_a_comparison_is_made_once_and_read_back(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two arms, two seeds, equal steps and equal time; the second call starts no run and writes the same."""
    started: list[list[str]] = []

    def start_here(words: list[str], folder: Path) -> None:
        started.append(words)
        runs._write_cpu(folder, {"script": words[0]})
        done = run_script(*words, *SMALL)
        assert done.returncode == 0, done.stderr
        runs._write_cpu(folder, {"script": words[0], "status": 0, "cpu_seconds": 2.0})

    def run_in_turn(jobs: list[Job], side_by_side: int) -> None:
        for job in jobs:
            job.run()

    monkeypatch.setattr(runs, "_start", start_here)
    monkeypatch.setattr(command, "run_all", run_in_turn)
    monkeypatch.setattr(command, "build", lambda *_: DataSets(None, small_data))
    arms = {"first": ("lr=1e-3",), "second": ("lr=2e-3",)}
    monkeypatch.setitem(COMPARISONS, "tiny", Comparison("screening", "held_out", arms, steps=12, batch=8))
    monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
    monkeypatch.setattr("sys.argv", ["learning", "tiny", "--folder", str(tmp_path), "--seeds", "1"])
    command.main()
    assert len(started) == 2
    first = capsys.readouterr().out
    command.main()
    assert len(started) == 2
    assert first == capsys.readouterr().out
    (path,) = (tmp_path / "results").glob("*.json")
    report = results.read_file(path)
    found = summarise(results.from_json(report["outcomes"]["equal steps"]))
    assert found["second"]["difference"].keys() == {"pass@1", "pass@2", "pass@10"}
    assert found["first"].keys() >= {"held-out loss", "mean reciprocal rank", "training exactness", "CPU seconds"}
    assert found["first"]["held-out loss"]["mean"] > 0 and found["first"]["CPU seconds"]["mean"] == 2
    summary = report["summary"]["equal steps"]
    assert summary["arms"]["first"] == found["first"] and summary["smallest difference of pass@2"]["outputs"] == 4
    table = page.format_table(report)
    # twelve steps of so many examples as the training scripts' batch size says, as planned
    made = report["outcomes"]["equal steps"]["first"][0]["steps"]
    assert abs(made - 12) <= 3 and f"| first | {made} |" in table and "| mean reciprocal rank |" in table

    pytest.importorskip("matplotlib")
    document = tmp_path / "docs" / "learning.md"
    document.parent.mkdir()
    document.write_text(f"before\n\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    assert page.write_page(tmp_path / "results", document) == 1
    text = document.read_text()
    assert text.startswith("before") and text.endswith("after\n") and table in text and "old" not in text
    picture = (document.parent / page.FIGURE).read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) < 40_000 and f"({page.FIGURE})" in text


def test_new_tasks_are_chosen_on_one_fold_and_reported_on_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each arm has the data of its own number of augmentations."""
    asked: list[Path] = []

    def build(
        folder: Path, task_set: str, form: str, augmentations: int, fold: int, generated: None = None
    ) -> DataSets:
        return DataSets(None, folder / f"{fold}-{augmentations}")

    def tune(root: Path, found: Comparison, data: dict[str, DataSets], side_by_side: int) -> tuple[Comparison, str]:
        asked.extend(each.scored for each in data.values())
        return found, "chosen"

    comparison = a_comparison(
        form="new_tasks", tuned={"a, first": ("lr=1",), "b": ("lr=2",)}, augmentations_of={"b": 200}
    )
    monkeypatch.setitem(COMPARISONS, "tiny", comparison)
    monkeypatch.setattr(command, "build", build)
    monkeypatch.setattr(command, "tune", tune)
    monkeypatch.setattr(command, "run_all", lambda jobs, side_by_side: asked.extend(job.data.scored for job in jobs))
    monkeypatch.setattr(command, "outcome_of", lambda job: outcome(job.seed, a=[1]))
    monkeypatch.setattr("sys.argv", ["learning", "tiny", "--folder", str(tmp_path), "--seeds", "1"])
    report = command.compare(command.parse())
    assert [path.name for path in asked] == ["1-16", "1-200", "0-16", "0-200"]
    assert report["tuning"] == "chosen" and report["augmentations_of"] == {"b": 200}


def chosen_by_tuning(
    form: str, outcomes: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> tuple[Comparison, dict[str, DataSets]]:
    """What is chosen among rates whose runs end as given."""
    monkeypatch.setattr(tuning, "outcome_of", lambda job: outcomes[job.settings[-1]])
    monkeypatch.setattr(tuning, "run_all", lambda jobs, side_by_side: None)
    comparison = Comparison("screening", form, {"a": ("x=1",)}, tuned={"a": tuple(outcomes)})  # type: ignore[arg-type]
    data = {"a": DataSets(None, folder)}
    return tuning.tune(folder, comparison, data, 1)[0], data


def test_the_best_rate_is_chosen_on_half_of_the_tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The other half prefers another rate, and is not asked.  The run that was chosen is not made again."""
    names = [f"t{i}" for i in range(12)]
    chooses = [name for name in names if task_sets.half_of(name) == 0]
    assert 0 < len(chooses) < 12
    made: list[Job] = []

    def solving(good: list[str]) -> Outcome:
        return outcome(0, **{name: [1 if name in good else 0] for name in names})

    outcomes = {"lr=1": solving([name for name in names if name not in chooses]), "lr=2": solving(chooses)}
    tuned, data = chosen_by_tuning("held_out", outcomes, monkeypatch, tmp_path)
    assert tuned.arms["a"] == ("x=1", "lr=2")
    monkeypatch.setattr(tuning, "run_all", lambda jobs, side_by_side: made.extend(jobs))
    untuned = Comparison("screening", "held_out", {"a": ("x=1",)}, tuned={"a": tuple(outcomes)})
    tuning.tune(tmp_path, untuned, data, 1)
    assert jobs_of(tmp_path, tuned, data, [0])["a"][0] in made


def test_new_tasks_choose_by_held_out_loss_else_by_exactness(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """pass@2 prefers lr=1, and is not asked."""
    for losses, best in (((0.3, 0.2, 0.4), "lr=2"), ((0.3, None, 0.1), "lr=3")):
        outcomes = {
            f"lr={i}": outcome(0, exact, loss, a=[int(i == 1)])
            for i, exact, loss in zip((1, 2, 3), (0.1, 0.2, 0.9), losses, strict=True)
        }
        tuned, _ = chosen_by_tuning("new_tasks", outcomes, monkeypatch, tmp_path)
        assert tuned.arms["a"] == ("x=1", best)
