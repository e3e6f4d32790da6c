"""Which objects of a store nothing refers to.

A run stores an object first and refers to it later, so that only what is old counts; and what was
referred to until lately may still be read by somebody. Where anything that would have to be asked
can't be, or knows suspiciously little, nothing is an orphan: an error says what is wrong.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.statuses import MODALITIES, STRATEGIES, Modality, Strategy
from clipfarm_assets.ledger.schema import microseconds
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.flow import batched
from clipfarm_assets.pipelines.manifest import shards_of
from clipfarm_assets.pipelines.progress import Say, silent
from clipfarm_assets.pipelines.upkeep import references
from clipfarm_assets.pipelines.upkeep.places import Kind, Place, is_kept, place_of
from clipfarm_assets.pipelines.upkeep.references import FusedReferences
from clipfarm_assets.storage.objects import ObjectInfo
from clipfarm_assets.storage.unfinished import unfinished_writes, written_key

OrphanKind = Literal[Kind, "unfinished_write"]

YOUNG: Final = "written too lately"
REPLACED_LATELY: Final = "replaced too lately: a reader may still have the old pointers"
LINKED: Final = "behind a symbolic link"
LAST_OF_DATE: Final = "the last shard of its date: its number must not be given again"
NOT_MERGED: Final = "a shard that no manifest has looked at yet"
UNREADABLE: Final = "a shard that can't be read"
NO_ARCHIVE: Final = "a shard whose lock's archived manifest is gone"
UNVERSIONED: Final = "of an older deployment, whose ledger may not know all of its vectors"

_ROWS_AT_ONCE: Final = 10_000
_SHOWN: Final = 20
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class NothingKnown(RuntimeError):  # noqa: N818 - a state of the deployment
    """The ledger knows nothing of what the store is full of: it may be the wrong one."""


@dataclass(frozen=True)
class Orphan:
    """An object that nothing refers to.

    Attributes:
        key: Its key; of an unfinished write the staged file's name below the store's root.
        kind: What it is.
        size: In bytes.
        modified: When it was written.
        place: What its key names; None of an unfinished write.
        video_ids: Of a shard: whose rows are in it.
    """

    key: str
    kind: OrphanKind
    size: int
    modified: datetime
    place: Place | None = None
    video_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What a look at the whole store gave.

    Attributes:
        cutoff: Only what was written before it is an orphan.
        orphans: Sorted by key.
        examined: How many objects of each kind there are.
        spared: Number of objects that nothing refers to and that stay, by reason.
        not_ours: Number of objects below the prefix that no run of the pipeline made.
        not_ours_bytes: Theirs.
        not_ours_keys: The first of them, raw media and the metadata CSV left out.
    """

    cutoff: datetime
    orphans: tuple[Orphan, ...]
    examined: Mapping[str, int]
    spared: Mapping[str, int]
    not_ours: int
    not_ours_bytes: int
    not_ours_keys: tuple[str, ...]

    def by_kind(self) -> dict[str, tuple[int, int]]:
        """Number and bytes of the orphans of each kind."""
        counted: dict[str, tuple[int, int]] = {}
        for orphan in self.orphans:
            number, size = counted.get(orphan.kind, (0, 0))
            counted[orphan.kind] = (number + 1, size + orphan.size)
        return dict(sorted(counted.items()))


Listed = tuple[ObjectInfo, Place]


def find_orphans(deployment: Deployment, cutoff: datetime, say: Say = silent) -> Found:
    """Look at every object below the prefix; nothing is written but newer rows into the ledger.

    Args:
        deployment: Whose store and ledger; the ledger takes newer rows of the published states.
        cutoff: Only what was written before it, by the store's clock, is an orphan.
        say: Told what is looked at.

    Raises:
        NothingKnown: The ledger knows no vector of a modality or shard of a strategy that there is.
        NoLock, LockMismatch, BadLock, BadManifest, BadState, BadSnapshot, BadDataset: Something
            that has to be asked can't be.
        OutsideStore: A link leads out of the store.
    """
    return _Look(deployment, cutoff, say).found()


