"""Near hashes: the same groups as comparing all with all gives, and far fewer comparisons."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.contracts import hamming
from clipfarm_assets.contracts.hamming import Links, near_groups

U64 = st.integers(0, 2**64 - 1)


def plain_groups(hashes, max_distance):
    """All with all, and belonging passed on until nothing changes."""
    numbers = list(range(len(hashes)))
    changed = True
    while changed:
        changed = False
        for i, a in enumerate(hashes):
            for j, b in enumerate(hashes):
                if (a ^ b).bit_count() <= max_distance and numbers[i] != numbers[j]:
                    numbers[i] = numbers[j] = min(numbers[i], numbers[j])
                    changed = True
    order = sorted(set(numbers))
    return [order.index(number) for number in numbers]


def flipped(rng, value, bits):
    for bit in rng.choice(64, size=bits, replace=False).tolist():
        value ^= 1 << bit
    return value


def families(rng, n, most):
    """Hashes, each at up to `most` bits from one before or by itself."""
    hashes = []
    for _ in range(n):
        if hashes and rng.random() < 0.6:
            hashes.append(flipped(rng, hashes[rng.integers(len(hashes))], int(rng.integers(most))))
        else:
            hashes.append(int(rng.integers(2**64, dtype=np.uint64)))
    return hashes


@given(st.lists(U64 | st.integers(0, 40), max_size=12), st.integers(0, 64))
def test_groups_are_those_of_the_plain_way(hashes, max_distance):
    found = near_groups(np.array(hashes, dtype=np.uint64), max_distance)
    assert found.tolist() == plain_groups(hashes, max_distance)


@pytest.mark.parametrize("few", [2, 7, 4096])
@pytest.mark.parametrize("max_distance", [0, 1, 3, 4, 7, 9])
def test_so_they_are_however_deep_the_bands_go(monkeypatch, few, max_distance):
    monkeypatch.setattr(hamming, "_FEW", few)
    monkeypatch.setattr(hamming, "_BLOCK", 5)
    monkeypatch.setattr(hamming, "_WINDOW", 3)
    monkeypatch.setattr(hamming, "_MANY_LINKS", 4)
    hashes = families(np.random.default_rng(max_distance), 60, max_distance + 3)
    found = near_groups(np.array(hashes, dtype=np.uint64), max_distance)
    assert found.tolist() == plain_groups(hashes, max_distance)


def test_a_pair_at_the_distance_is_near_and_one_bit_further_is_not():
    rng = np.random.default_rng(0)
    others = rng.integers(2**64, size=hamming._FEW + 1, dtype=np.uint64)
    for _ in range(8):
        start = int(rng.integers(2**64, dtype=np.uint64))
        for bits in (4, 5):
            hashes = np.r_[others, np.array([start, flipped(rng, start, bits)], dtype=np.uint64)]
            found = near_groups(hashes, 4)
            assert (found[-1] == found[-2]) == (bits == 4)


def test_few_pairs_are_compared(monkeypatch):
    compared = 0
    plain = hamming._compare

    def counted(near, hashes, rows, max_distance):
        nonlocal compared
        compared += len(rows) ** 2
        plain(near, hashes, rows, max_distance)

    monkeypatch.setattr(hamming, "_compare", counted)
    n = 30_000
    hashes = np.random.default_rng(1).integers(2**64, size=n, dtype=np.uint64)
    assert len(set(near_groups(hashes, 4).tolist())) > n - 5
    assert compared < n**2 / 100


def test_many_of_one_hash_are_one_group():
    hashes = np.zeros(200_000, dtype=np.uint64)
    hashes[-1] = 2**64 - 1
    found = near_groups(hashes, 4)
    assert found[0] == 0
    assert found[-1] == 1
    assert not found[:-1].any()


def test_no_hashes_are_no_groups():
    assert near_groups(np.array([], dtype=np.uint64), 4).tolist() == []


@pytest.mark.parametrize("distance", [-1, 65])
def test_distances_that_are_none(distance):
    with pytest.raises(ValueError, match="0 to 64"):
        near_groups(np.array([1], dtype=np.uint64), distance)


def test_links_are_numbered_by_their_first_things():
    links = Links(6)
    links.add(np.array([5, 3]), np.array([1, 4]))
    assert links.labels().tolist() == [0, 1, 2, 3, 3, 1]
    links.add(np.array([0, 4]), np.array([4, 3]))
    assert links.labels().tolist() == [0, 1, 2, 0, 0, 1]
