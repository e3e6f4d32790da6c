"""``python -m clipfarm_assets.orchestration.release [RUN_ID …]``: let go of killed runs.

A run whose process was killed stays "started" for Dagster, and keeps its slot of the pool
``encoders``: later encoder steps wait for it. Without arguments this lists the runs that hold
slots; with run ids (or their beginnings) it marks these as failed and frees their slots. Only a
person knows that a process is dead, so nothing is released unasked.
"""

import sys
from collections.abc import Sequence

import dagster as dg
from dagster import DagsterInstance


def main(arguments: Sequence[str], instance: DagsterInstance) -> int:
    """List or release; an exit status."""
    storage = instance.event_log_storage
    holding = {
        slot.run_id: pool
        for pool in sorted(storage.get_concurrency_keys())
        for slot in storage.get_concurrency_info(pool).claimed_slots
    }
    if not arguments:
        for run_id, pool in holding.items():
            print(f"{run_id}  holds a slot of the pool {pool}")
        if not holding:
            print("no run holds a slot")
        return 0
    status = 0
    for wanted in arguments:
        found = [run_id for run_id in holding if run_id.startswith(wanted)]
        if len(found) != 1:
            held = ", ".join(holding) or "no run"
            print(f"{wanted}: {len(found)} runs of that id hold a slot; held by {held}")
            status = 1
            continue
        run = instance.get_run_by_id(found[0])
        if run is not None and not run.is_finished:
            instance.report_run_failed(run, "released by hand: its process was killed")
        storage.free_concurrency_slots_for_run(found[0])
        print(f"{found[0]}: released")
    return status


if __name__ == "__main__":
    with dg.DagsterInstance.get() as configured:
        sys.exit(main(sys.argv[1:], configured))
