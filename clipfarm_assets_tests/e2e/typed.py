"""``python -m clipfarm_assets_tests.e2e.typed ANSWERS < BLOCKS``: types what a page says.

All in one process, because each of its commands would import Dagster and the definitions anew. What
the shell does (variables, folders) a shell does; commands of ours and of Dagster are called.
"""

import io
import json
import os
import runpy
import shlex
import subprocess
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

ALIASES: dict[str, list[str]] = {}


def typed(line: str) -> int:
    """Carry out a command line; its exit status."""
    first, *rest = shlex.split(line, comments=True)
    if first == "alias":
        name, _, meaning = rest[0].partition("=")
        ALIASES[name] = shlex.split(meaning)
        return 0
    first, *rest = [*ALIASES.get(first, [first]), *rest]
    if first == "clipfarm":
        from clipfarm_assets.cli.app import run

        return run(rest)
    if first == "dagster":
        from dagster._cli import cli

        cli.main(rest, standalone_mode=False)
        return 0
    if [first, *rest[:1]] == ["python", "-m"]:
        sys.argv = rest[1:]
        runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
        return 0
    if first == "make":
        line = shlex.join(["make", "--dry-run", *rest])
    return in_shell(line)


def in_shell(line: str) -> int:
    """Bash does it; the variables that it exports are ours from then on."""
    after = f"{line}\nstatus=$?\nenv -0 >&3\nexit $status"
    read, write = os.pipe()
    done = subprocess.run(
        ["bash", "-c", f"exec 3>&{write}\n{after}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[write],
        text=True,
        check=False,
    )
    os.close(write)
    with os.fdopen(read) as told:
        variables = dict(item.split("=", 1) for item in told.read().split("\0") if "=" in item)
    print(done.stdout)
    os.environ.update(variables)
    return done.returncode


def answer(kind: str, text: str) -> tuple[int, str]:
    """The exit status of a line or a program, and what it printed."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        try:
            if kind == "python":
                exec(compile(text, "the page", "exec"), {})
                status = 0
            else:
                status = typed(text)
        except SystemExit as ended:
            status = int(ended.code or 0)
        except Exception:
            traceback.print_exc()
            status = 1
    return status, said.getvalue()


def main() -> None:
    """Blocks of one section go on with the variables of those before; others have their own."""
    answers, told = [], Path(sys.argv[1])
    for block in json.load(sys.stdin):
        before = dict(os.environ)
        answers += [(text, *answer(block["kind"], text)) for text in block["texts"]]
        if not block["keeps"]:
            os.environ.clear()
            os.environ.update(before)
    told.write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
