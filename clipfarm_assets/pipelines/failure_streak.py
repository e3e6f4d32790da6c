"""Telling a broken encoder from bad items: failures in a row that no medium explains."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.encoders.base import MediaError
from clipfarm_assets.ledger.schema import Item

BROKEN_AFTER: Final = 3
"""So many items in a row that fail, and not by their media, are no coincidence."""


class EncoderBroken(RuntimeError):  # noqa: N818
    """The encoder fails on everything: a structural fault, which must not use up retries."""


class UnusableVector(ValueError):  # noqa: N818
    """The encoder gave something that is no embedding of its version."""


class FailedElsewhere(RuntimeError):  # noqa: N818
    """What another process's encoder raised on an item: its `sentence`, its type being lost."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item.

    Attributes:
        item: Its ledger row.
        notes: The encoder's notes on it.
        unexpected: The exception, if it failed and its media are not to blame.
    """

    item: Item
    notes: Mapping[str, int | float | str | bool] = field(default_factory=dict)
    unexpected: Exception | None = None

    @property
    def stored(self) -> bool:
        """Whether an object was written for it."""
        return self.item.artifact_key is not None


class FailureStreak:
    """Holds unexpected failures back until it is known whose fault they are.

    Any other outcome after them shows that the encoder works, so that they are their items' own.
    """

    def __init__(self, modality: Modality) -> None:
        """Begin with none held."""
        self._modality = modality
        self._held: list[Outcome] = []

    def admit(self, outcome: Outcome) -> list[Outcome]:
        """Take the next outcome; returns those that may be committed by now, in order.

        Raises:
            EncoderBroken: It is the last of `BROKEN_AFTER` unexpected failures in a row. None of
                them was returned.
        """
        if outcome.unexpected is None:
            return [*self.release(), outcome]
        self._held.append(outcome)
        if len(self._held) >= BROKEN_AFTER:
            msg = (
                f"the {self._modality} encoder failed on {len(self._held)} items in a row, so it "
                f"is not the items' fault; the last time with {sentence(outcome.unexpected)}"
            )
            raise EncoderBroken(msg) from outcome.unexpected
        return []

    def release(self) -> list[Outcome]:
        """What is held; for the end, where too few failed to blame the encoder."""
        held, self._held = self._held, []
        return held


def sentence(error: Exception) -> str:
    """An item's error as the ledger keeps it: our own sentences as they are, others named."""
    own = isinstance(error, (MediaError, UnusableVector, FailedElsewhere))
    return str(error) if own else f"{type(error).__name__}: {error}"
