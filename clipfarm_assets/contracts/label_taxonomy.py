"""Which labels memes may have: their classes in order, and other names they go by.

A label is one question about a meme, and a partition of the experts and of the fusion model; its
classes are the answers, numbered from 0. ``label_taxonomy.json`` is one JSON object::

    {"aliases": {"label": "abuse_hate"},
     "labels": {"abuse_hate": ["not_abuse_hate", "abuse_hate"]}}
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

DEFAULT_LABEL: Final = "abuse_hate"

_LABEL: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SHOWN: Final = 100


class BadTaxonomy(ValueError):  # noqa: N818 - reads better where it is raised
    """Not a taxonomy: a structural fault that stops the run."""


def check_label(label: str) -> str:
    """Return `label` if it is a-z, then up to 63 of ``a-z 0-9 _``, or raise `ValueError`.

    Names of labels become parts of keys and partitions.
    """
    if not isinstance(label, str) or not _LABEL.fullmatch(label):
        msg = f"bad label {label!r:.100}: expected a-z, then up to 63 of a-z 0-9 _"
        raise ValueError(msg)
    return label


@dataclass(frozen=True)
class LabelTaxonomy:
    """The labels there are.

    Attributes:
        labels: Label -> names of its classes 0, 1, …; two or more, all different.
        aliases: Another name that rows use for a label -> the label.
    """

    labels: Mapping[str, tuple[str, ...]]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check both; raises `BadTaxonomy`, which names the label."""
        if not self.labels:
            msg = "a label taxonomy must have a label: found none"
            raise BadTaxonomy(msg)
        for label, classes in self.labels.items():
            try:
                check_label(label)
            except ValueError as error:
                raise BadTaxonomy(str(error)) from None
            named = all(isinstance(name, str) and name.strip() for name in classes)
            if not named or len(set(classes)) != len(classes) or len(classes) < 2:
                msg = (
                    f"label {label!r} must have two or more classes, each with another name: "
                    f"found {list(classes)!r:.200}"
                )
                raise BadTaxonomy(msg)
        for alias, label in self.aliases.items():
            if label not in self.labels:
                msg = f"alias {alias!r:.100} must stand for a label: found {label!r:.100}"
                raise BadTaxonomy(msg)
            if alias in self.labels:
                msg = f"{alias!r} is a label, so it can be no alias of {label!r}"
                raise BadTaxonomy(msg)

    def resolve(self, name: str) -> str | None:
        """The label that `name` is or stands for; None if it is unknown."""
        label = self.aliases.get(name, name)
        return label if label in self.labels else None

    def classes(self, label: str) -> tuple[str, ...]:
        """Names of the label's classes.

        Raises:
            ValueError: There is no such label; names those there are.
        """
        try:
            return self.labels[label]
        except KeyError:
            there = ", ".join(sorted(self.labels))
            msg = f"unknown label {label!r:.100}: expected one of {there}"
            raise ValueError(msg) from None

    def class_of(self, label: str, value: object) -> int | None:
        """The number of the class that `value` says; None if it says none.

        A class is said by its number, also as ``true``, ``false`` or ``1.0``, or by its name.
        """
        classes = self.labels[label]
        if isinstance(value, str):
            return classes.index(value) if value in classes else None
        if isinstance(value, bool | int | float) and value in range(len(classes)):
            return int(value)
        return None

    def to_json(self) -> bytes:
        """The object's bytes; equal taxonomies have equal ones."""
        body = {
            "aliases": dict(self.aliases),
            "labels": {label: list(classes) for label, classes in self.labels.items()},
        }
        told = json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False)
        return (told + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, key: str = "label_taxonomy.json") -> "LabelTaxonomy":
        """Parse a taxonomy.

        Raises:
            BadTaxonomy: Not JSON, or not of the documented form; names `key`.
        """
        try:
            body = json.loads(data)
        except (ValueError, RecursionError) as error:
            msg = f"{key} must be JSON: {str(error)[:_SHOWN]}"
            raise BadTaxonomy(msg) from None
        labels, aliases = _parts(body)
        if labels is None or aliases is None:
            msg = (
                f'{key} must be {{"labels": {{label: [class 0, class 1, …]}}, "aliases": '
                f"{{name: label}}}}: found {str(body)[:_SHOWN]}"
            )
            raise BadTaxonomy(msg)
        try:
            return cls({label: tuple(classes) for label, classes in labels.items()}, aliases)
        except BadTaxonomy as error:
            msg = f"{key}: {error}"
            raise BadTaxonomy(msg) from None


def _parts(body: Any) -> tuple[dict[str, list[Any]] | None, dict[str, str] | None]:
    """Labels and aliases of a parsed object; None for what is not of the form."""
    if not isinstance(body, dict) or body.keys() - {"labels", "aliases"}:
        return None, None
    labels, aliases = body.get("labels"), body.get("aliases", {})
    labels_hold = isinstance(labels, dict) and all(isinstance(v, list) for v in labels.values())
    aliases_hold = isinstance(aliases, dict) and all(isinstance(v, str) for v in aliases.values())
    return labels if labels_hold else None, aliases if aliases_hold else None


DEFAULT_TAXONOMY: Final = LabelTaxonomy(
    {DEFAULT_LABEL: ("not_abuse_hate", "abuse_hate")}, {"label": DEFAULT_LABEL}
)
