"""Every command line of the documentation does what it says, in a store with such clips."""

import re
import shlex
from pathlib import Path

import clipfarm_assets
from clipfarm_assets.cli import app
from clipfarm_assets_tests.cli.kit import all_of_it
from clipfarm_assets_tests.pipelines.kit import CORRUPT, DAY_1, DAY_2, Clip, clips

OPERATING = Path(clipfarm_assets.__file__).parent.parent / "docs" / "operating.md"
SECTION = (
    OPERATING.read_text(encoding="utf-8")
    .partition("\n## The clipfarm command\n")[2]
    .partition("\n## ")[0]
)
LINES = [shlex.split(line)[1:] for line in re.findall(r"^\$ (clipfarm .*)$", SECTION, re.MULTILINE)]
# Headings and column names, which don't depend on the store.
SHOWN = {
    "status": ["Stages", "By date of the clip index", "Strategies", "Models that serve"],
    "why": ["What the next run does", "Objects", "takes it up: unfinished; expected fail"],
    "plan": ["Indexes", "Clips that are taken up", "Expected time of the embedding stages"],
    "retry": ["stage", "marked", "truncated00"],
    "migrate": ["before", "after"],
    "audit": ["audio vectors", "manifest rows", "nothing is wrong"],
}


def test_each_command_has_an_example():
    own = {command.__name__.rpartition(".")[2] for command in app.COMMANDS}
    assert {line[0] for line in LINES} >= own - {"gc", "forget"}


def test_examples(deployed, clipfarm):
    """One after the other, as they are read."""
    first = [*clips(2), Clip("truncated00", video=CORRUPT)]
    second = [*clips(1, DAY_2, "next"), Clip("missingMp4_", DAY_2, video=None)]
    deployed.fill([*first, *second])
    all_of_it(deployed, DAY_1, DAY_2)
    for line in LINES:
        code, out, error = clipfarm(*line)
        assert (code, error) == (0, ""), line
        for shown in SHOWN[line[0]]:
            assert shown in SECTION
            assert shown in out, line
