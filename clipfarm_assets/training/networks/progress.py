"""Lines on how far a fit is: what it has reached, how fast, how long still."""

import time
from collections.abc import Callable
from typing import Final

from torch import Tensor

Say = Callable[[str], None]

_SAY_EVERY_SECONDS: Final = 5.0


class Progress:
    """Says a line every few seconds at most, within an epoch too.

    The rate is that of all rows so far, the time of validation included; the time left is that of
    the epochs left, which patience may cut short.
    """

    def __init__(self, say: Say, name: str, rows: int, done: int, epochs: int) -> None:
        """Start the clock.

        Args:
            say: Gets the lines.
            name: What is fitted.
            rows: Of an epoch.
            done: Epochs that a checkpoint brought along.
            epochs: At most so many in all.
        """
        self._say, self._name = say, name
        self._rows, self._first, self._epochs = rows, done, epochs
        self._started = self._said = time.monotonic()

    def within(self, epoch: int, rows: int, total: Tensor) -> None:
        """After `rows` of epoch `epoch` (from 0); `total` is the sum of their losses."""
        if rows < self._rows and self._due():
            loss = (total / rows).item()
            self._line(epoch, rows, f"{rows} of {self._rows} rows, loss {loss:.4f}")

    def after(self, epoch: int, reached: str) -> None:
        """After epoch `epoch`; `reached` says loss and score."""
        if self._due():
            self._line(epoch, self._rows, reached)

    def end(self, epochs: int, reached: str) -> None:
        """Say what came of it, whatever was said before."""
        seconds = time.monotonic() - self._started
        self._say(f"{self._name}: {epochs} of {self._epochs} epochs in {seconds:.1f} s, {reached}")

    def _due(self) -> bool:
        now = time.monotonic()
        if now - self._said < _SAY_EVERY_SECONDS:
            return False
        self._said = now
        return True

    def _line(self, epoch: int, rows: int, reached: str) -> None:
        done = (epoch - self._first) * self._rows + rows
        seconds = (self._said - self._started) / done
        left = (self._epochs - self._first) * self._rows - done
        self._say(
            f"{self._name}: epoch {epoch + 1}/{self._epochs}, {reached}, {1 / seconds:.0f} rows/s, "
            f"at most {seconds * left:.0f} s left"
        )
