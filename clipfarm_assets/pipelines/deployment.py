"""One deployment: a store, where its things lie, and the ledger of what was done to them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.text_gate import TextState
from clipfarm_assets.encoders.models_lock import ModelsLock
from clipfarm_assets.encoders.precision.verdicts import Verdicts
from clipfarm_assets.ledger import published
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.ledger.sqlite_file import BadState
from clipfarm_assets.ledger.text_state import read_text_state
from clipfarm_assets.pipelines.flow import batched
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets.training.song_config import SongConfig

_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class TextStates:
    """The text downloader's state, or why there is none to read."""

    by_id: dict[str, TextState]
    unavailable: str = ""


@dataclass(frozen=True)
class Deployment:
    """What every step works on.

    Attributes:
        store: All objects.
        layout: Where those of the clip pipeline lie.
        ledger: What was done to clips.
        memes: Where those of the meme pipeline lie.
        songs: Where those of the song pipeline lie.
        song_config: How songs are prepared and learned.
    """

    store: ObjectStore
    layout: Layout
    ledger: Ledger
    memes: MemeLayout = field(default_factory=MemeLayout)
    songs: SongLayout = field(default_factory=SongLayout)
    song_config: SongConfig = field(default_factory=SongConfig)

    def standing(self, stage: str, video_ids: Sequence[str]) -> dict[str, int]:
        """How clips stand in a stage: number by status; ``(none)`` for those it doesn't know."""
        found: Counter[str] = Counter()
        for some in batched(video_ids, _ROWS_AT_ONCE):
            rows = self.ledger.rows(stage, some)
            found.update(rows[i].status if i in rows else "(none)" for i in some)
        return dict(sorted(found.items()))

    def models_lock(self) -> ModelsLock:
        """The record of which models this deployment's vectors were made with."""
        verdicts = Verdicts(self.store, self.layout.equivalence())
        return ModelsLock(self.store, self.layout.models_lock(), verdicts)

    def restore(self, stage: str) -> int:
        """Take newer rows of the stage's published state into the ledger; returns how many."""
        return published.restore(self.ledger, self.store, self.layout.state(stage), stage)

    def publish(self, stage: str) -> None:
        """Publish the stage's rows to the store, in the documented form."""
        published.publish(self.ledger, self.store, self.layout.state(stage), stage)

    def forgotten(self) -> frozenset[str]:
        """The clips that were removed for good, by whomever: `clipfarm forget`."""
        stage = statuses.embedding_stage(statuses.MODALITIES[0])
        self.restore(stage)
        return frozenset(self.ledger.ids_of_status(stage, {statuses.FORGOTTEN}))

    def forgotten_among(self, video_ids: Sequence[str]) -> list[str]:
        """Those of the clips that were removed for good, by whomever: `clipfarm forget`."""
        if not video_ids:
            return []
        stage = statuses.embedding_stage(statuses.MODALITIES[0])
        self.restore(stage)
        found = self.ledger.columns(stage, video_ids, "status")
        return [i for i, (status,) in found.items() if status == statuses.FORGOTTEN]

    def text_states(self) -> TextStates:
        """What the text downloader wrote last. Read only: that file is not ours."""
        key = self.layout.text_downloader_state()
        try:
            return TextStates(read_text_state(self.store, key))
        except FileNotFoundError:
            return TextStates({}, f"{key} does not exist")
        except BadState as error:
            return TextStates({}, str(error))
