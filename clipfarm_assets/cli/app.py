"""The ``clipfarm`` command line: its commands, and what becomes of their errors."""

import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from clipfarm_assets.cli import audit, forget, gc, migrate, plan, retry, status, why
from clipfarm_assets.cli.output import say_error

COMMANDS: Final = (status, why, plan, retry, migrate, audit, gc, forget)

_TRACEBACK: Final = "--traceback"


def build() -> typer.Typer:
    """The application with every command; help is plain text, without colours or markup."""
    app = typer.Typer(
        name="clipfarm",
        help="Look after a clipfarm deployment: the one that CLIPFARM_STORE and CLIPFARM_LEDGER "
        "name, as for Dagster.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def options(
        trace: Annotated[
            bool, typer.Option(_TRACEBACK, help="Show the trace of an error, not its sentence.")
        ] = False,
    ) -> None:
        """Options of all commands."""
        # `run` reads it, wherever on the line it stands.

    for command in COMMANDS:
        command.register(app)
    return app


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line; the exit status: 0, 1 for an error, 2 for wrong usage."""
    own, marker, rest = _split(arguments)
    shows_trace = _TRACEBACK in own
    given = [argument for argument in own if argument != _TRACEBACK] + marker + rest
    try:
        status_code = build()(args=given, prog_name="clipfarm", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has seen enough; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except typer.TyperException as error:
        return _refuse_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:  # noqa: BLE001 - its sentence is what a person can act upon
        if shows_trace:
            traceback.print_exc()
        else:
            say_error(_sentence(error))
        return 1
    return status_code if isinstance(status_code, int) else 0


def main() -> None:
    """The console script."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # whatever a title holds
    sys.exit(run(sys.argv[1:]))


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """What is before ``--``, that mark if it is there, and what is after it."""
    given = list(arguments)
    if "--" not in given:
        return given, [], []
    at = given.index("--")
    return given[:at], ["--"], given[at + 1 :]


def _refuse_usage(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message(), file=sys.stderr)
        return error.exit_code
    hint = f" (see '{context.command_path} --help')" if context is not None else ""
    say_error(error.format_message() + hint)
    return error.exit_code


def _sentence(error: Exception) -> str:
    """What is wrong; of an error that is no sentence of ours, also its kind."""
    origin = getattr(error, "orig", None)  # SQLAlchemy's wrap the driver's, and add pages to it
    told = str(origin or error).strip()
    if origin is not None:
        told = told.splitlines()[0] if told else ""
        return f"the ledger's database: {told or type(origin).__name__}"
    if type(error).__module__.startswith("clipfarm_assets."):
        return told
    if isinstance(error, (ValueError, OSError)) and told:
        return told
    return f"{type(error).__name__}: {told} (run it with {_TRACEBACK} to see where)"
