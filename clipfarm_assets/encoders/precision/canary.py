"""The canary set: a few items a modality that show whether a faster numeric mode is the same.

Made by rule on the spot, so that every machine embeds the same ones and no store has to hold them.
Most items resemble one other item more than the rest, as clips of one channel do: a mode that blurs
what tells clips apart changes who resembles whom, even where every cosine looks harmless.
"""

from collections.abc import Iterator
from typing import Final

from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.encoders.base import Source

CANARY_VERSION: Final = "canary-1"
"""Raise the number when an item changes: verdicts of other canaries are then not looked at."""


def canaries(modality: Modality) -> Iterator[Source]:
    """The set's items of one modality as raw objects with metadata, one made after the other."""
    # Late: a verdict on record is read without the libraries that media are made with.
    if modality == "video":
        from clipfarm_assets.encoders.precision.canary_video import video_canaries

        return video_canaries()
    if modality == "audio":
        from clipfarm_assets.encoders.precision.canary_audio import audio_canaries

        return audio_canaries()
    from clipfarm_assets.encoders.precision.canary_text import text_canaries

    return text_canaries()
