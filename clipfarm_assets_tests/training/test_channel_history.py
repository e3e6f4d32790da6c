"""A clip's channel history holds what was known when it was published, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from clipfarm_assets.training.channel_history import FEATURES, PRIOR_CLIPS, ChannelHistory
from clipfarm_assets.training.data import Labelled
from clipfarm_assets_tests.training import kit

HOUR = np.timedelta64(3_600_000_000, "us")


def plainly(train, channel_id, published_at):
    """The definition, one clip and one label at a time."""
    found = []
    for channel, moment in zip(channel_id, published_at, strict=True):
        if np.isnat(moment):
            found.append([np.nan] * 4)
            continue
        labels = [
            (known, target, owner)
            for known, target, owner, published in zip(
                train.known_at,
                train.target_log,
                train.clips.channel_id,
                train.clips.published_at,
                strict=True,
            )
            if known <= moment and not known <= published
        ]
        own = sorted((k, t) for k, t, owner in labels if owner == channel and channel != "")
        if not own:
            found.append([0.0, np.nan, np.nan, np.nan])
            continue
        everyones = sum(t for _, t, _ in labels) / len(labels)
        total = sum(t for _, t in own) + PRIOR_CLIPS * everyones
        days = (moment - own[-1][0]) / np.timedelta64(1, "us") / 86_400e6
        found.append([len(own), total / (len(own) + PRIOR_CLIPS), own[-1][1], days])
    return np.array(found).reshape(-1, 4)


def rows(n, seed, channels=5):
    """Rows with many ties in time, unknown channels and unknown moments."""
    rng = np.random.default_rng(seed)
    made = kit.planted_rows(n, dims=2, seed=seed, channels=channels)
    published = kit.START + rng.integers(0, 40, n) * 24 * HOUR
    known = published + rng.integers(-1, 12, n) * 24 * HOUR
    published[rng.random(n) < 0.1] = np.datetime64("NaT")
    known[rng.random(n) < 0.1] = np.datetime64("NaT")
    channel = np.where(rng.random(n) < 0.1, "", made.clips.channel_id)
    clips = replace(made.clips, channel_id=channel, published_at=published)
    return Labelled(clips, made.target_log, known)


@pytest.mark.parametrize("seed", range(8))
def test_equals_the_definition(seed):
    train, other = rows(60, seed), rows(40, seed + 100, channels=9)
    history = ChannelHistory.fit(train)
    for clips in (train.clips, other.clips):
        found = history.features(clips.channel_id, clips.published_at)
        expected = plainly(train, clips.channel_id, clips.published_at)
        assert found.shape == (len(clips), len(FEATURES))
        assert np.array_equal(found[:, [0, 2, 3]], expected[:, [0, 2, 3]], equal_nan=True)
        np.testing.assert_allclose(found[:, 1], expected[:, 1], rtol=1e-9)
        assert (found[:, 0] > 0).sum() > 5, "else nothing was compared"


@pytest.mark.parametrize("seed", range(3))
def test_a_later_label_changes_not_one_bit(seed):
    train = rows(60, seed)
    before = ChannelHistory.fit(train).features(train.clips.channel_id, train.clips.published_at)
    changed = 0
    for row, moment in enumerate(train.clips.published_at):
        later = ~(train.known_at <= moment)
        other = np.where(later, train.target_log * 3.7 + 1.1, train.target_log)
        history = ChannelHistory.fit(replace(train, target_log=other))
        after = history.features(train.clips.channel_id, train.clips.published_at)
        assert np.array_equal(after[row], before[row], equal_nan=True)
        changed += not np.array_equal(after, before, equal_nan=True)
    assert changed, "else the labels were never used"


def test_own_label_is_never_part_of_it():
    train = rows(60, 1)
    before = ChannelHistory.fit(train).features(train.clips.channel_id, train.clips.published_at)
    for row in range(len(train)):
        target = train.target_log.copy()
        target[row] = 40.0
        history = ChannelHistory.fit(replace(train, target_log=target))
        after = history.features(train.clips.channel_id, train.clips.published_at)
        assert np.array_equal(after[row], before[row], equal_nan=True)


def test_a_label_known_at_that_very_moment_counts():
    known = np.array([kit.START])
    history = ChannelHistory(np.array(["a"]), known, np.array([5.0]))
    at = history.features(np.array(["a"] * 2), np.array([kit.START, kit.START - HOUR]))
    assert at[0].tolist() == [1.0, 5.0, 5.0, 0.0]
    assert at[1, 0] == 0.0


def test_order_of_the_rows_does_not_matter():
    train = rows(80, 4)
    first, second = ChannelHistory.fit(train), ChannelHistory.fit(kit.shuffled(train))
    for name, values in first.to_arrays().items():
        assert np.array_equal(values, second.to_arrays()[name]), name


def test_labels_with_impossible_moments_are_left_out():
    train = rows(60, 2)
    known = train.known_at.copy()
    known[:10] = train.clips.published_at[:10]
    known[10:20] = np.datetime64("NaT")
    usable = ~np.isnat(known) & ~(known <= train.clips.published_at)
    history = ChannelHistory.fit(replace(train, known_at=known))
    assert sorted(history.target_log) == sorted(train.target_log[usable])
    assert 0 < usable.sum() < 45


def test_no_labels_at_all_is_no_history():
    train = rows(10, 0)
    empty = ChannelHistory.fit(train.take(np.arange(0)))
    found = empty.features(train.clips.channel_id, train.clips.published_at)
    known = ~np.isnat(train.clips.published_at)
    assert (found[known, 0] == 0).all()
    assert np.isnan(found[:, 1:]).all()
    assert np.isnan(found[~known]).all()


def test_reading_the_arrays_gives_the_same_history():
    train = rows(60, 3)
    history = ChannelHistory.fit(train)
    again = ChannelHistory.from_arrays(history.to_arrays())
    clips = train.clips
    assert np.array_equal(
        again.features(clips.channel_id, clips.published_at),
        history.features(clips.channel_id, clips.published_at),
        equal_nan=True,
    )
