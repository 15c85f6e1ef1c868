"""What all sections of settings are."""

from __future__ import annotations

import inspect
from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Settings of one topic."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: ClassVar[str]


def section_of(model: type[BaseModel], name: str) -> type[Section]:
    """Returns the section that declares a setting."""
    for section in model.__mro__:
        if issubclass(section, Section) and "topic" in vars(section) and name in inspect.get_annotations(section):
            return section
    raise AssertionError(f"{model.__name__}.{name} belongs to no section")
