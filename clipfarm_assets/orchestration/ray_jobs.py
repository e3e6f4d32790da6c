"""An embedding run as a job of a Ray cluster, submitted and followed by dagster-ray.

The step stays where Dagster started it and waits; the job is the run's driver, on the cluster's
head. dagster-ray also has an executor and a run launcher: with these every step of a job, or every
run, would move to the cluster, and Dagster's own storage with it. By Pipes one asset does.

What the job is told are a run's configuration and its dates. Store, ledger and credentials it takes
from its own environment, as every machine of the deployment does: what is submitted is shown in
Ray's dashboard.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Final

import dagster as dg

from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.pipelines.cluster.session import require_ray
from clipfarm_assets.pipelines.report import StageReport
from clipfarm_assets.pipelines.roofline import Ceiling, Roofline

ENTRYPOINT: Final = "python -m clipfarm_assets.defs.clips.ray_job"


class JobFailed(RuntimeError):  # noqa: N818 - what a job says of itself, elsewhere
    """A fault that ended the job, in its own sentence."""


def submit(
    context: dg.AssetExecutionContext,
    address: str,
    modality: Modality,
    config: Mapping[str, Any],
    dates: Sequence[str],
    entrypoint: str = ENTRYPOINT,
) -> dict[str, StageReport]:
    """Run the stage over the dates as a Ray job; its reports by date.

    Args:
        context: The step's; what the job prints goes to its log.
        address: Of the cluster's job server, ``http://host:8265``.
        modality: What is embedded.
        config: The fields of the step's run configuration.
        dates: The partitions.
        entrypoint: The job's command.

    Raises:
        RayUnavailable: Ray, or dagster-ray, is not installed.
        JobFailed: The job stopped with a structural fault, or its report didn't arrive.
    """
    require_ray("ray", "dagster_ray")
    from dagster_ray import PipesRayJobClient

    extras = {
        "modality": modality,
        "config": json.dumps(config),
        "dates": list(dates),
        "run_id": context.run.run_id,
    }
    done = PipesRayJobClient(address).run(
        context=context, submit_job_params={"entrypoint": entrypoint}, extras=extras
    )
    answers = done.get_custom_messages()
    if len(answers) != 1:
        msg = (
            f"the Ray job ended well, but {len(answers)} reports of it were heard instead of 1: "
            "the connection that its log comes by was cut. What it did is stored and recorded: run "
            "the same dates again, which does what is left, if anything is"
        )
        raise JobFailed(msg)
    (answer,) = answers
    if fault := answer.get("fault"):
        raise JobFailed(str(fault))
    return {date: report_of(told) for date, told in answer["reports"].items()}


def report_fields(report: StageReport) -> dict[str, Any]:
    """A report as JSON values."""
    values = {each.name: getattr(report, each.name) for each in fields(report)}
    return {**values, "roofline": asdict(report.roofline) if report.roofline else None}


def report_of(told: Mapping[str, Any]) -> StageReport:
    """The inverse of `report_fields`, after a way through JSON."""
    values = dict(told)
    for name in ("reasons", "statuses", "totals"):
        values[name] = Counter(values[name])
    values["samples"] = {
        status: [(video_id, why) for video_id, why in some]
        for status, some in values["samples"].items()
    }
    if found := values["roofline"]:
        steps = tuple(Ceiling(**step) for step in found["steps"])
        values["roofline"] = Roofline(
            **{**found, "steps": steps, "whole": Ceiling(**found["whole"])}
        )
    return StageReport(**values)
