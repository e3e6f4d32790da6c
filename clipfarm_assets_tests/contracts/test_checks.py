import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from clipfarm_assets.contracts import checks
from clipfarm_assets.contracts.checks import Finding, Verdict
from clipfarm_assets.contracts.fused_shard import strings
from clipfarm_assets.contracts.schema_lock import UNVERSIONED
from clipfarm_assets_tests.contracts.builders import (
    KEY,
    VERSIONS,
    make_lock,
    make_placeholder,
    make_row,
    make_shard,
    to_table,
)


def frame(*rows):
    return pl.DataFrame(to_table(*rows))


def told(verdict):
    return [str(finding) for finding in verdict.findings]


# --- verdicts


def test_summary_of_a_promise_that_holds():
    verdict = Verdict((), 7)
    assert verdict.holds
    assert verdict.summary() == "holds for all 7 examined"
    assert Verdict((), 0).summary() == "holds for all 0 examined"


def test_summary_names_the_first_findings_and_counts_the_rest():
    verdict = Verdict(tuple(Finding(f"id{k}", "bad") for k in range(7)), 9)
    assert not verdict.holds
    assert verdict.summary(limit=2) == ("7 findings in 9 examined: id0: bad; id1: bad; and 5 more")
    assert verdict.summary(limit=7).endswith("id6: bad")


# --- embeddings


def unit(dim=4, at=0):
    vector = np.zeros(dim, dtype=np.float32)
    vector[at] = 1
    return vector


def test_embeddings_of_the_declared_dimension_hold():
    rng = np.random.default_rng(0)
    vectors = [rng.standard_normal(768).astype(np.float32) for _ in range(20)]
    named = [(f"id{k}", v / np.linalg.norm(v)) for k, v in enumerate(vectors)]
    verdict = checks.embeddings_valid(iter(named), 768)
    assert (told(verdict), verdict.examined, dict(verdict.facts)) == ([], 20, {"dimension": 768})


@pytest.mark.parametrize(
    ("vector", "problem"),
    [
        (unit(5), "expected 4 values, found 5"),
        (np.array([1, np.nan, 0, 0], np.float32), "1 of 4 values are not finite"),
        (np.array([np.inf, -np.inf, 0, 0], np.float32), "2 of 4 values are not finite"),
        (np.zeros(4, np.float32), "expected unit norm, found 0.000000"),
        (unit() * np.float32(1.001), "expected unit norm, found 1.001000"),
        (unit() * np.float32(0.999), "expected unit norm, found 0.999000"),
        # Would be infinite if it were squared in float32.
        (np.full(4, 3e38, np.float32), r"expected unit norm, found 6\d{38}.\d{6}"),
        # Why there is no vector, in the words of who looked for it.
        ("no such object", "no such object"),
    ],
)
def test_a_bad_embedding_is_a_finding(vector, problem):
    verdict = checks.embeddings_valid([("id0", unit()), ("id1", vector), ("id2", unit())], 4)
    assert verdict.examined == 3
    (finding,) = verdict.findings
    assert finding.subject == "id1"
    assert re.fullmatch(problem, finding.problem), finding.problem


def test_norm_tolerance_is_that_of_float32_rounding():
    assert checks.vector_problem(unit() * np.float32(1 + 9e-5), 4) is None
    assert checks.vector_problem(unit() * np.float32(1 + 2e-4), 4) is not None


def test_without_a_declared_dimension_all_must_agree():
    vectors = [("a", "not there"), ("b", unit(3)), ("c", unit(3)), ("d", unit(4))]
    verdict = checks.embeddings_valid(vectors, None)
    assert told(verdict) == ["a: not there", "d: expected 3 values, found 4"]
    assert verdict.facts == {"dimension": 3}
    assert checks.vector_problem(unit(9), None) is None


def test_no_embeddings():
    verdict = checks.embeddings_valid([], None)
    assert (verdict.holds, verdict.examined, verdict.facts) == (True, 0, {"dimension": 0})


# --- index and ledger


def test_every_index_row_has_a_status():
    verdict = checks.index_rows_have_status(
        ["a", "b"], {"video_embedding": {"b", "a", "other"}, "text_embedding": ["a", "b"]}
    )
    assert (verdict.holds, verdict.examined) == (True, 4)


