"""An encoder with two precisions whose distance the test chooses."""

import hashlib
import threading
from collections import Counter
from dataclasses import replace

import numpy as np

from clipfarm_assets.encoders.base import EmbeddingVersion, Encoded, MediaError

DIM = 32


def version_of(modality="text", revision="r1", precision="exact"):
    params = {} if precision == "exact" else {"precision": precision}
    return EmbeddingVersion(modality, "hash", revision, "0" * 64, "hash-1", params, DIM)


def vector_of(raw):
    """A unit vector of the bytes: of random direction."""
    vector = np.random.default_rng(list(hashlib.sha256(raw).digest())).normal(size=DIM)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


class TwoPrecisions:
    """Hashes raw bytes; in bf16 the vector is turned by `angle` radians. Counts what it embeds.

    Args:
        angle: Of bf16's error; its cosine is the cosine of bf16 and exact vectors.
        modality: What it says it embeds.
        lost: Precisions in which every output is without direction.
    """

    is_stand_in = False
    group_size = 4
    note = "made up"

    def __init__(self, angle=0.001, modality="text", revision="r1", lost=()):
        self.angle, self.lost = angle, lost
        self.version = version_of(modality, revision)
        self.equivalence = None
        self.embedded = Counter()
        self.groups = set()
        self._lock = threading.Lock()

    def at(self, precision):
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)  # shares the counters
        params = {} if precision == "exact" else {"precision": precision}
        other.version = replace(self.version, params=params)
        other.equivalence = None
        return other

    def prepare(self, source, deadline):
        return source.raw

    def encode(self, prepared):
        precision = self.version.params.get("precision", "exact")
        with self._lock:
            self.embedded[precision] += len(prepared)
            self.groups.add(len(prepared))
        if precision in self.lost:
            msg = "no direction"
            raise MediaError(msg)
        return [Encoded(self._vector(raw, precision), {}) for raw in prepared]

    def _vector(self, raw, precision):
        exact = vector_of(raw)
        if precision == "exact":
            return exact
        noise = vector_of(raw + b"noise")
        aside = noise - (noise @ exact) * exact
        aside /= np.linalg.norm(aside)
        return (np.cos(self.angle) * exact + np.sin(self.angle) * aside).astype(np.float32)
