"""What is wrong with rows, counted and in words: nothing is left out without being told."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

SAMPLES: Final = 5


class Problem(Protocol):
    """Something about a row that a person should know, such as `RowProblem`."""

    @property
    def kind(self) -> str:
        """One word for it."""

    @property
    def where(self) -> str:
        """Which row."""

    @property
    def detail(self) -> str:
        """What was expected and found."""


@dataclass(frozen=True)
class ProblemCounts:
    """Problems by kind: how many, and the first few in words."""

    counts: Mapping[str, int] = field(default_factory=dict)
    samples: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> "ProblemCounts":
        """Count them; kinds are sorted by name."""
        counts: Counter[str] = Counter()
        samples: dict[str, list[str]] = {}
        for problem in problems:
            counts[problem.kind] += 1
            some = samples.setdefault(problem.kind, [])
            if len(some) < SAMPLES:
                some.append(f"{problem.where}: {problem.detail}")
        return cls(dict(sorted(counts.items())), dict(sorted(samples.items())))
