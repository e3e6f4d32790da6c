import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.training.components import Components


def reachable(n, pairs):
    """Component labels by following edges from every row, the plain way."""
    labels = [None] * n
    for row in range(n):
        if labels[row] is not None:
            continue
        number = 1 + max((label for label in labels if label is not None), default=-1)
        waiting = [row]
        while waiting:
            at = waiting.pop()
            labels[at] = number
            for a, b in pairs:
                waiting += [y for x, y in ((a, b), (b, a)) if x == at and labels[y] is None]
    return labels


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(
            st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)))
        )
    )
)
def test_components_are_those_of_the_graph(case):
    n, pairs = case
    components = Components(n)
    for a, b in pairs:
        components.join(np.array([a]), np.array([b]))
    labels = reachable(n, pairs)
    assert components.labels().tolist() == labels
    assert components.roots().tolist() == [labels.index(label) for label in labels]


def test_empty_keys_equal_nothing():
    components = Components(6)
    components.join_equal(np.array(["a", "", "b", "a", "", "b"]))
    assert components.labels().tolist() == [0, 1, 2, 0, 3, 2]
    components.join_equal(np.array([1, 2, 3, 4, 4, 5]))
    assert components.labels().tolist() == [0, 1, 2, 0, 0, 2]


def test_a_long_chain_is_one_component():
    components = Components(5000)
    components.join(np.arange(1, 5000), np.arange(4999))
    assert not components.labels().any()
