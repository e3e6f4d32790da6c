"""Which steps are forked, and what from."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.executor.in_process import InProcessExecutor
from dagster._core.executor.multiprocess import MultiprocessExecutor

from clipfarm_assets.definitions import defs
from clipfarm_assets.orchestration.executor import PRELOADED, executor

COSTLY = ("clipfarm_assets.definitions", "torch", "transformers", "matplotlib")
# As the executor starts it. A step that would have to import one of these pays seconds for it; and
# the fork server passes over a name that it cannot import, so nobody would notice one that moved.
HELD_BY_A_STEP = """
import multiprocessing
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload({preloaded!r})
with context.Pool(1) as pool:
    print(*pool.apply(eval, ("[*__import__('sys').modules]",)))
"""


def test_a_step_is_forked_with_the_definitions_and_the_libraries():
    code = HELD_BY_A_STEP.format(preloaded=list(PRELOADED))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(COSTLY) <= set(done.stdout.split())


def executor_of(job, *names):
    """What runs the steps of a job, or those of some of its assets."""
    definition = defs.resolve_job_def(job)
    if names:
        keys = {dg.AssetKey(name.split("/")) for name in names}
        definition = definition.get_subset(asset_selection=keys)
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.InitExecutorContext(InMemoryJob(definition), executor, {}, instance)
        return executor.executor_creation_fn(context)


@pytest.mark.parametrize(
    ("job", "names"),
    [
        ("clips_daily", ()),
        ("clips_daily", ("clips/clip_index", "clips/audio_embeddings")),
        ("clips_train", ()),
        ("clips_score", ()),
        ("memes_split", ()),
        ("memes_pack", ()),
        ("memes_train", ()),
        ("songs_align", ()),
        ("songs_features", ()),
        ("songs_train", ()),
    ],
)
def test_what_runs_models_or_decodes_media_has_processes_of_its_own(job, names):
    assert isinstance(executor_of(job, *names), MultiprocessExecutor)


@pytest.mark.parametrize(
    ("job", "names"),
    [
        ("clips_observe", ()),
        ("clips_daily", ("clips/clip_index",)),
        ("clips_lock", ()),
        ("clips_fuse", ()),
        ("clips_publish", ()),
        ("clips_compare", ()),
        ("clips_promote", ()),
        ("memes_observe", ()),
        ("songs_observe", ()),
        ("songs_split", ()),
    ],
)
def test_what_only_moves_rows_stays_in_the_process_of_its_run(job, names):
    assert isinstance(executor_of(job, *names), InProcessExecutor)


def test_it_takes_no_configuration_but_its_own():
    """What it would say of processes is decided here, and a word that nobody reads is refused."""
    with pytest.raises(dg.DagsterInvalidConfigError, match="max_concurrent"):
        dg.validate_run_config(
            defs.resolve_job_def("clips_lock"), {"execution": {"config": {"max_concurrent": 9}}}
        )
