"""What every program of this project does alike: help, exit status, silence where nothing is wrong."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import eval_arc_k10
from tests.builders.commands import PROJECT, execute
from tests.builders.programs import ROOT, run_process, run_script
from tests.conftest import SMALL
from training.config import EvalConfig, PretrainConfig
from training.launch.cli import compose_configs
from training.launch.overrides import settings_of, validate
from utils.cli import StoppedBySignal
from utils.errors import SettingError

SCRIPTS = ("build_dataset.py", "pretrain_no_eval.py", "eval_arc_k10.py", "demo.py")
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for folder in ("benchmarks", "dataset", "evaluators", "training", "utils")
    for path in (ROOT / folder).rglob("*.py")
    if "__main__" in path.read_text(encoding="utf-8") and "def main" in path.read_text(encoding="utf-8")
)
PROGRESS = re.compile(r"(train|predict)( \d+%)? (of the time, \d+ \w+|\d+/\d+)( \|.*)?")


@pytest.mark.parametrize("program", [*SCRIPTS, *MODULES])
def test_every_program_helps(program: str) -> None:
    """--help ends well and shows the command itself."""
    words = [program] if program in SCRIPTS else ["-m", program]
    assert program in execute(["python", *words, "--help"])


def test_the_programs_are_found() -> None:
    assert {"dataset.statistics", "evaluators.tools", "evaluators.report", "training.export"} <= set(MODULES)


def test_help_shows_what_a_run_would_have() -> None:
    said = execute(["python", "eval_arc_k10.py", "--help"])
    assert 'data_paths=["data/arc-agi-2"]' in said and "eval_interval=10000 " in said and 'evaluators=["arc"]' in said
    assert "--hydra-help" in said and "demo_finetune" in said
    said = execute(["python", "build_dataset.py", "--help"])
    assert "build_dataset.py sudoku" in said and "build_dataset.py maze" in said


def test_help_is_grouped_and_explains_one_word_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = execute(["python", "eval_arc_k10.py", "--help"])
    settings = said[said.index("\nData\n") :]
    assert settings.index("\nOptimizer\n") < settings.index("  lr=0.0001 ") < settings.index("\nSchedule\n")
    assert max(map(len, settings.splitlines())) <= 80
    keys = [key for key, _ in settings_of(EvalConfig)]
    assert [line.split("=")[0].strip() for line in settings.splitlines() if re.match(r"  \S", line)] == keys
    found = execute(["python", "eval_arc_k10.py", "--help", "halting"])
    meaning = EvalConfig.model_fields["ranking"].description or ""
    assert meaning in " ".join(found.split()) and meaning not in " ".join(said.split())
    assert "lr_warmup_steps" not in found
    with pytest.raises(AssertionError, match="no setting has this word"):
        execute(["python", "eval_arc_k10.py", "--help", "helicopter"])


@pytest.mark.parametrize("words", [["--help"], ["eposch=3"]])
def test_what_needs_no_network_is_answered_without_loading_pytorch(words: list[str]) -> None:
    for script in ("pretrain_no_eval.py", "eval_arc_k10.py"):
        code = (
            f"import runpy, sys; sys.argv = {[script, *words]!r}\n"
            "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
            "except SystemExit: pass\n"
            "print('loaded:', *({'torch', 'numba'} & set(sys.modules)))"
        )
        assert run_process("-c", code).stdout.splitlines()[-1].strip() == "loaded:"


def test_hydras_options_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "lr: 0.25" in execute(["python", "pretrain_no_eval.py", "+experiment=arc2", "lr=0.25", "--cfg", "job"])
    assert "hydra.cc" in execute(["python", "pretrain_no_eval.py", "--hydra-help"])
    assert not list(tmp_path.iterdir())


def test_several_values_of_a_setting_are_several_runs(tmp_path: Path) -> None:
    before = list(sys.argv)
    words = ["--multirun", "lr=0.1,0.2", f"hydra.sweep.dir={tmp_path}"]
    assert [config.lr for config in compose_configs("cfg_pretrain", words)] == [0.1, 0.2]
    assert sys.argv == before
    with pytest.raises(SettingError, match="--multirun"):
        compose_configs("cfg_pretrain", [*words, "--cfg", "job"])


def test_a_reference_that_leads_nowhere_is_named() -> None:
    (config,) = compose_configs("cfg_pretrain", ["lr=${nope}"])
    with pytest.raises(SettingError, match="nope"):
        validate(config, PretrainConfig)


ONE_AFTER_ANOTHER = """
import json, runpy, sys
for argv in json.loads(sys.argv[1]):
    sys.argv = argv
    try:
        runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as end:
        assert not end.code, argv
