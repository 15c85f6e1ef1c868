"""The settings of a run.  Hydra composes them, these classes check them once and strictly; after that they are typed.

    roles.py          what the rest of the program may ask of a setting: fixed on resume, part of the recipe, ..
    sections.py       the settings of both training scripts by topic: type, bounds, default, meaning, roles
    optimization.py   of them, those of the optimizer and its schedule
    puzzles.py        those of puzzles: augmentations and rows
    supervision.py    those of the steps of an example: targets, depth, noise
    run_config.py     TrainConfig, RunConfig and PretrainConfig: sections put together, contradictions between settings
    eval_config.py    EvalConfig: what eval_arc_k10.py adds

The default of a setting stands here and nowhere else; the YAML files under config/ only override it.
"""

from typing import TypeVar

from training.config.eval_config import EvalConfig
from training.config.optimization import OptimizerConfig
from training.config.roles import Roles, roles_of
from training.config.run_config import PretrainConfig, RunConfig, TrainConfig
from training.config.section import Section, section_of

Config = TypeVar("Config", bound=RunConfig)

__all__ = [
    "Config",
    "EvalConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "Roles",
    "RunConfig",
    "Section",
    "TrainConfig",
    "roles_of",
    "section_of",
]
