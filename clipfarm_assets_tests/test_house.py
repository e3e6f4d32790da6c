"""The house rules that no linter knows: floors, rooms for Dagster and torch, the size of a file."""

import ast
from functools import cache
from pathlib import Path

import pytest

import clipfarm_assets

ROOT = Path(clipfarm_assets.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
REPOSITORY = ROOT.parent
ALL_CODE = [
    path
    for folder in (ROOT, Path(__file__).parent, REPOSITORY / "benchmarks")
    for path in sorted(folder.rglob("*.py"))
]

# Ground floor first. A room may import from its own floor and from those below.
FLOORS = (
    ("storage", "contracts"),
    ("ledger", "encoders", "fusion"),
    ("training",),
    ("serving", "pipelines"),
    ("orchestration",),
    ("defs", "definitions"),
    ("cli",),
    ("demo",),
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
DAGSTER_ROOMS = {"orchestration", "defs", "definitions", "demo"}
# Networks are classes, and what they inherit from is torch's.
LAZY_ROOMS = {
    ("fusion", "learned"),
    ("training", "experts"),
    ("training", "families"),
    ("training", "networks"),
    ("training", "song_encoders"),
    ("training", "songs"),
}
LONGEST_FILE = 400


def room_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@cache
def imports(path, *, module_level=False):
    tree, names = ast.parse(path.read_text()), []
    for node in tree.body if module_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.append(node.module)
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downwards(path):
    room = room_of(path)
    if room == "__init__":
        return
    for name in imports(path):
        if not name.startswith("clipfarm_assets."):
            continue
        other = name.split(".")[1]
        assert LEVEL[other] <= LEVEL[room], f"{room} must not import {name}"


def test_dagster_is_known_to_its_rooms_alone():
    found = {
        room_of(path)
        for path in MODULES
        for name in imports(path)
        if name.split(".")[0] in {"dagster", "dagster_aws"}
    }
    assert found == DAGSTER_ROOMS


def is_lazy(path):
    """Whether it is of the rooms that are imported late as a whole."""
    parts = path.relative_to(ROOT).parts
    return parts[:2] in LAZY_ROOMS and path.name != "__init__.py"


def test_model_libraries_are_imported_late():
    heavy = {"torch", "transformers", "sentence_transformers", "librosa", "sklearn", "matplotlib"}
    found = {
        str(path.relative_to(ROOT))
        for path in MODULES
        for name in imports(path, module_level=True)
        if name.split(".")[0] in heavy and not is_lazy(path)
    }
    assert found == {"orchestration/preload.py"}, "preload is what the step processes fork from"


def test_lazy_rooms_are_imported_late():
    lazy = {
        "clipfarm_assets." + ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in MODULES
        if is_lazy(path)
    }
    for path in MODULES:
        if not is_lazy(path):
            assert not lazy & set(imports(path, module_level=True)), path


@pytest.mark.parametrize("path", ALL_CODE, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_no_file_asks_for_a_second_room(path):
    assert len(path.read_text().splitlines()) <= LONGEST_FILE


def test_nothing_unpickles():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names]
                assert "pickle" not in names, path
                assert getattr(node, "module", None) != "pickle", path


def test_files_of_estimators_are_read_in_one_place():
    """There, a joblib file's hash is compared before it is read, and skops' types are listed."""
    found = {
        str(path.relative_to(ROOT))
        for path in MODULES
        for name in imports(path)
        if name.split(".")[0] in {"joblib", "skops"}
    }
    assert found == {"training/sklearn_files.py"}
