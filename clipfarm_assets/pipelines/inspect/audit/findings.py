"""What an audit finds: every finding counted, the first ones kept."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

Kind = Literal[
    "missing_object",
    "bad_vector",
    "other_bytes",
    "missing_shard",
    "bad_shard",
    "dangling_pointer",
    "other_row",
    "lost_row",
    "duplicate_row",
    "forgotten_remains",
    "bad_manifest",
    "bad_lock",
    "bad_state",
    "bad_table",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

_EMBED_AGAIN: Final = "materialise its embedding asset, its date, with verify_objects: true"
_FUSE_AGAIN: Final = "materialise clips/fused_shards with verify_objects: true, then fused_manifest"
_RESTORE: Final = "restore it from a backup"
REMEDIES: Final[Mapping[Kind, str]] = {
    "missing_object": _EMBED_AGAIN,
    "bad_vector": _EMBED_AGAIN,
    "other_bytes": _EMBED_AGAIN,
    "missing_shard": _FUSE_AGAIN,
    "bad_shard": f"delete the shard, then {_FUSE_AGAIN}",
    "dangling_pointer": _FUSE_AGAIN,
    "other_row": f"{_RESTORE}, or delete manifest and deltas and materialise fused_manifest",
    "lost_row": "delete manifest and deltas and materialise clips/fused_manifest",
    "duplicate_row": "delete manifest and deltas and materialise clips/fused_manifest",
    "forgotten_remains": "run clipfarm forget VIDEO_ID --yes again",
    "bad_manifest": f"{_RESTORE}, or delete it and materialise clips/fused_manifest",
    "bad_lock": _RESTORE,
    "bad_state": f"{_RESTORE}, or delete it: the next run publishes the ledger's rows",
    "bad_table": "materialise its asset, its date, again",
}
"""What to do about a finding of each kind."""

MOST_KEPT: Final = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: What kind of wrong.
        subject: What is wrong: a key, or a clip and where it is named.
        problem: In words: what was expected, and what was found.
    """

    kind: Kind
    subject: str
    problem: str


class Findings:
    """Takes findings and counts, and keeps a bounded number of them."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        """Keep the first `most` findings; count all."""
        self._most = most
        self.kept: list[Finding] = []
        self.counts: Counter[Kind] = Counter()
        self.examined: Counter[str] = Counter()

    def add(self, kind: Kind, subject: str, problem: str) -> None:
        """One more."""
        self.counts[kind] += 1
        if len(self.kept) < self._most:
            self.kept.append(Finding(kind, subject, problem))


@dataclass(frozen=True)
class Audit:
    """What an audit gave.

    Attributes:
        examined: Number of things looked at, by what they are.
        counts: Number of findings by kind; empty if all is sound.
        findings: The first `MOST_KEPT` of them, in the order in which they were found.
        unmerged: Shards that no manifest has looked at yet: the next update of it does. Not a
            finding: a run that was killed leaves such.
    """

    examined: Mapping[str, int]
    counts: Mapping[Kind, int]
    findings: tuple[Finding, ...]
    unmerged: int = 0

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.counts
