from dataclasses import dataclass
from pathlib import Path

import pytest

from clipfarm_assets.demo.clip import Clip
from clipfarm_assets.demo.edge_cases import EDGE_CASES
from clipfarm_assets.demo.plan import plan_sample
from clipfarm_assets.demo.sample_store import SampleReport, make_sample_store
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore


@dataclass(frozen=True)
class Sample:
    folder: Path
    report: SampleReport
    clips: dict[str, Clip]
    progress: list[tuple[int, int, str, bool]]
    """What progress was told, and whether the metadata was there by then."""

    def raw(self, modality: str, case: str) -> Path:
        """The file of an edge case, by the case's name."""
        video_id = next(c.video_id for c in EDGE_CASES if c.name == case)
        return self.folder / Layout().raw(modality, video_id)

    @property
    def csv(self) -> bytes:
        return (self.folder / Layout().metadata()).read_bytes()


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    store = ObjectStore.open(str(folder))
    told: list[tuple[int, int, str, bool]] = []

    def progress(done, total, what):
        told.append((done, total, what, store.exists(Layout().metadata())))

    report = make_sample_store(store, progress=progress)
    clips = {clip.video_id: clip for clip in plan_sample().clips}
    return Sample(folder, report, clips, told)
