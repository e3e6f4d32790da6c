"""Train, val and test of things that come in groups, such as memes that share an image.

A group goes to one split as a whole, and every split gets its share of every label. What has a
split keeps it when others are added, and gets it again if it was removed and returns: its id stays
on record. Where something new links groups of several splits, all of them go to the first of these
in the order train, val, test: what was once trained on is never examined on.
"""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, Self, get_args

from clipfarm_assets.contracts.checks import Finding, Verdict

Split = Literal["train", "val", "test"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)

RATIOS: Final = (0.70, 0.15, 0.15)
SEED: Final = 42

_RATIO_TOLERANCE: Final = 1e-9

Label = tuple[Any, ...]
"""What is spread evenly: hashable, and with an order among those of one deal."""


class BadSplits(ValueError):  # noqa: N818 - reads better where it is raised
    """Not a stored split: a structural fault that stops the run."""


class BadSplitRatios(ValueError):  # noqa: N818
    """The ratios don't make three parts: a structural fault that stops the run."""


class TooFewGroups(ValueError):  # noqa: N818
    """Fewer groups than splits: a structural fault that stops the run."""


@dataclass(frozen=True)
class GroupedSplits(ABC):
    """Where everything is.

    Attributes:
        split_of: Id -> its split.
        group_of: Id -> its group.
        seed: Decided the order in which groups were dealt out.
        ratios: Of train, val and test, as asked for.
        retired: Id -> the split it had, of what is not there any more.
    """

    split_of: Mapping[str, Split]
    group_of: Mapping[str, str]
    seed: int = SEED
    ratios: tuple[float, float, float] = RATIOS
    retired: Mapping[str, Split] = field(default_factory=dict)

    FORMAT: ClassVar[str]
    """Names the form of the stored object."""
    NOUN: ClassVar[str]
    """What an id is of, in the singular."""

    @property
    def ever(self) -> dict[str, Split]:
        """Id -> split of everything that has or had one."""
        return {**self.retired, **self.split_of}

    def ids(self, split: Split) -> list[str]:
        """The ids of one split, sorted."""
        return sorted(each for each, s in self.split_of.items() if s == split)

    def sizes(self) -> dict[Split, int]:
        """Number of ids by split."""
        found = Counter(self.split_of.values())
        return {split: found[split] for split in SPLITS}

    def to_json(self) -> bytes:
        """The object's bytes: id -> group by split, retired ids by split, and the settings.

        Equal splits have equal ones.
        """
        body: dict[str, Any] = {split: {} for split in SPLITS}
        for each, split in self.split_of.items():
            body[split][each] = self.group_of[each]
        retired: dict[Split, list[str]] = {split: [] for split in SPLITS}
        for each, split in sorted(self.retired.items()):
            retired[split].append(each)
        body |= {
            "format": self.FORMAT,
            "ratios": list(self.ratios),
            "seed": self.seed,
            "retired": retired,
            **self._settings(),
        }
        told = json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False)
        return (told + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, key: str = "splits.json") -> Self:
        """Parse what `to_json` wrote.

        Raises:
            BadSplits: Not JSON, of another form, or with one id or one group in two splits.
        """
        remedy = f"restore it, or remove it to have every {cls.NOUN} dealt out anew"
        try:
            splits, repeated = cls._parsed(json.loads(data))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            msg = f"{key} must be splits as they are written here: {error!r:.200}; {remedy}"
            raise BadSplits(msg) from None
        verdict = no_group_in_two_splits(splits)
        if repeated or not verdict.holds:
            twice = f"{repeated} {cls.NOUN}s are in two splits"
            msg = f"{key} must keep its splits apart: {twice if repeated else verdict.summary()}"
            raise BadSplits(f"{msg}; {remedy}")
        return splits

    @classmethod
    def _parsed(cls, body: Any) -> tuple[Self, int]:
        """The splits of a parsed object, and how many ids are in it more than once.

        Raises:
            ValueError, TypeError, KeyError: It is of another form.
        """
        if body["format"] != cls.FORMAT:
            msg = f"expected the format {cls.FORMAT}: found {body['format']!r:.100}"
            raise ValueError(msg)
        parts: dict[Split, Any] = {split: body[split] for split in SPLITS}
        for split, part in parts.items():
            if not isinstance(part, dict) or not all(isinstance(g, str) for g in part.values()):
                msg = f"{split} must be an object of ids and their groups"
                raise ValueError(msg)
        train, val, test = (float(ratio) for ratio in body["ratios"])
        listed = names_by_split(body.get("retired", {}), "retired")
        splits = cls(
            split_of={each: split for split, part in parts.items() for each in part},
            group_of={each: group for part in parts.values() for each, group in part.items()},
            seed=int(body["seed"]),
            ratios=(train, val, test),
            retired={each: split for split, ids in listed.items() for each in ids},
            **cls._settings_of(body),
        )
        told = sum(map(len, parts.values())) + sum(map(len, listed.values()))
        return splits, told - len(splits.ever)

    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """What a kind of splits stores beside the rest."""

    @classmethod
    @abstractmethod
    def _settings_of(cls, body: Mapping[str, Any]) -> dict[str, Any]:
        """The same of a parsed object, as fields; may raise as `_parsed` does."""


def names_by_split(body: Any, noun: str) -> dict[Split, list[str]]:
    """Names by split, of a parsed object; a split that is not there has none.

    Args:
        body: The object.
        noun: What it is called.

    Raises:
        ValueError: It is of another form.
    """
    if not isinstance(body, dict) or body.keys() - set(SPLITS):
        msg = f"{noun} must be an object of {', '.join(SPLITS)}"
        raise ValueError(msg)
    listed: dict[Split, list[str]] = {split: body.get(split, []) for split in SPLITS}
    for split, ids in listed.items():
        if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
            msg = f"{noun} of {split} must be a list of names"
            raise ValueError(msg)
    return listed


