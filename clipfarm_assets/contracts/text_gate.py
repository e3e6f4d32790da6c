"""May a clip be fused, and with which text? Source: the fusion contract, section 3.3."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from clipfarm_assets.contracts import statuses


@dataclass(frozen=True, slots=True)
class TextState:
    """What the text downloader last wrote about a clip.

    Attributes:
        status: Such as ``success`` or ``no_captions``.
        source_hash: The source it saw; None if its file does not tell, and then it counts for any.
    """

    status: str
    source_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """The verdict on one clip.

    Attributes:
        status: A fusion status: one of the two successes, or what the clip waits for.
        reason: Why, for a clip that waits or gets a placeholder; else empty.
        text_state_status: The text downloader's status at this moment, or empty.
    """

    status: str
    reason: str = ""
    text_state_status: str = ""

    @property
    def fuses(self) -> bool:
        """Whether the clip is to be fused now."""
        return self.status in statuses.FUSED

    @property
    def text_source(self) -> Literal["full", "placeholder"]:
        """The manifest's name for where the text part comes from."""
        return "full" if self.status == statuses.SUCCESS_FULL else "placeholder"


def gate(
    source_hash: str,
    *,
    missing_required: Collection[str],
    has_text: bool,
    text_states_available: bool,
    text_state: TextState | None,
    terminal_text_statuses: Collection[str] = statuses.DEFAULT_TERMINAL_TEXT_STATUSES,
) -> Gate:
    """Decide for one clip.

    Args:
        source_hash: The clip's current source.
        missing_required: What of video and audio is not there, with reasons, e.g. ``["audio: …"]``.
        has_text: Whether its text embedding exists.
        text_states_available: Whether the text downloader's state could be read at all.
        text_state: Its row for this clip.
        terminal_text_statuses: Text statuses after which a placeholder is approved.
    """
    status = text_state.status if text_state else ""
    if missing_required:
        return Gate(statuses.MISSING_REQUIRED_MODALITY, "; ".join(missing_required), status)
    if has_text:
        return Gate(statuses.SUCCESS_FULL, "", status)
    if not text_states_available:
        return Gate(statuses.MISSING_TEXT_STATE_UNAVAILABLE, "text_state_unavailable")
    if text_state is None:
        return Gate(statuses.MISSING_TEXT_PENDING, "no_text_state_row")
    if text_state.source_hash and text_state.source_hash != source_hash:
        reason = f"text_hash_mismatch:{text_state.source_hash}"
        return Gate(statuses.MISSING_TEXT_PENDING, reason, status)
    if status in terminal_text_statuses:
        return Gate(statuses.SUCCESS_TEXT_PLACEHOLDER, status, status)
    return Gate(statuses.MISSING_TEXT_PENDING, f"text_status:{status}", status)
