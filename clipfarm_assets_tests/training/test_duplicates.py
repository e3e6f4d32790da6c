import numpy as np
import pytest

from clipfarm_assets.training import duplicates
from clipfarm_assets.training.components import Components
from clipfarm_assets.training.duplicates import SAME_CLIP_COSINE, duplicate_groups


def brute_force(source_hash, fused, threshold=SAME_CLIP_COSINE):
    """All pairs in float64, then whatever is linked."""
    vectors = fused.astype(np.float64)
    found = Components(len(vectors))
    for a in range(len(vectors)):
        for b in range(a + 1, len(vectors)):
            norms = np.sqrt(vectors[a] @ vectors[a]) * np.sqrt(vectors[b] @ vectors[b])
            near = norms > 0 and vectors[a] @ vectors[b] >= threshold * norms
            if near or (source_hash[a] and source_hash[a] == source_hash[b]):
                found.join(np.array([a]), np.array([b]))
    return found.labels()


def distinct(n):
    return np.array([f"hash{k}" for k in range(n)])


def cone(rng, n, dim, noise):
    """Vectors around one direction, as those of one model are; some are copies, nearly."""
    base = rng.standard_normal(dim)
    vectors = base + noise * rng.standard_normal((n, dim))
    for _ in range(n // 4):
        a, b = rng.integers(0, n, 2)
        # Cosines on both sides of the threshold: 1 - cos is about half the squared difference.
        apart = rng.choice([0, 0.9, 0.99, 1.01, 1.1, 3]) * np.sqrt(2 - 2 * SAME_CLIP_COSINE)
        off = rng.standard_normal(dim)
        off -= off @ vectors[a] / (vectors[a] @ vectors[a]) * vectors[a]
        length = np.linalg.norm(vectors[a])
        vectors[b] = rng.uniform(0.5, 2) * (vectors[a] + apart * length * off / np.linalg.norm(off))
    return vectors.astype(np.float32)


@pytest.mark.parametrize("noise", [1.0, 0.2, 0.03, 0.01])
@pytest.mark.parametrize("dim", [3, 33, 200])
def test_groups_are_those_of_all_pairs(noise, dim, monkeypatch):
    # Small blocks and batches, so that their seams and both ways of comparing are met.
    monkeypatch.setattr(duplicates, "_BLOCK", 16)
    monkeypatch.setattr(duplicates, "_PAIRS", 5)
    monkeypatch.setattr(duplicates, "_MANY_PAIRS", 20)
    monkeypatch.setattr(duplicates, "_SAMPLE", 30)
    monkeypatch.setattr(duplicates, "_DIRECTIONS", 4)
    rng = np.random.default_rng([dim, int(noise * 100)])
    for n in (2, 16, 75):
        fused = cone(rng, n, dim, noise)
        hashes = np.where(rng.random(n) < 0.1, "", rng.permutation(distinct(n)))
        hashes[rng.integers(0, n, n // 10)] = "shared"
        expected = brute_force(hashes, fused)
        np.testing.assert_array_equal(duplicate_groups(hashes, fused), expected)
        assert n < 75 or len(np.unique(expected)) < n


def test_default_blocks_find_planted_copies():
    rng = np.random.default_rng(0)
    fused = cone(rng, 5000, 40, noise=0.3)
    fused[4990:] = fused[:10] * np.float32(1.5)
    groups = duplicate_groups(distinct(5000), fused)
    np.testing.assert_array_equal(groups[4990:], groups[:10])
    unit = fused / np.linalg.norm(fused.astype(np.float64), axis=1, keepdims=True)
    near = unit @ unit.T >= SAME_CLIP_COSINE
    a, b = np.nonzero(near)
    np.testing.assert_array_equal(groups[a], groups[b])
    in_pairs = near.sum(axis=1) > 1
    assert not set(groups[in_pairs]) & set(groups[~in_pairs])


@pytest.mark.parametrize("block", [1, 2, 2048])
def test_belonging_together_is_transitive(block, monkeypatch):
    monkeypatch.setattr(duplicates, "_BLOCK", block)
    angles = np.arange(20) * 0.9 * np.arccos(SAME_CLIP_COSINE)  # each near the next one only
    fused = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert not duplicate_groups(distinct(20), fused).any()
    without_the_tenth = np.delete(fused, 10, axis=0)
    assert duplicate_groups(distinct(19), without_the_tenth).tolist() == [0] * 10 + [1] * 9


def test_same_source_is_a_duplicate_whatever_its_vector():
    fused = np.eye(4, dtype=np.float32)
    assert duplicate_groups(np.array(["a", "b", "a", "c"]), fused).tolist() == [0, 1, 0, 2]


def test_an_empty_hash_and_a_zero_vector_equal_nothing():
    fused = np.zeros((4, 3), dtype=np.float32)
    fused[3] = 1
    assert duplicate_groups(np.array(["", "", "x", "x"]), fused).tolist() == [0, 1, 2, 2]


def test_unrelated_clips_of_one_model_stay_apart():
    rng = np.random.default_rng(1)
    fused = (rng.standard_normal(300) + 0.05 * rng.standard_normal((200, 300))).astype(np.float32)
    unit = fused / np.linalg.norm(fused, axis=1, keepdims=True)
    assert (unit @ unit.T).min() > 0.99
    assert duplicate_groups(distinct(200), fused).tolist() == list(range(200))


def test_few_pairs_are_compared_though_the_mask_is_the_largest_difference(monkeypatch):
    """Along the mask all clips are at one of two places, however far these are apart."""
    monkeypatch.setattr(duplicates, "_BLOCK", 64)
    rng = np.random.default_rng(2)
    ways = np.linalg.qr(rng.standard_normal((128, 8)))[0].T
    vectors = rng.standard_normal(128) + 1.2 * rng.standard_normal((3000, 8)) @ ways
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.c_[vectors, rng.integers(0, 2, 3000)].astype(np.float32)
    compared = []
    distances = duplicates._squared_distances

    def counted(left, right):
        compared.append(len(left) * len(right))
        return distances(left, right)

    monkeypatch.setattr(duplicates, "_squared_distances", counted)
    assert len(np.unique(duplicate_groups(distinct(3000), vectors))) == 3000
    # Sorted along the mask it is 0.23 of all pairs.
    assert sum(compared) < 0.1 * 3000**2


def test_the_same_picture_and_sound_under_another_title_are_a_duplicate():
    """The words are a quarter of a fused vector and more than enough to hide it there."""
    random = np.random.default_rng(5)
    video, audio, text = (random.normal(size=(6, 24)).astype(np.float32) for _ in range(3))
    video[1], audio[1] = 2 * video[0], audio[0]  # of another length, and other words
    video[2] = video[0]  # another sound
    audio[3] = audio[0]  # another picture
    video[4] = video[5] = 0  # no picture that could be alike
    audio[4] = audio[5]
    fused = np.hstack([video, audio, text])
    assert duplicate_groups(distinct(6), fused).tolist() == [0, 1, 2, 3, 4, 5]
    found = duplicate_groups(distinct(6), fused, media=(video, audio))
    assert found.tolist() == [0, 0, 1, 2, 3, 4]


def test_length_of_a_vector_is_no_difference():
    fused = np.array([[3e-20, 4e-20], [3e18, 4e18], [4, 3]], dtype=np.float32)
    assert duplicate_groups(distinct(3), fused).tolist() == [0, 0, 1]


def test_order_of_rows_changes_numbers_only():
    rng = np.random.default_rng(2)
    fused = cone(rng, 120, 30, noise=0.3)
    order = rng.permutation(120)
    groups = duplicate_groups(distinct(120), fused)
    shuffled = duplicate_groups(distinct(120), fused[order])
    expected = groups[order]
    assert (shuffled[:, None] == shuffled).tolist() == (expected[:, None] == expected).tolist()


def test_no_rows_have_no_groups():
    assert duplicate_groups(distinct(0), np.zeros((0, 5), dtype=np.float32)).tolist() == []


def test_bad_input_is_refused():
    fused = np.ones((3, 2), dtype=np.float32)
    with pytest.raises(ValueError, match="found 2 hashes and vectors of shape"):
        duplicate_groups(distinct(2), fused)
    with pytest.raises(ValueError, match=r"a row of media for each .*: found \(1, 4\) beside"):
        duplicate_groups(np.array(["a", "b"]), np.ones((2, 4), np.float32), 0.9, [np.ones((1, 4))])
    with pytest.raises(ValueError, match="must be a cosine between 0 and 1: found 1"):
        duplicate_groups(distinct(3), fused, threshold=1.0)
    fused[1, 0] = np.nan
    with pytest.raises(ValueError, match="must be finite: 1 rows are not, the first is row 1"):
        duplicate_groups(distinct(3), fused)
