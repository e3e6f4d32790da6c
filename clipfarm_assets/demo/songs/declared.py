"""What the demo declares of its corpus, compared with what came of it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from clipfarm_assets.contracts.song_segments import coverage
from clipfarm_assets.demo.declared import Declared
from clipfarm_assets.demo.songs.edge_cases import ALBUM
from clipfarm_assets.demo.songs.plan import (
    ALBUMS,
    SPARSE_ALBUM,
    WITHOUT_AUDIO,
    WITHOUT_MIDI,
    WITHOUT_MIDI_IN_SPARSE,
    Pairing,
    Plan,
)
from clipfarm_assets.fusion.options import STRATEGIES
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.songs.alignment_rows import Aligned, read_alignment
from clipfarm_assets.pipelines.songs.alignment_rule import AlignmentVerdict
from clipfarm_assets.pipelines.songs.comparison import COMPARISON
from clipfarm_assets.pipelines.songs.comparison_files import WITH_DROPOUT
from clipfarm_assets.pipelines.songs.fusion import CURVES
from clipfarm_assets.pipelines.songs.promises import model_intact
from clipfarm_assets.pipelines.songs.segments import read_segments
from clipfarm_assets.training.song_snapshot import open_song_model

OFFSET_TOLERANCE: Final = 0.05
"""Seconds that an offset may be found off."""
RIGHT_VERDICTS: Final = 0.9
"""Share of the pairs of a kind that must be judged as planted."""
SHARE_TOLERANCE: Final = 0.01

EXPECTED_VERDICTS: Final[Mapping[Pairing, frozenset[AlignmentVerdict]]] = {
    "aligned": frozenset({"aligned"}),
    "late_told": frozenset({"corrected"}),
    "cut_late": frozenset({"corrected"}),
    "late_untold": frozenset({"misaligned"}),
    # Nobody can vouch for a pair of which no lag stands out.
    "unrelated": frozenset({"unverified", "misaligned"}),
}
HEARD_LATE: Final[Mapping[Pairing, int]] = {
    "aligned": 0,
    "late_told": 1,
    "late_untold": 1,
    "cut_late": -1,
}
"""How often the planted offset notes are late; those cut from a later moment come early."""


@dataclass(frozen=True)
class PairingOutcome:
    """What became of the pairs of one kind.

    Attributes:
        pairs: How many there are.
        right: Those that were judged as they must be.
        heard: Those that were heard.
        worst: Most seconds that a heard offset is off; None if none was heard.
    """

    pairs: int
    right: int
    heard: int
    worst: float | None


def comparison_of(deployment: Deployment) -> dict[str, Any]:
    """``comparison.json``."""
    key = deployment.songs.comparison() + COMPARISON
    found: dict[str, Any] = json.loads(deployment.store.get(key))
    return found


def pairings(deployment: Deployment, plan: Plan) -> dict[Pairing, PairingOutcome]:
    """What became of the corpus's pairs of audio and MIDI, by what was planted.

    Raises:
        NoAlignment, BadTable: See `read_alignment`.
    """
    settings = deployment.song_config.preprocessing
    rows = read_alignment(deployment.store, deployment.songs, ALBUMS, settings)
    found: dict[Pairing, PairingOutcome] = {}
    for pairing, verdicts in EXPECTED_VERDICTS.items():
        some = [(s, rows[s.id]) for s in plan.segments if s.pairing == pairing]
        off = [
            abs(heard - HEARD_LATE[pairing] * segment.offset)
            for segment, row in some
            if pairing in HEARD_LATE and (heard := _heard(row)) is not None
        ]
        found[pairing] = PairingOutcome(
            pairs=len(some),
            right=sum(row.verdict in verdicts for _, row in some),
            heard=sum(row.is_heard for _, row in some),
            worst=max(off, default=None),
        )
    return found


def _heard(row: Aligned) -> float | None:
    return row.heard_offset if row.is_heard else None


def declared_of(deployment: Deployment, plan: Plan) -> list[Declared]:
    """What must have come of a corpus that went through the pipeline, and what has."""
    return [
        *_of_coverage(deployment, plan),
        *_of_alignment(deployment, plan),
        *_of_models(deployment),
        *of_comparison(comparison_of(deployment), deployment.song_config.evaluation.bounds()),
    ]


def _of_coverage(deployment: Deployment, plan: Plan) -> Iterator[Declared]:
    """Shares of what is missing, of the planned segments."""
    report = read_segments(deployment.store, deployment.songs, deployment.song_config.data.columns)
    planned = [segment for segment in report.segments if segment.album != ALBUM]
    sparse = [segment for segment in planned if segment.album == SPARSE_ALBUM]
    one = len(ALBUMS) / len(plan.segments)  # a share of an album comes out to within a segment
    for what, share, found in (
        ("MIDI", WITHOUT_MIDI, 1 - coverage(planned).share("midi")),
        (f"MIDI on {SPARSE_ALBUM}", WITHOUT_MIDI_IN_SPARSE, 1 - coverage(sparse).share("midi")),
        ("audio", WITHOUT_AUDIO, 1 - coverage(planned).share("audio")),
    ):
        yield Declared(
            f"segments without {what}",
            f"{share:.0%}",
            f"{found:.1%}",
            abs(found - share) <= max(SHARE_TOLERANCE, one),
        )


def _of_alignment(deployment: Deployment, plan: Plan) -> Iterator[Declared]:
    for pairing, found in pairings(deployment, plan).items():
        expected = " or ".join(sorted(EXPECTED_VERDICTS[pairing]))
        share = found.right / max(found.pairs, 1)
        yield Declared(
            f"pairs planted as {pairing}",
            f"{expected}, {RIGHT_VERDICTS:.0%} of them",
            f"{found.right} of {found.pairs}",
            share >= RIGHT_VERDICTS or not found.pairs,
        )
        if found.worst is not None:
            yield Declared(
                f"offsets heard of {pairing}",
                f"off by {OFFSET_TOLERANCE * 1000:.0f} ms at most",
                f"{found.worst * 1000:.0f} ms, {found.heard} heard",
                found.worst <= OFFSET_TOLERANCE,
            )


def _of_models(deployment: Deployment) -> Iterator[Declared]:
    store, layout = deployment.store, deployment.songs
    for strategy in STRATEGIES:
        snapshot = open_song_model(store, layout, strategy)
        losses = snapshot.json(CURVES)[strategy]["train_loss"]
        yield Declared(
            f"training loss of {strategy}",
            "falls",
            f"{losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} epochs",
            losses[-1] < losses[0],
        )
    verdicts = {strategy: model_intact(store, layout, strategy) for strategy in STRATEGIES}
    yield Declared(
        "saved models",
        "all files intact",
        "; ".join(f"{name}: {each.summary(1)}" for name, each in verdicts.items()),
        all(each.holds for each in verdicts.values()),
    )


def of_comparison(found: Mapping[str, Any], bounds: Mapping[str, float]) -> Iterator[Declared]:
    """What ``comparison.json`` must say.

    Args:
        found: It.
        bounds: Modality -> most macro-F1 that a strategy may lose without it.
    """
    judged = found["splits"][found["decided_on"]]
    for strategy, verdict in judged["verdicts"].items():
        yield Declared(
            f"{strategy} against {verdict['best_unimodal']} alone",
            "better macro-F1, beyond chance",
            f"{verdict['fusion']:.3f} against {verdict['unimodal']:.3f}, "
            f"lower bound {verdict['difference']['low']:+.3f}",
            verdict["fusion_wins"],
        )
    for strategy, kinds in judged["degradation"].items():
        lost = {removed: each["lost"] for removed, each in kinds[WITH_DROPOUT].items()}
        most = ", ".join(f"{bounds[removed]:g} without {removed}" for removed in lost)
        yield Declared(
            f"{strategy} without a modality",
            f"loses macro-F1 of all segments, at most {most}",
            ", ".join(f"{each:.3f}" for each in lost.values()),
            all(each <= bounds[removed] for removed, each in lost.items()),
        )
