"""The record of verdicts: on which builds a faster precision was found equivalent to the exact one.

One JSON object beside the models lock. It spares every run but a build's first the canaries, and
tells a second machine what the first one found. Every change is one compare-and-swap, so that
concurrent runs lose nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from clipfarm_assets.encoders.base import Equivalence
from clipfarm_assets.encoders.lock_store import LockStore

_PART: Final = "verdicts"
_NUMBER: Final = (float, int)
_FIELD_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "exact_version": (str,),
    "canaries": (str,),
    "recorded_at": (str,),
    "precision": (str,),
    "holds": (bool,),
    "items": (int,),
    "min_cosine": _NUMBER,
    "least_cosine": _NUMBER,
    "neighbours_changed": (int,),
    "build": (str,),
}
_EQUIVALENCE_FIELDS: Final = tuple(field.name for field in fields(Equivalence))


@dataclass(frozen=True, slots=True)
class Verdict:
    """One finding.

    Attributes:
        exact_version: Id of the embedding version whose faster form was compared with it.
        canaries: Name of the canary set.
        found: What was found, of which precision, on which build.
        recorded_at: When, ISO 8601.
    """

    exact_version: str
    canaries: str
    found: Equivalence
    recorded_at: str

    @property
    def question(self) -> tuple[str, str, str, float, str]:
        """What it answers: there is one verdict a question."""
        found = self.found
        return (
            self.exact_version,
            found.precision,
            self.canaries,
            found.least_cosine,
            found.build,
        )


class Verdicts:
    """The record of a store. Holds no state of its own: every call reads the object."""

    def __init__(self, store: LockStore, key: str) -> None:
        """Read and write the record at `key` of `store`; the object need not exist yet."""
        self._store = store
        self.key = key

    def all(self) -> list[Verdict]:
        """All verdicts, in order of version, precision, canaries and build.

        Raises:
            ValueError: The object is malformed.
        """
        try:
            return _parse(self._store.get(self.key), self.key)
        except FileNotFoundError:
            return []

    def record(self, verdict: Verdict) -> Verdict:
        """Record a verdict; returns the one on record, a rival's if that was first.

        Raises:
            ValueError: The object is malformed.
        """

        def add(raw: bytes | None) -> bytes | None:
            present = [] if raw is None else _parse(raw, self.key)
            if any(other.question == verdict.question for other in present):
                return None
            return _serialise([*present, verdict])

        self._store.update(self.key, add)
        return next(other for other in self.all() if other.question == verdict.question)


def _serialise(verdicts: list[Verdict]) -> bytes:
    entries = [
        {
            "exact_version": verdict.exact_version,
            "canaries": verdict.canaries,
            "recorded_at": verdict.recorded_at,
            **asdict(verdict.found),
        }
        for verdict in sorted(verdicts, key=lambda verdict: verdict.question)
    ]
    return (json.dumps({_PART: entries}, indent=2) + "\n").encode()


def _parse(raw: bytes, key: str) -> list[Verdict]:
    try:
        data = json.loads(raw, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _malformed(key, "a JSON object", f"text that is not JSON ({error})") from error
    if not isinstance(data, dict) or data.keys() != {_PART} or not isinstance(data[_PART], list):
        raise _malformed(key, f"an object of a list {_PART!r} alone", repr(data))
    verdicts = [_parse_entry(entry, key) for entry in data[_PART]]
    if len({verdict.question for verdict in verdicts}) != len(verdicts):
        raise _malformed(key, "one verdict a version, precision, canary set and build", "several")
    return verdicts


def _parse_entry(entry: Any, key: str) -> Verdict:
    if (
        not isinstance(entry, dict)
        or entry.keys() != _FIELD_TYPES.keys()
        or any(type(entry[name]) not in kinds for name, kinds in _FIELD_TYPES.items())
    ):
        raise _malformed(key, f"entries with the fields {sorted(_FIELD_TYPES)}", repr(entry))
    found = Equivalence(**{name: entry[name] for name in _EQUIVALENCE_FIELDS})
    if found.holds != passes(found.min_cosine, found.least_cosine, found.neighbours_changed):
        raise _malformed(key, "a verdict that follows from its figures", repr(entry))
    return Verdict(entry["exact_version"], entry["canaries"], found, entry["recorded_at"])


def passes(min_cosine: float, least_cosine: float, neighbours_changed: int) -> bool:
    """The rule of the gate."""
    return min_cosine >= least_cosine and neighbours_changed == 0


def _no_number(name: str) -> float:
    msg = f"{name} is no figure"
    raise ValueError(msg)


def _malformed(key: str, expected: str, found: str) -> ValueError:
    msg = (
        f"the record of verdicts {key} is malformed: expected {expected}, found {found[:200]}; "
        "restore it from a backup, or delete it so that each machine compares anew"
    )
    return ValueError(msg)