"""


@pytest.mark.slow
@pytest.mark.timeout(900)  # it compiles: minutes on a machine with other work
def test_a_normal_run_is_quiet(small_data: Path, small_run: Path, tmp_path: Path) -> None:
    """A data set is built, a network trained compiled, and trained and evaluated on two ranks: no warning of Python,
    PyTorch or Hydra, no colours and no moving bars where there is no terminal, and nothing but the progress on any
    rank's standard error.
    """
    build = ["build_dataset.py", "maze", "--size", "9", "--subsample-size", "20", "--test-size", "5"]
    tiny = ("arch.L_layers=1", "arch.H_cycles=1", "arch.L_cycles=1", "arch.halt_max_steps=2", "arch.puzzle_emb_len=16")
    small = [word for word in SMALL if word.split("=")[0] not in ("compile", "arch.forward_dtype")]
    common = (f"data_paths=[{small_data}]", "epochs=2", "eval_interval=2", "ema=True")
    compiled = ["pretrain_no_eval.py", *common, *small, *tiny, f"checkpoint_path={tmp_path / 'run'}", "compile=true"]
    words = json.dumps([[*build, "--output-dir", str(tmp_path / "maze")], compiled])
    alone = run_process("-c", ONE_AFTER_ANOTHER, words, timeout=800)
    evaluated = run_script(
        *("eval_arc_k10.py", f"load_checkpoint={small_run}", f"checkpoint_path={tmp_path / 'eval'}", *common, *SMALL),
        ranks=2,
    )
    for done in (alone, evaluated):
        assert done.returncode == 0, done.stderr
        assert "warn" not in (done.stdout + done.stderr).lower(), done.stdout + done.stderr
        assert not re.search(r"\x1b|\r", done.stdout + done.stderr)
        others = [line for line in done.stderr.splitlines() if not PROGRESS.fullmatch(line)]
        assert others == []


def test_the_default_installation_has_what_is_imported() -> None:
    """Every package that a program imports at its start is a dependency; every dependency is imported somewhere."""
    listing = (
        "import importlib, json, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(json.dumps(list(sys.modules)))"
    )
    started = [script.removesuffix(".py") for script in SCRIPTS]
    done = run_process(
        "-c", listing, *started, "evaluators.report.__main__", "evaluators.tools", "training.export.folder"
    )
    assert done.returncode == 0, done.stderr
    loaded = {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert not loaded & {"matplotlib", "huggingface_hub", "pytest", "hypothesis", "adam_atan2_pytorch"}
    imported = {"hydra-core": "hydra", "pyyaml": "yaml"}
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("dataset", "evaluators", "models", "training", "utils", ".")
        for path in ((ROOT / folder).rglob("*.py") if folder != "." else ROOT.glob("*.py"))
    )
    for dependency in PROJECT["dependencies"]:
        name = re.split(r"[<>=]", dependency)[0]
        package = imported.get(name, name)
        assert re.search(rf"^\s*(import|from) {package}\b", sources, re.MULTILINE), f"nothing needs {name}"


def test_a_signal_during_predictions_is_said() -> None:
    def predict(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(StoppedBySignal, match="while it predicted") as stopped:
        eval_arc_k10.evaluate(SimpleNamespace(), SimpleNamespace(run=predict), SimpleNamespace())  # type: ignore[arg-type]
    assert stopped.value.signal == signal.SIGTERM
