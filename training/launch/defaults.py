"""Tells Hydra the default of every setting, so that defaults stand in the typed classes alone.

Hydra composes only keys that it knows.  These names can be listed in the `defaults` of a YAML file:

    pretrain_defaults    every setting of pretrain_no_eval.py, the network's (`arch`) included
    eval_defaults        what eval_arc_k10.py has besides, or has another default for
    tracker_defaults     the settings of a tracker
"""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigStore
from pydantic import BaseModel

from training.config import EvalConfig, PretrainConfig
from utils.trackers import TrackerConfig


def default_values(model: type[BaseModel]) -> dict[str, Any]:
    """Returns the default of every setting that has one, as plain values."""
    given = {
        name: field.get_default(call_default_factory=True)
        for name, field in model.model_fields.items()
        if not field.is_required()
    }
    return model.model_construct(**given).model_dump(mode="json", include=set(given))


def register_defaults() -> None:
    """Makes the defaults known to Hydra in this process."""
    pretraining, evaluation = default_values(PretrainConfig), default_values(EvalConfig)
    store = ConfigStore.instance()
    store.store(name="pretrain_defaults", node=pretraining)
    store.store(
        name="eval_defaults",
        node={
            name: value for name, value in evaluation.items() if name not in pretraining or pretraining[name] != value
        },
    )
    store.store(name="tracker_defaults", node=default_values(TrackerConfig))
