"""Versions are appended and never changed; of two writers at once both changes stay."""

import threading
from dataclasses import dataclass

import pytest

from clipfarm_assets.serving.version_list import (
    BadRegistry,
    Change,
    NoModel,
    VersionList,
    is_same_model,
    stored,
    update,
)


@dataclass(frozen=True)
class Made:
    model_version: str
    weight: int
    promoted_at: str = ""


@dataclass(frozen=True)
class Made7(VersionList[Made]):
    current: str = ""
    versions: tuple[Made, ...] = ()

    @property
    def stem(self):
        return "m7"

    def missing(self, model_version):
        return f"missing {model_version or 'all'} of {self.known}"


def test_a_new_model_is_appended_and_an_old_one_comes_back():
    empty = Made7()
    one = empty.with_serving(Made("?", 1, "monday"))
    two = one.with_serving(Made("?", 2, "tuesday"))
    back = two.with_serving(Made("other name", 1, "friday"))
    assert two.versions == (Made("m7-v1", 1, "monday"), Made("m7-v2", 2, "tuesday"))
    assert (two.current, back.current) == ("m7-v2", "m7-v1")
    assert back.versions == two.versions, "which keep their day"
    assert back.serving == Made("m7-v1", 1, "monday")
    assert Change.between(empty, one) == Change(one.serving, "promoted", "")
    assert Change.between(one, two).what == "promoted"
    assert Change.between(two, back) == Change(back.serving, "back", "m7-v2")
    assert Change.between(back, back.with_current("m7-v1")).what == "unchanged"


def test_what_is_not_there_is_told():
    with pytest.raises(NoModel, match="missing all of none"):
        Made7().serving  # noqa: B018 - raises
    one = Made7().with_serving(Made("?", 1))
    with pytest.raises(NoModel, match="missing m7-v2 of m7-v1"):
        one.with_current("m7-v2")


@pytest.mark.parametrize(
    ("listed", "problem"),
    [
        (Made7("", (Made("m7-v2", 1),)), "count up from m7-v1, found"),
        (Made7("", (Made("m8-v1", 1),)), "count up from m7-v1"),
        (Made7("m7-v2", (Made("m7-v1", 1),)), "current is 'm7-v2'"),
        (Made7(["m7-v1"], (Made("m7-v1", 1),)), "current is"),
    ],
)
def test_a_list_that_contradicts_itself_says_how(listed, problem):
    assert problem in listed.problem()


def test_a_list_in_order_has_no_problem():
    assert not Made7().problem()
    assert not Made7().with_serving(Made("?", 1)).problem()
    assert not Made7("", (Made("m7-v1", 1),)).problem(), "nothing serves"


def test_the_same_model_is_the_same_whenever_promoted():
    assert is_same_model(Made("a", 1, "monday"), Made("b", 1, "friday"))
    assert not is_same_model(Made("a", 1), Made("a", 2))


def as_numbers(data):
    if data == b"bad":
        raise BadRegistry.of("numbers", "bad")
    return [] if data is None else [int(n) for n in data.split(b",")]


def as_bytes(numbers):
    return ",".join(map(str, numbers)).encode()


def test_writers_at_once_lose_nothing_and_see_what_they_changed(store):
    barrier = threading.Barrier(4)
    seen = {}

    def work(number):
        barrier.wait()
        seen[number] = update(
            store, "numbers", as_numbers, lambda numbers: [*numbers, number], as_bytes
        )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    final = as_numbers(store.get("numbers"))
    assert sorted(final) == [0, 1, 2, 3]
    for number, (before, after) in seen.items():
        place = final.index(number)
        assert before == final[:place]
        assert after == final[: place + 1]


def test_what_can_not_be_parsed_is_kept(folder):
    folder.put("numbers", b"bad")
    with pytest.raises(BadRegistry, match="numbers is no model registry"):
        update(folder, "numbers", as_numbers, lambda numbers: [*numbers, 1], as_bytes)
    assert folder.get("numbers") == b"bad"
    assert stored(folder, "nothing") is None
