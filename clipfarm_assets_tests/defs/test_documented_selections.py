"""What the pages tell people to select and to run can be: assets, partitions and jobs."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest

import clipfarm_assets
from clipfarm_assets.definitions import defs

ROOT = Path(clipfarm_assets.__file__).parents[1]
PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md"])
ALIAS = "materialize --select "


def commands():
    """Page and arguments of each documented materialisation."""
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            _, found, rest = line.partition(ALIAS)
            if found:
                words = shlex.split(rest, comments=True)
                yield pytest.param(words[0], dict(pairwise(words[1:])), id=f"{page.stem} {line}")


@pytest.fixture(scope="module")
def graph():
    return defs.resolve_asset_graph()


def test_there_are_some_of_every_pipeline():
    groups = {str(param.values[0]).strip("+").split("/")[0] for param in commands()}
    assert groups >= {"clips", "memes", "songs"}


@pytest.mark.parametrize(("selection", "options"), list(commands()))
def test_a_documented_selection_is_of_assets_and_partitions_that_exist(graph, selection, options):
    keys = dg.AssetSelection.from_coercible(selection.split(",")).resolve(graph)
    assert len(keys) >= len(selection.split(","))
    static = {
        name
        for key in keys
        if isinstance(made := graph.get(key).partitions_def, dg.StaticPartitionsDefinition)
        for name in made.get_partition_keys()
    }
    if static and "$" not in (told := options.get("--partition", "")):
        asked = {told, *options.get("--partition-range", told).split("...")}
        assert asked - {""} <= static


@pytest.mark.parametrize("pipeline", ["memes", "songs"])
def test_the_jobs_of_a_page_are_those_there_are(pipeline):
    page = (ROOT / "docs" / f"{pipeline}.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^The jobs are (.*?)\. ", page, re.DOTALL | re.MULTILINE)
    names = {job.name for job in defs.resolve_all_job_defs() if job.name.startswith(pipeline)}
    assert set(re.findall(r"`(\w+)`", listed)) == names