def test_a_clip_without_status_is_a_finding_in_each_stage():
    verdict = checks.index_rows_have_status(
        ["c", "a", "b"], {"video_embedding": ["a"], "fusion_concat": ["a", "b"]}
    )
    assert told(verdict) == [
        "b: no status in stage video_embedding",
        "c: no status in stage video_embedding",
        "c: no status in stage fusion_concat",
    ]
    assert verdict.examined == 6


# --- lock and shards


def test_shards_of_the_lock_hold_and_those_of_earlier_locks_are_counted():
    lock = make_lock(lock_version=2)
    earlier = make_shard(lock_version=1, embedding_versions=strings(["x", "y", "z"]))
    undeclared = replace(make_shard(), declared=None)  # an older deployment's is of lock 1
    current = make_shard(lock_version=2)
    verdict = checks.lock_matches_shards(
        lock, iter([("k0", earlier), ("k1", current), ("k2", undeclared)])
    )
    assert (told(verdict), verdict.examined) == ([], 1)
    assert verdict.facts == {"shards_of_archived_locks": 2}


@pytest.mark.parametrize(
    ("shard", "problem"),
    [
        ("k1 does not exist", "k1: k1 does not exist"),
        (
            make_shard(fusion_strategy="max_pool"),
            "k1: fusion_strategy locked 'concat', found 'max_pool'",
        ),
        (
            make_shard(embedding_versions=strings(["video-a", "audio-a", "text-b"])),
            "k1: embedding_versions.text locked 'text-a', found 'text-b'",
        ),
        (
            replace(make_shard(), vectors=np.ones((3, 9), np.float32), declared=None),
            "k1: fused_dim locked 8, found 9",
        ),
        # A lock put back from a backup: its shards know of a later one.
        (make_shard(lock_version=3), "k1: made under lock 3, in force is 1"),
    ],
)
def test_a_shard_that_departs_from_the_lock_is_a_finding(shard, problem):
    verdict = checks.lock_matches_shards(make_lock(), [("k0", make_shard()), ("k1", shard)])
    assert told(verdict) == [problem]
    assert verdict.examined == 2


def test_unversioned_shards_match_what_was_adopted():
    older = make_shard(embedding_versions=strings([UNVERSIONED] * 3))
    assert checks.lock_matches_shards(make_lock(), [("k", older)], VERSIONS).holds
    assert told(checks.lock_matches_shards(make_lock(), [("k", older)])) == [
        "k: embedding_versions.video locked 'video-a', found 'unversioned'"
    ]


# --- pointers


def pointing_rows():
    return [
        make_row("-bb", shard_idx=1),
        make_placeholder("_cc", shard_idx=2),
        make_row("aaa", shard_idx=0),
    ]


def test_pointers_that_resolve():
    other = make_shard(ids=("zzz",))
    rows = frame(*pointing_rows(), make_row("zzz", fused_key="k2", shard_n=1))
    shards = [("k2", other), (KEY, make_shard()), ("k3", "not pointed at: no matter")]
    verdict = checks.pointers_resolve(rows, iter(shards))
    assert (told(verdict), verdict.examined) == ([], 4)
    assert checks.pointers_resolve(frame(), []).holds


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"shard_idx": 1}, f"aaa -> {KEY}[1]: the shard holds '-bb' there"),
        ({"shard_idx": 3}, f"aaa -> {KEY}[3]: the shard has 3 rows"),
        ({"shard_idx": -3}, f"aaa -> {KEY}[-3]: the shard has 3 rows"),
        ({"shard_n": 4}, f"aaa -> {KEY}[0]: shard_n says 4, the shard has 3 rows"),
        ({"fused_dim": 2305}, f"aaa -> {KEY}[0]: fused_dim says 2305, the shard has 8"),
        ({"fused_key": "gone"}, "gone: shard was not looked at"),
    ],
)
def test_a_pointer_that_leads_elsewhere_is_a_finding(change, problem):
    rows = pointing_rows()
    rows[2] |= change
    verdict = checks.pointers_resolve(frame(*rows), [(KEY, make_shard())])
    assert told(verdict) == [problem]
    assert verdict.examined == 3


