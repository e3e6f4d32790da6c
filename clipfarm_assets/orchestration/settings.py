"""Run configuration that is checked by a model of another room, with errors of one sentence.

Dagster checks the types of a config class. What is nested deeper than one class, as the
hyperparameters of a model family are, comes as a dictionary and is checked here.
"""

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

_Value = TypeVar("_Value")


class BadSettings(ValueError):  # noqa: N818
    """A setting doesn't exist, or hasn't a value that it can have; says which it can."""


def validated(
    expected: type[_Value], values: Any, where: str, *, hidden: Collection[str] = ()
) -> _Value:
    """`values` as the type expected.

    Args:
        expected: A pydantic model, or any type pydantic knows.
        values: What the run's configuration says.
        where: The field that holds them, for the message.
        hidden: Fields of the type that are set elsewhere, and not to be offered here.

    Raises:
        BadSettings: Names the field, what was expected and what was found.
    """
    try:
        return TypeAdapter(expected).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]]
        name = ".".join([where, *path])
        if first["type"] == "extra_forbidden":
            msg = f"{name} is no setting: expected some of {_choices(expected, path[:-1], hidden)}"
        elif first["type"] in {"missing", "unexpected_keyword_argument"}:
            msg = f"{name}: {first['msg'].lower()}"
        else:
            why = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
            msg = f"{name} {why}: found {first['input']!r:.100}"
        raise BadSettings(msg) from None


def merged(defaults: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """`defaults` with what is told in their place, at whatever depth.

    A nested setting that is told in part keeps the defaults of the one that it is in, not those of
    its class.
    """
    found = dict(defaults)
    for name, value in told.items():
        nested = isinstance(value, Mapping) and isinstance(defaults.get(name), Mapping)
        found[name] = merged(defaults[name], value) if nested else value
    return found


def _choices(expected: Any, path: list[str], hidden: Collection[str]) -> str:
    """The fields of the model that a path leads to."""
    for name in path:
        expected = expected.model_fields[name].annotation
    if isinstance(expected, type) and issubclass(expected, BaseModel):
        return ", ".join(name for name in expected.model_fields if name not in hidden)
    return "other names"
