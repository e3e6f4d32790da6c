"""What a model was fitted with: code and package versions."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final

GIT_SHA_VARIABLE: Final = "CLIPFARM_GIT_SHA"
UNKNOWN: Final = "unknown"

# A hook, and every process that one starts, has these set to the repository of the hook.
_GIT_TELLS: Final = frozenset({"GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"})

_PACKAGES: Final = (
    "clipfarm-assets",
    "numpy",
    "polars",
    "pyarrow",
    "scikit-learn",
    "scipy",
    "skops",
    "torch",
)


def git_sha() -> str:
    """The commit of this code, ``-dirty`` appended where tracked files differ from it.

    ``CLIPFARM_GIT_SHA`` says it where the code isn't run from a checkout; else ``unknown``.
    """
    if os.environ.get(GIT_SHA_VARIABLE):
        return os.environ[GIT_SHA_VARIABLE]
    root = Path(__file__).parents[2]
    # A package installed into somebody else's checkout must not take that one's commit.
    if not (root / ".git").exists():
        return UNKNOWN
    try:
        sha = _git(root, "rev-parse", "HEAD")
        dirty = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN
    return f"{sha}-dirty" if dirty else sha


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - fixed arguments
        ["git", "-C", str(root), *arguments],  # noqa: S607 - the user's git
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
        env={name: value for name, value in os.environ.items() if name not in _GIT_TELLS},
    )
    return done.stdout.strip()


def package_versions(*more: str) -> dict[str, str]:
    """Python and the packages that decide a model's bits, `more` of them where it has others."""
    names = (*_PACKAGES, *more)
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
