"""What is wrong with a configuration, in sentences that name the dotted field and the choices."""

from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

_MOST: Final = 5
"""Problems that are told; the others are counted."""
_UNIONS: Final = (Union, UnionType)


class BadSongConfig(ValueError):  # noqa: N818 - says what it is of
    """A configuration isn't one: names each field, what was expected and what was found."""


class Conflict(ValueError):  # noqa: N818
    """Settings contradict each other. The message begins with the field to change."""


def bad_config(model: type[BaseModel], error: ValidationError, where: str) -> BadSongConfig:
    """An error that people can act on.

    Args:
        model: What was validated.
        error: What pydantic says.
        where: What the fields' names begin with, e.g. ``config``.
    """
    found = [_sentence(model, each, where) for each in error.errors()]
    more = [f"and {len(found) - _MOST} more"] if len(found) > _MOST else []
    return BadSongConfig("; ".join([*found[:_MOST], *more]))


def _sentence(model: type[BaseModel], error: Mapping[str, Any], where: str) -> str:
    names, holder = _path(model, error["loc"])
    name = ".".join([where, *names])
    kind, context = error["type"], error.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, Conflict):
        return f"{name}.{cause}"
    found = f"found {error['input']!r:.100}"
    if kind == "extra_forbidden":
        choices = ", ".join(holder.model_fields) if holder else "other names"
        return f"{name} is no setting: expected some of {choices}"
    if kind == "missing":
        return f"{name} must be given: found nothing"
    if kind == "literal_error":
        return f"{name} must be one of {context['expected'].replace(' or ', ', ')}: {found}"
    if kind == "union_tag_invalid":
        return f"{name}.type must be one of {context['expected_tags']}: found {context['tag']!r}"
    if kind == "union_tag_not_found":
        choices = ", ".join(repr(tag) for tag, _ in _tagged(_annotation(model, error["loc"])))
        return f"{name}.type must be one of {choices}: found nothing"
    if cause is not None:
        return f"{name} {cause}: {found}"
    why = error["msg"].replace("Input should be", "must be")
    return f"{name} {why[0].lower()}{why[1:]}: {found}"


def _path(model: type[BaseModel], loc: Sequence[int | str]) -> tuple[list[str], Any]:
    """Names of the fields that lead to a place, and the model that holds it.

    Pydantic's own path also tells the member of a union that was tried.
    """
    names: list[str] = []
    annotation: Any = model
    holder: Any = None
    for part in loc:
        if isinstance(part, str) and get_origin(annotation) in _UNIONS:
            annotation = dict(_tagged(annotation)).get(part)
            continue
        holder = annotation if _is_model(annotation) else None
        names.append(str(part))
        fields = holder.model_fields if holder else {}
        annotation = _bare(fields[part]) if part in fields else None
    return names, holder


def _annotation(model: type[BaseModel], loc: Sequence[int | str]) -> Any:
    annotation: Any = model
    for part in loc:
        annotation = _bare(annotation.model_fields[part])
    return annotation


def _bare(field: Any) -> Any:
    annotation = field.annotation
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _tagged(annotation: Any) -> Iterator[tuple[str, Any]]:
    """The members of a union of models, by their ``type``."""
    if get_origin(annotation) in _UNIONS:
        for member in get_args(annotation):
            if _is_model(member) and "type" in member.model_fields:
                yield member.model_fields["type"].default, member


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
