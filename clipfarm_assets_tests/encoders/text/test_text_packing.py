from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.encoders.text.packing import LEAST_ROWS, PackShape, plan_packs, plan_runs

LENGTHS = st.lists(st.integers(1, 300), max_size=120)
BUDGET = st.integers(0, 1100)


@given(LENGTHS, BUDGET)
def test_every_text_is_in_one_pack_and_no_pack_overflows(lengths, budget):
    packs = plan_packs(lengths, budget)
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    for pack in packs:
        assert len(pack) == 1 or sum(lengths[index] for index in pack) <= budget


@given(LENGTHS, BUDGET)
def test_no_two_packs_could_be_one(lengths, budget):
    totals = sorted(sum(lengths[index] for index in pack) for pack in plan_packs(lengths, budget))
    assert len(totals) < 2 or totals[0] + totals[1] > budget


def test_the_fullest_pack_with_room_is_taken_and_ties_go_in_input_order():
    assert plan_packs([2, 7, 6, 3, 2], 10) == [(1, 3), (2, 0, 4)]
    assert plan_packs([5, 5, 5], 10) == [(0, 1), (2,)]
    assert plan_packs([], 10) == []


def test_without_a_budget_each_text_is_a_pack():
    assert plan_packs([3, 9, 3], 0) == [(1,), (0,), (2,)]


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(0, 100))
def test_runs_are_consecutive_small_and_greedy(sizes, limit):
    runs = list(plan_runs(sizes, limit))
    assert [size for run in runs for size in sizes[run]] == sizes
    for run in runs:
        assert run.stop - run.start == 1 or sum(sizes[run]) <= limit
    for run, following in pairwise(runs):
        assert sum(sizes[run]) + sizes[following.start] > limit


def test_rows_of_a_forward():
    assert PackShape(0).rows(2) == LEAST_ROWS
    assert [PackShape(1024).rows(tokens) for tokens in (2, 64, 65)] == [64, 64, 128]
    assert PackShape(0).rows(100) == 100
    assert PackShape(1024, fixed=True).rows(100) == 1024
    assert PackShape(1024, fixed=True).rows(1500) == 1500