@dataclass
class _Look:
    """One look at a store."""

    deployment: Deployment
    cutoff: datetime
    say: Say
    spared: Counter[str] = field(default_factory=Counter)

    def found(self) -> Found:
        layout, store = self.deployment.layout, self.deployment.store
        for modality in MODALITIES:
            self.deployment.restore(statuses.embedding_stage(modality))
        for strategy in STRATEGIES:
            self.deployment.restore(statuses.fusion_stage(strategy))
        infos = list(store.list(f"{layout.prefix}/"))
        keys = {info.key for info in infos}
        self.say(f"{len(infos)} objects below {layout.prefix}/")
        ours: dict[Kind, list[Listed]] = defaultdict(list)
        others: list[ObjectInfo] = []
        for info in infos:
            place = place_of(layout, info.key)
            if place is not None:
                ours[place.kind].append((info, place))
            elif not is_kept(layout, info.key):
                others.append(info)
        fused = {
            strategy: found
            for strategy in STRATEGIES
            if (found := references.fused_references(self.deployment, strategy, keys))
        }
        named = frozenset[str]().union(*(found.embeddings for found in fused.values()))
        staged = list(unfinished_writes(store, layout.prefix))
        others += [info for info in staged if not self._is_ours(info)]
        unfinished = [i for i in staged if self._is_ours(i) and self._is_old(i)]
        orphans = [
            *self._embeddings(ours["embedding"], named),
            *self._shards(ours["shard"], fused),
            *self._deltas(ours["manifest_delta"], fused),
            *self._datasets(ours["training_dataset"], keys),
            *self._plain(ours["snapshot_staging"]),
            *self._plain(ours["probe"]),
            *(_orphan(info, None) for info in unfinished),
        ]
        raw = f"{layout.prefix}/raw/"
        shown = [i.key for i in others if not i.key.startswith(raw) and i.key != layout.metadata()]
        return Found(
            self.cutoff,
            tuple(sorted(orphans, key=lambda orphan: orphan.key)),
            {kind: len(listed) for kind, listed in sorted(ours.items()) if listed},
            dict(sorted(self.spared.items())),
            len(others),
            sum(info.size for info in others),
            tuple(shown[:_SHOWN]),
        )

    def _embeddings(self, listed: Sequence[Listed], named: frozenset[str]) -> Iterable[Orphan]:
        for modality in MODALITIES:
            of_modality = [(info, place) for info, place in listed if place.modality == modality]
            if of_modality:
                yield from self._of_modality(modality, of_modality, named)

    def _of_modality(
        self, modality: Modality, listed: Sequence[Listed], named: frozenset[str]
    ) -> Iterable[Orphan]:
        stage, ledger = statuses.embedding_stage(modality), self.deployment.ledger
        latest = ledger.latest(stage, statuses.SUCCESS)
        if latest is None:
            raise _nothing_known(len(listed), f"{modality} vectors", stage)
        for some in batched(listed, _ROWS_AT_ONCE):
            known = ledger.columns(stage, [place.video_id for _, place in some], "status")
            for info, place in some:
                states = known.get(place.video_id, (statuses.FORGOTTEN,))
                if states != (statuses.FORGOTTEN,) or info.key in named:
                    continue
                if latest.version is None and place.video_id not in known:
                    self.spared[UNVERSIONED] += 1
                elif self._is_old(info):
                    yield _orphan(info, place)

    def _shards(
        self, listed: Sequence[Listed], fused: Mapping[Strategy, FusedReferences]
    ) -> Iterable[Orphan]:
        for strategy, found in fused.items():
            of_strategy = [(info, place) for info, place in listed if place.strategy == strategy]
            if of_strategy:
                yield from self._of_strategy(strategy, of_strategy, found)

    def _of_strategy(
        self, strategy: Strategy, listed: Sequence[Listed], found: FusedReferences
    ) -> Iterable[Orphan]:
        stage, ledger = statuses.fusion_stage(strategy), self.deployment.ledger
        if not any(ledger.latest(stage, status) for status in statuses.FUSED):
            raise _nothing_known(len(listed), f"shards of {strategy}", stage)
        last: dict[str, int] = {}
        for _, place in listed:
            last[place.date] = max(place.part, last.get(place.date, 0))
        candidates: dict[str, Listed] = {}
        for info, place in listed:
            if info.key in found.pointed:
                continue
            if place.part == last[place.date]:
                self.spared[LAST_OF_DATE] += 1
            elif info.key not in found.recorded:
                self.spared[NOT_MERGED] += 1
            elif self._is_old(info):
                candidates[info.key] = (info, place)
        for key, shard in shards_of(self.deployment, list(candidates)):
            if isinstance(shard, str):
                self.spared[UNREADABLE] += 1
                continue
            version = shard.lock_version()
            if version != found.lock_version and version not in found.archived:
                self.spared[NO_ARCHIVE] += 1
                continue
            ids = tuple(dict.fromkeys(shard.video_ids.tolist()))
            states = ledger.columns(stage, ids, "artifact_key", "processed_at")
            if any(artifact == key for artifact, _ in states.values()):
                continue
            if any(self._is_late(moment) for _, moment in states.values()):
                self.spared[REPLACED_LATELY] += 1
                continue
            yield _orphan(*candidates[key], ids)

    def _deltas(
        self, listed: Sequence[Listed], fused: Mapping[Strategy, FusedReferences]
    ) -> Iterable[Orphan]:
        superseded = frozenset[str]().union(*(found.superseded for found in fused.values()))
        return self._plain([(info, place) for info, place in listed if info.key in superseded])

    def _datasets(self, listed: Sequence[Listed], keys: set[str]) -> Iterable[Orphan]:
        if not listed:
            return
        trained = references.trained_datasets(self.deployment, keys)
        folders = {place.dataset for _, place in listed}
        current = {f: references.current_dataset(self.deployment, f) for f in folders}
        lately = {folder for folder in folders if self._renamed_lately(folder)}
        for info, place in listed:
            if place.sha256 in trained or place.sha256 == current[place.dataset]:
                continue
            if place.dataset in lately:
                self.spared[REPLACED_LATELY] += 1
            elif self._is_old(info):
                yield _orphan(info, place)

    def _renamed_lately(self, folder: str) -> bool:
        """Whether the folder's current dataset became that after the cutoff."""
        try:
            head = self.deployment.store.head(f"{folder}dataset.json")
        except FileNotFoundError:
            return False
        return head.modified is None or head.modified >= self.cutoff

    def _is_ours(self, staged: ObjectInfo) -> bool:
        """Whether a staged file would have become an object of ours: others' names end so too."""
        key, layout = written_key(staged), self.deployment.layout
        return place_of(layout, key) is not None or is_kept(layout, key)

    def _plain(self, listed: Sequence[Listed]) -> Iterable[Orphan]:
        return [_orphan(info, place) for info, place in listed if self._is_old(info)]

    def _is_old(self, info: ObjectInfo) -> bool:
        if info.is_linked:
            self.spared[LINKED] += 1
            return False
        if info.modified is None or info.modified >= self.cutoff:
            self.spared[YOUNG] += 1
            return False
        return True

    def _is_late(self, processed_at: str) -> bool:
        return microseconds(processed_at) >= (self.cutoff - _EPOCH) // timedelta(microseconds=1)


def _orphan(info: ObjectInfo, place: Place | None, video_ids: tuple[str, ...] = ()) -> Orphan:
    kind: OrphanKind = "unfinished_write" if place is None else place.kind
    return Orphan(info.key, kind, info.size, info.modified or _EPOCH, place, video_ids)


def _nothing_known(number: int, what: str, stage: str) -> NothingKnown:
    return NothingKnown(
        f"the ledger must know the {number} {what} that the store has: stage {stage} has no "
        "success at all; is CLIPFARM_LEDGER the ledger of this CLIPFARM_STORE? Nothing was removed"
    )
