"""What a model relies on, against plain versions and against models of known reliance."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from clipfarm_assets.contracts.statuses import MODALITIES, STRATEGIES
from clipfarm_assets.fusion.static import fuse
from clipfarm_assets.training.families import open_family
from clipfarm_assets.training.importance import (
    fused_again,
    permutation_importance,
    with_permuted_modality,
    without_modality,
)
from clipfarm_assets_tests.training.bench import QUICK, quiet  # noqa: F401 - quiet is a fixture
from clipfarm_assets_tests.training.kit import planted, planted_rows, rmse, unheard


@pytest.fixture(scope="module")
def rows():
    return planted(400, noise=0.2)


def fitted(family, rows):
    return open_family(family).fit(rows.train, rows.val, rows.encoder, QUICK, 0, unheard)


class Reads:
    """A model that predicts a function of the clips."""

    def __init__(self, function):
        self.predict = function


def drops(model, rows, **options):
    table = permutation_importance(model, rows, "concat", **{"seed": 0, **options})
    return {row["feature"]: row for row in table.iter_rows(named=True)}


def refused(strategy, *, mask):
    """Labelled clips fused by a strategy."""
    rows = planted_rows(60)
    c = rows.clips
    fused = fuse(strategy, c.video, c.audio, c.text, c.text_present, append_mask=mask)
    return replace(c, fused=fused)


def same(one, other):
    assert one.metadata.equals(other.metadata)
    for name in ("fused", *MODALITIES, "text_present", "video_ids", "channel_id", "published_at"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    return True


BOTH = [(s, mask) for s in STRATEGIES for mask in (True, False)]


@pytest.mark.parametrize(("strategy", "mask"), BOTH)
def test_all_modalities_permuted_alike_is_the_clips_permuted(strategy, mask):
    clips = refused(strategy, mask=mask)
    before = clips.fused.copy()
    order = np.random.default_rng(0).permutation(len(clips))
    permuted = clips
    for modality in MODALITIES:
        permuted = with_permuted_modality(permuted, strategy, modality, order)
    assert np.array_equal(permuted.fused, clips.fused[order])
    assert np.array_equal(permuted.text_present, clips.text_present[order])
    assert permuted.video_ids.tolist() == clips.video_ids.tolist()
    assert permuted.metadata.equals(clips.metadata)
    assert np.array_equal(clips.fused, before), "what was given stays as it was"


@pytest.mark.parametrize(("strategy", "mask"), BOTH)
@pytest.mark.parametrize("modality", MODALITIES)
def test_one_modality_permuted_is_clip_by_clip_what_fusion_makes_of_it(strategy, mask, modality):
    clips = refused(strategy, mask=mask)
    assert same(fused_again(clips, strategy), clips)
    order = np.random.default_rng(1).permutation(len(clips))
    permuted = with_permuted_modality(clips, strategy, modality, order)
    assert permuted.fused.shape == clips.fused.shape
    for i, j in enumerate(order):
        of = {m: getattr(clips, m)[[j if m == modality else i]] for m in MODALITIES}
        there = clips.text_present[[j if modality == "text" else i]]
        fused = fuse(strategy, of["video"], of["audio"], of["text"], there, append_mask=mask)
        assert np.array_equal(permuted.fused[i], fused[0])
        assert permuted.text_present[i] == there[0]
        assert all(np.array_equal(getattr(permuted, m)[i], of[m][0]) for m in MODALITIES)
        assert permuted.text[i].any() == there[0], "text is zero where there is none"


@pytest.mark.parametrize(("strategy", "mask"), BOTH)
def test_a_modality_taken_away_is_zero_in_the_fused_vector_too(strategy, mask):
    clips = refused(strategy, mask=mask)
    for modality in MODALITIES:
        bare = without_modality(clips, strategy, modality)
        assert not getattr(bare, modality).any()
        kept = [m for m in MODALITIES if m != modality]
        assert all(np.array_equal(getattr(bare, m), getattr(clips, m)) for m in kept)
        present = clips.text_present & (modality != "text")
        assert np.array_equal(bare.text_present, present)
        fused = fuse(strategy, bare.video, bare.audio, bare.text, present, append_mask=mask)
        assert np.array_equal(bare.fused, fused)
        assert not np.array_equal(bare.fused, clips.fused)
        if mask:
            assert np.array_equal(bare.fused[:, -1], present)


def test_what_does_not_matter_has_no_drop_and_what_does_has_one(rows):
    found = drops(fitted("ridge", rows), rows.test)
    # By the law: duration decides, the length of the title, country and language do not.
    for name in ("title_length", "channel_country", "default_language"):
        assert abs(found[name]["drop"]) < 0.02, found[name]
    assert found["duration_seconds"]["drop"] > 0.2
    assert found["video"]["drop"] > found["text"]["drop"] > 0.02
    assert {name: row["kind"] for name, row in found.items()} == {
        **dict.fromkeys(MODALITIES, "modality"),
        **dict.fromkeys(rows.test.clips.metadata.columns, "metadata"),
    }


def test_a_model_that_ignores_an_input_has_exactly_zero_for_it(rows):
    found = drops(fitted("metadata_only", rows), rows.test)
    assert found["duration_seconds"]["drop"] > 0.1
    assert [(found[m]["drop"], found[m]["spread"]) for m in MODALITIES] == [(0.0, 0.0)] * 3
    everything = drops(fitted("mean", rows), rows.test)
    assert {(row["drop"], row["spread"]) for row in everything.values()} == {(0.0, 0.0)}


@pytest.mark.parametrize(
    ("function", "read"),
    [
        (lambda clips: clips.audio[:, 0].astype(float), {"audio"}),
        (lambda clips: clips.fused[:, 8].astype(float), {"audio"}),
        (lambda clips: clips.fused[:, 3].astype(float), {"video"}),
        (lambda clips: clips.text_present.astype(float), {"text"}),
        (lambda clips: clips.fused[:, -1].astype(float), {"text"}),
        (lambda clips: clips.fused[:, 17] + clips.fused[:, 0].astype(float), {"video", "text"}),
        (lambda clips: clips.metadata["duration_seconds"].to_numpy(), {"duration_seconds"}),
        (lambda clips: clips.metadata["title_length"].is_null().to_numpy() * 1.0, {"title_length"}),
        (lambda clips: np.char.str_len(clips.channel_id).astype(float), set()),
    ],
    ids=[
        "audio",
        "fused audio",
        "fused video",
        "presence",
        "mask",
        "two",
        "number",
        "gaps",
        "none",
    ],
)
def test_exactly_what_is_read_counts(rows, function, read):
    model = Reads(function)
    test = replace(rows.test, target_log=function(rows.test.clips))
    found = drops(model, test)
    assert {name for name, row in found.items() if row["drop"] > 0} == read
    assert all(row["drop"] == 0 for name, row in found.items() if name not in read)


def test_a_drop_is_the_mean_increase_of_the_error(rows):
    model, test = fitted("ridge", rows), rows.test
    found = drops(model, test, repeats=3, seed=7)
    base = rmse(model, test)
    rng = np.random.default_rng([7, len(MODALITIES)])
    name = test.clips.metadata.columns[0]
    increases = []
    for _ in range(3):
        values = [test.clips.metadata[name][int(i)] for i in rng.permutation(len(test))]
        column = pl.Series(name, values, dtype=pl.Float64)
        metadata = test.clips.metadata.with_columns(column)
        changed = replace(test, clips=replace(test.clips, metadata=metadata))
        increases.append(rmse(model, changed) - base)
    assert found[name]["drop"] == pytest.approx(np.mean(increases), abs=1e-12)
    assert found[name]["spread"] == pytest.approx(np.std(increases), abs=1e-12)


def test_the_seed_decides_and_one_inputs_permutations_do_not_depend_on_the_others(rows):
    model = fitted("ridge", rows)
    table = permutation_importance(model, rows.test, "concat", seed=1)
    assert table.equals(permutation_importance(model, rows.test, "concat", seed=1))
    assert not table.equals(permutation_importance(model, rows.test, "concat", seed=2))
    drops_in_order = table["drop"].to_list()
    assert drops_in_order == sorted(drops_in_order, reverse=True)
    assert table.columns == ["feature", "kind", "drop", "spread"]
    bare = Reads(lambda clips: clips.video[:, 0].astype(float))
    fewer = replace(rows.test.clips, metadata=rows.test.clips.metadata[:, :1])
    few = drops(bare, replace(rows.test, clips=fewer))
    all_of_them = drops(bare, rows.test)
    assert few["video"] == all_of_them["video"]
    assert len(few) == len(MODALITIES) + 1
