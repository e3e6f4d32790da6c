"""Clips that waited for the text downloader, and may be fused by what it says now."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.statuses import STRATEGIES, Strategy
from clipfarm_assets.contracts.text_gate import gate
from clipfarm_assets.pipelines.deployment import Deployment

_WAIT_FOR_TEXT: Final = frozenset(
    {statuses.MISSING_TEXT_PENDING, statuses.MISSING_TEXT_STATE_UNAVAILABLE}
)


@dataclass(frozen=True)
class Settled:
    """What the downloader's state says of clips that wait.

    Attributes:
        waiting: How many clips wait for their text, in any strategy.
        by_strategy: Those that wait no longer, sorted; only strategies that have some.
        unavailable: Why the state can't be read; empty where it can.
    """

    waiting: int
    by_strategy: dict[Strategy, tuple[str, ...]]
    unavailable: str = ""


def settled_texts(deployment: Deployment, terminal_text_statuses: Collection[str]) -> Settled:
    """Ask the rule that fusion goes by, for each clip that waits.

    Args:
        deployment: Whose.
        terminal_text_statuses: As runs have them.
    """
    waiting = {
        strategy: deployment.ledger.ids_of_status(statuses.fusion_stage(strategy), _WAIT_FOR_TEXT)
        for strategy in STRATEGIES
    }
    texts = deployment.text_states()
    found: dict[Strategy, tuple[str, ...]] = {}
    for strategy, ids in waiting.items():
        if texts.unavailable or not ids:
            continue
        hashes = deployment.ledger.columns(statuses.fusion_stage(strategy), ids, "source_hash")
        settled = tuple(
            video_id
            for video_id in sorted(hashes)
            if gate(
                str(hashes[video_id][0]),
                missing_required=(),
                has_text=False,
                text_states_available=True,
                text_state=texts.by_id.get(video_id),
                terminal_text_statuses=terminal_text_statuses,
            ).fuses
        )
        if settled:
            found[strategy] = settled
    clips = {video_id for ids in waiting.values() for video_id in ids}
    return Settled(len(clips), found, texts.unavailable)
