"""What docs/security.md promises is there."""

import ast
import re
from functools import cache
from pathlib import Path

import clipfarm_assets

REPOSITORY = Path(clipfarm_assets.__file__).parents[1]
TESTS = REPOSITORY / "clipfarm_assets_tests"
PAGE = REPOSITORY / "docs" / "security.md"


@cache
def functions_of(file):
    tree = ast.parse((TESTS / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_test_that_the_page_names_exists():
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE.read_text())
    assert len(named) > 40
    assert [one for one in named if one[1] not in functions_of(one[0])] == []


def test_every_threat_has_a_test():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 30
    assert [row for row in rows if "::test_" not in row.rsplit("|", 2)[1]] == []


def test_the_webserver_listens_on_the_loopback_address():
    from dagster_webserver.cli import dagster_webserver

    (host,) = [option for option in dagster_webserver.params if option.name == "host"]
    assert host.default == "127.0.0.1"
    assert any(option.name == "read_only" for option in dagster_webserver.params)
    assert "--host 127.0.0.1" in (REPOSITORY / "Makefile").read_text()
