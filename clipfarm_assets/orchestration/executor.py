"""How steps run: a process each, forked from a server that has the imports done already.

A step that imports torch, transformers and the definitions anew pays seconds; a fork of a process
that holds them pays almost nothing. The server opens no store and runs no model, so nothing unsafe
is forked.
"""

from typing import Final

import dagster as dg

# By name: the definitions are a floor above, and the heavy imports no room's but the server's.
PRELOADED: Final = ("clipfarm_assets.definitions", "clipfarm_assets.orchestration.preload")

executor = dg.multiprocess_executor.configured(
    {
        "max_concurrent": 2,
        "start_method": {"forkserver": {"preload_modules": list(PRELOADED)}},
    }
)
