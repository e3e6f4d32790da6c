"""Shares are Shapley's: mean over all orders of what a modality adds."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.training.classification.subsets import (
    MOST_MODALITIES,
    by_subset,
    presence,
    shapley,
    subsets,
)

NAMES = ("text", "vision", "audio", "midi")


def plain_shapley(modalities, scores):
    shares = dict.fromkeys(modalities, 0.0)
    orders = list(permutations(modalities))
    for order in orders:
        there = set()
        for name in order:
            before = scores[tuple(m for m in modalities if m in there)]
            there.add(name)
            shares[name] += scores[tuple(m for m in modalities if m in there)] - before
    return {name: share / len(orders) for name, share in shares.items()}


@given(st.integers(1, 4), st.data())
def test_shares_are_the_mean_over_orders_and_sum_to_what_all_add(count, data):
    modalities = NAMES[:count]
    scores = by_subset(modalities, lambda _: data.draw(st.floats(-10, 10)))
    shares = shapley(modalities, scores)
    assert list(shares) == list(modalities)
    expected = plain_shapley(modalities, scores)
    for name in modalities:
        assert math.isclose(shares[name], expected[name], rel_tol=1e-9, abs_tol=1e-9)
    gain = scores[modalities] - scores[()]
    assert math.isclose(math.fsum(shares.values()), gain, rel_tol=1e-14, abs_tol=1e-14)


def test_xor_is_shared_and_noise_is_worth_nothing():
    xor = {(): 0.5, ("text",): 0.5, ("vision",): 0.5, ("text", "vision"): 1.0}
    assert shapley(("text", "vision"), xor) == {"text": 0.25, "vision": 0.25}
    noise = {(): 0.5, ("text",): 0.9, ("vision",): 0.5, ("text", "vision"): 0.9}
    assert shapley(("text", "vision"), noise) == {"text": pytest.approx(0.4), "vision": 0.0}


def test_subsets_are_all_there_small_ones_first():
    found = subsets(("text", "vision"))
    assert found == ((), ("text",), ("vision",), ("text", "vision"))
    every = subsets(NAMES)
    assert len(set(every)) == 16
    assert [len(s) for s in every] == sorted(len(s) for s in every)
    asked = []
    by_subset(NAMES, lambda subset: asked.append(subset) or 0.0)
    assert tuple(asked) == every


def test_presence_is_in_the_order_of_the_modalities():
    assert presence(NAMES, ("audio", "text")).tolist() == [True, False, True, False]
    assert presence(NAMES, ()).tolist() == [False] * 4
    with pytest.raises(ValueError, match="unknown modality smell: expected of text, vision"):
        presence(NAMES, ("smell",))


REFUSED = {
    "none": (lambda: subsets(()), "found none"),
    "twice": (lambda: subsets(("a", "a")), "each once: found a, a"),
    "many": (lambda: subsets([f"m{i}" for i in range(MOST_MODALITIES + 1)]), "1 to 10"),
    "missing": (lambda: shapley(("a",), {("a",): 1.0}), r"1 have none \(none\)"),
    "NaN": (
        lambda: shapley(("a", "b"), by_subset(("a", "b"), lambda _: np.nan)),
        r"4 have none \(none, a, b, a\+b\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_shared_is_refused(name):
    act, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        act()
