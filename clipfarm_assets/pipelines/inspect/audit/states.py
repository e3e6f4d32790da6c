"""A stage's rows as the next run takes them: the ledger's, and newer ones that were published."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from operator import attrgetter

from clipfarm_assets.ledger.published import BadState, sqlite_to_items
from clipfarm_assets.ledger.rules import newest
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.inspect.audit.findings import Findings

_ID = attrgetter("video_id")


@dataclass(frozen=True)
class StageRows:
    """A stage's rows, in two places.

    The ledger's are streamed; the published ones are in memory, as when they are restored.

    Attributes:
        deployment: Whose ledger and store.
        stage: Its name.
        published: The rows of the object in ``state/``, by video_id.
    """

    deployment: Deployment
    stage: str
    published: Mapping[str, Item]

    @classmethod
    def of(cls, deployment: Deployment, stage: str, findings: Findings) -> "StageRows":
        """Read the published object, if there is one; one that can't be read is a finding."""
        key = deployment.layout.state(stage)
        published: dict[str, Item] = {}
        try:
            published = sqlite_to_items(deployment.store.get(key), key)
        except FileNotFoundError:
            pass  # nothing was published yet
        except BadState as error:
            findings.add("bad_state", key, str(error))
        findings.examined["published rows"] += len(published)
        return cls(deployment, stage, published)

    def __iter__(self) -> Iterator[Item]:
        """The newest row of each clip, in the order of their ids."""
        for _, newest_one in self.pairs():
            yield newest_one

    def pairs(self) -> Generator[tuple[Item | None, Item], None, None]:
        """Of each clip the published row, None if there is none, and the newest of the two."""
        theirs = (self.published[video_id] for video_id in sorted(self.published))
        with closing(self.deployment.ledger.stream(self.stage)) as ours:
            # Of equal ids `merge` gives the first source's first.
            for video_id, rows in groupby(merge(ours, theirs, key=_ID), _ID):
                first, *other = rows
                published = self.published.get(video_id)
                yield published, newest(first, other[0]) if other else first
