"""Deployment settings as the defaults of run configuration.

What is part of an item's identity must be the same in every run, whoever starts it: a schedule or a
sensor starts runs with an empty run config, and would bring back what the launchpad changed. So an
environment variable sets the defaults of a config class. The UI shows them, and a run config still
overrides them, for its own run.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from copy import copy
from typing import Annotated, Any, TypeVar

import dagster as dg
from pydantic import TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo

from clipfarm_assets.pipelines.environment import json_object

_Config = TypeVar("_Config", bound=dg.Config)


def defaults_from(
    variable: str, environ: Mapping[str, str] = os.environ
) -> Callable[[type[_Config]], type[_Config]]:
    """A class decorator: the class with the defaults that an environment variable holds.

    Args:
        variable: Holds a JSON object of fields, e.g. ``{"pooling": "mean"}``; unset or empty
            changes nothing.
        environ: Where it is looked up.

    Raises:
        ValueError: It is no JSON object, a field doesn't exist, or a value isn't the field's; one
            sentence says what was expected and found.
    """

    def decorate(cls: type[_Config]) -> type[_Config]:
        values = json_object(variable, environ.get(variable) or "{}")
        if not values:
            return cls
        fields: dict[str, Any] = {}
        for name, value in values.items():
            if name not in cls.model_fields:
                known = ", ".join(cls.model_fields)
                msg = f"{variable} has no field {name!r}: expected some of {known}"
                raise ValueError(msg)
            field = copy(cls.model_fields[name])
            field.default = _checked(variable, name, field, value)
            fields[name] = (field.annotation, field)
        return create_model(
            cls.__name__, __base__=cls, __module__=cls.__module__, __doc__=cls.__doc__, **fields
        )

    return decorate


def _checked(variable: str, name: str, field: FieldInfo, value: object) -> Any:
    # A field at a time and strictly: Dagster's Config ignores unknown fields and converts values.
    annotated: Any = Annotated[field.annotation, field]
    try:
        return TypeAdapter(annotated).validate_python(value, strict=True)
    except ValidationError as error:
        why = error.errors()[0]["msg"].removeprefix("Value error, ")
        expected = re.sub(r"^\w+ should ", "must ", why)  # "Input should be …", "String should …"
        msg = f"{variable}: field {name!r} {expected}: found {json.dumps(value)}"
        raise ValueError(msg) from None
