"""Which code and packages a model was fitted with."""

import os
import platform
import subprocess
from importlib.metadata import version

import pytest

from clipfarm_assets.training import environment
from clipfarm_assets.training.environment import git_sha, package_versions

MODULE = "clipfarm_assets/training/environment.py"


def git(folder, *arguments):
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | settings,
    )
    return done.stdout.strip()


def checkout(folder):
    module = folder / MODULE
    module.parent.mkdir(parents=True)
    module.write_text("one = 1\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "one")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def at(tmp_path, monkeypatch):
    """A checkout whose code is this package, as far as it knows."""
    monkeypatch.delenv(environment.GIT_SHA_VARIABLE, raising=False)
    folder = tmp_path / "checkout"
    sha = checkout(folder)
    monkeypatch.setattr(environment, "__file__", str(folder / MODULE))
    return folder, sha


def test_the_commit_of_a_clean_checkout(at):
    folder, sha = at
    assert len(sha) == 40
    assert git_sha() == sha
    (folder / "notes.txt").write_text("nobody tracks these")
    assert git_sha() == sha


@pytest.mark.parametrize("staged", [False, True])
def test_changed_tracked_files_are_said(at, staged):
    folder, sha = at
    (folder / MODULE).write_text("one = 2\n")
    if staged:
        git(folder, "add", ".")
    assert git_sha() == f"{sha}-dirty"
    git(folder, "commit", "--quiet", "--all", "-m", "two")
    assert git_sha() == git(folder, "rev-parse", "HEAD") != sha


def test_a_linked_worktree_is_a_checkout(at, tmp_path, monkeypatch):
    folder, sha = at
    git(folder, "worktree", "add", "--quiet", str(tmp_path / "linked"))
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "linked" / MODULE))
    assert git_sha() == sha


def test_the_variable_wins(at, monkeypatch):
    monkeypatch.setenv(environment.GIT_SHA_VARIABLE, "release-7")
    assert git_sha() == "release-7"
    monkeypatch.setenv(environment.GIT_SHA_VARIABLE, "")
    assert git_sha() == at[1]


def test_another_repository_that_git_was_told_of_does_not_count(at, tmp_path, monkeypatch):
    """As in a git hook, or a process that one started."""
    other = tmp_path / "other"
    (other / "x").mkdir(parents=True)
    git(other, "init", "--quiet")
    git(other, "commit", "--quiet", "--allow-empty", "-m", "another")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    assert git_sha() == at[1]


def test_installed_inside_another_checkout_is_unknown(at, monkeypatch):
    folder, _ = at
    installed = folder / "venv" / "site-packages" / MODULE
    installed.parent.mkdir(parents=True)
    monkeypatch.setattr(environment, "__file__", str(installed))
    assert git_sha() == environment.UNKNOWN == "unknown"


def test_without_git_or_a_commit_it_is_unknown(at, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "nothing here"))
        assert git_sha() == "unknown"
    empty = tmp_path / "empty"
    (empty / MODULE).parent.mkdir(parents=True)
    git(empty, "init", "--quiet")
    monkeypatch.setattr(environment, "__file__", str(empty / MODULE))
    assert git_sha() == "unknown"


def test_versions_are_those_of_what_is_installed():
    found = package_versions()
    assert found["python"] == platform.python_version()
    packages = ("numpy", "polars", "pyarrow", "scikit-learn", "scipy", "skops", "torch")
    assert found == {
        "python": platform.python_version(),
        **{name: version(name) for name in ("clipfarm-assets", *packages)},
    }


def test_a_pipeline_may_name_more_packages():
    assert package_versions("soxr") == {**package_versions(), "soxr": version("soxr")}
