"""The roles of a setting.  Each setting declares them beside its default; the program asks for them here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field

OnResume = Literal["fixed", "reported", "silent"]
InSolver = Literal["refused", "accepted", "inherited"]


@dataclass(frozen=True)
class Roles:
    """What the program does with a setting after the run has started.

    resume: fixed: a resumed run must have the value of its checkpoint, because the saved state depends on it.
        reported: it may change, and the change is printed.  silent: it may change, and nothing is printed.
    recipe: a checkpoint tells it to the later users of its network.
    condition: a score depends on it; it is written beside the score.
    solver: whether `evaluators.solver.Solver` accepts it.  inherited: it does, and its default is the value that the
        network was last trained with.
    instead: what a caller of the solver uses in place of a setting that it refuses; empty if there is nothing.
    """

    resume: OnResume
    recipe: bool = False
    condition: bool = False
    solver: InSolver = "refused"
    instead: str = ""


def setting(
    default: Any,
    description: str,
    resume: OnResume,
    *,
    recipe: bool = False,
    condition: bool = False,
    solver: InSolver = "refused",
    instead: str = "",
    **bounds: Any,
) -> Any:
    """Declares a setting: a pydantic field with its roles.

    Args:
        bounds: those of pydantic's `Field`, such as `ge=1`.
    """
    roles = Roles(resume, recipe, condition, solver, instead)
    return Field(default, description=description, json_schema_extra={"roles": asdict(roles)}, **bounds)


def roles_of(model: type[BaseModel]) -> dict[str, Roles]:
    """Returns the roles of every setting of `model` by its name, in the order of declaration."""
    found = {}
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict) and "roles" in extra, f"{model.__name__}.{name}: declare it by setting(..)"
        declared: Any = extra["roles"]
        found[name] = Roles(**declared)
    return found
