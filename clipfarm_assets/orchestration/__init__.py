"""What the assets share of Dagster: partitions, resources, IO managers, checks, what the UI shows.

Dagster is imported here, in `defs` and in `definitions` alone.
"""

import warnings

from dagster import BetaWarning, PreviewWarning

# Multi-dimensional mappings, backfill policies and partitioned checks are marked beta or preview.
# The design rests on them, setup.cfg pins the minor version, and the tests show that they work: who
# starts the UI needs no page of warnings about it.
warnings.filterwarnings("ignore", category=BetaWarning)
warnings.filterwarnings("ignore", category=PreviewWarning)
