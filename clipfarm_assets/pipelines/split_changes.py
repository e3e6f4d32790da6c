"""What a new deal of train, val and test changed, in numbers and in sentences."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from clipfarm_assets.contracts.grouped_splits import GroupedSplits, Split

_WIDE_OF_SHARE: Final = 0.05
"""How far a split's share may be from the one asked for without it being said."""
_SHOWN: Final = 5


@dataclass(frozen=True)
class SplitChanges:
    """How splits differ from those before.

    Attributes:
        sizes: Split -> members.
        groups: How many there are, those of one member among them.
        largest_groups: Names and sizes of the largest, of two members or more.
        together: Members that are in a group with another.
        kept: Members that have the split they had, also before they were removed and returned.
        new: Members that never had one.
        moved: Id -> split before and now, where a group did not allow to keep it.
        removed: Members that had a split in the splits before and are not there any more.
        returned: Members that were removed once and are there again.
        is_anew: Whether settings that decide a deal are others than before: nothing was kept.
    """

    sizes: Mapping[Split, int]
    groups: int
    largest_groups: Mapping[str, int]
    together: int
    kept: int
    new: int
    moved: Mapping[str, tuple[Split, Split]]
    removed: int
    returned: int
    is_anew: bool

    def sentences(self, noun: str, link: str, settings: str = "seed or ratios") -> Iterator[str]:
        """Sentences on members that have another split than before, or none.

        Args:
            noun: What they are, in the plural.
            link: What moves them.
            settings: What decides a deal beside the members.
        """
        if self.is_anew:
            yield (
                f"{settings} are others than before, so all {noun} were dealt out anew: train "
                "the models again before they are evaluated"
            )
        elif self.moved:
            some = [f"{i} {was} -> {now}" for i, (was, now) in self.moved.items()][:_SHOWN]
            yield (
                f"{len(self.moved)} {noun} changed their split, because {link} now link them to "
                f"{noun} of another one: {', '.join(some)}"
            )
        if self.removed:
            yield (
                f"{self.removed} {noun} had a split and are no rows any more; it stays theirs, "
                "should they return"
            )

    def share_note(self, split: Split, ratio: float, noun: str) -> str | None:
        """A sentence on a split that is not what was asked for; None if it is."""
        total = sum(self.sizes.values())
        share = self.sizes[split] / total
        if abs(share - ratio) <= _WIDE_OF_SHARE:
            return None
        largest = next(iter(self.largest_groups.items()), None)
        told = f"; the largest group, {largest[0]}, has {largest[1]} {noun}" if largest else ""
        return f"{split} has {share:.1%} of {total} {noun}, {ratio:.1%} were asked for{told}"


def split_changes(splits: GroupedSplits, previous: GroupedSplits | None) -> SplitChanges:
    """Compare.

    Args:
        splits: Of now.
        previous: Those before; None if there were none.
    """
    before = previous.ever if previous else {}
    had = previous.split_of.keys() if previous else frozenset[str]()
    now = splits.split_of
    groups = Counter(splits.group_of.values())
    return SplitChanges(
        sizes=splits.sizes(),
        groups=len(groups),
        largest_groups={name: n for name, n in groups.most_common(_SHOWN) if n > 1},
        together=sum(n for n in groups.values() if n > 1),
        kept=sum(before.get(i) == split for i, split in now.items()),
        new=len(now.keys() - before.keys()),
        moved={i: (before[i], now[i]) for i in sorted(before) if i in now and before[i] != now[i]},
        removed=len(had - now.keys()),
        returned=len((before.keys() - had) & now.keys()),
        is_anew=bool(previous and (previous.seed, previous.ratios) != (splits.seed, splits.ratios)),
    )


def lacking_note(split: Split, found: Mapping[str, int], what: str) -> str | None:
    """A sentence on classes that no member of a split has; None if there are none.

    Args:
        split: Which.
        found: Name of the class -> members of the split.
        what: What lacks, such as "meme of sarcasm".
    """
    lacking = [name for name, n in found.items() if not n]
    return f"{split} has no {what} {', '.join(lacking)}" if lacking else None
