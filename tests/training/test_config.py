"""training/config/, training/launch/overrides.py and the YAML files: what is accepted, refused, and by default."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st

from models.arch import ArchConfig
from training.config import EvalConfig, PretrainConfig, Roles, RunConfig, roles_of, section_of
from training.launch.cli import CONFIG_DIR, GROUPS, for_hydra
from training.launch.overrides import check_overrides, known_keys, settings_of, validate
from training.optim.schedule import lr_factor
from utils.errors import SettingError

PUBLISHED_PRETRAINING = (
    "arch=trm",
    "data_paths=[DIR]",
    "arch.L_layers=2",
    "arch.H_cycles=3",
    "arch.L_cycles=4",
    "ema=True",
    "evaluators=[]",
    "lr=0.0003",
    "+checkpoint_path=./checkpoint",
    "global_batch_size=3072",
    "eval_interval=1000",
    "epochs=10000",
)
PUBLISHED_FINE_TUNING = (
    "arch=trm",
    "data_paths=[DIR]",
    "arch.L_layers=2",
    "arch.H_cycles=4",
    "arch.L_cycles=4",
    "arch.halt_max_steps=10",
    "+load_checkpoint=./checkpoint/step_220708",
    "eval_interval=2000",
    "epochs=2000",
    "global_batch_size=128",
    "ema=True",
    "+checkpoint_path=./checkpoint-eval",
    "lr_warmup_steps=200",
    "lr=0.0001",
)


def composed(name: str, model: type[RunConfig], *overrides: str) -> Any:
    check_overrides(list(overrides), model, GROUPS)
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        return validate(compose(name, overrides=for_hydra(list(overrides))), model)


def test_published_commands_compose_as_they_stand() -> None:
    pretraining = composed("cfg_pretrain", PretrainConfig, *PUBLISHED_PRETRAINING)
    assert (pretraining.num_intervals, pretraining.epochs_per_interval) == (10, 1000)
    assert (pretraining.arch.H_cycles, pretraining.arch.L_cycles, pretraining.lr) == (3, 4, 3e-4)
    assert pretraining.checkpoint_path == "./checkpoint"
    fine_tuning = composed("cfg_eval", EvalConfig, *PUBLISHED_FINE_TUNING)
    assert fine_tuning.load_checkpoint == "./checkpoint/step_220708"
    assert fine_tuning.rows_from == "mean"


def test_keys_need_no_plus() -> None:
    plain = [override.lstrip("+") for override in PUBLISHED_FINE_TUNING]
    assert composed("cfg_eval", EvalConfig, *plain) == composed("cfg_eval", EvalConfig, *PUBLISHED_FINE_TUNING)


def test_keys_may_have_a_plus() -> None:
    config = composed("cfg_pretrain", PretrainConfig, "+lr=0.5", "+arch.H_cycles=2", "+run_name=otter")
    assert (config.lr, config.arch.H_cycles, config.run_name) == (0.5, 2, "otter")


PUBLISHED_DEFAULTS = {
    "global_batch_size": 768,
    "epochs": 100_000,
    "eval_interval": 10_000,
    "lr": 1e-4,
    "lr_min_ratio": 1.0,
    "lr_warmup_steps": 2000,
    "puzzle_emb_lr": 1e-2,
    "weight_decay": 0.1,
    "puzzle_emb_weight_decay": 0.1,
    "seed": 0,
    "ema_rate": 0.999,
    "beta1": 0.9,
    "beta2": 0.95,
}
PUBLISHED_NETWORK = {
    "hidden_size": 512,
    "num_heads": 8,
    "expansion": 4,
    "halt_max_steps": 16,
    "halt_exploration_prob": 0.1,
    "puzzle_emb_ndim": 512,
    "puzzle_emb_len": 16,
    "pos_encodings": "rope",
    "forward_dtype": "bfloat16",
    "H_cycles": 3,
    "L_cycles": 6,
    "L_layers": 2,
}


def test_defaults_are_the_published_ones() -> None:
    got = composed("cfg_pretrain", PretrainConfig).model_dump()
    assert {key: got[key] for key in PUBLISHED_DEFAULTS} == PUBLISHED_DEFAULTS
    assert {key: got["arch"][key] for key in PUBLISHED_NETWORK} == PUBLISHED_NETWORK


@pytest.mark.parametrize(("name", "model"), [("cfg_pretrain", PretrainConfig), ("cfg_eval", EvalConfig)])
def test_the_command_line_and_the_classes_have_the_same_defaults(name: str, model: type[RunConfig]) -> None:
    assert composed(name, model) == model()
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        shown = compose(name)
    assert set(shown) == set(model.model_fields), "Hydra knows every key"
    assert set(shown.arch) == set(ArchConfig.model_fields)


def test_a_puzzles_row_is_as_wide_as_the_network() -> None:
    for overrides, width in ((("arch.hidden_size=64",), 64), (("arch.hidden_size=64", "arch.puzzle_emb_ndim=32"), 32)):
        assert composed("cfg_pretrain", PretrainConfig, "arch=hrm", *overrides).arch.puzzle_emb_ndim == width


FIXED_ON_RESUME = {
    "arch",
    "canvases",
    "fresh_augmentations",
    "global_batch_size",
    "micro_batch_size",
    "eval_interval",
    "seed",
    "ema",
    "ema_more_rates",
    "ema_puzzle_rows",
    "freeze_weights",
    "sharpening_targets",
    "latent_noise",
    "random_starts",
    "optimizer",
    "muon_matrices",
    "finetune_on",
    "train_augmentations",
    "tasks",
    "load_checkpoint",
    "puzzle_rows",
}


def test_every_setting_has_roles_and_a_topic() -> None:
    roles = roles_of(EvalConfig)  # fails where a setting declares none
    assert roles.keys() == EvalConfig.model_fields.keys() > PretrainConfig.model_fields.keys()
    assert {name for name, role in roles.items() if role.resume == "fixed"} == FIXED_ON_RESUME
    for name, role in roles.items():
        assert section_of(EvalConfig, name).topic
        assert not role.instead or role.solver == "refused", f"{name} is accepted, so nothing is used instead"
        assert role.solver != "inherited" or role.recipe, f"{name} is inherited from the recipe, which leaves it out"
    assert {field.json_schema_extra["effect"] for field in ArchConfig.model_fields.values()} == {  # type: ignore[index,call-overload]
        "shape",
        "meaning",
        "none",
    }


def test_a_setting_without_roles_is_refused() -> None:
    class Careless(PretrainConfig):
        momentum: float = 0.9

    with pytest.raises(AssertionError, match=r"Careless\.momentum"):
        roles_of(Careless)
    assert roles_of(PretrainConfig)["lr"] == Roles("reported", recipe=True, solver="inherited")


def test_conditions_of_a_score_are_what_it_depends_on() -> None:
    conditions = EvalConfig(attempts=3, arch=ArchConfig(H_cycles=2)).conditions
    assert conditions["attempts"] == 3 and conditions["H_cycles"] == 2
    assert {"canvases", "ranking", "eval_ema", "halt_max_steps", "L_cycles", "tasks"} < conditions.keys()
    assert not {"lr", "device", "checkpoint_path", "log_every", "arch"} & conditions.keys()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("lrr=0.1", "there is no setting 'lrr': did you mean 'lr'"),
        ("+arch.hiden_size=3", "did you mean 'arch.hidden_size'"),
        ("+hidden_size=3", "did you mean 'arch.hidden_size'"),
        ("global_batch_sise=3", "did you mean 'global_batch_size'"),
        ("epochs=-1", "epochs=-1"),
        ("lr=0", "lr=0"),
        ("arch.H_cycles=2.5", "arch.H_cycles=2.5"),
        ("evaluators=[arc]", "pretraining does not evaluate"),
        ("epochs=15000", "epochs=15000 is not a multiple of eval_interval=10000"),
        ("epochs=0", "leaves nothing to train"),
        ("lr_schedule=linear", "never falls with lr_min_ratio=1: set lr_min_ratio=0"),
        ("lr_schedule=warmup_stable_decay", "never falls with lr_min_ratio=1: set lr_min_ratio=0"),
        ("arch=trn", "arch=trn does not exist: did you mean arch=trm?"),
        ("+experiment=arc3", "did you mean experiment=arc"),
        ("epochs", "'epochs' has no value: write it as epochs=VALUE, without spaces"),
        ("=3", "there is no setting ''"),
        ("time_budget=3", "eval_arc_k10.py has it"),
        ("3", "'3' is not a setting: write it as key=value"),
    ],
)
def test_refusals_name_the_key_and_the_remedy(override: str, said: str) -> None:
    with pytest.raises(SettingError) as error:
        composed("cfg_pretrain", PretrainConfig, override)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("epochs=0", "eval_interval=1"), "name it by load_checkpoint"),
        (("epochs=0", "load_checkpoint=x", "puzzle_rows=mean"), "which puzzle_rows=mean would undo"),
        (("data_paths=[a,b]",), "evaluation takes one data set"),
        (("lr_schedule=constant", "lr_min_ratio=0.1"), "lr_min_ratio=0.1 contradict: set lr_min_ratio=1"),
        (("evaluators=[arcc]",), "choose \\[arc\\], \\[exact\\]"),
        (("early_exit=1",), "early_exit=1: write false, halt, or how many"),
        (("early_exit=-3",), "early_exit=-3: write false"),
        (("early_exit=soon",), "early_exit=soon: write false"),
        (("ranking=best",), "ranking='best'"),
        (("vote_steps=2", "evaluators=[exact]"), "set evaluators=\\[arc\\]"),
        (("pool_checkpoints=2", "time_budget=3"), "a run in a given time makes one"),
        (("ema_more_rates=[0.9]",), "needs ema=true"),
        (("ema_more_rates=[0.9,0.999]", "ema=true"), "none of them ema_rate=0.999"),
        (("ema_more_rates=[1.5]", "ema=true"), "between 0 and 1"),
        (("ema_more_rates=[0.9]", "ema=true", "time_budget=3"), "leave one of them out"),
        (("ema_more_rates=[0.9]", "ema=true", "eval_ema=false"), "eval_ema=true and epochs above 0"),
        (("pool_half_life=2",), "about the votes of several evaluations: set pool_checkpoints"),
        (("pool_runs=[x]", "evaluators=[exact]"), "set evaluators=\\[arc\\]"),
    ],
)
def test_evaluation_refusals(overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        composed("cfg_eval", EvalConfig, *overrides)


@pytest.mark.parametrize(
    ("override", "means"), [("false", False), ("true", "halt"), ("halt", "halt"), ("2", 2), ("16", 16)]
)
def test_early_exit_is_a_switch_or_a_number(override: str, means: object) -> None:
    found = composed("cfg_eval", EvalConfig, f"early_exit={override}").early_exit
    assert found == means and type(found) is type(means)


def test_every_field_says_what_it_is() -> None:
    assert "arch.hidden_size" in known_keys(PretrainConfig)
    assert [key for key, field in settings_of(EvalConfig) if not field.description] == []
    assert set(known_keys(PretrainConfig)) < set(known_keys(EvalConfig))


@given(st.integers(1, 50), st.integers(1, 500), st.floats(0, 1))
def test_schedule_warms_up_then_falls_to_its_end(warmup: int, more: int, ratio: float) -> None:
    total = warmup + more
    factors = [lr_factor(step, warmup, total, ratio) for step in range(1, total + 1)]
    assert factors[: warmup - 1] == [step / warmup for step in range(1, warmup)]
    assert factors[warmup - 1] == pytest.approx(1)
    assert factors[-1] == pytest.approx(ratio, abs=1e-9)
    assert all(a >= b - 1e-12 for a, b in zip(factors[warmup - 1 :], factors[warmup:], strict=False))
    middle = lr_factor(warmup + more // 2, warmup, total, ratio)
    if more % 2 == 0:
        assert middle == pytest.approx((1 + ratio) / 2)
    assert math.isfinite(middle)


def test_a_tracker_is_chosen_by_its_name() -> None:
    assert composed("cfg_pretrain", PretrainConfig).tracker is None
    assert composed("cfg_eval", EvalConfig, "tracker=null").tracker is None
    for override in ("tracker=wandb", "+tracker=wandb"):
        tracker = composed("cfg_eval", EvalConfig, override, "tracker.project=mine").tracker
        assert (tracker.name, tracker.mode, tracker.project) == ("wandb", "offline", "mine")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("tracker=wanbd",), "did you mean tracker=wandb?"),
        (("tracker.mode=online",), "needs a tracker: set tracker=wandb"),
        (("tracker=wandb", "tracker.mod=online"), "did you mean 'tracker.mode'"),
        (("tracker=wandb", "tracker.mode=on"), "tracker.mode='on'"),
        (("tracker=tensorboard", "tracker.mode=online"), "tensorboard only writes files"),
        (("tracker=trackio", "tracker.mode=online"), "set tracker.entity=USER/NAME"),
        (("tracker=wandb", "tracker.entity=team"), "is for tracker.mode=online"),
    ],
)
def test_tracker_refusals(overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(SettingError) as error:
        composed("cfg_pretrain", PretrainConfig, *overrides)
    assert said in str(error.value)


def test_hydras_own_options_may_have_values() -> None:
    check_overrides(["--cfg", "job", "-p", "arch", "lr=1e-3", "--multirun"], PretrainConfig, GROUPS)
    with pytest.raises(SettingError, match="'job' is not a setting"):
        check_overrides(["--multirun", "job"], PretrainConfig, GROUPS)
