"""Which dates a new metadata CSV changes."""

from dataclasses import dataclass

from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.index import build_index
from clipfarm_assets.pipelines.inspect.status import indexed_dates
from clipfarm_assets.pipelines.watch.stored_indexes import compare_indexes


@dataclass(frozen=True)
class CsvChanges:
    """What a CSV says that the stored indexes don't.

    Attributes:
        dates: Whose index is missing, unreadable or another one, sorted.
        compared: How many dates were looked at: those with clips, and those with an index.
        clips: How many the CSV has, of any date.
    """

    dates: tuple[str, ...]
    compared: int
    clips: int


def csv_changes(
    deployment: Deployment,
    *,
    first_date: str,
    last_date: str,
    include_captured_at_in_hash: bool = False,
) -> CsvChanges:
    """Compare the CSV with every stored index.

    A clip that was captured again changes two dates, the one it left and the one it went to. A
    date that lost its last clip counts too: its index still has it.

    Args:
        deployment: Whose.
        first_date: The first partition there is.
        last_date: The last one.
        include_captured_at_in_hash: As runs have it.

    Raises:
        NoMetadata: The store has no metadata CSV at the configured key.
        HorizonCsvError: It is no metadata CSV.
    """
    index = build_index(
        deployment,
        (),
        first_date=first_date,
        last_date=last_date,
        include_captured_at_in_hash=include_captured_at_in_hash,
    )
    with_clips = set(index.latest.rows["date"].unique())
    dates = [
        date
        for date in sorted(with_clips | set(indexed_dates(deployment)))
        if first_date <= date <= last_date
    ]
    found = compare_indexes(deployment, index, dates)
    changed = tuple(date for date, stored in found if stored != "current")
    return CsvChanges(changed, len(dates), index.latest.rows.height)
