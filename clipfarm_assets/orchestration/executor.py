"""How steps run.

A step that fits or runs models, or decodes media, has a process of its own: when that crashes, the
run still knows which step it was. It is forked from a server that has the imports done already. One
that imports torch, transformers and the definitions anew pays seconds; a fork of a process that
holds them pays almost nothing. The server opens no store and runs no model, so nothing unsafe is
forked.

Where no step of a run is such a one, they run one after another in the run's own process: to start
the server would take longer than they do.
"""

from collections.abc import Sequence
from typing import Any, Final

import dagster as dg

OWN_PROCESS: Final = {"clipfarm/own_process": "true"}
"""``op_tags`` of an asset whose step needs a process of its own though it is in no pool."""

# By name: the definitions are a floor above, and the heavy imports no room's but the server's.
PRELOADED: Final = ("clipfarm_assets.definitions", "clipfarm_assets.orchestration.preload")

_RETRIES: Final[dict[str, Any]] = {"retries": {"enabled": {}}}  # as steps ask for them


def _forked(preloaded: Sequence[str]) -> dict[str, Any]:
    return {
        "max_concurrent": 2,
        "start_method": {"forkserver": {"preload_modules": list(preloaded)}},
        **_RETRIES,
    }


@dg.executor(
    name="forked_where_needed",
    config_schema={},
    requirements=dg.multiple_process_executor_requirements(),
)
def executor(context: dg.InitExecutorContext) -> dg.Executor:
    """Forked steps if one of the run's is in a pool or marked `OWN_PROCESS`; else none is.

    For pools the libraries of models are loaded before the fork: all of their steps use them.
    """
    steps = context.job.get_definition().all_node_defs
    if any(step.pools for step in steps):
        return _created(dg.multiprocess_executor, _forked(PRELOADED), context)
    if any(OWN_PROCESS.items() <= step.tags.items() for step in steps):
        return _created(dg.multiprocess_executor, _forked(PRELOADED[:1]), context)
    return _created(dg.in_process_executor, _RETRIES, context)


def _created(
    chosen: dg.ExecutorDefinition, config: dict[str, Any], context: dg.InitExecutorContext
) -> dg.Executor:
    create = chosen.executor_creation_fn
    if create is None:
        msg = f"Dagster's executor {chosen.name} can't be created"
        raise TypeError(msg)
    return create(context._replace(executor_def=chosen, executor_config=config))
