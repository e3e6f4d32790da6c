"""What was known of a channel's earlier clips when a clip was published.

A label becomes known when it is captured, days after publication. The history of a clip published
at ``p`` is made of the train rows of its channel whose label was captured at or before ``p``, and
of nothing else: not of its own label, which comes later, nor of any other from its future.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.training.data import Labelled, Moments, Strings

FEATURES: Final = ("channel_labels", "channel_mean", "channel_last", "channel_days_since_last")
"""Number of known labels; their mean log1p(views), shrunk; the last one; its age in days."""

PRIOR_CLIPS: Final = 3.0
"""The mean of all channels counts as much as this many clips of the channel's own."""

# Sums are kept in fixed point, where addition is exact in any order: so a label that may not count
# does not even change a last bit. 2**25 labels of less than 2**6 fit 63 bits.
_UNITS: Final = float(1 << 32)
_DAY: Final = np.timedelta64(1, "D")


@dataclass(frozen=True)
class ChannelHistory:
    """The labels that histories are made of, by channel, then moment, then label.

    Attributes:
        channel_id: ``(N,)``, empty where unknown: such a row counts for the mean of all channels.
        known_at: datetime64[us] ``(N,)``.
        target_log: float64 ``(N,)``.
    """

    channel_id: Strings
    known_at: Moments
    target_log: NDArray[np.float64]

    @classmethod
    def fit(cls, train: Labelled) -> "ChannelHistory":
        """Take the labels of train rows.

        A label without a moment, or captured no later than its clip was published, is left out:
        the moment is wrong, and the label would be part of its own clip's history.
        """
        usable = ~np.isnat(train.known_at) & ~(train.known_at <= train.clips.published_at)
        rows = np.flatnonzero(usable)
        channel, known_at, target = (
            train.clips.channel_id[rows],
            train.known_at[rows].astype("datetime64[us]"),
            train.target_log[rows],
        )
        order = np.lexsort((target, known_at, channel))
        return cls(channel[order], known_at[order], target[order])

    def features(self, channel_id: Strings, published_at: Moments) -> NDArray[np.float64]:
        """The history of N clips: float64 ``(N, 4)``, columns as in `FEATURES`.

        With ``n`` labels known and ``m`` the mean of all labels of any channel known by then, the
        second column is ``(sum + PRIOR_CLIPS * m) / (n + PRIOR_CLIPS)``. Where no label is known,
        or no channel, all but the number are NaN; where the moment is unknown, the number too. Of
        labels captured at the same moment the largest is the last.

        Args:
            channel_id: ``(N,)``.
            published_at: datetime64 ``(N,)``, NaT where unknown.
        """
        published_at = published_at.astype("datetime64[us]")
        moments = np.unique(self.known_at)
        seen = np.searchsorted(moments, published_at, side="right")  # moments at or before p
        start, end = self._known(channel_id, moments, seen)
        count = end - start
        has = count > 0

        units = np.rint(self.target_log * _UNITS).astype(np.int64)
        of_channel = _cumulative(units)[end] - _cumulative(units)[start]
        features = np.full((len(channel_id), len(FEATURES)), np.nan)
        features[:, 0] = count
        prior = self._mean_of_all(moments, units, seen[has])
        features[has, 1] = (of_channel[has] / _UNITS + PRIOR_CLIPS * prior) / (
            count[has] + PRIOR_CLIPS
        )
        features[has, 2] = self.target_log[end[has] - 1]
        features[has, 3] = (published_at[has] - self.known_at[end[has] - 1]) / _DAY
        features[np.isnat(published_at)] = np.nan
        return features

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """As plain arrays, for an npz."""
        return {
            "history_channel_id": self.channel_id,
            "history_known_at_us": self.known_at.astype(np.int64),
            "history_target_log": self.target_log,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "ChannelHistory":
        """The history that `to_arrays` wrote."""
        return cls(
            arrays["history_channel_id"],
            arrays["history_known_at_us"].astype("datetime64[us]"),
            arrays["history_target_log"],
        )

    def _known(
        self, channel_id: Strings, moments: Moments, seen: NDArray[np.intp]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """First row and one past the last row of what is known of each clip's channel."""
        channels, code = np.unique(self.channel_id, return_inverse=True)
        if not len(channels):
            nothing = np.zeros(len(channel_id), dtype=np.intp)
            return nothing, nothing
        # Rows are in the order of (channel, moment): one number for both makes them searchable. A
        # channel's numbers begin at code * width; no row has the last one before the next channel.
        width = len(moments) + 1
        rows = code * width + np.searchsorted(moments, self.known_at)
        wanted = np.minimum(np.searchsorted(channels, channel_id), len(channels) - 1)
        first = np.searchsorted(rows, wanted * width)
        past = np.searchsorted(rows, wanted * width + seen - 1, side="right")
        is_known = (channels[wanted] == channel_id) & (channel_id != "")
        return first, np.where(is_known, past, first)

    def _mean_of_all(
        self, moments: Moments, units: NDArray[np.int64], seen: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """Mean of the labels of all channels at the first `seen` moments, each at least one."""
        order = np.argsort(self.known_at, kind="stable")
        count = np.searchsorted(self.known_at[order], moments[seen - 1], side="right")
        mean: NDArray[np.float64] = _cumulative(units[order])[count] / _UNITS / count
        return mean


def _cumulative(units: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums of the first 0, 1, …, N values."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(units)])
