"""``make ui`` over memes: from a folder of images and JSON lines to models, and what a person sees.

The experts are tiny stand-ins, as the deployment's settings say.
"""

import base64
import json

import pytest

from clipfarm_assets.contracts.meme_rows import SPLITS
from clipfarm_assets.demo.memes.edge_cases import EDGE_CASES
from clipfarm_assets.demo.memes.sample import make_memes
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets_tests.defs.meme_kit import LABEL, MemeBench
from clipfarm_assets_tests.defs.test_definitions import MEME_ASSETS, MEME_CHECKS
from clipfarm_assets_tests.e2e import kit
from clipfarm_assets_tests.e2e.browser import browsing, require_chromium
from clipfarm_assets_tests.e2e.dagster_server import serving

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

ROWS = 96
NAMES = sorted(key.removeprefix("memes/") for key in MEME_ASSETS)
VERDICT = "memes/evaluation:fusion_beats_unimodal"
PLOTS = ("confusion", "curves", "intervals", "reliability", "roc")
_PATIENCE = 600


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("site")
    told = {
        modality: json.dumps({"base": str(path), "max_epochs": 1})
        for modality, path in MemeBench(root).bases.items()
    }
    site = kit.Site(
        root,
        {
            "CLIPFARM_TEXT_EXPERT_CONFIG": told["text"],
            "CLIPFARM_VISION_EXPERT_CONFIG": told["vision"],
        },
    )
    site.prepare()
    make_memes(site.store, MemeLayout(), "xor", ROWS, edge_cases=True)
    return site


@pytest.fixture(scope="module")
def server(site):
    require_chromium()
    with serving(site) as started:
        yield started


@pytest.fixture(scope="module")
def trained(server):
    """All of the pipeline, run as a person would: observe, divide, pack, train."""
    for job in ("memes_observe", "memes_split"):
        server.finish(server.launch(job), _PATIENCE)
    server.finish(server.launch("memes_pack", span=(SPLITS[0], SPLITS[-1])), _PATIENCE)
    server.finish(server.launch("memes_train", LABEL), _PATIENCE)
    return server


# The tests below are one story, in this order: each step needs what the one before made.


def test_all_splits_are_packed_in_one_run(trained):
    shards = trained.materialised("shards", "memes")
    assert set(shards) == set(SPLITS)
    assert len({found["run"] for found in shards.values()}) == 1
    rows = sum(found["dagster/row_count"] for found in shards.values())
    assert rows == ROWS + sum(case.expected.in_shards for case in EDGE_CASES)


@pytest.fixture(scope="module")
def page(trained):
    with browsing(trained.url) as opened:
        yield opened


def test_a_person_sees_the_group(page, tmp_path):
    page.resize(2000, 1125, scale=0.8)
    page.open("/locations/clipfarm/asset-groups/memes")
    page.until_it_shows("memes", "Asset Group in", *NAMES)
    assert len(page.boxes(NAMES)) >= len(NAMES)
    assert page.picture("meme-graph", tmp_path).startswith(b"\x89PNG")
    page.resize(1600, 900)


def test_a_person_sees_what_is_wrong_with_the_memes(page, tmp_path):
    page.open("/assets/memes/manifest?view=events")
    page.until_it_shows("lines_left_out", "problem/duplicate_id", "problem/image_not_found")
    page.picture("meme-manifest", tmp_path)


def test_a_person_sees_a_split(page, tmp_path):
    page.open("/assets/memes/shards?view=partitions&partition=test")
    page.until_it_shows(*SPLITS, "Materialized", "problem_samples", "memes_per_second")
    page.picture("meme-shards", tmp_path)


def test_a_person_sees_that_an_expert_is_a_stand_in(page, tmp_path):
    page.open(f"/assets/memes/text_expert?view=partitions&partition={LABEL}")
    page.until_it_shows("stand-in", "plot/curves", "weights_sha256")
    page.picture("text-expert", tmp_path)


@pytest.mark.parametrize("plot", PLOTS)
def test_a_person_sees_the_plots_of_an_evaluation(site, page, tmp_path, plot):
    stored = site.store.get(f"{MemeLayout().evaluation(LABEL)}plots/{plot}.png")
    page.open(f"/assets/memes/evaluation?view=partitions&partition={LABEL}")
    page.click(f"//tr[td[.='plot/{plot}']]//*[contains(text(), 'Show Markdown')]")
    (image,) = page.until(page.inline_images)
    assert base64.b64decode(image["src"].partition(",")[2]) == stored
    assert image["width"] > 200, "the picture is broken"
    assert image["shown"] > 0
    page.picture(f"meme-plot-{plot}", tmp_path)


@pytest.mark.parametrize("key", [key for key in sorted(MEME_CHECKS) if key != VERDICT])
def test_a_person_sees_that_a_check_passed(page, tmp_path, key):
    asset, name = key.split(":")
    page.open(f"/assets/{asset}?view=checks&checkDetail={name}")
    page.until_it_shows(name, "Succeeded", "Passed", "examined")
    page.picture(f"check-{asset.removeprefix('memes/')}-{name}", tmp_path)


def test_a_person_sees_the_verdict_and_its_lower_bound(site, trained, page, tmp_path):
    metrics = json.loads(site.store.get(f"{MemeLayout().evaluation(LABEL)}metrics.json"))
    verdict = metrics["splits"]["test"]["verdict"]
    assert trained.checks("evaluation", "fusion_beats_unimodal", "memes") == {
        LABEL: verdict["fusion_wins"]
    }
    asset, name = VERDICT.split(":")
    page.open(f"/assets/{asset}?view=checks&checkDetail={name}")
    serves = "fusion" if verdict["fusion_wins"] else f"{verdict['best_unimodal']} alone"
    page.until_it_shows(name, "lower_bound", "verdict", verdict["told"][:40], serves)
    page.picture("check-evaluation-fusion_beats_unimodal", tmp_path)
