from itertools import product

import pytest

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.text_gate import Gate, TextState, gate

HASH = "a" * 64
OTHER = "b" * 64
TEXT_STATUSES = (
    "no_captions",
    "fail_empty_transcript_terminal",
    "success",
    "pending",
    "fail",
    "fail_terminal",
    "NO_CAPTIONS",
    "",
)
STATES = (
    None,
    *(TextState(status, seen) for status in TEXT_STATUSES for seen in (None, "", HASH, OTHER)),
)


def decide(**changes):
    inputs = {
        "missing_required": [],
        "has_text": False,
        "text_states_available": True,
        "text_state": None,
    }
    return gate(HASH, **{**inputs, **changes})


# The table of the fusion contract, section 3.3, with the reasons the ledger shows.
@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (
            {"missing_required": ["audio: no embedding"]},
            Gate("missing_required_modality", "audio: no embedding"),
        ),
        (
            {"missing_required": ["video: no embedding", "audio: fail"], "has_text": True},
            Gate("missing_required_modality", "video: no embedding; audio: fail"),
        ),
        ({"has_text": True}, Gate("success_full")),
        (
            {"has_text": True, "text_states_available": False},
            Gate("success_full"),
        ),
        (
            {"has_text": True, "text_state": TextState("success", OTHER)},
            Gate("success_full", "", "success"),
        ),
        (
            {"text_states_available": False},
            Gate("missing_text_state_unavailable", "text_state_unavailable"),
        ),
        ({}, Gate("missing_text_pending", "no_text_state_row")),
        (
            {"text_state": TextState("pending", HASH)},
            Gate("missing_text_pending", "text_status:pending", "pending"),
        ),
        # The words are there and the embedding is not yet: wait for it, don't replace it.
        (
            {"text_state": TextState("success", HASH)},
            Gate("missing_text_pending", "text_status:success", "success"),
        ),
        (
            {"text_state": TextState("no_captions", OTHER)},
            Gate("missing_text_pending", f"text_hash_mismatch:{OTHER}", "no_captions"),
        ),
        (
            {"text_state": TextState("no_captions", HASH)},
            Gate("success_text_placeholder", "no_captions", "no_captions"),
        ),
        (
            {"text_state": TextState("fail_empty_transcript_terminal")},
            Gate(
                "success_text_placeholder",
                "fail_empty_transcript_terminal",
                "fail_empty_transcript_terminal",
            ),
        ),
    ],
)
def test_table_of_the_contract(inputs, expected):
    assert decide(**inputs) == expected


def expected_status(missing, has_text, available, state):
    """Section 3.3 from top to bottom."""
    if missing:
        return "missing_required_modality"
    if has_text:
        return "success_full"
    if not available:
        return "missing_text_state_unavailable"
    row_counts = state is not None and state.source_hash in {None, "", HASH}
    if row_counts and state.status in {"no_captions", "fail_empty_transcript_terminal"}:
        return "success_text_placeholder"
    return "missing_text_pending"


def test_every_combination_of_inputs():
    seen = set()
    for missing, has_text, available, state in product(
        ([], ["video: a"], ["audio: b"], ["video: a", "audio: b"]),
        (False, True),
        (False, True),
        STATES,
    ):
        found = decide(
            missing_required=missing,
            has_text=has_text,
            text_states_available=available,
            text_state=state,
        )
        case = (missing, has_text, available, state)
        assert found.status == expected_status(*case), case
        fuses = found.status in {"success_full", "success_text_placeholder"}
        assert found.fuses is fuses, case
        assert found.fuses or found.status in statuses.WAITING, case
        # Whoever waits or gets a placeholder is told why; only a full fusion needs no reason.
        assert bool(found.reason) is (found.status != "success_full"), case
        if found.fuses:
            assert found.text_source == ("full" if has_text else "placeholder"), case
        seen.add(found.status)
    assert seen == statuses.FUSED | (statuses.WAITING - {statuses.MISSING_RAW_OBJECT})


def test_the_snapshot_of_the_text_status_is_the_row_seen():
    for state in STATES[1:]:
        for changes in ({}, {"has_text": True}, {"missing_required": ["video: x"]}):
            assert decide(text_state=state, **changes).text_state_status == state.status


def test_approved_text_statuses_are_a_choice():
    own = {"terminal_text_statuses": {"deleted"}}
    assert decide(text_state=TextState("deleted"), **own).status == "success_text_placeholder"
    assert decide(text_state=TextState("deleted")).status == "missing_text_pending"
    assert decide(text_state=TextState("no_captions"), **own).status == "missing_text_pending"
    none = {"terminal_text_statuses": ()}
    assert decide(text_state=TextState("no_captions"), **none).status == "missing_text_pending"
