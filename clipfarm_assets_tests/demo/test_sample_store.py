import hashlib
from pathlib import Path

from clipfarm_assets.contracts.horizon_csv import latest_rows, read_horizon_csv
from clipfarm_assets.demo.edge_cases import DATES, EDGE_CASES
from clipfarm_assets.demo.plan import plan_sample
from clipfarm_assets.demo.sample_store import make_sample_store, older_metadata_key
from clipfarm_assets.demo.stray_rows import EXPECTED_CSV_SKIPS
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore


def hashes(folder: Path):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes_under_any_layout(sample, tmp_path):
    layout = Layout(prefix="elsewhere")
    make_sample_store(ObjectStore.open(str(tmp_path)), layout)
    moved = {key.replace("elsewhere/", "clipfarm/", 1): h for key, h in hashes(tmp_path).items()}
    plain = hashes(sample.folder)
    # The state file names keys, so it follows the layout.
    state = Layout().text_downloader_state()
    assert moved.pop(state) != plain.pop(state)
    assert moved == plain


def test_another_seed_gives_another_sample():
    one, other = plan_sample(seed=1), plan_sample(seed=2)
    assert {c.views for c in one.clips}.isdisjoint(c.views for c in other.clips)
    assert plan_sample(seed=1) == one


def test_a_larger_sample_keeps_the_edge_cases():
    clips = plan_sample(clips_per_date=100).clips
    assert len({clip.video_id for clip in clips}) == 300
    assert {clip.video_id for clip in clips} >= {case.video_id for case in EDGE_CASES}


def test_the_report_counts_what_is_there(sample):
    report = sample.report
    files = [path for path in sample.folder.rglob("*") if path.is_file()]
    assert report.clips_by_date == dict.fromkeys(DATES, 20)
    assert sum(report.objects.values()) == len(files)
    assert report.bytes == sum(path.stat().st_size for path in files)
    assert report.bytes < 20_000_000
    assert report.csv_rows == len(plan_sample().rows())
    assert report.edge_cases == EDGE_CASES
    for modality in ("video", "audio", "text"):
        found = list((sample.folder / f"clipfarm/raw/{modality}").iterdir())
        assert report.objects[modality] == len(found)


def test_the_index_skips_and_dates_what_the_sample_says(sample):
    latest = latest_rows(read_horizon_csv(sample.csv))
    assert latest.skip_counts() == EXPECTED_CSV_SKIPS
    dated = dict(latest.rows.select("video_id", "date").iter_rows())
    assert dated == {clip.video_id: clip.date for clip in sample.clips.values()}
    urls = dict(latest.rows.select("video_id", "url").iter_rows())
    assert {v: url.strip() for v, url in urls.items()} == {
        clip.video_id: clip.url for clip in sample.clips.values()
    }


def test_an_older_file_lies_beside_the_current_one(sample):
    older = read_horizon_csv((sample.folder / older_metadata_key(Layout())).read_bytes())
    assert "channel_median_shorts_view_count" in older.missing_columns
    assert older.undeclared_columns == ()
    assert older.rows.height == 12


def test_progress_counts_to_the_end_and_metadata_comes_last(sample):
    done, totals, what, has_metadata = zip(*sample.progress, strict=True)
    assert done == tuple(range(1, 64))
    assert set(totals) == {63}
    assert what[:60] == tuple(sample.clips)
    assert what[-1] == Layout().metadata()
    # Whoever sees a clip in the metadata finds its objects: until the last call there is none.
    assert has_metadata == (False,) * 62 + (True,)
