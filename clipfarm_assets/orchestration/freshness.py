"""When an asset that people depend on is overdue.

`clips_nightly` materialises each night, whether anything is new or not, and `clips_automation`
carries on from there. So an asset that wasn't materialised for longer than a night and a working
day tells of a schedule that is off or of runs that wait, which no failed run tells of. Dagster's
daemon evaluates the policies every 30 s; whether it is alive itself is for others to watch.
"""

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import dagster as dg

from clipfarm_assets.pipelines.environment import first_and_last_date

HOURS_VARIABLE: Final = "CLIPFARM_OVERDUE_HOURS"
_DEFAULT_HOURS: Final = 36
_NIGHT: Final = timedelta(hours=26)


def made_every_night(environ: Mapping[str, str] = os.environ) -> dg.FreshnessPolicy | None:
    """Overdue after ``CLIPFARM_OVERDUE_HOURS`` (36), late after 26 if that is sooner.

    None, so never, if that is 0 or the collection is closed by ``CLIPFARM_END_DATE``.

    Raises:
        ValueError: The variable is no whole number of hours.
    """
    text = environ.get(HOURS_VARIABLE) or str(_DEFAULT_HOURS)
    if not (text.isascii() and text.isdecimal()):
        msg = f"{HOURS_VARIABLE} must be a whole number of hours, 0 for never: found {text!r}"
        raise ValueError(msg)
    overdue = timedelta(hours=int(text))
    if not overdue or first_and_last_date(environ)[1] is not None:
        return None
    return dg.FreshnessPolicy.time_window(overdue, _NIGHT if overdue > _NIGHT else None)