def no_group_in_two_splits(splits: GroupedSplits) -> Verdict:
    """No group has ids in two splits."""
    inside: dict[str, set[Split]] = {}
    for each, split in splits.split_of.items():
        inside.setdefault(splits.group_of[each], set()).add(split)
    findings = tuple(
        Finding(f"group {group}", f"is in {' and '.join(s for s in SPLITS if s in found)}")
        for group, found in sorted(inside.items())
        if len(found) > 1
    )
    facts: Mapping[str, Any] = {str(split): n for split, n in splits.sizes().items()}
    return Verdict(findings, len(inside), facts)


@dataclass(frozen=True)
class Deal:
    """What `deal_groups` decided.

    Attributes:
        split_of: Id -> its split.
        ratios: Of train, val and test, checked.
        retired: Id -> the split it had, of what is not there any more.
    """

    split_of: Mapping[str, Split]
    ratios: tuple[float, float, float]
    retired: Mapping[str, Split]


def deal_groups(
    labels: Mapping[str, Label],
    groups: Mapping[str, str],
    ratios: Sequence[float] = RATIOS,
    seed: int = SEED,
    previous: GroupedSplits | None = None,
    *,
    known: Mapping[str, Split] | None = None,
    noun: str,
    apart: str,
) -> Deal:
    """Deal groups out to train, val and test, so that each has its share of every label.

    Groups come largest first, those of one size in an order that the seed decides. Each goes where
    its members' labels, and members at all, are lacking most. So a share is off by little more than
    the largest groups, and small ones make up for what large ones do.

    Args:
        labels: Id -> what is spread evenly, of everything there is; the order makes no difference.
        groups: Id -> group, of all of them.
        ratios: Of train, val and test.
        seed: Decides every choice between equals.
        previous: Splits to keep, as the module says, also those of what is not there any more.
            Those made with another seed or other ratios are not kept.
        known: Group -> split that it had under other ids; kept as those of `previous` are.
        noun: What ids are of, such as "memes".
        apart: What those of two groups are, such as "that share no image".

    Raises:
        BadSplitRatios: Not three positive numbers with sum 1.
        TooFewGroups: Fewer than three groups.
    """
    shares = _checked(ratios)
    members: dict[str, list[str]] = {}
    for each in labels:
        members.setdefault(groups[each], []).append(each)
    if len(members) < len(SPLITS):
        msg = (
            f"splits need at least {len(SPLITS)} groups of {noun} {apart}: found {len(members)} "
            f"among {len(labels)} {noun}; add {noun} that differ"
        )
        raise TooFewGroups(msg)
    if previous and (previous.seed, previous.ratios) != (seed, shares):
        previous = known = None
    ever, known = previous.ever if previous else {}, known or {}
    kept: dict[str, Split] = {}
    for group, some in members.items():
        had = [ever[each] for each in some if each in ever]
        had += [known[group]] if group in known else []
        if had:
            kept[group] = min(had, key=SPLITS.index)
    hand = _Hand(labels, shares)
    split_of_group: dict[str, Split] = {}
    for group in sorted(kept):
        split_of_group[group] = hand.deal(members[group], (kept[group],))
    new = sorted(
        members.keys() - kept.keys(), key=lambda g: (-len(members[g]), _digest(seed, g), g)
    )
    for place, group in enumerate(new):
        empty = hand.empty()
        choice = empty if len(new) - place <= len(empty) else SPLITS
        split_of_group[group] = hand.deal(members[group], choice)
    split_of = {each: split_of_group[groups[each]] for each in labels}
    retired = {each: split for each, split in ever.items() if each not in split_of}
    return Deal(split_of, shares, retired)


class _Hand:
    """What each split lacks of its share, in members: of every label, and at all."""

    def __init__(self, labels: Mapping[str, Label], shares: Sequence[float]) -> None:
        self._labels = labels
        found = Counter(labels.values())
        self._lacking = {
            split: {label: share * n for label, n in found.items()}
            for split, share in zip(SPLITS, shares, strict=True)
        }
        self._lacking_at_all = {
            split: share * len(labels) for split, share in zip(SPLITS, shares, strict=True)
        }
        self._has: Counter[Split] = Counter()

    def deal(self, members: Sequence[str], choice: Sequence[Split]) -> Split:
        """Give a group to the split of these that lacks it most, and say which."""
        found = Counter(self._labels[each] for each in members)

        def need(split: Split) -> float:
            lacking = self._lacking[split]
            alike = sum(n * lacking[label] for label, n in sorted(found.items()))
            return alike + len(members) * self._lacking_at_all[split]

        split = max(choice, key=need)
        for label, n in found.items():
            self._lacking[split][label] -= n
        self._lacking_at_all[split] -= len(members)
        self._has[split] += len(members)
        return split

    def empty(self) -> tuple[Split, ...]:
        """Splits without any member."""
        return tuple(split for split in SPLITS if not self._has[split])


def _digest(seed: int, group: str) -> bytes:
    return hashlib.sha256(f"{seed}:{group}".encode()).digest()


def _checked(ratios: Sequence[float]) -> tuple[float, float, float]:
    try:
        train, val, test = (float(ratio) for ratio in ratios)
    except (TypeError, ValueError):
        train = val = test = math.nan
    shares = (train, val, test)
    if not min(shares) > 0 or abs(sum(shares) - 1) > _RATIO_TOLERANCE:
        msg = f"ratios must be three positive numbers, of {', '.join(SPLITS)}, with sum 1: "
        raise BadSplitRatios(f"{msg}found {ratios!r:.200}")
    return shares
