import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from clipfarm_assets.encoders.config import TextConfig
from clipfarm_assets.encoders.models import ResolvedModel
from clipfarm_assets.encoders.torch_encoder import OncePerPrecision, TorchEncoder


class Shared(TorchEncoder[TextConfig]):
    """An encoder whose only part is made once a precision."""

    def __init__(self, path):
        self.parts = OncePerPrecision()
        super().__init__(
            "text", ResolvedModel(path, "m", "r", "0" * 64, False), "t-1", TextConfig(), 6
        )

    def _open(self, config):
        self.part = self.parts.get(config.precision, object)


def test_threads_at_once_share_what_one_of_them_made():
    once, made, start = OncePerPrecision(), [], threading.Barrier(8)

    def make():
        made.append(object())
        return made[-1]

    def work(number):
        start.wait()
        return once.get("exact" if number % 2 else "bf16", make)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(8)))
    assert len(made) == 2
    assert found[0] is not found[1]
    assert found == [found[0], found[1]] * 4


def test_what_could_not_be_made_is_tried_again():
    once = OncePerPrecision()
    with pytest.raises(ZeroDivisionError):
        once.get("exact", lambda: 1 / 0)
    assert once.get("exact", lambda: 3) == 3
    assert once.get("exact", lambda: 4) == 3


def test_copies_at_a_precision_are_of_their_own_version_and_share_what_it_adds(tmp_path):
    exact = Shared(tmp_path)
    fast, again = exact.at("bf16"), exact.at("bf16")
    assert (fast.version, fast.part) == (again.version, again.part)
    assert fast.version != exact.version
    assert fast.part is not exact.part
    back = fast.at("exact")
    assert (back.version, back.part) == (exact.version, exact.part)


def test_a_copy_starts_without_a_verdict(tmp_path):
    exact = Shared(tmp_path)
    exact.equivalence = "shown on this machine"
    assert exact.at("bf16").equivalence is None
    assert exact.equivalence == "shown on this machine"
