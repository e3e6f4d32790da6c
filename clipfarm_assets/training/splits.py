"""Train, val and test: four ways to draw them, none of which lets a clip's duplicate straddle.

* ``random``: the deployed pipeline's draw. With n rows in their order::

      rows = np.arange(n)
      np.random.default_rng(seed).shuffle(rows)
      train, val, test = np.split(rows, [int(n * 0.70), int(n * 0.70) + int(n * 0.15)])

  Then every duplicate group goes, whole, to the part of its first row in shuffled order.
* ``chronological``: the oldest rows are train, the newest test, by the same counts. Rows of one
  moment stay together, in the earlier part, unless a later one would then be empty. Where a
  duplicate group straddles, its rows in the later parts are left out: moving them would break the
  order, keeping them would leak.
* ``grouped``: rows of one channel or one duplicate group go together; see `_grouped`.
* ``chronological_grouped``: the windows of time of ``chronological``. A channel or duplicate group
  belongs to one part; its rows outside that part's window are left out.

Whatever is left out is marked `EXCLUDED`. Source of the ratios, the seed and the least number of
rows: the training contract, section 5.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from clipfarm_assets.contracts.split_rules import (
    EXCLUDED,
    PARTS,
    SPLIT_KINDS,
    Integers,
    Moments,
    SplitKind,
    Strings,
    part_sizes,
)
from clipfarm_assets.training.components import Components
from clipfarm_assets.training.duplicates import duplicate_groups

__all__ = [
    "BadSplitRatios",
    "SplitReport",
    "SplitUnavailable",
    "TooFewRows",
    "duplicate_groups",
    "make_splits",
    "split",
    "split_report",
]

MIN_ROWS: Final = 12
RATIOS: Final = (0.70, 0.15, 0.15)
SEED: Final = 42
_RATIO_TOLERANCE: Final = 1e-9

_MARKS: Final = np.array((*PARTS, EXCLUDED))
_OUT: Final = len(PARTS)
"""The position of `EXCLUDED` in `_MARKS`."""


class TooFewRows(ValueError):  # noqa: N818 - reads better where it is raised
    """There are not enough rows to train on: a structural fault that stops the run."""


class BadSplitRatios(ValueError):  # noqa: N818
    """The ratios don't make three parts of the rows: a structural fault that stops the run."""


class SplitUnavailable(ValueError):  # noqa: N818
    """A split of this kind can't be made of these rows; others may."""


@dataclass(frozen=True, slots=True)
class SplitReport:
    """What became of the rows of one split.

    Attributes:
        rows: Number of rows by part.
        excluded: Rows in no part, left out to keep the split's rule.
        moved: Rows of a random split in another part than the plain draw's, to stay with their
            duplicates.
    """

    rows: dict[str, int]
    excluded: int
    moved: int


def make_splits(
    video_ids: Strings,
    captured_at: Moments,
    channel_id: Strings,
    duplicate_groups: Integers,
    ratios: Sequence[float] = RATIOS,
    seed: int = SEED,
) -> tuple[dict[SplitKind, Strings], dict[SplitKind, str]]:
    """Every kind of split that these rows allow.

    Args:
        video_ids: ``(N,)``, each once.
        captured_at: datetime64 ``(N,)``.
        channel_id: ``(N,)``, empty where unknown.
        duplicate_groups: int64 ``(N,)``; see `training.duplicates.duplicate_groups`.
        ratios: Of train, val and test.
        seed: Decides every random choice.

    Returns:
        Kind -> ``(N,)`` of `PARTS` or `EXCLUDED`; and kind -> why there is no such split.

    Raises:
        TooFewRows, BadSplitRatios, ValueError: As `split`.
    """
    splits: dict[SplitKind, Strings] = {}
    unavailable: dict[SplitKind, str] = {}
    for kind in SPLIT_KINDS:
        try:
            splits[kind] = split(
                kind, video_ids, captured_at, channel_id, duplicate_groups, ratios, seed
            )
        except SplitUnavailable as error:
            unavailable[kind] = str(error)
    return splits, unavailable


