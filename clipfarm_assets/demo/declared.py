"""What a demo declares beforehand, compared with what came of it; and tables that show it."""

from collections.abc import Sequence
from dataclasses import dataclass

from tabulate import tabulate


@dataclass(frozen=True, slots=True)
class Declared:
    """One thing that must have come of a demo.

    Attributes:
        what: It is about.
        expected: In words.
        found: In words.
        holds: Whether that is the same.
    """

    what: str
    expected: str
    found: str
    holds: bool


def table(rows: Sequence[Sequence[object]], head: Sequence[str]) -> str:
    """Rows as text, numbers as they are written."""
    shown: str = tabulate(rows, head, disable_numparse=True)
    return shown
