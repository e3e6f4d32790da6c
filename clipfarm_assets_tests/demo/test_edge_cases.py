import re
from collections import Counter

import pytest

from clipfarm_assets.contracts import statuses
from clipfarm_assets.demo.edge_cases import DATES, EDGE_CASES, FULL, expected_of
from clipfarm_assets.demo.plan import plan_sample


def test_ids_are_valid_unique_and_in_the_csv():
    ids = [case.video_id for case in EDGE_CASES]
    assert len(set(ids)) == len({case.name for case in EDGE_CASES}) == len(EDGE_CASES)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{11}", one) for one in ids)
    in_csv = {row["video_id"] or row["url"][-11:] for row in plan_sample().rows()}
    assert in_csv >= set(ids)


def test_ids_differ_by_more_than_case():
    """Folder stores may lie on file systems that don't tell cases apart."""
    ids = [clip.video_id.lower() for clip in plan_sample().clips]
    assert len(set(ids)) == len(ids)


def test_every_date_has_hard_cases_and_ordinary_clips():
    per_date = Counter(case.date for case in EDGE_CASES)
    assert set(per_date) == set(DATES)
    assert all(5 <= count <= 15 for count in per_date.values())
    by_id = {clip.video_id: clip for clip in plan_sample().clips}
    assert all(by_id[case.video_id].date == case.date for case in EDGE_CASES)


def test_expected_statuses_are_words_of_the_contract():
    embedding = {statuses.SUCCESS, statuses.FAIL, statuses.MISSING_RAW_OBJECT}
    fusion = {
        statuses.SUCCESS_FULL,
        statuses.SUCCESS_TEXT_PLACEHOLDER,
        statuses.MISSING_REQUIRED_MODALITY,
        statuses.MISSING_TEXT_PENDING,
    }
    assert {s for c in EDGE_CASES for s in c.expected.embedding.values()} == embedding
    assert {c.expected.fusion for c in EDGE_CASES} == fusion
    assert all(tuple(c.expected.embedding) == statuses.MODALITIES for c in EDGE_CASES)


def test_expected_fusion_follows_from_what_is_planned():
    """The gating table of the fusion contract, section 3.3, applied to the plan."""
    for clip in plan_sample().clips:
        expected = expected_of(clip.video_id)
        state = clip.text_state
        if {expected.video, expected.audio} != {statuses.SUCCESS}:
            fusion = statuses.MISSING_REQUIRED_MODALITY
        elif expected.text == statuses.SUCCESS:
            fusion = statuses.SUCCESS_FULL
        elif (
            state is not None
            and state.url in (None, clip.url)
            and state.status in statuses.DEFAULT_TERMINAL_TEXT_STATUSES
        ):
            fusion = statuses.SUCCESS_TEXT_PLACEHOLDER
        else:
            fusion = statuses.MISSING_TEXT_PENDING
        assert expected.fusion == fusion, clip.video_id


def test_an_ordinary_clip_is_embedded_and_fused_in_full():
    hard = {case.video_id for case in EDGE_CASES}
    ordinary = [clip for clip in plan_sample().clips if clip.video_id not in hard]
    assert len(ordinary) >= 20
    assert all(expected_of(clip.video_id) == FULL for clip in ordinary)


def test_too_few_clips_for_the_edge_cases_are_refused():
    with pytest.raises(ValueError, match="clips_per_date must be 12 or more"):
        plan_sample(clips_per_date=11)
