"""Train, val and test of song segments: a song, or an album, goes to one split as a whole.

Segments of one song share voices, harmonies and words: with one in train and one in test, a model
is examined on what it has heard. See `grouped_splits` for how groups are dealt out and kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, get_args

from clipfarm_assets.contracts.checks import Finding, Verdict
from clipfarm_assets.contracts.grouped_splits import (
    RATIOS,
    SEED,
    SPLITS,
    BadSplitRatios,
    BadSplits,
    GroupedSplits,
    Split,
    TooFewGroups,
    deal_groups,
    names_by_split,
)
from clipfarm_assets.contracts.song_segments import Segment

__all__ = [
    "GROUPINGS",
    "RATIOS",
    "SEED",
    "SPLITS",
    "BadSplitRatios",
    "BadSplits",
    "Grouping",
    "SongSplits",
    "Split",
    "TooFewGroups",
    "assign_song_splits",
    "no_song_in_two_splits",
    "song_groups",
]

Grouping = Literal["song", "album"]
GROUPINGS: Final[tuple[Grouping, ...]] = get_args(Grouping)


@dataclass(frozen=True)
class SongSplits(GroupedSplits):
    """Where every segment is. Its group is its song, or the first of the albums that share songs.

    Attributes:
        by: What segments were grouped by.
        split_of_song: Song -> its split, also of songs that are not there any more: one that is cut
            anew has segments of other ids.
        split_of_album: Likewise, where segments were grouped by album; else empty.
    """

    by: Grouping = "song"
    split_of_song: Mapping[str, Split] = field(default_factory=dict)
    split_of_album: Mapping[str, Split] = field(default_factory=dict)

    FORMAT: ClassVar[str] = "clipfarm.song_splits.v1"
    NOUN: ClassVar[str] = "segment"

    def known(self, segments: Iterable[Segment], groups: Mapping[str, str]) -> dict[str, Split]:
        """Group -> the split that its songs, or albums, had; of several the first of `SPLITS`."""
        had: dict[str, list[Split]] = {}
        for segment in segments:
            for split_of, name in (
                (self.split_of_song, segment.song),
                (self.split_of_album, segment.album),
            ):
                if name in split_of:
                    had.setdefault(groups[segment.id], []).append(split_of[name])
        return {group: min(splits, key=SPLITS.index) for group, splits in had.items()}

    def _settings(self) -> dict[str, Any]:
        songs, albums = _by_split(self.split_of_song), _by_split(self.split_of_album)
        return {"by": self.by, "songs": songs, "albums": albums}

    @classmethod
    def _settings_of(cls, body: Mapping[str, Any]) -> dict[str, Any]:
        by = _grouping(body["by"])
        # Splits stored before songs were kept by name have them as groups.
        groups = {split: sorted(set(body[split].values())) for split in SPLITS}
        songs = body.get("songs", groups if by == "song" else {})
        return {
            "by": by,
            "split_of_song": _split_of(songs, "songs"),
            "split_of_album": _split_of(body.get("albums", {}), "albums"),
        }


def song_groups(segments: Sequence[Segment], by: Grouping = "song") -> dict[str, str]:
    """Group segments of one song, or of one album.

    A song of two albums is one song; by album, it makes one group of the two. So a song is in one
    group either way.

    Args:
        segments: With different ids; their order makes no difference.
        by: What the segments of a group share.

    Returns:
        Id -> group: the name of the song; of the albums, the first in alphabetical order.

    Raises:
        ValueError: `by` is none of `GROUPINGS`.
    """
    if _grouping(by) == "song":
        return {segment.id: segment.song for segment in segments}
    albums_of: dict[str, set[str]] = {}
    songs_of: dict[str, set[str]] = {}
    for segment in segments:
        albums_of.setdefault(segment.song, set()).add(segment.album)
        songs_of.setdefault(segment.album, set()).add(segment.song)
    first: dict[str, str] = {}
    for album in sorted(songs_of):
        if album in first:
            continue
        first[album] = album
        waiting = [album]
        while waiting:
            shared = {a for song in songs_of[waiting.pop()] for a in albums_of[song]}
            linked = shared - first.keys()
            first |= dict.fromkeys(linked, album)
            waiting += linked
    return {segment.id: first[segment.album] for segment in segments}


def assign_song_splits(
    segments: Sequence[Segment],
    *,
    by: Grouping = "song",
    ratios: Sequence[float] = RATIOS,
    seed: int = SEED,
    previous: SongSplits | None = None,
) -> SongSplits:
    """Deal songs or albums out to train, val and test, each with its share of every label.

    Segments without a label are spread as if that were one: they are examples of nothing, but may
    be given a label later.

    Args:
        segments: With different ids; their order makes no difference.
        by: What the segments of a group share; see `song_groups`.
        ratios: Of train, val and test.
        seed: Decides every choice between equals.
        previous: Splits to keep, also those of segments, and of songs, that are not there any more:
            a song that is cut anew goes where it was. Those made with another seed, other ratios
            or another `by` are not kept.

    Raises:
        ValueError: `by` is none of `GROUPINGS`.
        BadSplitRatios: Not three positive numbers with sum 1.
        TooFewGroups: Fewer than three groups.
    """
    groups = song_groups(segments, by)
    if previous and previous.by != by:
        previous = None
    deal = deal_groups(
        {s.id: () if s.label is None else (s.label,) for s in segments},
        groups,
        ratios,
        seed,
        previous,
        noun="segments",
        apart=f"that share no {by}",
        known=previous.known(segments, groups) if previous else None,
    )
    songs = {s.song: deal.split_of[s.id] for s in segments}
    albums = {s.album: deal.split_of[s.id] for s in segments} if by == "album" else {}
    if previous and (previous.seed, previous.ratios) == (seed, deal.ratios):
        songs = {**previous.split_of_song, **songs}
        albums = {**previous.split_of_album, **albums}
    return SongSplits(deal.split_of, groups, seed, deal.ratios, deal.retired, by, songs, albums)


def no_song_in_two_splits(segments: Iterable[Segment], splits: SongSplits) -> Verdict:
    """Every segment has a split, and no song, and by album no album, has segments in two.

    Looks at the segments as they are, whatever the splits say of groups.
    """
    findings: list[Finding] = []
    places: dict[tuple[Grouping, str], dict[Split, str]] = {}
    examined = 0
    for segment in segments:
        examined += 1
        split = splits.split_of.get(segment.id)
        if split is None:
            problem = "has no split: deal the segments out again"
            findings.append(Finding(f"id {segment.id}", problem))
            continue
        places.setdefault(("song", segment.song), {}).setdefault(split, segment.id)
        if splits.by == "album":
            places.setdefault(("album", segment.album), {}).setdefault(split, segment.id)
    for (noun, name), found in sorted(places.items()):
        if len(found) > 1:
            told = ", ".join(f"{found[split]} in {split}" for split in SPLITS if split in found)
            findings.append(Finding(f"{noun} {name}", f"has segments apart: {told}"))
    facts: dict[str, Any] = {f"segments/{split}": n for split, n in splits.sizes().items()}
    facts |= {"by": splits.by, "songs": sum(noun == "song" for noun, _ in places)}
    return Verdict(tuple(findings), examined, facts)


def _grouping(by: Any) -> Grouping:
    if by not in GROUPINGS:
        msg = f"segments are grouped by one of {', '.join(GROUPINGS)}: found {by!r:.100}"
        raise ValueError(msg)
    grouping: Grouping = by
    return grouping


def _by_split(split_of: Mapping[str, Split]) -> dict[str, list[str]]:
    return {split: sorted(n for n, s in split_of.items() if s == split) for split in SPLITS}


def _split_of(body: Any, noun: str) -> dict[str, Split]:
    """What `_by_split` wrote.

    Raises:
        ValueError: It is of another form, or has a name in two splits.
    """
    listed = names_by_split(body, noun)
    found = {name: split for split, names in listed.items() for name in names}
    if len(found) < sum(map(len, listed.values())):
        msg = f"{noun} must be of one split each"
        raise ValueError(msg)
    return found