def split(
    kind: SplitKind,
    video_ids: Strings,
    captured_at: Moments,
    channel_id: Strings,
    duplicate_groups: Integers,
    ratios: Sequence[float] = RATIOS,
    seed: int = SEED,
) -> Strings:
    """One kind of split; arguments as `make_splits`.

    Returns:
        ``(N,)`` of `PARTS` or `EXCLUDED`; every part has a row.

    Raises:
        TooFewRows: Fewer than `MIN_ROWS`.
        BadSplitRatios: Not three positive numbers with sum 1, or a part would have no rows.
        SplitUnavailable: These rows don't allow this kind.
        ValueError: `kind` is none of `SPLIT_KINDS`, the arrays differ in length, or a video is
            there twice.
    """
    _check_rows(kind, video_ids, captured_at, channel_id, duplicate_groups)
    sizes = _sizes(len(video_ids), ratios)
    rng = np.random.default_rng(seed)
    groups: Integers = np.unique(duplicate_groups, return_inverse=True)[1]
    if kind == "random":
        parts = _random(groups, sizes, rng)
    elif kind == "chronological":
        windows = _windows(captured_at, sizes)
        earliest = np.full(len(groups), _OUT)
        np.minimum.at(earliest, groups, windows)
        parts = np.where(windows == earliest[groups], windows, _OUT)
    else:
        components = _components(channel_id, groups)
        if kind == "grouped":
            parts = _grouped(components, sizes, rng)
        else:
            parts = _grouped_in_windows(components, _windows(captured_at, sizes), ratios, rng)
    empty = [part for k, part in enumerate(PARTS) if not (parts == k).any()]
    if empty:
        msg = (
            f"a {kind} split needs rows in every part: {' and '.join(empty)} would have none of "
            f"{len(parts)}, because too many are duplicates of each other or of one channel"
        )
        raise SplitUnavailable(msg)
    marks: Strings = _MARKS[parts]
    return marks


def split_report(
    kind: SplitKind, parts: Strings, ratios: Sequence[float] = RATIOS, seed: int = SEED
) -> SplitReport:
    """What became of the rows of a split that `split` made with these ratios and this seed."""
    rows = part_sizes(parts)
    moved = 0
    if kind == "random":
        plain = _plain_random(_sizes(len(parts), ratios), np.random.default_rng(seed))[1]
        moved = int((parts != _MARKS[plain]).sum())
    return SplitReport({part: rows[part] for part in PARTS}, rows[EXCLUDED], moved)


def _check_rows(
    kind: SplitKind,
    video_ids: Strings,
    captured_at: Moments,
    channel_id: Strings,
    groups: Integers,
) -> None:
    if kind not in SPLIT_KINDS:
        msg = f"unknown split {kind!r}: expected one of {', '.join(SPLIT_KINDS)}"
        raise ValueError(msg)
    lengths = {len(video_ids), len(captured_at), len(channel_id), len(groups)}
    if len(lengths) != 1:
        msg = (
            f"a split needs one value a clip: found {len(video_ids)} ids, {len(captured_at)} "
            f"times, {len(channel_id)} channels and {len(groups)} group numbers"
        )
        raise ValueError(msg)
    if len(video_ids) < MIN_ROWS:
        msg = (
            f"training needs at least {MIN_ROWS} rows: found {len(video_ids)}; "
            "label or fuse more clips of this horizon and strategy"
        )
        raise TooFewRows(msg)
    repeated = len(video_ids) - len(np.unique(video_ids))
    if repeated:
        msg = f"a split needs every clip once: {repeated} rows repeat the id of another"
        raise ValueError(msg)


def _sizes(n: int, ratios: Sequence[float]) -> tuple[int, int, int]:
    """Rows of train, val and test, the rest going to test."""
    try:
        values = [float(ratio) for ratio in ratios]
    except (TypeError, ValueError):
        values = []
    if (
        len(values) != len(PARTS)
        or not all(math.isfinite(ratio) and ratio > 0 for ratio in values)
        or abs(sum(values) - 1) > _RATIO_TOLERANCE
    ):
        msg = (
            "split ratios must be three positive numbers, of train, val and test, with sum 1: "
            f"found {ratios!r}"
        )
        raise BadSplitRatios(msg)
    train, val = int(n * values[0]), int(n * values[1])
    sizes = (train, val, n - train - val)
    if min(sizes) < 1:
        found = ", ".join(f"{part} {size}" for part, size in zip(PARTS, sizes, strict=True))
        msg = f"split ratios must give every part a row: {tuple(values)} of {n} rows give {found}"
        raise BadSplitRatios(msg)
    return sizes


def _plain_random(sizes: Sequence[int], rng: np.random.Generator) -> tuple[Integers, Integers]:
    """The deployed pipeline's draw: rows in shuffled order, and the part of every row."""
    rows = np.arange(sum(sizes))
    rng.shuffle(rows)
    parts = np.empty(len(rows), dtype=np.int64)
    parts[rows] = np.repeat(np.arange(len(PARTS)), sizes)
    return rows, parts


