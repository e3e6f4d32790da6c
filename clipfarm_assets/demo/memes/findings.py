"""What became of the edge cases, looked up in what the pipeline stored."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from clipfarm_assets.contracts.meme_rows import SPLITS, RowProblem
from clipfarm_assets.demo.memes.edge_cases import EDGE_CASES, EdgeCase, expected_changes
from clipfarm_assets.demo.memes.sample import image_of
from clipfarm_assets.pipelines.memes.hashes import hash_images
from clipfarm_assets.pipelines.memes.manifest import list_images, read_memes
from clipfarm_assets.pipelines.memes.rows import iter_samples, read_index
from clipfarm_assets.pipelines.memes.splits import read_splits
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tar_shards import BadSample


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case, as `edge_cases.Expected` says what must.

    Attributes:
        problems: Words for what is reported about it.
        split: Where it is a sample; empty if it is none.
        with_first: Whether it is in the group of the set's first meme.
        unused_images: Its pictures that no row names.
    """

    problems: frozenset[str]
    split: str
    with_first: bool
    unused_images: int


@dataclass(frozen=True)
class Outcomes:
    """What became of all.

    Attributes:
        by_case: Name of the case -> what became of it.
        changes: What was done to pictures, in all.
        lines: Lines of the manifest.
        rows: Lines that are rows.
        samples: Rows that are in shards.
        unaccounted: Lines that are neither rows nor reported, and rows that are neither in shards
            nor reported.
    """

    by_case: Mapping[str, Outcome]
    changes: Mapping[str, int]
    lines: int
    rows: int
    samples: int
    unaccounted: int

    def differs(self, case: EdgeCase) -> str:
        """How what became of a case isn't what must; empty if it is."""
        found, expected = self.by_case[case.name], case.expected
        pairs = {
            "reported": (sorted(found.problems), sorted(expected.problems)),
            "in shards": (bool(found.split), expected.in_shards),
            "with the first": (found.with_first, expected.with_first),
            "unused images": (found.unused_images, expected.unused_images),
        }
        return "; ".join(
            f"{what}: expected {wanted}, found {is_}"
            for what, (is_, wanted) in pairs.items()
            if is_ != wanted
        )

    @property
    def as_expected(self) -> bool:
        """Whether every case became what it must, and nothing was dropped in silence."""
        return (
            not any(self.differs(case) for case in EDGE_CASES)
            and dict(self.changes) == expected_changes()
            and self.unaccounted == 0
        )


def look_up(store: ObjectStore, layout: MemeLayout, first_id: str) -> Outcomes:
    """What became of the edge cases of a set that was split and packed.

    Args:
        store: Where it is.
        layout: Where there.
        first_id: Id of the set's first meme.
    """
    memes = read_memes(store, layout)
    images = list_images(store, layout)
    splits = read_splits(store, layout)
    indices = {split: read_index(store, layout, split) for split in SPLITS}
    hashes = hash_images(
        store, layout, (row.image for row in memes.rows), images, limits=splits.images
    )
    of_shards = [problem for index in indices.values() for problem in index.problems]
    problems = [*memes.problems, *hashes.problems(layout), *of_shards]
    bad: list[BadSample] = []
    split_of = {
        str(sample.json["id"]): str(split)
        for split in SPLITS
        for sample in iter_samples(store, layout, split, on_bad=bad.append)
    }
    lines = store.get(layout.manifest()).splitlines()
    named = {row.image for row in memes.rows}
    by_case = {}
    for case in EDGE_CASES:
        mark = image_of(case)
        numbers = [n for n, line in enumerate(lines, 1) if _is_of(line.decode(), case)]
        group = splits.group_of.get(case.meme_id)
        by_case[case.name] = Outcome(
            frozenset(p.kind for p in problems if _is_about(p, case, numbers)),
            split_of.get(case.meme_id, ""),
            group is not None and group == splits.group_of[first_id],
            sum(mark == image for image in images.keys() - named),
        )
    left_out = sum(problem.leaves_out for problem in memes.problems)
    lost = {_id_in(problem.where) for problem in of_shards}
    unpacked = [row.id for row in memes.rows if row.id not in split_of and row.id not in lost]
    return Outcomes(
        by_case,
        dict(sum((Counter(index.changes) for index in indices.values()), Counter())),
        len(lines),
        len(memes.rows),
        len(split_of),
        len(lines) - len(memes.rows) - left_out + len(unpacked) + len(bad),
    )


def _is_of(line: str, case: EdgeCase) -> bool:
    return image_of(case) in line or (bool(case.meme_id) and f'"{case.meme_id}"' in line)


def _is_about(problem: RowProblem, case: EdgeCase, numbers: list[int]) -> bool:
    where = problem.where
    return (
        image_of(case) in where
        or (bool(case.meme_id) and _id_in(where) == case.meme_id)
        or any(re.match(rf"manifest line {number}\b", where) for number in numbers)
    )


def _id_in(where: str) -> str:
    found = re.search(r"\bid (\S+)$", where)
    return found[1] if found else ""
