"""A folder store in which something happens at a certain write."""

from collections.abc import Callable

from clipfarm_assets.storage.objects import ObjectStore


class Killed(BaseException):
    """As SIGKILL: nothing catches it, and nothing is written any more."""


class DisturbedStore(ObjectStore):
    """Calls `disturb` once, right before or after the `nth` write, counted from 1."""

    def __init__(self, url: str, nth: int, disturb: Callable[[], None], when: str = "before"):
        super().__init__(url)
        self.nth, self.disturb, self.when = nth, disturb, when
        self.writes = 0
        self.is_dead = False

    def write(self, method, *arguments):
        if self.is_dead:
            raise Killed
        self.writes += 1
        if self.writes == self.nth and self.when == "before":
            self.call()
        result = method(*arguments)
        if self.writes == self.nth and self.when == "after":
            self.call()
        return result

    def call(self):
        try:
            self.disturb()
        except Killed:
            self.is_dead = True
            raise

    def put(self, key, data):
        return self.write(super().put, key, data)

    def put_if_absent(self, key, data):
        return self.write(super().put_if_absent, key, data)

    def swap(self, key, data, expected):
        return self.write(super().swap, key, data, expected)

    def delete(self, key):
        return self.write(super().delete, key)


def kill():
    raise Killed
