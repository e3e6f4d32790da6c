"""The ages, in days, at which a clip's views are predicted."""

from typing import Final, Literal, get_args

Horizon = Literal[7, 30]
HORIZONS: Final[tuple[Horizon, ...]] = get_args(Horizon)


def as_horizon(value: int | str) -> Horizon:
    """A number, or its text, as the horizon it is.

    Raises:
        ValueError: It is none of `HORIZONS`.
    """
    for horizon in HORIZONS:
        if str(value) == str(horizon):
            return horizon
    expected = ", ".join(map(str, HORIZONS))
    msg = f"unknown horizon {value!r}: expected one of {expected} (days)"
    raise ValueError(msg)
