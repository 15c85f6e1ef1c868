"""Decides whether a run can continue from a checkpoint with the settings that it has now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.checkpoint.record import CheckpointRecord
from training.config import EvalConfig, RunConfig, roles_of
from training.config.run_config import interval_length
from utils.errors import CheckpointError


def check_resumable(config: RunConfig, path: Path, record: CheckpointRecord, data: list[str | None]) -> list[str]:
    """Compares the settings of a run with those of a checkpoint in its folder.

    Args:
        path: of the checkpoint, for the message.
        data: fingerprints of the data sets as they are now.

    Returns:
        the settings with the role `reported` that have changed, in words.

    Raises:
        CheckpointError: if the data or a setting with the role `fixed` has changed.
    """
    if record.data != data:
        raise CheckpointError(
            f"{path} was trained on another data set than data_paths={config.data_paths}: "
            "use that one, or another checkpoint_path"
        )
    if not record.config:  # nothing to compare with
        return []
    there, here = _comparable(record.config), _comparable(config.model_dump(mode="json"))
    roles = roles_of(EvalConfig)  # knows the settings of pretraining too
    fixed = [
        f"{key}={there.get(key)} there, {here.get(key)} here"
        for key in here | there
        if (role := roles.get(key.split(".")[0])) and role.resume == "fixed" and there.get(key) != here.get(key)
    ]
    if fixed:
        raise CheckpointError(
            f"{path} cannot be resumed with other settings ({'; '.join(fixed)}): "
            "set them as they were, or choose another checkpoint_path"
        )
    both = record.config.keys() & type(config).model_fields.keys()
    return [
        f"{name} {there[name]} -> {here[name]}"
        for name, role in sorted(roles.items())
        if role.resume == "reported" and name in both and there[name] != here[name]
    ]


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by key, recorded or current, in a form in which equal ones mean the same.

    A setting that is not among them, because an older program or the other script did not have it, has its default.
    """
    defaults = EvalConfig().model_dump(mode="json")
    filled = defaults | dict(settings)
    arch = defaults["arch"] | dict(filled.pop("arch") or {})
    filled |= {f"arch.{name}": value for name, value in arch.items()}
    # What matters is how long an interval is, so that a run of fewer epochs than an interval can be made longer.
    filled["eval_interval"] = interval_length(filled["epochs"], filled["eval_interval"])
    return filled
