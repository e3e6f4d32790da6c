"""The simulation of growth counts what the real planners do, and would be found out if not."""

from dataclasses import replace

import pytest

from benchmarks.scaling import check, measured_sizes, run_manifest, run_stage
from benchmarks.scaling_model import Scenario, embedding, manifest, whole
from clipfarm_assets.pipelines.manifest import ManifestOptions


@pytest.fixture(scope="module")
def sizes():
    return measured_sizes(100, 20)


@pytest.mark.parametrize(
    "options",
    [
        ManifestOptions(),
        ManifestOptions("always"),
        ManifestOptions("never"),
        ManifestOptions(whole_rows=30, delta_share=0.5, max_deltas=3),
        ManifestOptions(whole_rows=0, delta_share=1e9, max_deltas=2),
    ],
)
@pytest.mark.parametrize("again", [0.0, 0.3])
def test_manifests_of_many_days_cost_what_is_simulated(sizes, options, again):
    scenario = Scenario(200, 10, again, options, shard_rows=8)
    ran = run_manifest(scenario)
    check(ran, manifest(scenario, sizes))
    other = replace(scenario, options=replace(options, compact="always"))
    if options.compact == "never" or options.max_deltas < 10:
        with pytest.raises(SystemExit, match="must count what was counted"):
            check(ran, manifest(other, sizes))


def test_stages_of_many_days_ask_for_what_is_simulated(sizes):
    scenario = Scenario(48, 3)
    ran, simulated = run_stage(scenario), embedding(scenario, sizes)
    for name in ("get raw", "put vector", "put state"):
        assert ran.requests[name] == simulated.requests[name]
    of_clips = sum(simulated.requests[f"ledger {kind}"] for kind in ("insert", "update"))
    asked = sum(ran.requests[f"ledger {kind}"] for kind in ("insert", "update"))
    assert 0 <= asked - of_clips <= 6 * scenario.days, "a lease, and marks of what is published"


def test_a_hundred_million_clips_are_simulated_at_once(sizes):
    found = whole(Scenario(10**8, 365, 0.1), sizes)
    assert found["clips"] == 10**8
    assert found["shards"] * 2048 >= found["clips"]
    assert 0 < found["most deltas"] <= ManifestOptions().max_deltas