def test_an_empty_shard_holds_nobody():
    empty = make_shard(ids=())
    verdict = checks.pointers_resolve(frame(*pointing_rows()), [(KEY, empty)])
    assert told(verdict) == [
        f"{video_id} -> {KEY}[{index}]: the shard has 0 rows"
        for video_id, index in (("-bb", 1), ("_cc", 2), ("aaa", 0))
    ]


def test_every_pointer_into_a_shard_that_can_not_be_had_is_a_finding():
    verdict = checks.pointers_resolve(frame(*pointing_rows()), [(KEY, "it does not exist")])
    assert told(verdict) == [
        f"{video_id} -> {KEY}[{index}]: it does not exist"
        for video_id, index in (("-bb", 1), ("_cc", 2), ("aaa", 0))
    ]


# --- placeholders


def test_placeholders_with_an_approved_status_hold():
    other = make_placeholder("qqq", text_state_status="fail_empty_transcript_terminal")
    verdict = checks.placeholders_approved(frame(make_row(), make_placeholder(), other))
    assert (told(verdict), verdict.examined) == ([], 3)
    assert verdict.facts == {"placeholders": 2}


@pytest.mark.parametrize("status", ["pending", "success", "", None, "no_captions "])
def test_a_placeholder_with_another_status_is_a_finding(status):
    rows = frame(make_row(), make_placeholder(text_state_status=status))
    (problem,) = told(checks.placeholders_approved(rows))
    assert problem == (
        "ppp: a placeholder needs a text status among fail_empty_transcript_terminal, "
        f"no_captions: found {status!r}"
    )
    assert checks.placeholders_approved(rows, {status}).holds


@pytest.mark.parametrize(
    "changes",
    [
        {"text_present": 0},
        {"text_present": 2},
        {"text_present": None},
        {"text_source": "placeholder"},
        {"text_source": None},
        {"text_source": "FULL"},
        {"fusion_status": "success_text_placeholder"},
        {"fusion_status": "success"},
        {"fusion_status": None},
    ],
)
def test_a_row_that_contradicts_itself_is_a_finding(changes):
    row = make_row(**changes)
    verdict = checks.placeholders_approved(frame(make_row("fine"), row))
    values = (row["text_present"], row["text_source"], row["fusion_status"])
    assert told(verdict) == [
        f"aaa: text_present, text_source and fusion_status contradict each other: {values}"
    ]


# --- required modalities


def test_rows_whose_embeddings_exist_hold():
    rows = frame(make_row(), make_placeholder())
    keys = {f"clipfarm/embeddings/{m}/aaa.npy" for m in ("video", "audio", "text")}
    keys |= {f"clipfarm/embeddings/{m}/ppp.npy" for m in ("video", "audio")}
    verdict = checks.required_modalities_present(rows, keys)
    assert (told(verdict), verdict.examined) == ([], 2)


@pytest.mark.parametrize("modality", ["video", "audio", "text"])
@pytest.mark.parametrize("value", [None, "", "gone.npy"])
def test_a_missing_embedding_of_a_fused_row_is_a_finding(modality, value):
    keys = {f"clipfarm/embeddings/{m}/aaa.npy" for m in ("video", "audio", "text")}
    rows = frame(make_row(**{f"{modality}_emb_key": value}))
    problem = "gone.npy does not exist" if value else "is empty"
    assert told(checks.required_modalities_present(rows, keys)) == [
        f"aaa: {modality}_emb_key {problem}"
    ]


# --- uniqueness


def test_one_row_a_source_of_a_clip_holds():
    rows = frame(make_row(source_hash="h1"), make_row(source_hash="h2"), make_row("bbb"))
    verdict = checks.manifest_unique(rows)
    assert (told(verdict), verdict.examined) == ([], 3)


def test_repeated_rows_are_a_finding_each():
    twice, thrice = make_row("bbb", source_hash="f" * 64), make_row("aaa", source_hash="short")
    verdict = checks.manifest_unique(frame(twice, thrice, make_row("ccc"), thrice, twice, thrice))
    assert told(verdict) == [
        "aaa: 3 rows for source_hash short…",
        "bbb: 2 rows for source_hash ffffffffffff…",
    ]
    assert verdict.examined == 6
