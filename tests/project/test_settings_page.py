"""docs/settings.md is what the models say; types in words."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel, Field

from docs.settings_page import PAGE, page, table, type_of
from training.config import EvalConfig, PretrainConfig
from training.launch.overrides import known_keys


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m docs.settings_page"


@pytest.mark.parametrize("model", [PretrainConfig, EvalConfig])
def test_every_setting_is_there_with_an_effect(model: type[BaseModel]) -> None:
    rows = {line.split("`")[1]: line for line in page().splitlines() if line.startswith("| `")}
    for key in known_keys(model):
        assert rows[key].split(" | ")[3].strip(" |"), f"{key} has no description"


class Made(BaseModel):
    count: int = Field(3, ge=1, description="a | b")
    share: float | None = Field(None, gt=0, lt=1)
    way: Literal["near", "far"] | None = None
    names: list[str] = Field(default_factory=list)


def test_types_are_said_in_words() -> None:
    said = {name: type_of(field) for name, field in Made.model_fields.items()}
    assert said == {
        **{"count": "integer ≥ 1", "share": "null or number > 0 and < 1"},
        **{"way": "null or `near`, `far`", "names": "list of text"},
    }
    assert table([("count", Made.model_fields["count"], 3)])[2] == "| `count` | integer ≥ 1 | `3` | a \\| b |"
