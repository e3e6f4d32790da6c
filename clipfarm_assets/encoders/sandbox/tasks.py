"""What a decoder is asked to do, and all that it may answer.

A medium that took its decoder over can have it say anything. So each job's answer is held to what
the job can say: how many arrays, of which type and size, and each field that is told. Anything else
is no answer.
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from clipfarm_assets.encoders.base import Rotation
from clipfarm_assets.encoders.sandbox.jobs import FRAMES, SOUND

_LARGEST: Final = 2**63 - 1
_LONGEST_REASON: Final = 10_000


@dataclass(frozen=True, slots=True)
class Arrays:
    """The arrays that a job may hand over of one item.

    Attributes:
        most: So many at most.
        dtype: Of each.
        shortest: Of each axis the least length.
        longest: Of each axis the greatest; with `dtype` it bounds the bytes of one.
    """

    most: int
    dtype: str
    shortest: tuple[int, ...]
    longest: tuple[int, ...]

    def allow(self, shape: Any, dtype: Any) -> bool:
        """Whether an array may be so, of JSON values."""
        return (
            dtype == self.dtype
            and isinstance(shape, list)
            and len(shape) == len(self.longest)
            and all(type(side) is int for side in shape)
            and all(
                least <= side <= most
                for least, side, most in zip(self.shortest, shape, self.longest, strict=True)
            )
        )


@dataclass(frozen=True, slots=True)
class Task:
    """What a decoder is to do with a file.

    Attributes:
        what: What is decoded, for messages: "video".
        job: Name of the job; see `jobs`.
        arguments: The job's, as JSON values.
        arrays: What it may hand over.
        may_tell: Whether it may end with these fields, having handed over so many arrays.
    """

    what: str
    job: str
    arguments: Mapping[str, Any]
    arrays: Arrays
    may_tell: Callable[[Mapping[str, Any], int], bool]


def frames_task(wanted: int, taken: int, rotation: Rotation) -> Task:
    """As `video.frames.pick_frames`; an array is a frame as it was decoded."""
    from clipfarm_assets.encoders.video.file import MAX_SIDE  # late: it loads FFmpeg's libraries

    def may_tell(told: Mapping[str, Any], given: int) -> bool:
        return (
            told.keys()
            == {
                "frames",
                "decoded_frames",
                "decode_errors",
                "listed",
                "packets_decoded",
                "from_start_because",
            }
            and isinstance(told["frames"], list)
            and len(told["frames"]) == taken
            and all(_is_count(number) and number < given for number in told["frames"])
            and all(_is_count(told[name]) for name in ("decoded_frames", "decode_errors"))
            and _is_count(told["packets_decoded"])
            and isinstance(told["listed"], bool)
            and isinstance(told["from_start_because"], str)
            and len(told["from_start_because"]) <= _LONGEST_REASON
        )

    arguments = {"wanted": wanted, "taken": taken, "rotation": rotation}
    # As planned, from the start after all, and once more where another number was decodable.
    passes = 3
    arrays = Arrays(passes * max(wanted, taken), "uint8", (1, 1, 3), (MAX_SIDE, MAX_SIDE, 3))
    return Task("video", FRAMES, arguments, arrays, may_tell)


def sound_task(sample_rate: int, max_seconds: float) -> Task:
    """As `audio.decoding.load_audio`; the only array is the samples."""

    def may_tell(told: Mapping[str, Any], given: int) -> bool:
        return given == 1 and told.keys() == {"seconds"} and is_duration(told["seconds"])

    arguments = {"sample_rate": sample_rate, "max_seconds": max_seconds}
    arrays = Arrays(1, "float32", (0,), (math.ceil(max_seconds * sample_rate) + 1,))
    return Task("audio", SOUND, arguments, arrays, may_tell)


def is_duration(value: Any, most: float = sys.float_info.max) -> bool:
    """Whether it is a number from 0 to `most`, which JSON's NaN, infinity and long ones are not."""
    return type(value) in {int, float} and 0 <= value <= most


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST
