"""Clips to split."""

import numpy as np

from clipfarm_assets.contracts.split_rules import EXCLUDED, PARTS
from clipfarm_assets.training.splits import make_splits, split


class Rows:
    """Clips of their own channel each, an hour apart in row order, none a duplicate."""

    def __init__(self, n, **columns):
        self.video_ids = np.array([f"v{k}" for k in range(n)])
        self.captured_at = np.arange(n).astype("datetime64[h]").astype("datetime64[us]")
        self.channel_id = np.array([f"c{k}" for k in range(n)])
        self.duplicate_groups = np.arange(n)
        for name, values in columns.items():
            assert hasattr(self, name)
            setattr(self, name, np.array(values))

    def split(self, kind, **options):
        return split(kind, **vars(self), **options)

    def all(self, **options):
        return make_splits(**vars(self), **options)

    def take(self, order):
        taken = Rows(0)
        taken.__dict__ = {name: values[order] for name, values in vars(self).items()}
        return taken


def sizes(parts):
    return [int((parts == part).sum()) for part in (*PARTS, EXCLUDED)]


def spread_rows(n=600, channels=40, seed=0):
    """Channels of uneven sizes that all post all the time; some clips again, two by others."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, channels + 1)
    channel = rng.choice(channels, n, p=weights / weights.sum())
    groups = np.arange(n)
    for row in rng.choice(n, n // 20, replace=False):
        groups[row] = groups[rng.choice(np.flatnonzero(channel == channel[row]))]
    groups[rng.integers(0, n, 2)] = groups[rng.integers(0, n, 2)]
    return Rows(n, channel_id=[f"c{k}" for k in channel], duplicate_groups=groups)
