"""The words an item's state is told in, and which of them end its story.

An item is one clip in one stage. Its status is one of four kinds:

* *terminal*: nothing is left to do until the clip's source changes;
* *waiting*: something upstream is not there yet. Not a failure: the retry count goes back to 0 and
  however long it waits it never becomes terminal;
* *failed*: the step raised. Counted, and after ``max_fail_retries`` repeats terminal;
* *forgotten*: the clip was removed for good. Wins over every other state of it, whenever that was
  written, and whatever its source is.
"""

from typing import Final, Literal

Modality = Literal["video", "audio", "text"]
MODALITIES: Final[tuple[Modality, ...]] = ("video", "audio", "text")

Strategy = Literal["concat", "sum_pool", "max_pool"]
STRATEGIES: Final[tuple[Strategy, ...]] = ("concat", "sum_pool", "max_pool")

SUCCESS: Final = "success"
FAIL: Final = "fail"
FAIL_TERMINAL: Final = "fail_terminal"
MISSING_RAW_OBJECT: Final = "missing_raw_object"
# A tombstone: the clip was removed by `clipfarm forget`, and nothing is ever done to it again.
FORGOTTEN: Final = "forgotten"

SUCCESS_FULL: Final = "success_full"
SUCCESS_TEXT_PLACEHOLDER: Final = "success_text_placeholder"
MISSING_REQUIRED_MODALITY: Final = "missing_required_modality"
MISSING_TEXT_PENDING: Final = "missing_text_pending"
MISSING_TEXT_STATE_UNAVAILABLE: Final = "missing_text_state_unavailable"

WAITING: Final = frozenset(
    {
        MISSING_RAW_OBJECT,
        MISSING_REQUIRED_MODALITY,
        MISSING_TEXT_PENDING,
        MISSING_TEXT_STATE_UNAVAILABLE,
    }
)
EMBEDDING_TERMINAL: Final = frozenset({SUCCESS, FAIL_TERMINAL})
FUSION_TERMINAL: Final = frozenset({SUCCESS_FULL, SUCCESS_TEXT_PLACEHOLDER, FAIL_TERMINAL})
FUSED: Final = frozenset({SUCCESS_FULL, SUCCESS_TEXT_PLACEHOLDER})

DEFAULT_MAX_FAIL_RETRIES: Final = 3

# What the text downloader may have written last about a clip without usable words.
DEFAULT_TERMINAL_TEXT_STATUSES: Final = frozenset({"no_captions", "fail_empty_transcript_terminal"})


def embedding_stage(modality: Modality) -> str:
    """The ledger's name of a modality's embedding stage, e.g. ``video_embedding``."""
    return f"{modality}_embedding"


def fusion_stage(strategy: Strategy) -> str:
    """The ledger's name of a strategy's fusion stage, e.g. ``fusion_concat``."""
    return f"fusion_{strategy}"
