"""How commands speak: a plain table for people, one JSON document for programs."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, Final

_MOST_CHARACTERS: Final = 100


class Refused(Exception):  # noqa: N818 - reads as what the command did
    """A command can't or won't: one sentence for stderr, and exit status 1."""


def print_json(document: object) -> None:
    """One JSON document on stdout; dataclasses become objects of their fields."""
    print(json.dumps(plain(document), indent=2, ensure_ascii=False, allow_nan=False))


def plain(value: Any) -> Any:
    """`value` as what JSON has: dataclasses as their fields, sets sorted, paths as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item) for item in value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no name for it
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def print_table(
    rows: Sequence[Mapping[str, object]], *, columns: Sequence[str] | None = None
) -> None:
    """Rows as aligned columns, whose names are the mappings' keys; nothing at all without rows.

    Args:
        rows: Values are printed as text; long ones are cut, visibly.
        columns: Which, in which order; by default those of the first row.
    """
    if not rows:
        return
    names = list(rows[0] if columns is None else columns)
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    numbers = [all(_is_number(row.get(name)) for row in rows) for name in names]
    widths = [max(len(name), *(len(line[at]) for line in cells)) for at, name in enumerate(names)]
    for line in (names, *cells):
        aligned = (
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(line, widths, numbers, strict=True)
        )
        print("  ".join(aligned).rstrip())


def print_heading(text: str) -> None:
    """A line that says what the next lines are about, after an empty one."""
    print(f"\n{text}")


def say_error(sentence: str) -> None:
    """One line on stderr."""
    print(f"clipfarm: {' '.join(sentence.split())}", file=sys.stderr)


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 clip``, ``3 clips``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def moment(timestamp: str | None) -> str | None:
    """A moment as the ledger writes it, to the second: ``2026-02-05 17:34:41Z``."""
    is_ours = timestamp is not None and timestamp.endswith("+00:00") and timestamp[10:11] == "T"
    return f"{timestamp[:10]} {timestamp[11:19]}Z" if timestamp and is_ours else timestamp


def told(counts: Mapping[str, int]) -> str:
    """``new 3, source_changed 1``; a dash for nothing."""
    return ", ".join(f"{name} {n}" for name, n in counts.items() if n) or "-"


def _cell(value: object) -> str:
    text = "-" if value is None or value == "" else str(value)
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
