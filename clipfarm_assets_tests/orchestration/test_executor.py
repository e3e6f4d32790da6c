"""What the step processes are forked from."""

import subprocess
import sys
from pathlib import Path

from clipfarm_assets.orchestration.executor import PRELOADED

COSTLY = ("clipfarm_assets.definitions", "torch", "transformers", "matplotlib")
# As the executor starts it. A step that would have to import one of these pays seconds for it; and
# the fork server passes over a name that it cannot import, so nobody would notice one that moved.
HELD_BY_A_STEP = """
import multiprocessing, sys
from clipfarm_assets_tests.orchestration.test_executor import told
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload({preloaded!r})
with context.Pool(1) as pool:
    print(*pool.apply(told))
"""


def told():
    """Those of the costly modules that this process has been forked with."""
    return [name for name in COSTLY if name in sys.modules]


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
    assert done.stdout.split() == list(COSTLY)