def _random(groups: Integers, sizes: Sequence[int], rng: np.random.Generator) -> Integers:
    rows, parts = _plain_random(sizes, rng)
    _, first = np.unique(groups[rows], return_index=True)
    together: Integers = parts[rows[first]][groups]
    return together


def _windows(captured_at: Moments, sizes: Sequence[int]) -> Integers:
    """The part of every row by its time alone."""
    unknown = int(np.isnat(captured_at).sum())
    if unknown:
        msg = (
            "a chronological split needs the capture time of every row: "
            f"{unknown} of {len(captured_at)} have none"
        )
        raise SplitUnavailable(msg)
    order = np.argsort(captured_at, kind="stable")
    times = captured_at[order]
    cuts = np.flatnonzero(times[1:] != times[:-1]) + 1
    if len(cuts) < len(PARTS) - 1:
        msg = (
            f"a chronological split needs rows captured at {len(PARTS)} moments or more: "
            f"found {len(cuts) + 1}"
        )
        raise SplitUnavailable(msg)
    first = min(int(np.searchsorted(cuts, sizes[0])), len(cuts) - 2)
    second = min(max(int(np.searchsorted(cuts, sizes[0] + sizes[1])), first + 1), len(cuts) - 1)
    windows = np.empty(len(times), dtype=np.int64)
    windows[order] = np.searchsorted(cuts[[first, second]], np.arange(len(times)), side="right")
    return windows


def _components(channel_id: Strings, groups: Integers) -> Integers:
    """Rows that share a channel or a duplicate group, or are linked by rows that do."""
    components = Components(len(groups))
    components.join_equal(channel_id)
    components.join_equal(groups)
    labels = components.labels()
    found = int(labels.max()) + 1
    if found < len(PARTS):
        msg = (
            f"a grouped split needs at least {len(PARTS)} channels that share no duplicates: "
            f"found {found}"
        )
        raise SplitUnavailable(msg)
    return labels


def _grouped(components: Integers, sizes: Sequence[int], rng: np.random.Generator) -> Integers:
    """The part of every row, whole components together, near the sizes asked for.

    Components come in shuffled order, each to the part that lacks the largest share of its rows
    among those with room for it, or else to the one that lacks the most rows. Those larger than the
    smallest part come before, largest first, so that they don't end there for want of room.
    """
    rows = np.bincount(components)
    shuffled = rng.permutation(len(rows))
    large = np.where(rows[shuffled] > min(sizes), rows[shuffled], 0)
    chosen = np.empty(len(rows), dtype=np.int64)
    lacking = list(sizes)
    for place, component in enumerate(shuffled[np.argsort(-large, kind="stable")].tolist()):
        n = int(rows[component])
        empty = [p for p, size in enumerate(sizes) if lacking[p] == size]
        room = [p for p, rest in enumerate(lacking) if rest >= n]
        if len(rows) - place <= len(empty):  # the last ones go where there is nothing yet
            part = max(empty, key=lacking.__getitem__)
        elif room:
            part = max(room, key=lambda p: lacking[p] / sizes[p])
        else:
            part = max(range(len(PARTS)), key=lacking.__getitem__)
        chosen[component] = part
        lacking[part] -= n
    return chosen[components]


def _grouped_in_windows(
    components: Integers,
    windows: Integers,
    ratios: Sequence[float],
    rng: np.random.Generator,
) -> Integers:
    """The part of every row whose component belongs to the window it is in; else `_OUT`.

    A component goes to the part that grows most by it, relative to the rows kept there so far.
    Where all components are spread over time alike, that gives each window's part an equal share of
    them, so kept rows are in the windows' ratios. Components with one window have no choice and
    come first; then the larger before the smaller, ties in shuffled order.
    """
    rows = np.zeros((components.max() + 1, len(PARTS)), dtype=np.int64)
    np.add.at(rows, (components, windows), 1)
    shuffled = rng.permutation(len(rows))
    straddles = (rows[shuffled] > 0).sum(axis=1) > 1
    order = shuffled[np.lexsort((-rows[shuffled].sum(axis=1), straddles))]
    chosen = np.empty(len(rows), dtype=np.int64)
    kept = [0] * len(PARTS)
    to_come = (rows > 0).sum(axis=0).tolist()
    for component in order.tolist():
        inside = rows[component].tolist()
        here = [part for part, n in enumerate(inside) if n]
        # The last that has rows in the window of a part without rows goes there.
        last = [part for part in here if to_come[part] == 1 and not kept[part]]
        part = max(last or here, key=lambda p: inside[p] / (kept[p] + ratios[p]))
        chosen[component] = part
        kept[part] += inside[part]
        for window in here:
            to_come[window] -= 1
    return np.where(windows == chosen[components], windows, _OUT)
